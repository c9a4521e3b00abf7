"""The attempts of every request and the counts of the whole house, kept beside it from the mail alone.

What must hold in every run: nobody is asked again who must not be, repeats stay within their share, no request makes more
calls than it may, and what the aggregator and the edge have counted is what happened.
"""

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from messages.calls import AttemptKind, Award, CallEnded, Outcome
from messages.control import RoutingSpec
from messages.envelope import Envelope
from messages.failures import Blame, Retry
from messages.routing import RouteQuery
from messages.stats import Stats, UsageLine
from runtime.courier.retries import BUDGET_FLOOR, RetryBudgets

_HAIR = _HAIR_S = 1e-6
_DOCUMENTED = re.compile(r"^\| (\d{3}) `(\w+)`", re.MULTILINE)


def documented_errors() -> set[tuple[int, str]]:
    """Status and code of every error that ``docs/api.md`` says a client can get."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    section = text.partition("\n## Errors\n")[2].partition("\n## ")[0]
    return {(int(status), code) for status, code in _DOCUMENTED.findall(section)}


@dataclass
class Request:
    """One query as it went through the mail. Times in virtual seconds."""

    tried: tuple[str, ...] = ()
    """As its courier told the router last."""
    again: dict[str, float | None] = field(default_factory=dict)
    """When those that failed may be called again; None: never."""
    calls: int = 0
    repeats: int = 0
    """Calls of one that had failed before."""


class Books:
    """Follows every request's attempts, and keeps what breaks a law."""

    def __init__(self) -> None:
        self.requests: dict[str, Request] = {}
        self.wrongs: list[str] = []
        self._counted: dict[str, CallEnded] = {}
        """What the aggregator was told, by permit."""
        self._firsts: Counter[str] = Counter()
        self._repeats: Counter[str] = Counter()
        self._budgets: Counter[str] = Counter()
        """Budgets for repeats that a provider has had beside its first one."""
        self._asked: dict[str, None] = {}
        """Requests that came to the router, each once: after a crash of its a question may be put again."""
        self._hedges = 0

    def follow(self, budgets: RetryBudgets) -> None:
        """See who is taken out: it begins with a new budget for repeats if it comes back."""
        reconfigure = budgets.reconfigure

        def seen(share: float, providers: Container[str]) -> None:
            self._budgets.update(name for name in budgets._tokens if name not in providers)
            reconfigure(share, providers)

        vars(budgets)["reconfigure"] = seen

    def see(self, to: str, envelope: Envelope, now: float) -> None:
        """An envelope is posted."""
        message = envelope.message
        if isinstance(message, RouteQuery):
            self._of(message.query_id).tried = message.tried
            if not (message.hedge or message.tried or message.refused):
                self._asked[message.query_id] = None
        elif isinstance(message, Award):
            self._awarded(to.removeprefix("provider:"), message, now)
        elif isinstance(message, CallEnded) and to == "aggregator":
            if message.permit_id in self._counted:
                self.wrongs.append(f"the aggregator was told twice of {message.permit_id}")
            self._counted[message.permit_id] = message
        elif isinstance(message, CallEnded) and to.startswith("provider:"):
            self._ended(message, now)

    def _of(self, query: str) -> Request:
        return self.requests.setdefault(query, Request())

    def _awarded(self, provider: str, award: Award, now: float) -> None:
        request = self._of(award.query_id)
        if provider in request.tried:
            self.wrongs.append(f"{award.permit_id}: {provider} was asked although it is in the tried-set")
        if provider in request.again:
            again = request.again[provider]
            if again is None or now < again - _HAIR_S:
                self.wrongs.append(f"{award.permit_id}: {provider} was asked at {now}, it had failed until {again}")

    def _ended(self, end: CallEnded, now: float) -> None:
        if end.outcome is Outcome.NOT_SENT:
            return
        request = self._of(end.query_id)
        request.calls += 1
        self._hedges += end.kind is AttemptKind.HEDGE
        is_repeat = end.provider in request.again
        request.repeats += is_repeat
        (self._repeats if is_repeat else self._firsts)[end.provider] += 1
        failure = end.failure
        if failure is not None:
            request.again[end.provider] = now + (failure.retry_after_s or 0.0) if failure.retry is Retry.LATER else None

    def at_the_end(self, routing: RoutingSpec) -> list[str]:
        """What is wrong with the attempts when all is over."""
        failover, hedge = routing.failover, routing.hedge
        wrongs, most = list(self.wrongs), failover.max_attempts if failover.enabled else 1
        if self._hedges > hedge.max_share * len(self._asked) + _HAIR:
            wrongs.append(f"{self._hedges} hedges of {len(self._asked)} requests, a share of {hedge.max_share} may be")
        wrongs += [f"{query} made {one.calls} calls, {most} may be" for query, one in self.requests.items() if one.calls > most]
        for provider, repeats in self._repeats.items():
            share = BUDGET_FLOOR * (1 + self._budgets[provider]) + failover.retry_share * self._firsts[provider]
            if repeats > share:
                wrongs.append(f"{provider} was called again {repeats} times, {share} may be")
        return wrongs

    def against(self, stats: Stats, uncounted: Sequence[CallEnded]) -> list[str]:
        """Where the aggregator's lines are not what it was told, but for the ends it fell over."""
        lost = {end.permit_id for end in uncounted}
        expected: dict[str, Counter[str]] = {}
        for end in self._counted.values():
            if end.permit_id not in lost:
                expected.setdefault(end.provider, Counter()).update(_counts(end))
        found = {line.name: _line(line) for line in stats.providers}
        wrongs = [
            f"the aggregator has {dict(found.get(name, {}))} of {name}, it was told {dict(counts)}"
            for name, counts in expected.items()
            if +found.get(name, Counter()) != +counts
        ]
        by_model, by_provider = (sum(map(_line, lines), Counter[str]()) for lines in (stats.models, stats.providers))
        if by_model != by_provider:
            wrongs.append(f"the aggregator has {dict(by_model)} by model and {dict(by_provider)} by provider")
        return wrongs

    def successes(self) -> Counter[str]:
        """Calls that ended well, by provider."""
        return Counter(end.provider for end in self._counted.values() if end.outcome is Outcome.SUCCESS)


def _counts(end: CallEnded) -> Mapping[str, int]:
    usage, is_failed = end.usage, end.outcome is Outcome.FAILED
    return {
        "requests": 1,
        "successes": end.outcome is Outcome.SUCCESS,
        "failures": is_failed and (end.failure is None or end.failure.blame is not Blame.CLIENT),
        "cancelled": end.outcome not in (Outcome.SUCCESS, Outcome.FAILED),
        "input_tokens": usage.input_tokens if usage is not None else 0,
        "output_tokens": usage.output_tokens if usage is not None else 0,
        "cost_nusd": end.cost_nusd or 0,
    }


def _line(line: UsageLine) -> Counter[str]:
    names = ("requests", "successes", "failures", "cancelled", "input_tokens", "output_tokens", "cost_nusd")
    return Counter({name: getattr(line, name) for name in names})
