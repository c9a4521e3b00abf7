"""What a provider offers, prepared for the hot path: models by name, prices per token, capabilities by tuple of needs."""

from dataclasses import dataclass
from itertools import combinations
from math import isnan, nan

from actors.requirements import missing_of
from messages.control import ProviderSpec

CAPABILITIES_LISTED_MAX = 8
"""All combinations of so many capabilities are listed beforehand (256); beyond that each need is looked up."""


@dataclass(frozen=True, slots=True)
class Offered:
    """One model. ``upstream`` empty: the name as it was asked for. Prices in USD per token, no number (NaN): unknown."""

    upstream: str
    input_usd: float
    output_usd: float
    context_window: float
    """In tokens; infinite where it is not known."""
    output_tokens_max: float
    """The longest answer it gives; infinite where it is not known."""

    def cost_usd(self, prompt_tokens: int, output_tokens: float) -> float | None:
        """The price of a request by its estimates; None: unknown. Where there is no output, its price need not be known."""
        usd = prompt_tokens * self.input_usd
        if output_tokens:
            usd += output_tokens * self.output_usd
        return None if isnan(usd) else usd


ANYTHING = Offered("", nan, nan, float("inf"), float("inf"))
_CHAT, _STREAMING = "chat", "streaming"


class Catalog:
    """Made anew with each configuration."""

    __slots__ = ("_capabilities", "_of_chat", "_of_streams", "_surplus", "last", "last_name", "models", "otherwise")

    def __init__(self, spec: ProviderSpec) -> None:
        self.otherwise = ANYTHING if spec.takes_any else None
        """What holds of a name that is not listed; None: it is not served."""
        self.models = {
            model.name: Offered(
                model.upstream or model.name,
                nan if model.input_price is None else model.input_price / 1e6,
                nan if model.output_price is None else model.output_price / 1e6,
                float("inf") if model.context_window is None else float(model.context_window),
                float("inf") if model.max_output_tokens is None else float(model.max_output_tokens),
            )
            for model in spec.models
        }
        self._capabilities = frozenset(spec.capabilities)
        listed = sorted(self._capabilities) if len(self._capabilities) <= CAPABILITIES_LISTED_MAX else []
        total = len(self._capabilities)
        self._surplus = {needs: total - size for size in range(len(listed) + 1) for needs in combinations(listed, size)}
        # Of what most requests need: to find a tuple in a table takes as long as all else of a look here.
        self._of_chat = self._surplus.get((_CHAT,), -1)
        self._of_streams = self._surplus.get((_CHAT, _STREAMING), -1)
        self.last_name: str | None = None
        self.last = self.otherwise
        """The model awarded last, by the very name that was used: who finds it by that need not look it up."""

    def take(self, model: str) -> Offered | None:
        """The model of that public name, which is to be called; None if it is not served."""
        offered = self.models.get(model, self.otherwise)
        self.last_name, self.last = model, offered
        return offered

    def surplus(self, needs: tuple[str, ...]) -> int:
        """How many capabilities are not among ``needs`` (sorted) if these are met for sure; -1: look closer."""
        count = len(needs)
        if count == 1 and needs[0] == _CHAT:
            return self._of_chat
        if count == 2 and needs[0] == _CHAT and needs[1] == _STREAMING:
            return self._of_streams
        return self._surplus.get(needs, -1)

    def missing(self, needs: tuple[str, ...]) -> str:
        """The capabilities of ``needs`` (sorted) that are not there, separated by commas; empty if all are."""
        return missing_of(needs, self._capabilities)

    def beyond(self, needs: tuple[str, ...]) -> int:
        """How many capabilities are not among ``needs``. Not for the hot path."""
        return len(self._capabilities.difference(needs))
