"""What the gateway itself wants of a request's headers, found in one pass over them. Sans-I/O.

Clients spell the same few names again and again, so what a name is for is looked up by its spelling.
"""

from typing import TYPE_CHECKING

from messages.base import acyclic
from runtime.dialects.headers import passes_upstream
from runtime.facts import fact
from runtime.ports import EdgeRequest, Headers

if TYPE_CHECKING:
    from runtime.http.hints import ClientHints

PREFIX = "x-pointsman-"
SPELLINGS_MAX = 1024
SPELLING_CHARACTERS_MAX = 64

_NOTHING, _HINT, _AGENT, _REQUEST_ID, _TRACEPARENT, _TRACESTATE, _BAGGAGE, _PASSES = 0, 1, 2, 3, 4, 5, 6, 7
_KNOWN = {
    "user-agent": _AGENT,
    "x-request-id": _REQUEST_ID,
    "traceparent": _TRACEPARENT,
    "tracestate": _TRACESTATE,
    "baggage": _BAGGAGE,
}
_ROLES: dict[str, int] = {}
"""By spelling."""


class Notes:
    """The values, as they came; of a name that is given twice the first, and an empty string where it is not."""

    __slots__ = ("agent", "baggage", "hints", "passing", "request_id", "said", "traceparent", "tracestate", "twice")

    def __init__(self) -> None:
        self.agent = ""
        self.request_id = ""
        self.traceparent = ""
        self.tracestate = ""
        self.baggage = ""
        self.hints: dict[str, str] | None = None
        """The ``x-pointsman-*`` headers by lower-case name; None: there is none."""
        self.twice = ""
        """One of them that is given more than once."""
        self.passing: list[tuple[str, str]] = []
        """The client's words to the provider (``dialects.headers``)."""
        self.said: ClientHints | None = None
        """What ``read_hints`` has made of it."""


@acyclic
@fact
class NotedRequest(EdgeRequest):
    """A request whose headers were looked through already, be it for one before it that began with the same bytes."""

    notes: Notes


def noted(headers: Headers) -> Notes:
    """Look through the headers of a request."""
    notes = Notes()
    for name, value in headers:
        role = _ROLES.get(name, -1)
        if role < 0:
            role = _role_of(name)
        if role == _NOTHING:
            continue
        if role == _HINT:
            _note_hint(notes, name.lower(), value)
        elif role == _AGENT:
            notes.agent = notes.agent or value
        elif role == _REQUEST_ID:
            notes.request_id = notes.request_id or value
        elif role == _TRACEPARENT:
            notes.traceparent = notes.traceparent or value
        elif role == _TRACESTATE:
            notes.tracestate = notes.tracestate or value
        elif role == _BAGGAGE:
            notes.baggage = notes.baggage or value
        else:
            notes.passing.append((name, value))
    return notes


def _note_hint(notes: Notes, lower: str, value: str) -> None:
    if notes.hints is None:
        notes.hints = {}
    if lower in notes.hints:
        notes.twice = notes.twice or lower
    notes.hints[lower] = value


def _role_of(name: str) -> int:
    lower = name.lower()
    role = _KNOWN.get(lower, _NOTHING)
    if lower.startswith(PREFIX):
        role = _HINT
    elif passes_upstream(lower):
        role = _PASSES
    if len(_ROLES) < SPELLINGS_MAX and len(name) <= SPELLING_CHARACTERS_MAX:
        _ROLES[name] = role
    return role
