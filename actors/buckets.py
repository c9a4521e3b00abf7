"""Buckets: so much per minute, for whoever has limits.

Buckets refill continuously. A bucket holds ``burst`` (default: the limit of a whole minute), full at the start and empty
after a restart, so that no window admits more than limit x window + burst. A request larger than the bucket is admitted
when the bucket is full and leaves a debt. What comes back never fills a bucket above its size.

Source: the token bucket of Turner, "New directions in communications", 1986; debt as in Guava's ``SmoothBursty``.
"""

from math import isfinite

from messages.limits import LimitsSpec

_HAIR = 1e-6
"""Rounding, as a share of a bucket: what is taken by it stays on the books as debt."""


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


def request_bucket(spec: LimitsSpec, now: float, is_full: bool) -> Bucket | None:
    """The bucket of ``spec.requests_per_minute``; None where that is no limit."""
    limit = spec.requests_per_minute
    if limit is None:
        return None
    return Bucket(limit if spec.burst is None else spec.burst, limit / 60.0, now, is_full)


def token_bucket(spec: LimitsSpec, now: float, is_full: bool) -> Bucket | None:
    """The bucket of ``spec.tokens_per_minute``, with a burst in proportion to the requests'; None where that is no limit."""
    limit = spec.tokens_per_minute
    if limit is None:
        return None
    share = 1.0 if spec.burst is None or not spec.requests_per_minute else spec.burst / spec.requests_per_minute
    return Bucket(limit * share, limit / 60.0, now, is_full)


def resized(old: Bucket | None, new: Bucket | None, now: float) -> Bucket | None:
    """``new`` with what is in ``old``; a limit that is new keeps what it starts with."""
    if new is not None and old is not None:
        new.lower_to(old.level_at(now), now)
    return new
