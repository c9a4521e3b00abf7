"""What a simulated provider remembers of the calls it got, so that a test can prove what reached it and how it ended.

Always: bounded, the last calls of each path only; keys and cookies are never kept.
"""

import base64
import hashlib
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

CALLS_KEPT = 50
BODY_BYTES_KEPT = 256 * 1024
_SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "cookie", "proxy-authorization"})


@dataclass(slots=True)
class CallRecord:
    """One call as it came and as it went. Times in seconds since the provider started."""

    number: int
    method: str
    path: str
    """Without the base URL's own."""
    headers: tuple[tuple[str, str], ...]
    """As they came, but for secrets."""
    body: bytes
    """The first 256 KiB."""
    body_bytes: int
    body_sha256: str
    key: str
    """What the call's key was: ``right``, ``wrong``, ``missing``, or ``unchecked`` where any is let in."""
    attempt: int
    """How often the same body had come before."""
    at: float
    fault: str = ""
    """The fault that hit it."""
    outcome: str = "in_flight"
    """``ok``, ``http_<status>``, ``garbage``, ``cut``, ``reset``; ``cancelled``: the caller left before the answer was whole;
    ``killed``: in flight when the provider went down."""
    served_at: float | None = None
    """When its service began, after the wait in line."""
    ended_at: float | None = None
    sent_bytes: int = 0
    output_tokens: int = 0

    def header(self, name: str) -> str:
        """The value of the first header called ``name`` (any case), or an empty string."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def line(self) -> dict[str, object]:
        """The record as plain data for JSON."""
        return {
            "number": self.number,
            "method": self.method,
            "path": self.path,
            "headers": [list(pair) for pair in self.headers],
            "body": self.body.decode(errors="replace"),
            "body_base64": base64.b64encode(self.body).decode(),
            "body_bytes": self.body_bytes,
            "body_sha256": self.body_sha256,
            "key": self.key,
            "attempt": self.attempt,
            "fault": self.fault,
            "outcome": self.outcome,
            "at": round(self.at, 6),
            "served_at": None if self.served_at is None else round(self.served_at, 6),
            "ended_at": None if self.ended_at is None else round(self.ended_at, 6),
            "sent_bytes": self.sent_bytes,
            "output_tokens": self.output_tokens,
        }


def record_of(
    number: int, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes, key: str, attempt: int, at: float
) -> CallRecord:
    """A record of a call that has just come in."""
    shown = tuple((name, "(secret)" if name.lower() in _SECRET_HEADERS else value) for name, value in headers)
    digest = hashlib.sha256(body).hexdigest()
    return CallRecord(number, method, path, shown, bytes(body[:BODY_BYTES_KEPT]), len(body), digest, key, attempt, at)


@dataclass(slots=True)
class Journal:
    """The last calls of each known path, and how many ended how."""

    counts: Counter[str] = field(default_factory=Counter)
    """Calls by outcome since the start, those for a text or a vector only."""
    _kept: dict[str, deque[CallRecord]] = field(default_factory=dict)

    def keep(self, shelf: str, record: CallRecord) -> None:
        """Remember ``record`` among those of ``shelf``; a flood of probes must not push out the calls."""
        self._kept.setdefault(shelf, deque(maxlen=CALLS_KEPT)).append(record)

    def records(self, path: str | None = None) -> list[CallRecord]:
        """What is remembered, oldest first; only those of ``path`` if it is given."""
        found = [record for shelf in self._kept.values() for record in shelf if path in (None, record.path)]
        return sorted(found, key=lambda record: record.number)

    def forget(self) -> None:
        """Drop all records and counts."""
        self._kept.clear()
        self.counts.clear()
