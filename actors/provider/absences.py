"""Models a provider said it does not have (404), or does not give to us (403): each is left alone for a while.

The wait doubles with every such answer to a call made after the wait, up to ten minutes; a good answer forgets it.
"""

from collections import OrderedDict
from dataclasses import dataclass

from actors.provider.circuit import WAIT_S_MAX

ABSENT_MAX = 64


@dataclass(slots=True)
class _Absence:
    until: float
    wait_s: float


class Absences:
    """At most ``ABSENT_MAX`` models; beyond that the oldest entry is forgotten. Times in monotonic seconds."""

    __slots__ = ("absent",)

    def __init__(self) -> None:
        self.absent: OrderedDict[str, _Absence] = OrderedDict()

    def __len__(self) -> int:
        return len(self.absent)

    def until(self, model: str) -> float:
        """When ``model`` may be asked for again; 0 if it was never missing."""
        absence = self.absent.get(model)
        return 0.0 if absence is None else absence.until

    def missed(self, model: str, sent_at: float, wait_s: float, now: float) -> None:
        """A call sent at ``sent_at`` found ``model`` missing; ``wait_s`` is the first wait."""
        known = self.absent.pop(model, None)
        if known is None:
            self.absent[model] = _Absence(now + wait_s, wait_s)
        elif sent_at < known.until:
            # Sent before the absence was known: the same news, not a second piece of it.
            self.absent[model] = known
        else:
            longer_s = max(wait_s, min(2.0 * known.wait_s, WAIT_S_MAX))
            self.absent[model] = _Absence(now + longer_s, longer_s)
        if len(self.absent) > ABSENT_MAX:
            self.absent.popitem(last=False)

    def found(self, model: str) -> None:
        """A call for ``model`` was answered."""
        self.absent.pop(model, None)
