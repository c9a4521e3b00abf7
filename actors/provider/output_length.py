"""How long the answers of a model are: learned from what came, used where a request does not say.

Two guesses run side by side, both in the logarithm: the length itself, and its ratio to ``max_tokens``. Whichever has
deviated less lately is used (some clients ask for exactly what they get, some always ask for 4096).

Source: ROUTING.md, "Output length"; mean and 1.25 x mean absolute deviation as in Jacobson's round-trip estimator, 1988.
"""

from math import exp, floor, log

FIRST_GUESS = 300.0
"""Tokens expected before anything was seen."""
FIRST_RESERVATION = 1000
"""Tokens reserved for an output before anything was seen."""
GAIN = 0.03
STEADY = 34
"""Values after which every gain is ``GAIN``; then one value changes so little that every fourth finishes the guess."""
_P90 = 1.2816
"""Standard deviations from mean to p90 of a normal distribution."""


class _Track:
    """Mean and deviation of one logarithm."""

    __slots__ = ("count", "deviation", "mean")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.deviation = 1.0

    def learn(self, value: float) -> None:
        """Take one value."""
        count = self.count = self.count + 1
        error = value - self.mean
        if count > STEADY:
            self.mean += GAIN * error
            self.deviation += GAIN * (1.25 * (error if error > 0.0 else -error) - self.deviation)
            return
        self.mean += max(GAIN, 1.0 / count) * error
        if count > 1:
            self.deviation += max(GAIN, 1.0 / (count - 1)) * (1.25 * abs(error) - self.deviation)


class OutputLength:
    """Expected output of one model, in tokens."""

    __slots__ = ("_by_ratio", "_length", "_ratio", "_share", "deviation", "typical", "upper")

    def __init__(self) -> None:
        self._length = _Track()
        self._ratio = _Track()
        self._share = 1.0
        self._by_ratio = False
        self.typical = FIRST_GUESS
        self.upper = FIRST_RESERVATION
        """About the p90: what to reserve for a request that names no ``max_tokens``."""
        self.deviation = 0.5
        """Of the guess in use, as a logarithm."""

    def expected(self, max_tokens: int | None) -> float:
        """Tokens a request with this ``max_tokens`` will probably get."""
        if max_tokens is None:
            return self.typical
        if self._by_ratio:
            return max_tokens * self._share
        most = float(max_tokens)
        return most if most < self.typical else self.typical

    def learn(self, output_tokens: int, max_tokens: int | None) -> None:
        """An answer ended well with so many tokens."""
        by_length, by_ratio = self._length, self._ratio
        length = log(float(output_tokens)) if output_tokens > 1 else 0.0
        by_length.learn(length)
        if max_tokens is not None and max_tokens > 0:
            ratio = length - log(float(max_tokens))
            by_ratio.learn(ratio if ratio < 0.0 else 0.0)
        if by_length.count <= STEADY or by_length.count % 4 == 0:
            self._finish()

    def _finish(self) -> None:
        by_length, by_ratio = self._length, self._ratio
        spread = by_length.deviation
        self.typical = exp(by_length.mean)
        upper = by_length.mean + _P90 * (spread if spread < 2.0 else 2.0)
        self.upper = floor(exp(upper if upper < 14.0 else 14.0)) + 1
        self._share = exp(by_ratio.mean)
        self._by_ratio = by_ratio.count == 1 or (by_ratio.count > 1 and by_ratio.deviation < spread)
        self.deviation = by_ratio.deviation if self._by_ratio else spread
