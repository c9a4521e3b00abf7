"""A bounded, decaying histogram of latencies whose p50 and p95 are always at hand.

Buckets are spaced evenly in the logarithm (12 % apart, so a quantile is off by 6 % at most), from 1 ms to half an hour.
Old samples fade by forward decay: a sample at time t weighs ``exp((t - landmark) / tau)``, so nothing needs ageing until
the numbers grow too large. Each quantile keeps the bucket it stands in and the weight below it, and moves a step or two
with each sample; so reading costs nothing and recording O(1) amortised.

Source: Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay: A Practical Time Decay Model for Streaming Systems", ICDE 2009.
"""

from math import exp, log

SMALLEST_S = 0.001
STEP = log(1.12)
BUCKETS = 128
TAU_S = 300.0
"""Seconds after which a sample weighs 1/e of a new one."""

_RESCALE_AT = 50.0
"""In units of tau: exp(50) squared is far from overflow."""
_VALUES = tuple(SMALLEST_S * exp((index + 0.5) * STEP) for index in range(BUCKETS))


class _Pointer:
    """Where one quantile stands: its bucket, and the weight in the buckets below."""

    __slots__ = ("below", "index", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self.index = 0
        self.below = 0.0

    def settle(self, weights: list[float], total: float) -> None:
        """Walk to the bucket in which ``share`` of the weight is reached."""
        goal = self.share * total
        index, below = self.index, self.below
        while index > 0 and below >= goal:
            index -= 1
            below -= weights[index]
        while index < BUCKETS - 1 and below + weights[index] < goal:
            below += weights[index]
            index += 1
        self.index, self.below = index, below


class Quantiles:
    """p50 and p95 (s) of what was recorded lately, and how many samples ever came. 0 before the first."""

    __slots__ = ("_landmark", "_p50", "_p95", "_total", "_weights", "count", "ewma_s", "p50_s", "p95_s")

    def __init__(self) -> None:
        self._weights = [0.0] * BUCKETS
        self._total = 0.0
        self._landmark = 0.0
        self._p50 = _Pointer(0.5)
        self._p95 = _Pointer(0.95)
        self.count = 0
        self.p50_s = 0.0
        self.p95_s = 0.0
        self.ewma_s = 0.0

    def record(self, seconds: float, now: float, alpha: float) -> None:
        """Take a sample of ``seconds`` at ``now`` (s). ``alpha`` (0.01–1) is the weight of a sample in the EWMA."""
        if self.count == 0:
            self._landmark = now
            self.ewma_s = seconds
        elif now - self._landmark > _RESCALE_AT * TAU_S:
            self._rescale(now)
        self.ewma_s += alpha * (seconds - self.ewma_s)
        self.count += 1
        weight = exp((now - self._landmark) / TAU_S)
        index = _bucket(seconds)
        self._weights[index] += weight
        self._total += weight
        for pointer in (self._p50, self._p95):
            if index < pointer.index:
                pointer.below += weight
            pointer.settle(self._weights, self._total)
        self.p50_s = _VALUES[self._p50.index]
        self.p95_s = _VALUES[self._p95.index]

    def _rescale(self, now: float) -> None:
        factor = exp(max(-700.0, (self._landmark - now) / TAU_S))
        self._weights = [weight * factor for weight in self._weights]
        self._total = sum(self._weights)
        self._landmark = now
        for pointer in (self._p50, self._p95):
            pointer.index, pointer.below = 0, 0.0


def _bucket(seconds: float) -> int:
    if seconds <= SMALLEST_S:
        return 0
    return min(BUCKETS - 1, int(log(seconds / SMALLEST_S) / STEP))
