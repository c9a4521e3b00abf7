"""What a provider may be given: requests and tokens per minute, and calls at once.

A reservation takes all it needs or nothing. Tokens are reserved by estimate and settled to real usage by the law of
``actors.buckets``. What the provider itself says, by a 429 or in its headers, is believed where it makes us more cautious.
"""

from enum import Enum
from math import isfinite
from typing import NamedTuple

from actors.buckets import Drawn, Rates
from actors.provider.concurrency import LIMIT_FIRST, AdaptiveLimit
from messages.calls import LimitsSeen
from messages.limits import LimitsSpec

BLOCK_S_MAX = 600.0
"""However long a ``Retry-After`` is, after this many s one call finds out."""
SEEN_EMPTY_S_MAX = 2.0
"""Wait after "0 remaining" where we have no bucket of our own: a reset says when the provider's is full again, and the
first request is admitted long before that."""
BACKOFF_S = 1.0
"""Wait after a 429 that names none; doubles with each one in a row."""
BACKOFF_S_MAX = 30.0


class Hindrance(Enum):
    """Why a reservation is refused."""

    CAPACITY = "capacity"
    RATE = "rate"


class Hold(NamedTuple):
    """A refused reservation. ``retry_at`` in s; None: when a call ends, or never."""

    why: Hindrance
    retry_at: float | None
    detail: str
    """Which limit it is and who set it, for people."""


_NOTHING = Drawn(None, None)
_FULL = Hold(Hindrance.CAPACITY, None, "our limit max_concurrency")


class Limits(Rates):
    """All limits of one provider, taken together or not at all."""

    __slots__ = ("adaptive", "blocked_until", "in_flight", "max_concurrency", "refusals_in_a_row", "spec")

    def __init__(self, spec: LimitsSpec, now: float, is_full: bool) -> None:
        super().__init__(spec, now, is_full)
        self.spec = spec
        self.in_flight = 0
        self.blocked_until = 0.0
        """Monotonic s until which the provider itself said it takes nothing."""
        self.max_concurrency = spec.max_concurrency
        """What counts now: as configured, or as ``adaptive`` has found."""
        self.adaptive: AdaptiveLimit | None = None
        if spec.adaptive:
            self.adapt(AdaptiveLimit(now))
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
        late = self.late(tokens, now)
        if late is None or (late.ready_at is not None and late.ready_at < self.blocked_until):
            return Hold(Hindrance.RATE, self.blocked_until, "it said so itself")
        return Hold(Hindrance.RATE, late.ready_at, f"our limit {late.limit}")

    def take(self, tokens: int, now: float) -> Drawn | None:
        """Take what ``hold`` has just said can be taken; what is returned is settled when the call ends."""
        self.in_flight += 1
        return self.draw(tokens, now)

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

    def restore(self, tokens: int) -> Drawn | None:
        """A call that was out before a restart; what it took, it took from the buckets before."""
        self.in_flight += 1
        return self.drawn_before(tokens)

    def release(self) -> None:
        """A call is over. What it has drawn is settled by itself."""
        self.in_flight -= 1

    def block(self, wait_s: float | None, now: float) -> None:
        """The provider refused for its rate limit and named a wait in s, or None."""
        if wait_s is None or not isfinite(wait_s):
            wait_s = min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(self.refusals_in_a_row, 10))
        self.refusals_in_a_row += 1
        self.blocked_until = max(self.blocked_until, now + min(max(0.0, wait_s), BLOCK_S_MAX))

    def answered(self) -> None:
        """The provider took a call: refusals are no longer in a row."""
        self.refusals_in_a_row = 0

    def unblock(self) -> None:
        """Somebody knows better than the provider's last refusal. Buckets stay as they are."""
        self.blocked_until = 0.0
        self.refusals_in_a_row = 0

    def see(self, seen: LimitsSeen, now: float, drawn: Drawn | None = None) -> None:
        """Lower our buckets to what the provider said was left when it took the call of ``drawn``. It never raises them."""
        taken = _NOTHING if drawn is None else drawn
        for bucket, taking, remaining, reset_s in (
            (self.requests, taken.requests, seen.remaining_requests, seen.reset_requests_s),
            (self.tokens, taken.tokens, seen.remaining_tokens, seen.reset_tokens_s),
        ):
            if remaining is None:
                continue
            if bucket is not None:
                bucket.told(float(max(0, remaining)), taking if taking is not None and taking.bucket is bucket else None, now)
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
        self.resize(spec, now)

    def flaw(self) -> str | None:
        """What is broken, or None."""
        if self.adaptive is not None and (flaw := self.adaptive.flaw()) is not None:
            return f"adaptive limit: {flaw}"
        return super().flaw() or (f"{self.in_flight} in flight" if self.in_flight < 0 else None)
