"""When and where a request may be tried again.

One attempt budget and one deadline travel with the request, and each provider has a budget for repeats of its own: in an
outage retries must not multiply the load (gRPC's retry throttling, Finagle's retry budgets).
"""

from collections.abc import Container
from dataclasses import dataclass, field
from random import Random

from messages.control import BackoffSpec, FailoverSpec
from messages.failures import Failure, Retry, Scope

BUDGET_FLOOR = 10.0
"""Repeats a provider may always get in a row: little traffic must not mean no retries."""


def backoff_s(spec: BackoffSpec, repeat: int, rng: Random) -> float:
    """Seconds to wait before the ``repeat``-th round of repeats (from 1).

    With jitter a uniform draw up to that: "full jitter" (Brooker, Exponential Backoff and Jitter, 2015).
    """
    if spec.kind == "none":
        return 0.0
    if spec.kind == "linear":
        wait_s = spec.base_s * repeat
    elif spec.kind == "fibonacci":
        wait_s = spec.base_s * _fibonacci(repeat)
    else:
        wait_s = spec.base_s * spec.factor ** min(repeat - 1, 64)
    wait_s = min(wait_s, spec.max_s)
    return rng.uniform(0.0, wait_s) if spec.jitter else wait_s


def _fibonacci(index: int) -> int:
    before, current = 0, 1
    for _ in range(min(index, 90) - 1):
        before, current = current, before + current
    return current


