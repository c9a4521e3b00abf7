"""Buckets: so much per minute, for whoever has limits.

A bucket refills continuously and holds ``burst`` (default: the limit of a whole minute), full at the start and empty after a
restart. A request larger than the bucket is admitted when the bucket is full and leaves a debt.

Always: a bucket holds what it would hold had only what was used been taken, at the moment it was admitted. So no window
admits more than limit x window + burst, by any interleaving of takes and ends. Giving back the unused part of a reservation
at its end would break that: what the bucket has refilled since would have overflowed had the part been in it. So each taking
that is open knows the least room there was in the bucket between it and the next one; no more than that comes back.
What was used beyond the estimate is charged when it is known.

Source: the token bucket of Turner, "New directions in communications", 1986; debt as in Guava's ``SmoothBursty``.
"""

from math import isfinite
from typing import NamedTuple

from messages.base import acyclic
from messages.limits import LimitsSpec

REQUESTS, TOKENS = "requests_per_minute", "tokens_per_minute"

TIGHT_SHARE = 0.8
"""Of a limit: who has used more of it is spared second calls."""
AMPLE_S = 3.0
"""With what flows in within so many seconds, or more, a bucket has enough for any burst."""
_HAIR = 1e-6
"""Rounding, as a share of a bucket: what is taken by it stays on the books as debt."""


class Taking:
    """So much, taken from a bucket and not settled yet; one of a chain from the oldest to the newest."""

    __slots__ = ("amount", "bucket", "left", "newer", "older", "room")

    def __init__(
        self, bucket: "Bucket", amount: float, room: float, older: "Taking | None" = None, left: float | None = None
    ) -> None:
        self.bucket = bucket
        self.amount = amount
        self.left = left
        """What was in the bucket after it, had nobody ever said that there was less (``Bucket.told``); None: nobody knows."""
        self.room = room
        """The least there was in the bucket after this taking and before the next."""
        self.older = older
        self.newer: Taking | None = None

    def settle(self, used: float, now: float) -> None:
        """So much of it was used. Once."""
        self.bucket.settle(self, used, now)


class Bucket:
    """``level`` as of ``at`` (s); fills by ``rate_per_s`` up to ``size``; below zero it is a debt."""

    __slots__ = ("_newest", "_untold", "at", "ease", "level", "rate_per_s", "size")

    def __init__(self, size: float, rate_per_s: float, now: float, is_full: bool) -> None:
        self.size = size
        self.rate_per_s = rate_per_s
        self.ease = _ease(size, rate_per_s)
        """With so much in it nobody need be sparing."""
        self.level = size if is_full else 0.0
        self.at = now
        self._newest: Taking | None = None
        self._untold = 0.0
        """How much fuller it would be had nobody ever said that there was less in it."""

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

    def take(self, amount: float, now: float) -> Taking:
        """Take ``amount``, into debt if need be."""
        self._refill(now)
        self.level = level = self.level - amount
        older = self._newest
        self._newest = taking = Taking(self, amount, self.size - level, older, level + self._untold)
        if older is not None:
            older.newer = taking
        return taking

    def taken_before(self, amount: float) -> Taking:
        """What was taken before a restart: nobody knows how full the bucket was since, so nothing of it comes back."""
        return Taking(self, amount, 0.0)

    def settle(self, taking: Taking, used: float, now: float) -> None:
        """The end of a taking. Takes a step for each younger one that is open, none if the bucket was full meanwhile."""
        self._refill(now)
        unused = taking.amount - used
        self.level += self._coming_back(taking, unused) if unused > 0.0 else unused
        older, newer = taking.older, taking.newer
        if older is not None:
            older.newer = newer
            if taking.room < older.room:
                older.room = taking.room
        if newer is not None:
            newer.older = older
        elif self._newest is taking:
            self._newest = older

    def lower_to(self, level: float, now: float) -> None:
        """There is no more than ``level`` in it."""
        self._refill(now)
        if level < self.level:
            self.level = level

    def told(self, remaining: float, taking: Taking | None, now: float) -> None:
        """Whoever keeps the real bucket says that ``remaining`` were left in it when it had admitted ``taking``.

        That is some time ago, so it is compared with what was here then: what was refilled and taken since holds for both. Only
        if it is less it is believed. ``taking`` None: it holds now.
        """
        if taking is None or taking.left is None:
            self.lower_to(remaining, now)
            return
        beyond = taking.left - self._untold - remaining
        if beyond > 0.0:
            self._refill(now)
            self.level -= beyond
            self._untold += beyond

    def resize(self, size: float, rate_per_s: float, now: float) -> None:
        """Live under another limit with what is in it; what is over the new size is lost."""
        self._refill(now)
        self.size, self.rate_per_s, self.ease = size, rate_per_s, _ease(size, rate_per_s)
        self._refill(now)

    def flaw(self) -> str | None:
        """What is broken, or None."""
        if not isfinite(self.level) or self.level > self.size * (1 + _HAIR):
            return f"level {self.level} of {self.size}"
        return None

    def _refill(self, now: float) -> None:
        level, newest = self.level, self._newest
        if now > self.at:
            level += (now - self.at) * self.rate_per_s
            self.at = now
        self.level = level = level if level < self.size else self.size
        if newest is not None and self.size - level < newest.room:
            newest.room = self.size - level

    @staticmethod
    def _coming_back(taking: Taking, amount: float) -> float:
        """How much fuller the bucket would be by now if ``amount`` had stayed in it, which the chain is told too."""
        at: Taking | None = taking
        while at is not None and amount > 0.0:
            room = at.room
            if room < amount:
                at.room, amount = 0.0, room
            else:
                at.room = room - amount
            at = at.newer
        return amount


