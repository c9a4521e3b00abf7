"""What a provider may be given: requests and tokens per minute, and calls at once.

Buckets refill continuously. A bucket holds ``burst`` (default: the limit of a whole minute), full at the start and empty
after a restart, so that no window admits more than limit x window + burst. A request larger than the bucket is admitted
when the bucket is full and leaves a debt. A reservation takes all it needs or nothing. Tokens are reserved by estimate and
settled to real usage; what comes back never fills a bucket above its size.

Source: the token bucket of Turner, "New directions in communications", 1986; debt as in Guava's ``SmoothBursty``.
"""

from enum import Enum
from math import isfinite
from typing import NamedTuple

from actors.provider.concurrency import LIMIT_FIRST, AdaptiveLimit
from messages.calls import LimitsSeen
from messages.control import LimitsSpec

BLOCK_S_MAX = 600.0
"""However long a ``Retry-After`` is, after this many s one call finds out."""
SEEN_EMPTY_S_MAX = 2.0
"""Wait after "0 remaining" where we have no bucket of our own: a reset says when the provider's is full again, and the
first request is admitted long before that."""
BACKOFF_S = 1.0
"""Wait after a 429 that names none; doubles with each one in a row."""
BACKOFF_S_MAX = 30.0
_HAIR = 1e-6
"""Rounding, as a share of a bucket: what is taken by it stays on the books as debt."""


class Hindrance(Enum):
    """Why a reservation is refused."""

    CAPACITY = "capacity"
    RATE = "rate"


class Hold(NamedTuple):
    """A refused reservation. ``retry_at`` in s; None: when a call ends, or never."""

    why: Hindrance
    retry_at: float | None


_FULL = Hold(Hindrance.CAPACITY, None)


class Bucket:
    """``level`` as of ``at`` (s); fills by ``rate_per_s`` up to ``size``; below zero it is a debt."""

    __slots__ = ("at", "level", "rate_per_s", "size")

    def __init__(self, size: float, rate_per_s: float, now: float, is_full: bool) -> None:
        self.size = size
        self.rate_per_s = rate_per_s
        self.level = size if is_full else 0.0
        self.at = now

    def level_at(self, now: float) -> float:
        """What is in it at ``now``."""
        level = self.level
        if now > self.at:
            level += (now - self.at) * self.rate_per_s
        return level if level < self.size else self.size

    def ready_at(self, amount: float, now: float) -> float | None:
        """When (s) ``amount`` can be taken: ``now`` or earlier means at once; None: never."""
        if self.size <= 0.0 or self.rate_per_s <= 0.0:
            return None
        missing = min(amount, self.size) - self.level_at(now)
        return now if missing <= _HAIR * self.size else now + missing / self.rate_per_s

    def has(self, amount: float, now: float) -> bool:
        """``amount`` can be taken at once."""
        ready = self.ready_at(amount, now)
        return ready is not None and ready <= now

    def take(self, amount: float, now: float) -> None:
        """Take ``amount``, into debt if need be."""
        level = self.level
        if now > self.at:
            level += (now - self.at) * self.rate_per_s
            self.at = now
        self.level = (level if level < self.size else self.size) - amount

    def give(self, amount: float, now: float) -> None:
        """Give ``amount`` back; what does not fit is lost."""
        level = self.level + amount
        if now > self.at:
            level += (now - self.at) * self.rate_per_s
            self.at = now
        self.level = level if level < self.size else self.size

    def lower_to(self, level: float, now: float) -> None:
        """There is no more than ``level`` in it."""
        self.level = min(self.level_at(now), level)
        self.at = max(self.at, now)

    def flaw(self) -> str | None:
        """What is broken, or None."""
        if not isfinite(self.level) or self.level > self.size * (1 + _HAIR):
            return f"level {self.level} of {self.size}"
        return None


