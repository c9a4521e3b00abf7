"""The health score of a provider, 0 to 1.

::

    raw   = 0.5 x success rate + 0.2 x (1 - error rate) + 0.3 x latency term
    score = EWMA of raw (alpha), x 0.5 while ``failures`` or more have failed in a row

The success rate is of the last ``window_s`` or so and counts a call that was called off too late as no success; the error
rate is an EWMA of failures, so it is quick where the other is steady. The latency term is 1 up to what is normal for the
model and falls to 0 at ``slow_at`` times that: 500 ms is nothing for a language model.

What is known grows old in both directions. After two windows without news the score moves towards ``min_score`` by
``decay`` a window, down from above and up from below, and failures in a row are forgotten: a score never stays bad (or
good) for ever because nobody asked. A good probe lifts it at once. Idle at the start: 1.0.

Source: FEATURES D5 (weights and thresholds); the way back is ours.
"""

from dataclasses import dataclass
from math import exp, inf

from messages.control import HealthSpec

STALE_WINDOWS = 2.0
ENOUGH_CALLS = 20.0
"""Calls in the window from which ``min_success_rate`` counts: one bad call of three says little."""


@dataclass(frozen=True, slots=True)
class HealthWeights:
    """What the three terms weigh, and at how many times the normal latency its term is 0."""

    success: float = 0.5
    error: float = 0.2
    latency: float = 0.3
    slow_at: float = 4.0
    after_failures: float = 0.5


WEIGHTS = HealthWeights()


class Health:
    """The score and what it is made of. Times in seconds."""

    __slots__ = (
        "_alpha", "_at", "_calls", "_error_rate", "_heard_at", "_in_a_row", "_score", "_slowness", "_successes",
        "spec", "weights",
    )  # fmt: skip

    def __init__(self, spec: HealthSpec, weights: HealthWeights = WEIGHTS) -> None:
        self.weights = weights
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

    @property
    def alpha(self) -> float:
        """Weight of a new value in averages, within 0.01–1."""
        return self._alpha

    def reconfigure(self, spec: HealthSpec) -> None:
        """New constants; what was learned stays."""
        self.spec = spec
        self._alpha = min(1.0, max(0.01, spec.ewma_alpha))

    def score(self, now: float) -> float:
        """The score at ``now``. Changes nothing."""
        score = self._score
        windows = (now - self._heard_at) / self.spec.window_s - STALE_WINDOWS
        if windows <= 0.0:
            return score * self.weights.after_failures if self._in_a_row >= self.spec.failures else score
        drift = self.spec.decay * windows
        if self._in_a_row >= self.spec.failures:
            score *= self.weights.after_failures
        if score > self.spec.min_score:
            return max(self.spec.min_score, score - drift)
        return min(self.spec.min_score, score + drift)

    def is_healthy(self, now: float) -> bool:
        """From ``min_score``, and with enough calls also from ``min_success_rate``. Changes nothing."""
        return self.view(now)[1]

    def view(self, now: float) -> tuple[float, bool]:
        """The score at ``now`` and whether that is healthy. Changes nothing."""
        score = self.score(now)
        return score, score >= self.spec.min_score - 1e-9 and self._has_enough_successes(now)

    def _has_enough_successes(self, now: float) -> bool:
        # Cheap exit: without a failure in the window the rate is 1, and fading only ever takes calls away.
        if self._calls < ENOUGH_CALLS or self._successes >= self.spec.min_success_rate * self._calls:
            return True
        return self._calls * self._fading(now) < ENOUGH_CALLS

    def succeeded(self, slowness: float, now: float) -> None:
        """A call ended well. ``slowness``: time to first content as a multiple of what is normal for its model."""
        self._in_a_row = 0
        self._slowness += self._alpha * (max(0.0, min(slowness, 100.0)) - self._slowness)
        self._count(1.0, 0.0, now)

    def failed(self, now: float) -> None:
        """A call failed by the provider's fault."""
        self._in_a_row += 1
        self._count(0.0, 1.0, now)

    def called_off_late(self, now: float) -> None:
        """A call was called off after it should long have answered: no success, but no error either."""
        self._in_a_row += 1
        self._count(0.0, 0.0, now)

    def probed(self, is_good: bool, now: float) -> None:
        """A probe answered. A good one lifts the score and ends a row of failures; it is no call and counts as none."""
        self._settle(now)
        self._score += self._alpha * ((1.0 if is_good else 0.0) - self._score)
        if is_good:
            self._in_a_row = 0

    def _count(self, success: float, error: float, now: float) -> None:
        self._settle(now)
        fading = self._fading(now)
        self._calls = self._calls * fading + 1.0
        self._successes = self._successes * fading + success
        self._at = max(self._at, now)
        self._error_rate += self._alpha * (error - self._error_rate)
        self._score += self._alpha * (self._raw() - self._score)

    def _settle(self, now: float) -> None:
        """News: what age has made of the score becomes the score."""
        if now - self._heard_at > STALE_WINDOWS * self.spec.window_s:
            self._score = self.score(now)
            self._in_a_row = 0
        self._heard_at = now

    def _fading(self, now: float) -> float:
        return exp(min(0.0, (self._at - now) / self.spec.window_s))

    def _raw(self) -> float:
        weights = self.weights
        excess = max(0.0, self._slowness - 1.0) / max(1e-9, weights.slow_at - 1.0)
        return (
            weights.success * self._successes / self._calls
            + weights.error * (1.0 - self._error_rate)
            + weights.latency * (1.0 - min(excess, 1.0))
        )

    def flaw(self) -> str | None:
        """What is broken, or None."""
        return None if 0.0 <= self._score <= 1.0 else f"score {self._score}"