class RetryBudgets:
    """Repeats allowed for each provider: ``share`` of its first calls, beyond a small floor."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._tokens: dict[str, float] = {}
        """Of those that have spent some; all others may do what the floor allows."""

    def reconfigure(self, share: float, providers: Container[str]) -> None:
        """Another share; what was earned and spent stays, of those that are still configured."""
        self.share = share
        self._tokens = {name: tokens for name, tokens in self._tokens.items() if name in providers}

    def earn(self, provider: str) -> None:
        """A first call went to ``provider``."""
        self._pay_in(provider, self.share)

    def spend(self, provider: str) -> bool:
        """Take a repeat at ``provider``; False: it has had its share."""
        tokens = self._tokens.get(provider, BUDGET_FLOOR)
        if tokens < 1.0:
            return False
        self._tokens[provider] = tokens - 1.0
        return True

    def give_back(self, provider: str) -> None:
        """A repeat that was paid was not let through."""
        self._pay_in(provider, 1.0)

    def has_any(self, provider: str) -> bool:
        """Whether ``provider`` may get a repeat now."""
        return self._tokens.get(provider, BUDGET_FLOOR) >= 1.0

    def _pay_in(self, provider: str, share: float) -> None:
        # Mostly nobody has spent any.
        tokens = self._tokens.get(provider) if self._tokens else None
        if tokens is None:
            return
        if tokens + share < BUDGET_FLOOR:
            self._tokens[provider] = tokens + share
        else:
            del self._tokens[provider]


@dataclass(slots=True)
class Try:
    """One failed call."""

    provider: str
    failure: Failure
    at: float
    """Monotonic seconds of its end."""


@dataclass(slots=True)
class Tries:
    """What a request has tried: which providers not to ask again, and from when some may be."""

    spec: FailoverSpec
    failed: list[Try] = field(default_factory=list)
    rounds_of_repeats: int = 0
    _rests_until: float = 0.0
    _resting: dict[str, float | None] = field(default_factory=dict)
    """By provider: when it may be tried again (monotonic s); None: never for this request."""

    @property
    def tried(self) -> tuple[str, ...]:
        """Providers that must not be asked now."""
        return tuple(self._resting)

    @property
    def may_go_on(self) -> bool:
        """Whether the attempt budget has something left."""
        return self.spec.enabled and len(self.failed) < self.spec.max_attempts

    def is_repeat(self, provider: str) -> bool:
        """Whether ``provider`` was called for this request before."""
        return any(attempt.provider == provider for attempt in self.failed)

    def add(self, provider: str, failure: Failure, now: float, *, is_final: bool = False) -> None:
        """Note a failed call. ``is_final``: whoever failed is not asked again for this request, whatever the failure."""
        self.failed.append(Try(provider, failure, now))
        may_return = failure.retry is Retry.LATER and not is_final
        self._resting[provider] = now + (failure.retry_after_s or 0.0) if may_return else None

    def rest(self, now: float, budgets: RetryBudgets, rng: Random) -> float | None:
        """Everybody was tried: seconds until the first may be tried again, or None if nobody may.

        After that wait ``wake`` puts those whose time has come back among the candidates. The back-off counts from the last
        failure: what has passed since in the queue is part of it.
        """
        if not self.may_go_on:
            return None
        ready = [at for name, at in self._resting.items() if at is not None and budgets.has_any(name)]
        if not ready:
            return None
        self.rounds_of_repeats += 1
        pause_s = backoff_s(self.spec.backoff, self.rounds_of_repeats, rng)
        self._rests_until = max(min(ready), self.failed[-1].at + pause_s, now)
        return self._rests_until - now

    def replacement_s(self, now: float, budgets: RetryBudgets, rng: Random) -> float | None:
        """``with_replacement``: the pause (s) after which those that failed compete with those not tried.

        None: nobody can by then, and nothing is gained by it. After it ``wake`` lets them.
        """
        if not (self.spec.with_replacement and self.may_go_on):
            return None
        until = now + backoff_s(self.spec.backoff, self.rounds_of_repeats + 1, rng)
        if not any(at is not None and at <= until and budgets.has_any(name) for name, at in self._resting.items()):
            return None
        self.rounds_of_repeats += 1
        self._rests_until = until
        return until - now

    def wake(self, now: float) -> None:
        """The wait is over: let those whose time has come be candidates again."""
        # A timer may fire a hair early; who was waited for must not cost another round for that.
        until = max(now, self._rests_until)
        self._resting = {name: at for name, at in self._resting.items() if at is None or at > until}

    def soonest_s(self, now: float) -> float | None:
        """Seconds until the first of those that failed for now may be asked again for this request; None: nobody ever."""
        waits = [at - now for at in self._resting.values() if at is not None]
        return max(0.0, min(waits)) if waits else None

    def named_at(self, budgets: RetryBudgets) -> float | None:
        """When (monotonic s) the first of those that named a wait may be asked again for this request; None: none did."""
        if not self.may_go_on:
            return None
        named = {attempt.provider for attempt in self.failed if attempt.failure.retry_after_s}
        found = [at for name, at in self._resting.items() if at is not None and name in named and budgets.has_any(name)]
        return min(found, default=None)

    def retry_after_s(self, now: float) -> float | None:
        """Seconds after which another request may do better, by what the last failure of each provider says; None: unknown."""
        last = {attempt.provider: attempt for attempt in self.failed}
        waits = [
            attempt.at + (attempt.failure.retry_after_s or 0.0) - now
            for attempt in last.values()
            if attempt.failure.retry is Retry.LATER or attempt.failure.retry_after_s is not None
        ]
        return max(0.0, min(waits)) if waits else None

    def all_rate_limited(self) -> bool:
        """Whether every call ended in a rate limit."""
        return bool(self.failed) and all(attempt.failure.scope is Scope.BUCKET for attempt in self.failed)

    def all_bad_credentials(self) -> bool:
        """Whether every call ended because our key was bad."""
        return bool(self.failed) and all(attempt.failure.scope is Scope.CREDENTIAL for attempt in self.failed)


LAST_WORD_S = 0.005
"""Before a request's deadline: until then the router lets it wait, and then tells why nobody could take it."""
WAITED_S = 0.005
"""A plan that took longer to come was waited for in the queue, where everybody has been asked anew."""


@dataclass(slots=True)
class Refusals:
    """Who has refused a request's awards since it last waited: the next round is without them.

    When all have, the query goes to the queue. To leave out only those of the last plan would let two providers refuse a
    request in turns for ever.
    """

    _providers: dict[str, None] = field(default_factory=dict)
    _since: float | None = None
    """Monotonic seconds of the first refusal since the last grant."""

    @property
    def providers(self) -> tuple[str, ...]:
        """In the order in which they refused."""
        return tuple(self._providers)

    def add(self, provider: str, now: float) -> None:
        """``provider`` refused an award."""
        self._providers[provider] = None
        if self._since is None:
            self._since = now

    def waited(self) -> None:
        """Some time has passed: whoever refused may have room again."""
        self._providers.clear()

    def granted(self) -> None:
        """An award was granted."""
        self._providers.clear()
        self._since = None

    def have_lasted(self, max_wait_s: float, now: float) -> bool:
        """Whether the request has been refused for ``max_wait_s`` seconds."""
        return self._since is not None and now - self._since >= max_wait_s


def last_word_at(deadline: float, now: float) -> float:
    """Until when (monotonic s) the router may let a request wait: not quite until its deadline, so that it can tell why."""
    return deadline - min(LAST_WORD_S, 0.1 * max(0.0, deadline - now))