class Limits:
    """All limits of one provider, taken together or not at all."""

    __slots__ = ("adaptive", "blocked_until", "in_flight", "max_concurrency", "refusals_in_a_row", "requests", "spec", "tokens")

    def __init__(self, spec: LimitsSpec, now: float, is_full: bool) -> None:
        self.spec = spec
        self.in_flight = 0
        self.blocked_until = 0.0
        """Monotonic s until which the provider itself said it takes nothing."""
        self.max_concurrency = spec.max_concurrency
        """What counts now: as configured, or as ``adaptive`` has found."""
        self.adaptive: AdaptiveLimit | None = None
        if spec.adaptive:
            self.adapt(AdaptiveLimit(now))
        self.requests = _bucket(_request_sizes(spec), now, is_full)
        self.tokens = _bucket(_token_sizes(spec), now, is_full)
        self.refusals_in_a_row = 0

    def __repr__(self) -> str:
        return f"{self.in_flight} of {self.max_concurrency} in flight, blocked until {self.blocked_until:.3f}"

    @property
    def room(self) -> int | None:
        """Calls that can still be taken at once; None: no limit."""
        return None if self.max_concurrency is None else max(0, self.max_concurrency - self.in_flight)

    def hold(self, tokens: int, now: float) -> Hold | None:
        """Why one request of ``tokens`` cannot be taken at ``now``; None: it can. Changes nothing."""
        limit, requests, bucket = self.max_concurrency, self.requests, self.tokens
        if limit is not None and self.in_flight >= limit:
            return _FULL
        # The level as it was last written is a lower bound, and mostly enough.
        if (
            now >= self.blocked_until
            and (requests is None or (requests.level >= 1.0 and requests.rate_per_s > 0.0) or requests.has(1.0, now))
            and (bucket is None or (bucket.level >= tokens and bucket.rate_per_s > 0.0) or bucket.has(tokens, now))
        ):
            return None
        return self._rate_hold(tokens, now)

    def _rate_hold(self, tokens: int, now: float) -> Hold | None:
        at = self.blocked_until
        for bucket, amount in ((self.requests, 1.0), (self.tokens, float(tokens))):
            if bucket is not None:
                ready = bucket.ready_at(amount, now)
                if ready is None:
                    return Hold(Hindrance.RATE, None)
                if ready > at:
                    at = ready
        return Hold(Hindrance.RATE, at)

    def take(self, tokens: int, now: float) -> None:
        """Take what ``hold`` has just said can be taken."""
        self.in_flight += 1
        requests, bucket = self.requests, self.tokens
        if requests is not None:
            requests.take(1.0, now)
        if bucket is not None:
            bucket.take(tokens, now)

    def adapt(self, adaptive: AdaptiveLimit | None = None) -> bool:
        """Let what the adaptive limit says now count (another one, if given). True if that makes room."""
        before = self.max_concurrency
        if adaptive is not None:
            self.adaptive = adaptive
        if self.adaptive is None:
            return False
        self.max_concurrency = self.adaptive.limit
        return before is None or self.max_concurrency > before

    def inherit(self, before: "Limits") -> None:
        """Take over from a crashed predecessor what makes its successor more cautious."""
        self.blocked_until = before.blocked_until
        if self.adaptive is not None and before.adaptive is not None:
            self.adapt(AdaptiveLimit(0.0, min(LIMIT_FIRST, before.adaptive.limit)))

    def forget_endpoint(self, now: float) -> None:
        """It is another endpoint now: what was found out about the calls it takes does not hold."""
        if self.adaptive is not None:
            self.adapt(AdaptiveLimit(now))

    def empty(self, now: float) -> None:
        """Empty the buckets: after a restart nobody knows what was in them."""
        for bucket in (self.requests, self.tokens):
            if bucket is not None:
                bucket.lower_to(0.0, now)

    def restore(self) -> None:
        """A call that was out before a restart; what it took, it took from the bucket before."""
        self.in_flight += 1

    def release(self) -> None:
        """A call is over. Its reservation is settled by ``settle`` or ``give_back``."""
        self.in_flight -= 1

    def settle(self, reserved: int, used: int, now: float) -> None:
        """A call reserved ``reserved`` tokens and used ``used``."""
        bucket = self.tokens
        if bucket is None or reserved == used:
            return
        if used < reserved:
            bucket.give(reserved - used, now)
        else:
            bucket.take(used - reserved, now)

    def give_back(self, reserved: int, now: float) -> None:
        """Nothing was sent: the request and its tokens are as if never taken."""
        if self.requests is not None:
            self.requests.give(1.0, now)
        if self.tokens is not None:
            self.tokens.give(float(reserved), now)

    def block(self, wait_s: float | None, now: float) -> None:
        """The provider refused for its rate limit and named a wait in s, or None."""
        if wait_s is None or not isfinite(wait_s):
            wait_s = min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(self.refusals_in_a_row, 10))
        self.refusals_in_a_row += 1
        self.blocked_until = max(self.blocked_until, now + min(max(0.0, wait_s), BLOCK_S_MAX))

    def answered(self) -> None:
        """The provider took a call: refusals are no longer in a row."""
        self.refusals_in_a_row = 0

    def see(self, seen: LimitsSeen, now: float) -> None:
        """Lower our buckets to what the provider says is left. It never raises them."""
        for bucket, remaining, reset_s in (
            (self.requests, seen.remaining_requests, seen.reset_requests_s),
            (self.tokens, seen.remaining_tokens, seen.reset_tokens_s),
        ):
            if remaining is None:
                continue
            if bucket is not None:
                bucket.lower_to(float(max(0, remaining)), now)
            elif remaining <= 0:
                wait_s = BACKOFF_S if reset_s is None else reset_s
                self.blocked_until = max(self.blocked_until, now + min(max(0.0, wait_s), SEEN_EMPTY_S_MAX))

    def reconfigure(self, spec: LimitsSpec, now: float) -> None:
        """Live under new limits with what is out and what is in the buckets. A limit that is new starts full."""
        self.spec = spec
        self.max_concurrency = spec.max_concurrency
        if spec.adaptive:
            self.adapt(self.adaptive or AdaptiveLimit(now))
        else:
            self.adaptive = None
        self.requests = _resized(self.requests, _request_sizes(spec), now)
        self.tokens = _resized(self.tokens, _token_sizes(spec), now)

    def flaw(self) -> str | None:
        """What is broken, or None."""
        for name, bucket in (("request", self.requests), ("token", self.tokens)):
            if bucket is not None and (flaw := bucket.flaw()) is not None:
                return f"{name} bucket: {flaw}"
        if self.adaptive is not None and (flaw := self.adaptive.flaw()) is not None:
            return f"adaptive limit: {flaw}"
        return f"{self.in_flight} in flight" if self.in_flight < 0 else None


def _request_sizes(spec: LimitsSpec) -> tuple[float, float] | None:
    limit = spec.requests_per_minute
    if limit is None:
        return None
    return (limit if spec.burst is None else spec.burst, limit / 60.0)


def _token_sizes(spec: LimitsSpec) -> tuple[float, float] | None:
    limit = spec.tokens_per_minute
    if limit is None:
        return None
    share = 1.0 if spec.burst is None or not spec.requests_per_minute else spec.burst / spec.requests_per_minute
    return (limit * share, limit / 60.0)


def _bucket(sizes: tuple[float, float] | None, now: float, is_full: bool) -> Bucket | None:
    return None if sizes is None else Bucket(sizes[0], sizes[1], now, is_full)


def _resized(old: Bucket | None, sizes: tuple[float, float] | None, now: float) -> Bucket | None:
    if sizes is None or old is None:
        return _bucket(sizes, now, is_full=True)
    level = old.level_at(now)
    new = Bucket(sizes[0], sizes[1], now, is_full=True)
    new.lower_to(level, now)
    return new
