"""What a simulated run came to, counted as it goes: by requests as the clients saw them, by calls as the providers ended them.

Owns: the counts. Always: the same run gives the same report, digit by digit.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from messages.calls import Award, CallEnded, Outcome
from messages.envelope import Envelope
from messages.routing import RouteQuery
from runtime.simulation.visitor import Visitor

WAITED_S = 0.001
"""A request that was awarded later than this after its arrival has waited in the queue."""
_PROVIDER = "provider:"


@dataclass(slots=True)
class Answers:
    """Requests of one group, of all or of a tenant. Times in seconds."""

    requests: int = 0
    answered: int = 0
    first_content_s: list[float] = field(default_factory=list)
    """Of streams."""
    whole_s: list[float] = field(default_factory=list)

    def add(self, visitor: Visitor) -> None:
        """Count a request that is over."""
        self.requests += 1
        if visitor.is_answered:
            self.answered += 1
            self.whole_s.append(visitor.done_at - visitor.at)
            if visitor.is_stream and visitor.first_at is not None:
                self.first_content_s.append(visitor.first_at - visitor.at)

    def report(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "requests": self.requests,
            "answered": self.answered,
            "success": share(self.answered, self.requests),
            "first_content_ms": quantiles_ms(self.first_content_s),
            "whole_ms": quantiles_ms(self.whole_s),
        }


@dataclass(slots=True)
class Calls:
    """Calls to one provider."""

    sent: int = 0
    answers: int = 0
    """Requests whose answer came from here."""
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    first_content_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)

    def add(self, end: CallEnded) -> None:
        """Count a call that has ended."""
        if end.outcome is Outcome.NOT_SENT:
            return
        self.sent += 1
        self.outcomes[end.outcome.value] += 1
        if end.failure is not None:
            self.failures[end.failure.code] += 1
        elif end.outcome is Outcome.SUCCESS:
            self.whole_s.append(end.duration_s)
            if end.first_content_s is not None:
                self.first_content_s.append(end.first_content_s)

    @property
    def called_off(self) -> int:
        """Calls that nobody let come to their end: another one of the request was faster, or the client left."""
        return self.outcomes[Outcome.LOST_HEDGE.value] + self.outcomes[Outcome.CANCELLED.value]


class Tally:
    """One run. ``see`` is the journal of the house, ``add`` takes every request that is over."""

    def __init__(self, providers: Sequence[str]) -> None:
        self.all = Answers()
        self.tenants: dict[str, Answers] = {}
        self.calls: dict[str, Calls] = {provider: Calls() for provider in providers}
        self.errors: Counter[tuple[int, str]] = Counter()
        self.waits_s: list[float] = []
        self._arrived: dict[str, float] = {}
        """By query, those that were not awarded yet."""

    def see(self, to: str, envelope: Envelope, now: float) -> None:
        """An envelope is posted at ``now`` (s)."""
        message = envelope.message
        if isinstance(message, RouteQuery):
            self._arrived.setdefault(message.query_id, message.arrived_at)
        elif isinstance(message, Award):
            arrived_at = self._arrived.get(message.query_id)
            if arrived_at is not None:
                self._arrived[message.query_id] = float("inf")
                if now - arrived_at > WAITED_S:
                    self.waits_s.append(now - arrived_at)
        elif isinstance(message, CallEnded) and to.startswith(_PROVIDER):
            self.calls.setdefault(message.provider, Calls()).add(message)

    def add(self, visitor: Visitor) -> None:
        """A request is over."""
        self.all.add(visitor)
        if visitor.tenant:
            self.tenants.setdefault(visitor.tenant, Answers()).add(visitor)
        if visitor.is_answered:
            self.calls.setdefault(visitor.provider, Calls()).answers += 1
        else:
            self.errors[visitor.status, visitor.code] += 1

    def report(self, billed_usd: Mapping[str, float | None]) -> dict[str, Any]:
        """The run as plain data; ``billed_usd`` by provider, None where prices are not known."""
        sent = sum(calls.sent for calls in self.calls.values())
        known = [billed for billed in billed_usd.values() if billed is not None]
        return {
            **self.all.report(),
            "calls": sent,
            "calls_per_request": round(sent / self.all.requests, 4) if self.all.requests else 0.0,
            "cost_usd": round(sum(known), 6),
            "is_cost_known": all(billed_usd[name] is not None for name, calls in self.calls.items() if calls.sent),
            "queue": {
                "waited": len(self.waits_s),
                "share": share(len(self.waits_s), self.all.requests),
                "wait_ms": quantiles_ms(self.waits_s),
            },
            "errors": [
                {"status": status, "code": code, "count": self.errors[status, code]} for status, code in sorted(self.errors)
            ],
            "providers": [self._provider(name, calls, billed_usd.get(name)) for name, calls in self.calls.items()],
            "tenants": [{"tenant": name, **self.tenants[name].report()} for name in sorted(self.tenants)],
        }

    def _provider(self, name: str, calls: Calls, billed_usd: float | None) -> dict[str, Any]:
        return {
            "provider": name,
            "calls": calls.sent,
            "answers": calls.answers,
            "share": share(calls.answers, self.all.answered),
            "called_off": calls.called_off,
            "success": share(calls.outcomes[Outcome.SUCCESS.value], calls.sent - calls.called_off),
            "first_content_ms": quantiles_ms(calls.first_content_s),
            "whole_ms": quantiles_ms(calls.whole_s),
            "cost_usd": None if billed_usd is None else round(billed_usd, 6),
            "outcomes": dict(sorted(calls.outcomes.items())),
            "failures": dict(sorted(calls.failures.items())),
        }


def share(part: int, whole: int) -> float | None:
    """``part`` of ``whole``, 0 to 1; None of nothing."""
    return round(part / whole, 6) if whole else None


def quantiles_ms(seconds: Iterable[float]) -> dict[str, float] | None:
    """The 50th, 95th and 99th percentile (nearest rank: a value that was there) in ms; None of nothing."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return {f"p{percent}": round(ordered[ceil(percent / 100 * len(ordered)) - 1] * 1000, 1) for percent in (50, 95, 99)}
