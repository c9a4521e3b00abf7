"""Calls and failures of the last so many seconds, in ten slices: O(1) to record, bounded for ever."""

SLICES = 10


class RateWindow:
    """A sliding count over ``window_s`` seconds, exact to a tenth of the window."""

    __slots__ = ("_calls", "_failures", "_slice", "_slice_s")

    def __init__(self, window_s: float) -> None:
        self._slice_s = max(window_s, 0.001) / SLICES
        self._calls = [0] * SLICES
        self._failures = [0] * SLICES
        self._slice: int | None = None

    def record(self, is_failure: bool, now: float) -> None:
        """Count one call that ended at ``now`` (s)."""
        place = self._turn(now)
        self._calls[place] += 1
        if is_failure:
            self._failures[place] += 1

    def totals(self, now: float) -> tuple[int, int]:
        """Calls and failures within the window."""
        self._turn(now)
        return sum(self._calls), sum(self._failures)

    def _turn(self, now: float) -> int:
        current = int(now // self._slice_s)
        if self._slice is None:
            self._slice = current
        for passed in range(min(SLICES, current - self._slice)):
            place = (self._slice + 1 + passed) % SLICES
            self._calls[place] = self._failures[place] = 0
        self._slice = max(self._slice, current)
        return self._slice % SLICES