def _ease(size: float, rate_per_s: float) -> float:
    return max((1.0 - TIGHT_SHARE) * size, min(size, AMPLE_S * rate_per_s))


@acyclic
class Drawn:
    """What one call has taken of both buckets; None of one that is no limit."""

    __slots__ = ("requests", "tokens")

    def __init__(self, requests: Taking | None, tokens: Taking | None) -> None:
        self.requests = requests
        self.tokens = tokens

    def settle(self, used: int | None, now: float) -> None:
        """The call used so many tokens; None: nothing was sent, so that the request was not used either. Once."""
        if self.requests is not None:
            self.requests.settle(0.0 if used is None else 1.0, now)
        if self.tokens is not None:
            self.tokens.settle(0.0 if used is None else float(used), now)

    def forget(self, now: float) -> None:
        """The call's end was lost: all that was reserved counts as used. Instead of ``settle``."""
        for taking in (self.requests, self.tokens):
            if taking is not None:
                taking.settle(taking.amount, now)


class Late(NamedTuple):
    """The limit that is the last to have enough, and when (s); None: never."""

    limit: str
    ready_at: float | None


class Rates:
    """Requests and tokens per minute, taken together or not at all. A bucket is None where that is no limit."""

    __slots__ = ("requests", "tokens")

    def __init__(self, spec: LimitsSpec, now: float, is_full: bool) -> None:
        requests, tokens = _request_sizes(spec), _token_sizes(spec)
        self.requests = None if requests is None else Bucket(*requests, now, is_full)
        self.tokens = None if tokens is None else Bucket(*tokens, now, is_full)

    def late(self, tokens: int, now: float) -> Late | None:
        """What one request of ``tokens`` must wait for; None: it can be taken at ``now``. Changes nothing."""
        found: Late | None = None
        for limit, bucket, amount in ((REQUESTS, self.requests, 1.0), (TOKENS, self.tokens, float(tokens))):
            if bucket is None:
                continue
            ready = bucket.ready_at(amount, now)
            if ready is None:
                return Late(limit, None)
            if ready > now and (found is None or found.ready_at is None or ready > found.ready_at):
                found = Late(limit, ready)
        return found

    def draw(self, tokens: int, now: float) -> Drawn | None:
        """Take one request of ``tokens``, after ``late`` said that it can be. None: nothing is limited."""
        requests, bucket = self.requests, self.tokens
        if requests is None and bucket is None:
            return None
        return Drawn(
            None if requests is None else requests.take(1.0, now),
            None if bucket is None else bucket.take(float(tokens), now),
        )

    def drawn_before(self, tokens: int) -> Drawn | None:
        """What a call had taken before a restart."""
        requests, bucket = self.requests, self.tokens
        if requests is None and bucket is None:
            return None
        return Drawn(
            None if requests is None else requests.taken_before(1.0),
            None if bucket is None else bucket.taken_before(float(tokens)),
        )

    def empty_after(self, before: "Rates", now: float) -> None:
        """Begin after a restart: nobody knows what was in the buckets, but the debts are still owed."""
        for bucket, old in ((self.requests, before.requests), (self.tokens, before.tokens)):
            if bucket is not None:
                bucket.lower_to(0.0, now)
                if old is not None and old.flaw() is None:
                    bucket.lower_to(old.level_at(now), now)

    def resize(self, spec: LimitsSpec, now: float) -> None:
        """Live under other limits with what is in the buckets. One that is new starts full."""
        self.requests = _resized(self.requests, _request_sizes(spec), now)
        self.tokens = _resized(self.tokens, _token_sizes(spec), now)

    def flaw(self) -> str | None:
        """What is broken, or None."""
        for limit, bucket in ((REQUESTS, self.requests), (TOKENS, self.tokens)):
            if bucket is not None and (flaw := bucket.flaw()) is not None:
                return f"{limit}: {flaw}"
        return None


def _request_sizes(spec: LimitsSpec) -> tuple[float, float] | None:
    """Size and rate (1/s) of the bucket."""
    limit = spec.requests_per_minute
    return None if limit is None else (limit if spec.burst is None else spec.burst, limit / 60.0)


def _token_sizes(spec: LimitsSpec) -> tuple[float, float] | None:
    """As of the requests' bucket, with a burst in proportion to its."""
    limit = spec.tokens_per_minute
    if limit is None:
        return None
    share = 1.0 if spec.burst is None or not spec.requests_per_minute else spec.burst / spec.requests_per_minute
    return limit * share, limit / 60.0


def _resized(bucket: Bucket | None, sizes: tuple[float, float] | None, now: float) -> Bucket | None:
    if sizes is None:
        return None
    if bucket is None:
        return Bucket(*sizes, now, is_full=True)
    bucket.resize(*sizes, now)
    return bucket
