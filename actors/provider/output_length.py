"""How long the answers of a model are: learned from what came, used where a request does not say.

Two guesses run side by side, both in the logarithm: the length itself, and its ratio to ``max_tokens``. Whichever has
deviated less lately is used (some clients ask for exactly what they get, some always ask for 4096).

Source: ROUTING.md, "Output length"; mean and 1.25 x mean absolute deviation as in Jacobson's round-trip estimator, 1988.
"""

from math import exp, log

FIRST_GUESS = 300.0
"""Tokens expected before anything was seen."""
FIRST_RESERVATION = 1000
"""Tokens reserved for an output before anything was seen."""
GAIN = 0.03
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
        self.count += 1
        gain = max(GAIN, 1.0 / self.count)
        if self.count > 1:
            self.deviation += max(GAIN, 1.0 / (self.count - 1)) * (1.25 * abs(value - self.mean) - self.deviation)
        self.mean += gain * (value - self.mean)


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
        return max_tokens * self._share if self._by_ratio else min(float(max_tokens), self.typical)

    def reserve(self, max_tokens: int | None) -> int:
        """Tokens to reserve for the output."""
        return self.upper if max_tokens is None else max_tokens

    def learn(self, output_tokens: int, max_tokens: int | None) -> None:
        """An answer ended well with so many tokens."""
        length = log(max(1, output_tokens))
        self._length.learn(length)
        if max_tokens is not None and max_tokens > 0:
            self._ratio.learn(min(0.0, length - log(max_tokens)))
            self._share = exp(self._ratio.mean)
        self._by_ratio = self._ratio.count > 0 and (self._ratio.count == 1 or self._ratio.deviation < self._length.deviation)
        self.typical = exp(self._length.mean)
        self.upper = max(1, int(exp(min(14.0, self._length.mean + _P90 * min(self._length.deviation, 2.0)))) + 1)
        self.deviation = self._ratio.deviation if self._by_ratio else self._length.deviation
