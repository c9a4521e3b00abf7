"""The faults of a simulated provider, switched on and off at run time.

Owns: which faults hold now. Always: at most one of each kind; time comes in as ``now`` (seconds).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite


class FaultKind(StrEnum):
    """What can be wrong with a provider."""

    OUTAGE = "outage"
    """Every connection is reset, those with a call in flight at once."""
    ERRORS = "errors"
    """A 5xx instead of an answer."""
    HANG = "hang"
    """The call is taken and never answered."""
    SLOW = "slow"
    """Times to the first byte and between tokens are multiplied."""
    CUT = "cut"
    """The answer breaks off in the middle."""
    AUTH = "auth"
    """The key is refused: 401."""
    GARBAGE = "garbage"
    """Status 200 with nothing, or with a page of HTML."""
    RATE_LIMIT = "rate_limit"
    """429, whatever the buckets hold."""


_TAKES: dict[FaultKind, tuple[str, ...]] = {
    FaultKind.OUTAGE: ("for",),
    FaultKind.ERRORS: ("for", "p", "status"),
    FaultKind.HANG: ("for", "p"),
    FaultKind.SLOW: ("for", "p", "factor"),
    FaultKind.CUT: ("for", "p"),
    FaultKind.AUTH: ("for", "p"),
    FaultKind.GARBAGE: ("for", "p"),
    FaultKind.RATE_LIMIT: ("for", "p", "retry_after"),
}
_RANGES: dict[str, tuple[float, float]] = {
    "p": (0.0, 1.0),
    "factor": (0.001, 10_000.0),
    "status": (500, 599),
    "for": (0.0, 86_400.0),
    "retry_after": (0.0, 3600.0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and how hard it hits."""

    kind: FaultKind
    p: float = 1.0
    """Share of calls it hits."""
    factor: float = 10.0
    """Of ``slow``."""
    status: int = 503
    """Of ``errors``."""
    retry_after_s: float = 1.0
    """Of ``rate_limit``."""
    for_s: float | None = None
    """How long it holds; None: until it is switched off."""


class BadFault(Exception):
    """A fault that makes no sense; ``errors`` has a line for each thing that is wrong."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


def parse_fault(data: object) -> Fault:
    """A fault from the body of ``POST /control/faults``. Raises ``BadFault`` with everything that is wrong."""
    if not isinstance(data, Mapping):
        raise BadFault(['the body must be a JSON object such as {"fault": "outage"}'])
    try:
        kind = FaultKind(str(data.get("fault")))
    except ValueError:
        raise BadFault([f"fault: must be one of {', '.join(FaultKind)}"]) from None
    takes = _TAKES[kind]
    foreign = [name for name in sorted(map(str, data)) if name not in ("fault", *takes)]
    errors = [f"{name}: {kind} takes only {', '.join(takes)}" for name in foreign]
    values: dict[str, float] = {}
    for name in takes:
        if data.get(name) is not None:
            low, high = _RANGES[name]
            value = data[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or not low <= value <= high:
                errors.append(f"{name}: must be a number between {low:g} and {high:g}")
            elif name == "status" and value != int(value):
                errors.append("status: must be a whole number")
            else:
                values[name] = value
    if errors:
        raise BadFault(errors)
    return Fault(
        kind,
        p=values.get("p", 1.0),
        factor=values.get("factor", 10.0),
        status=int(values.get("status", 503)),
        retry_after_s=values.get("retry_after", 1.0),
        for_s=values.get("for"),
    )


class FaultBoard:
    """The switches of one provider."""

    __slots__ = ("_on",)

    def __init__(self) -> None:
        self._on: dict[FaultKind, tuple[Fault, float]] = {}

    def switch_on(self, fault: Fault, now: float) -> None:
        """Let ``fault`` hold from now, in place of an earlier one of its kind."""
        self._on[fault.kind] = (fault, inf if fault.for_s is None else now + fault.for_s)

    def switch_off(self, kind: FaultKind | None = None) -> None:
        """End the fault of ``kind``, or all."""
        if kind is None:
            self._on.clear()
        else:
            self._on.pop(kind, None)

    def get(self, kind: FaultKind, now: float) -> Fault | None:
        """The fault of ``kind`` if it holds now."""
        fault, until = self._on.get(kind, (None, 0.0))
        return fault if now < until else None

    def state(self, now: float) -> list[dict[str, object]]:
        """The faults that hold, by name, each with what it takes and the seconds that are left of it."""
        lines: list[dict[str, object]] = []
        for kind in sorted(self._on):
            fault, until = self._on[kind]
            if now < until:
                line: dict[str, object] = {"fault": str(kind)}
                told = {"p": fault.p, "factor": fault.factor, "status": fault.status, "retry_after": fault.retry_after_s}
                line.update((name, value) for name, value in told.items() if name in _TAKES[kind])
                line["remaining_s"] = None if until == inf else round(until - now, 3)
                lines.append(line)
        return lines
