"""What a provider offers, prepared for the hot path: models by name, prices per token, capabilities by tuple of needs."""

from dataclasses import dataclass
from itertools import combinations

from actors.requirements import missing_of
from messages.control import ProviderSpec

CAPABILITIES_LISTED_MAX = 8
"""All combinations of so many capabilities are listed beforehand (256); beyond that each need is looked up."""


@dataclass(frozen=True, slots=True)
class Offered:
    """One model. ``upstream`` empty: the name as it was asked for. Prices in USD per token, None: unknown."""

    upstream: str
    input_usd: float | None
    output_usd: float | None
    context_window: float
    """In tokens; infinite where it is not known."""
    output_tokens_max: float
    """The longest answer it gives; infinite where it is not known."""

    def cost_usd(self, prompt_tokens: int, output_tokens: float) -> float | None:
        """The price of a request by its estimates; None: unknown. Where there is no output, its price need not be known."""
        input_usd, output_usd = self.input_usd, self.output_usd
        if input_usd is None or (output_usd is None and output_tokens):
            return None
        return prompt_tokens * input_usd + output_tokens * (output_usd or 0.0)


ANYTHING = Offered("", None, None, float("inf"), float("inf"))


class Catalog:
    """Made anew with each configuration."""

    __slots__ = ("_capabilities", "models", "otherwise", "surplus")

    def __init__(self, spec: ProviderSpec) -> None:
        self.otherwise = ANYTHING if spec.takes_any else None
        """What holds of a name that is not listed; None: it is not served."""
        self.models = {
            model.name: Offered(
                model.upstream or model.name,
                None if model.input_price is None else model.input_price / 1e6,
                None if model.output_price is None else model.output_price / 1e6,
                float("inf") if model.context_window is None else float(model.context_window),
                float("inf") if model.max_output_tokens is None else float(model.max_output_tokens),
            )
            for model in spec.models
        }
        self._capabilities = frozenset(spec.capabilities)
        listed = sorted(self._capabilities) if len(self._capabilities) <= CAPABILITIES_LISTED_MAX else []
        total = len(self._capabilities)
        self.surplus = {needs: total - size for size in range(len(listed) + 1) for needs in combinations(listed, size)}
        """By needs that are met for sure: how many capabilities are not among them. For others ``beyond`` tells."""

    def find(self, model: str) -> Offered | None:
        """The model of that public name, or None if it is not served."""
        return self.models.get(model, self.otherwise)

    def missing(self, needs: tuple[str, ...]) -> str:
        """The capabilities of ``needs`` (sorted) that are not there, separated by commas; empty if all are."""
        return missing_of(needs, self._capabilities)

    def beyond(self, needs: tuple[str, ...]) -> int:
        """How many capabilities are not among ``needs``. Not for the hot path."""
        return len(self._capabilities.difference(needs))
