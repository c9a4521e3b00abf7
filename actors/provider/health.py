"""The health score of a provider, 0 to 1.

::

    raw   = 0.5 x success rate + 0.2 x (1 - error rate) + 0.3 x latency term
    score = EWMA of raw (alpha), x ``failures_factor`` while ``failures`` or more have failed in a row

The success rate is of the last ``window_s`` or so and counts a call that was called off too late as no success; the error
rate is an EWMA of failures, so it is quick where the other is steady. The latency term is 1 up to what is normal for the
model and falls to 0 at ``slow_at`` times that: 500 ms is nothing for a language model.

What is known grows old in both directions. After ``stale_windows`` (two) without news the score moves towards ``min_score`` by
``decay`` a window, down from above and up from below, and failures in a row are forgotten: a score never stays bad (or
good) for ever because nobody asked. A good probe lifts it at once. Idle at the start: 1.0.

All constants are of the configuration (``HealthSpec``); those above are the defaults.

Source: FEATURES D5 (weights and thresholds); the way back is ours.
"""

from math import exp, inf

from messages.control import HealthSpec

FADING_STEP = 0.001
"""Share of the window that passes before counts fade by it: many calls at once need no exponential each."""
SLOWNESS_MAX = 100.0
_HAIR = 1e-9
"""Rounding of a score."""
_SLACK = 1e-5
"""Weights that are written with few digits make 1 only nearly."""


class Health:
    """The score and what it is made of. Times in seconds.

    Between two events the score stands still until it is stale, so a bid reads ``steady_score`` and ``is_steady_healthy``
    up to ``steady_until`` and asks ``view`` only after that.
    """

    __slots__ = (
        "_at", "_calls", "_error_rate", "_heard_at", "_in_a_row", "_score", "_slowness", "_step_s",
        "_successes", "alpha", "is_steady_healthy", "spec", "steady_score", "steady_until",
    )  # fmt: skip

    def __init__(self, spec: HealthSpec) -> None:
        self._calls = 0.0
        self._successes = 0.0
        self._at = 0.0
        self._error_rate = 0.0
        self._slowness = 1.0
        self._score = 1.0
        self._in_a_row = 0
        self._heard_at = inf
        """Nothing was ever heard: there is nothing to grow old."""
        self.reconfigure(spec)

    def __repr__(self) -> str:
        return f"score {self._score:.2f}, {self._in_a_row} failures in a row"

    def reconfigure(self, spec: HealthSpec) -> None:
        """New constants; what was learned stays."""
        self.spec = spec
        self._step_s = FADING_STEP * spec.window_s
        self.alpha = min(1.0, max(0.01, spec.ewma_alpha))
        """Weight of a new value in averages, within 0.01–1."""
        self._steady()

    def score(self, now: float) -> float:
        """The score at ``now``. Changes nothing."""
        score = self._fresh_score()
        windows = (now - self._heard_at) / self.spec.window_s - self.spec.stale_windows
        if windows <= 0.0:
            return score
        drift = self.spec.decay * windows
        if score > self.spec.min_score:
            return max(self.spec.min_score, score - drift)
        return min(self.spec.min_score, score + drift)

    @property
    def success_rate(self) -> float:
        """Of the calls in the window, 0 to 1; 1 before the first."""
        return self._successes / self._calls if self._calls else 1.0

    @property
    def error_rate(self) -> float:
        """The moving average of failures, 0 to 1."""
        return self._error_rate

    @property
    def slowness(self) -> float:
        """The moving average of times to first content, as multiples of what is normal."""
        return self._slowness

    @property
    def failures_in_a_row(self) -> int:
        """Since the last success."""
        return self._in_a_row

    def is_healthy(self, now: float) -> bool:
        """From ``min_score``, and with enough calls also from ``min_success_rate``. Changes nothing."""
        return self.view(now)[1]

    def view(self, now: float) -> tuple[float, bool]:
        """The score at ``now`` and whether that is healthy. Changes nothing."""
        if now <= self.steady_until:
            return self.steady_score, self.is_steady_healthy
        score = self.score(now)
        return score, score >= self.spec.min_score - _HAIR and self._has_enough_successes(now)

    def succeeded(self, slowness: float, now: float) -> None:
        """A call ended well. ``slowness``: time to first content as a multiple of what is normal for its model."""
        if slowness > SLOWNESS_MAX:
            slowness = SLOWNESS_MAX
        self._slowness += self.alpha * (slowness - self._slowness)
        self._count(1.0, 0.0, now)

    def failed(self, now: float) -> None:
        """A call failed by the provider's fault."""
        self._count(0.0, 1.0, now)

    def called_off_late(self, now: float) -> None:
        """A call was called off after it should long have answered: no success, but no error either."""
        self._count(0.0, 0.0, now)

    def probed(self, is_good: bool, now: float) -> None:
        """A probe answered. A good one lifts the score and ends a row of failures; it is no call and counts as none."""
        self._settle(now)
        self._score += self.alpha * ((1.0 if is_good else 0.0) - self._score)
        if is_good:
            self._in_a_row = 0
        self._steady()

    def flaw(self) -> str | None:
        """What is broken, or None."""
        return None if -_SLACK <= self._score <= 1.0 + _SLACK else f"score {self._score}"

    def _count(self, success: float, error: float, now: float) -> None:
        alpha, spec, slowness = self.alpha, self.spec, self._slowness
        if now > self.steady_until:
            self._settle(now)
        self._heard_at = now
        # After the look at what has grown old, which forgets a row of failures.
        self._in_a_row = 0 if success else self._in_a_row + 1
        calls, successes = self._calls, self._successes
        passed = now - self._at
        if passed > self._step_s:
            fading = exp(-passed / spec.window_s)
            calls *= fading
            successes *= fading
            self._at = now
        calls = self._calls = calls + 1.0
        successes = self._successes = successes + success
        error_rate = self._error_rate = self._error_rate + alpha * (error - self._error_rate)
        raw = spec.success_weight * successes / calls + spec.error_weight * (1.0 - error_rate)
        if slowness <= 1.0:
            raw += spec.latency_weight
        elif slowness < spec.slow_at:
            raw += spec.latency_weight * (spec.slow_at - slowness) / (spec.slow_at - 1.0)
        self._score += alpha * (raw - self._score)
        self._steady()

    def _settle(self, now: float) -> None:
        """News: what age has made of the score becomes the score."""
        if now - self._heard_at > self.spec.stale_windows * self.spec.window_s:
            self._score = self.score(now)
            self._in_a_row = 0
        self._heard_at = now

    def _steady(self) -> None:
        """Finish what holds until the score grows old. A success rate that is too low fades, so it has no such time."""
        spec, calls, score = self.spec, self._calls, self._score
        if calls < spec.minimum_calls or self._successes >= spec.min_success_rate * calls:
            if self._in_a_row >= spec.failures:
                score *= spec.failures_factor
            self.steady_score = score
            self.is_steady_healthy = score >= spec.min_score - _HAIR
            self.steady_until = self._heard_at + spec.stale_windows * spec.window_s
        else:
            self.steady_until = -inf

    def _fresh_score(self) -> float:
        return self._score * self.spec.failures_factor if self._in_a_row >= self.spec.failures else self._score

    def _has_enough_successes(self, now: float) -> bool:
        # Cheap exit: without a failure in the window the rate is 1, and fading only ever takes calls away.
        if self._calls < self.spec.minimum_calls or self._successes >= self.spec.min_success_rate * self._calls:
            return True
        return self._calls * exp(min(0.0, (self._at - now) / self.spec.window_s)) < self.spec.minimum_calls
