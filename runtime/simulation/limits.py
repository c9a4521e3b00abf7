"""The rate limits of a simulated provider: buckets that refill continuously, and the headers that tell of them."""

import math
from dataclasses import dataclass

from runtime.simulation.behaviour import Behaviour

HeaderPairs = tuple[tuple[str, str], ...]

_ROUNDING = 1e-9
"""A bucket this close to enough has enough: refilling in floating point must not cost a second 429."""


class Bucket:
    """Holds ``burst_s`` seconds of its rate, full at first. Times in seconds.

    A demand larger than the bucket is met when the bucket is full, and leaves a debt.
    """

    __slots__ = ("_at", "_level", "limit_per_minute", "rate", "size")

    def __init__(self, limit_per_minute: float, burst_s: float, now: float) -> None:
        self.limit_per_minute = limit_per_minute
        self.rate = limit_per_minute / 60.0
        self.size = max(1.0, self.rate * burst_s)
        self._level = self.size
        self._at = now

    def level(self, now: float) -> float:
        """What is in it; below 0: a debt."""
        self._level = min(self.size, self._level + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        return self._level

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` can be taken; 0: now. Takes nothing."""
        missing = min(amount, self.size) - self.level(now)
        return missing / self.rate if missing > _ROUNDING else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take ``amount``; the caller has made sure that ``wait_s`` is 0."""
        self._level = self.level(now) - amount

    def full_in_s(self, now: float) -> float:
        """Seconds until it is full."""
        return (self.size - self.level(now)) / self.rate


@dataclass(frozen=True, slots=True)
class Excess:
    """A call that is over a limit."""

    limit: str
    """``requests`` or ``tokens``: the one that is reached, the longer wait if both are."""
    wait_s: float
    """Seconds until the same call would be let in."""


class Limits:
    """Requests and tokens per minute of one provider, taken together or not at all."""

    __slots__ = ("_buckets",)

    def __init__(self, behaviour: Behaviour, now: float) -> None:
        limits = {"requests": behaviour.requests_per_minute, "tokens": behaviour.tokens_per_minute}
        self._buckets = {what: Bucket(limit, behaviour.burst_s, now) for what, limit in limits.items() if limit is not None}

    def take(self, tokens: int, now: float) -> Excess | None:
        """Take one request of ``tokens``; if that is too much, take nothing and say for how long."""
        amounts = {"requests": 1, "tokens": tokens}
        waits = {what: bucket.wait_s(amounts[what], now) for what, bucket in self._buckets.items()}
        longest = max(waits, key=lambda what: waits[what], default="")
        if longest and waits[longest] > 0:
            return Excess(longest, waits[longest])
        for what, bucket in self._buckets.items():
            bucket.take(amounts[what], now)
        return None

    def headers(self, now: float) -> HeaderPairs:
        """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` for the limits there are."""
        pairs: list[tuple[str, str]] = []
        for what, bucket in self._buckets.items():
            pairs.append((f"x-ratelimit-limit-{what}", str(int(bucket.limit_per_minute))))
            pairs.append((f"x-ratelimit-remaining-{what}", str(max(0, int(bucket.level(now))))))
            pairs.append((f"x-ratelimit-reset-{what}", written(bucket.full_in_s(now))))
        return tuple(pairs)

    def remaining(self, now: float) -> dict[str, float]:
        """What is left in each bucket."""
        return {what: round(bucket.level(now), 3) for what, bucket in self._buckets.items()}


def written(seconds: float) -> str:
    """A duration as OpenAI writes it in ``x-ratelimit-reset-*``: ``20ms``, ``1.5s``, ``6m0s``. Rounded up to 1 ms."""
    ms = math.ceil(round(seconds * 1000, 6))
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    return f"{f'{minutes}m' if minutes else ''}{rest_ms / 1000:g}s"


def retry_headers(wait_s: float) -> HeaderPairs:
    """``Retry-After`` in whole seconds, rounded up, and ``retry-after-ms`` for those who read it."""
    return (("Retry-After", str(max(1, math.ceil(wait_s)))), ("retry-after-ms", str(max(1, math.ceil(wait_s * 1000)))))
