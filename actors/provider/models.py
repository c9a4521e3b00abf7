"""The evidence of one provider, by model: of those lately called, so that misspelt names cannot grow memory."""

from collections import OrderedDict

from actors.provider.evidence import ModelEvidence
from actors.provider.quantiles import Quantiles

MODELS_MAX = 64


class Evidence:
    """The models lately called, at most ``MODELS_MAX``; the one unused for longest is forgotten."""

    __slots__ = ("last", "last_name", "models")

    def __init__(self) -> None:
        self.models: OrderedDict[str, ModelEvidence] = OrderedDict()
        """For bids, which look up ``NOTHING_KNOWN`` where there is none, and add nothing."""
        self.last_name: str | None = None
        self.last = NOTHING_KNOWN
        """The one used last, by the very name that was used: it need not be looked up, nor moved to the end again."""

    def __len__(self) -> int:
        return len(self.models)

    def of(self, model: str) -> ModelEvidence:
        """The evidence to add to."""
        if model is self.last_name:
            return self.last
        known = self.models.get(model)
        if known is None:
            known = self.models[model] = ModelEvidence()
            if len(self.models) > MODELS_MAX:
                self.models.popitem(last=False)
        elif known is not self.last:
            self.models.move_to_end(model)
        self.last_name, self.last = model, known
        return known

    def quantiles(self) -> list[Quantiles]:
        """Latencies of all models, streams and whole answers."""
        return [seen for known in self.models.values() for seen in (known.streams, known.wholes)]

    def forget_failures(self) -> None:
        """Forget what failed; times stay known."""
        for known in self.models.values():
            known.forget_failures()


NOTHING_KNOWN = ModelEvidence()
"""Of a model never called. Nobody adds to it."""
