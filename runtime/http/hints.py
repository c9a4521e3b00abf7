"""What a client says about the choice, in ``x-pointsman-*`` headers.

What this version does not do yet is refused, never ignored, and so is a name with a slip of the pen in it.
"""

import math

from messages.routing import NO_HINTS, Hints
from runtime.facts import fact
from runtime.ports import Headers

PREFIX = "x-pointsman-"
VALUE_CHARACTERS_MAX = 1024
LIST_ITEMS_MAX = 64
LATER = frozenset({"region", "zone", "priority", "max-latency", "throughput", "tenant", "organization", "features"})
"""Headers of CONTRACT that a later version reads."""


class BadHint(ValueError):
    """A header that cannot be followed. ``header`` names it."""

    def __init__(self, header: str, message: str) -> None:
        super().__init__(f"{header}: {message}")
        self.header = header


@fact
class ClientHints:
    """All that the headers said."""

    hints: Hints
    deadline_s: float | None
    user: str


_NOTHING = ClientHints(NO_HINTS, None, "")


def read_hints(headers: Headers) -> ClientHints:
    """Read the ``x-pointsman-*`` headers of a request. Raises ``BadHint``."""
    found = None
    for name, value in headers:
        # Few names begin with an x, and that is quicker to find out.
        if name[:1] in "xX" and name[:12].lower() == PREFIX:
            found = found or {}
            found[name.lower()] = value
    if found is None:
        return _NOTHING
    strategy = prefer = user = ""
    exclude: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    max_cost_usd = deadline_ms = None
    for name, text in found.items():
        value = text.strip()
        if len(value) > VALUE_CHARACTERS_MAX:
            raise BadHint(name, f"is longer than {VALUE_CHARACTERS_MAX} characters")
        if not value.isprintable():
            # Bytes that are no text would spoil every record and page they get into.
            raise BadHint(name, "has characters that are not text")
        match name.removeprefix(PREFIX):
            case "strategy":
                strategy = value
            case "provider":
                prefer = value
            case "exclude":
                exclude = _list(name, value)
            case "tags":
                tags = _list(name, value)
            case "max-cost":
                max_cost_usd = _number(name, value, "USD")
            case "deadline":
                deadline_ms = _number(name, value, "milliseconds")
            case "user":
                user = value
            case other if other in LATER:
                raise BadHint(name, "not supported by this version")
            case _:
                raise BadHint(name, "there is no such header")
    hints = Hints(strategy, prefer, exclude, tags, max_cost_usd)
    return ClientHints(hints, deadline_ms / 1000 if deadline_ms is not None else None, user)


def _list(name: str, value: str) -> tuple[str, ...]:
    items = tuple(item for part in value.split(",") if (item := part.strip()))
    if len(items) > LIST_ITEMS_MAX:
        raise BadHint(name, f"has more than {LIST_ITEMS_MAX} items")
    return items


def _number(name: str, value: str, unit: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise BadHint(name, f"expected a number of {unit} above 0")
    return number
