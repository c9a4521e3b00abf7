"""A bounded, decaying histogram of latencies whose p50 and p95 are always at hand.

Buckets are spaced evenly in the logarithm (12 % apart, so a quantile is off by 6 % at most), from 1 ms to half an hour.
Old samples fade by forward decay: a sample at time t weighs ``exp((t - landmark) / tau)``, so nothing needs ageing until
the numbers grow too large. Each quantile keeps the bucket it stands in and the weight below it, and moves a step or two
when samples are put in; so reading costs nothing and recording O(1) amortised.

Under load a single sample moves a quantile little, so samples that come within ``TOGETHER_S`` are put in together, with one
weight: p50 and p95 may lack up to ``TOGETHER`` - 1 of them. The first ``SINGLY`` are put in as they come, and so is one that
comes later than ``TOGETHER_S`` after those before. Count, EWMA and peak are always exact.

The peak believes bad news at once and good news slowly: a sample above it becomes it; one below moves it by the share
1 - exp(-t / ``PEAK_TAU_S``), t since the sample before. Without samples it fades to nothing, so that who was slow once and
has been left alone since is tried again.

Sources: Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay: A Practical Time Decay Model for Streaming Systems", ICDE 2009.
Peak EWMA: Finagle's load balancers, ``PeakEwma`` (there tau is 10 s, for calls of milliseconds).
"""

from collections.abc import Sequence
from math import exp, floor, log

SMALLEST_S = 0.001
STEP = log(1.12)
BUCKETS = 128
TAU_S = 300.0
"""Seconds after which a sample weighs 1/e of a new one."""
TOGETHER = 16
TOGETHER_S = 1.0
SINGLY = 16
PEAK_TAU_S = 30.0
"""Seconds in which the peak goes 63 % of the way to faster samples, or to nothing without any."""
PEAK_STILL_S = 1.0
"""So long after a sample the peak is read as it is, 3 % high at most: a bid under traffic needs no exponential."""

_RESCALE_AT = 50.0
"""In units of tau: exp(50) squared is far from overflow."""
_VALUES = tuple(SMALLEST_S * exp((index + 0.5) * STEP) for index in range(BUCKETS))


def _bucket_of(seconds: float) -> int:
    """Bucket ``i`` is from SMALLEST_S x e^(i x STEP) on; the first and the last have what is beyond them too."""
    if seconds <= SMALLEST_S:
        return 0
    index = floor(log(seconds / SMALLEST_S) / STEP)
    return index if index < BUCKETS else BUCKETS - 1


class _Pointer:
    """Where one quantile stands: its bucket, and the weight in the buckets below."""

    __slots__ = ("below", "index", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self.index = 0
        self.below = 0.0

    def settle(self, weights: Sequence[float], total: float) -> None:
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

    __slots__ = (
        "_landmark", "_p50", "_p95", "_pending", "_since", "_total", "_weights", "count", "ewma_s", "p50_s", "p95_s",
        "peak_s", "peak_until",
    )  # fmt: skip

    def __init__(self) -> None:
        self._weights = [0.0] * BUCKETS
        self._total = 0.0
        self._landmark = 0.0
        self._p50 = _Pointer(0.5)
        self._p95 = _Pointer(0.95)
        self._pending: list[float] = []
        """Samples not yet put in; they came within ``TOGETHER_S`` of ``_since``."""
        self._since = float("-inf")
        self.count = 0
        self.p50_s = 0.0
        self.p95_s = 0.0
        self.ewma_s = 0.0
        self.peak_s = 0.0
        """As of the last sample; it holds until ``peak_until``, later ``peak_at`` tells."""
        self.peak_until = 0.0

    def record(self, seconds: float, now: float, alpha: float) -> None:
        """Take a sample of ``seconds`` at ``now`` (s). ``alpha`` (0.01–1) is the weight of a sample in the EWMA."""
        count = self.count = self.count + 1
        if count == 1:
            self._landmark = now
            self.ewma_s = seconds
        else:
            self.ewma_s += alpha * (seconds - self.ewma_s)
        if seconds >= self.peak_s:
            self.peak_s = seconds
        elif (passed := now - self.peak_until + PEAK_STILL_S) > 0.0:
            self.peak_s = seconds + (self.peak_s - seconds) * exp(-passed / PEAK_TAU_S)
        self.peak_until = now + PEAK_STILL_S
        pending = self._pending
        if now - self._since > TOGETHER_S:
            self._fold()
            self._since = now
            pending.append(seconds)
            self._fold()
        else:
            pending.append(seconds)
            if len(pending) >= TOGETHER or count <= SINGLY:
                self._fold()

    def peak_at(self, now: float) -> float:
        """The peak (s) as of ``now`` (s). Changes nothing."""
        if now <= self.peak_until:
            return self.peak_s
        return self.peak_s * exp((self.peak_until - PEAK_STILL_S - now) / PEAK_TAU_S)

    def weights_at(self, now: float) -> list[float]:
        """The weight of each bucket, where a sample of ``now`` (s) weighs 1."""
        self._fold()
        fading = exp(max(-700.0, (self._landmark - now) / TAU_S))
        return [weight * fading for weight in self._weights]

    def _fold(self) -> None:
        pending = self._pending
        if not pending:
            return
        if self._since - self._landmark > _RESCALE_AT * TAU_S:
            self._rescale(self._since)
        weights, p50, p95 = self._weights, self._p50, self._p95
        weight = exp((self._since - self._landmark) / TAU_S)
        for seconds in pending:
            index = _bucket_of(seconds)
            # Not in place: compiled, that would be an addition of objects.
            weights[index] = weights[index] + weight
            if index < p95.index:
                p95.below += weight
                if index < p50.index:
                    p50.below += weight
        self._total += weight * len(pending)
        pending.clear()
        p50.settle(weights, self._total)
        p95.settle(weights, self._total)
        self.p50_s = _VALUES[p50.index]
        self.p95_s = _VALUES[p95.index]

    def _rescale(self, now: float) -> None:
        factor = exp(max(-700.0, (self._landmark - now) / TAU_S))
        self._weights = [weight * factor for weight in self._weights]
        self._total = sum(self._weights)
        self._landmark = now
        for pointer in (self._p50, self._p95):
            pointer.index, pointer.below = 0, 0.0


def p50_and_p95_s(parts: Sequence[Quantiles], now: float) -> tuple[float, float]:
    """Both quantiles (s) of all that went into ``parts``, as of ``now`` (s); zeros if nothing did. Not for the hot path."""
    weights = [sum(column) for column in zip(*(part.weights_at(now) for part in parts if part.count), strict=True)]
    total = sum(weights)
    if total <= 0.0:
        return 0.0, 0.0
    p50, p95 = _Pointer(0.5), _Pointer(0.95)
    p50.settle(weights, total)
    p95.settle(weights, total)
    return _VALUES[p50.index], _VALUES[p95.index]
