"""What a client says about the choice, in ``x-pointsman-*`` headers, and the name of its program.

What cannot be followed is refused, never ignored, and so is a name with a slip of the pen in it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from messages.policy import PRIORITIES
from messages.routing import NO_HINTS, Hints
from runtime.facts import fact
from runtime.http.notes import PREFIX, Notes

VALUE_CHARACTERS_MAX = 1024
LIST_ITEMS_MAX = 64
AGENT_CHARACTERS_MAX = 200


class BadHint(ValueError):
    """A header that cannot be followed. ``header`` names it."""

    def __init__(self, header: str, message: str) -> None:
        super().__init__(f"{header}: {message}")
        self.header = header


@fact
class ClientHints:
    """All that the headers said. ``hints`` is ``NO_HINTS`` itself where nothing was said about the choice."""

    hints: Hints
    deadline_s: float | None
    user: str
    tenant: str = ""
    agent: str = ""
    """The ``User-Agent``, shortened, and printable."""


_NOTHING = ClientHints(NO_HINTS, None, "")


def read_hints(notes: Notes) -> ClientHints:
    """Read the ``x-pointsman-*`` headers of a request, and its ``User-Agent``, once. Raises ``BadHint``."""
    said = notes.said
    if said is None:
        said = notes.said = _read(notes)
    return said


def _read(notes: Notes) -> ClientHints:
    agent, found = notes.agent, notes.hints
    if len(agent) > AGENT_CHARACTERS_MAX:
        agent = agent[:AGENT_CHARACTERS_MAX]
    if not agent.isprintable():
        agent = _shown(agent)
    if found is None:
        return ClientHints(NO_HINTS, None, "", "", agent) if agent else _NOTHING
    if notes.twice:
        # Which of the two was meant cannot be told.
        raise BadHint(_shown(notes.twice), "is given more than once")
    said: dict[str, Any] = {}
    for name, text in found.items():
        known = _READERS.get(name[12:])
        if known is None:
            raise BadHint(_shown(name), "there is no such header")
        field, read = known
        said[field] = read(name, _text(name, text))
    deadline_s, user, tenant = said.pop("deadline_s", None), said.pop("user", ""), said.pop("tenant", "")
    return ClientHints(_hints(said), deadline_s, user, tenant, agent)


def _hints(said: Mapping[str, Any]) -> Hints:
    """Who says only what holds anyway has said nothing."""
    hints = Hints(**said) if said else NO_HINTS
    return NO_HINTS if hints == NO_HINTS else hints


def _shown(text: str) -> str:
    """Something of a header as it may stand in a record."""
    return "".join(char if char.isprintable() else "?" for char in text[:AGENT_CHARACTERS_MAX])


def _text(name: str, text: str) -> str:
    value = text.strip()
    if len(value) > VALUE_CHARACTERS_MAX:
        raise BadHint(name, f"is longer than {VALUE_CHARACTERS_MAX} characters")
    if not value.isprintable():
        # Bytes that are no text would spoil every record and page they get into.
        raise BadHint(name, "has characters that are not text")
    return value


def _plain(name: str, value: str) -> str:
    return value


def _tenant(name: str, value: str) -> str:
    if not value:
        # Nobody's tenant has other rights than the one that was to stand here.
        raise BadHint(name, "is empty")
    return value


def _list(name: str, value: str) -> tuple[str, ...]:
    items = tuple(item for part in value.split(",") if (item := part.strip()))
    if len(items) > LIST_ITEMS_MAX:
        raise BadHint(name, f"has more than {LIST_ITEMS_MAX} items")
    return items


def _priority(name: str, value: str) -> int:
    if value not in PRIORITIES:
        raise BadHint(name, f"expected one of {', '.join(PRIORITIES)}")
    return PRIORITIES.index(value)


def _number(name: str, value: str, unit: str, divisor: float = 1.0) -> float:
    try:
        number = float(value) / divisor
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number <= 0:
        raise BadHint(name, f"expected a number of {unit} above 0")
    return number


def _dollars(name: str, value: str) -> float:
    return _number(name, value, "USD")


def _seconds(name: str, value: str) -> float:
    return _number(name, value, "milliseconds", 1000.0)


def _rate(name: str, value: str) -> float:
    return _number(name, value, "tokens per second")


_READERS: Mapping[str, tuple[str, Callable[[str, str], Any]]] = {
    "strategy": ("strategy", _plain),
    "provider": ("prefer", _list),
    "region": ("regions", _list),
    "zone": ("zone", _plain),
    "exclude": ("exclude", _list),
    "tags": ("tags", _list),
    "priority": ("priority", _priority),
    "max-cost": ("max_cost_usd", _dollars),
    "max-latency": ("max_latency_s", _seconds),
    "throughput": ("tokens_per_s", _rate),
    "deadline": ("deadline_s", _seconds),
    "tenant": ("tenant", _tenant),
    "user": ("user", _plain),
    "organization": ("organization", _plain),
    "features": ("features", _list),
}
"""By the rest of the header's name: the field it fills, and how its value is read."""

HEADERS = tuple(PREFIX + name for name in _READERS)
"""Every header there is, in the order of CONTRACT."""
