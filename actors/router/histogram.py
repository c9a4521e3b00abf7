"""A small histogram of durations in microseconds: fixed memory, quantiles within five percent.

Buckets grow by the factor 1.1, as in DDSketch (Masson et al., VLDB 2019), with a fixed range instead of collapsing.
"""

from math import log, sqrt

GROWTH = 1.1
_SCALE = 1.0 / log(GROWTH)
_BUCKETS = 200
"""1.1 ** 200 µs is more than three minutes; what is longer counts as that."""


class Histogram:
    """Counts durations; tells quantiles."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.total = 0

    def add(self, duration_us: float) -> None:
        """Count one duration in µs; below one it counts as one."""
        index = int(log(duration_us) * _SCALE) if duration_us > 1.0 else 0
        if index >= _BUCKETS:
            index = _BUCKETS - 1
        # Not in place: compiled, that would be an addition of objects.
        self._counts[index] = self._counts[index] + 1
        self.total += 1

    def quantile(self, share: float) -> float:
        """The duration in µs that ``share`` (0–1) of the counted ones do not exceed; 0.0 if there are none."""
        if not self.total:
            return 0.0
        left = share * self.total
        for index, count in enumerate(self._counts):
            left -= count
            if count and left <= 0:
                return float(GROWTH**index * sqrt(GROWTH))
        return float(GROWTH**_BUCKETS)
