"""How the time to first content of a model depends on the length of the prompt: whoever reads a long one takes longer.

A provider reads the whole prompt before it writes (prefill), at so many tokens a second. With P the tokens of a prompt, as the
request is estimated, and P0 their mean, a time to first content is taken for::

    F(P) = F (1 + r (P - P0)),      0 <= r <= 0.9 / P0

F is the estimate for a prompt of P0, which ``evidence`` learns; here only r is learned, a share of F for each token. So a
provider that is slow for a while reads slowly too, and where times do not depend on prompts r is 0 and F(P) is F, exactly.

r is the slope of y = x / F over P, by regression; x is the time to first content, or what an answer that was no stream took
without its output. Noise is a share of what is expected, so a sample weighs (F / expected)^2: the times of long prompts and of
long answers tell little. Each is taken for ``FAR`` times more or less than expected at most, so that a slow spell is no slope.
Sums fade by 2 % with each sample. With n <= 50 the weight of all, and c^2 the share of the variance of y the slope explains::

    least = 6 / (n + 4)                     what chance alone explains once in a hundred looks (t^2 = 6), a tenth or more
    r = slope / mean y, times min(1, c^2 / least - 1); 0 below ``least``, and while prompts are all alike

Beyond the longest and the shortest prompt that were seen lately nothing is extrapolated. P0 moves with the mean of the prompts,
and whoever has F is told by how much F changes with it.

Sources: Splitwise (ISCA 2024), DistServe (OSDI 2024): prefill and decode, time to first token growing with the prompt.
Weighted least squares; exponentially weighted mean and covariance as in West, CACM 1979.
"""

WEIGHT_MAX = 50.0
"""Of all samples together: the weight of those before fades by 2 % with each."""
SAMPLES_MIN = 20.0
SPREAD_MIN = 0.2
"""Deviation of the prompts as a share of their mean, below which they are alike."""
T_SQUARED = 6.0
SHARE_MAX = 0.9
"""Of the time for the mean prompt, that reading it takes at most: an empty prompt takes a tenth of it."""
FAR = 4.0
FADING = 0.001
"""By so much the longest and the shortest prompt come nearer to the mean with each sample."""
EACH = 4
"""So many samples go by before the slope is worked out again."""


class Prefill:
    """The dependence of one model's first content on prompts. Tokens; times as shares of F."""

    __slots__ = (
        "_both",
        "_count",
        "_longest",
        "_prompt",
        "_shortest",
        "_spread",
        "_time",
        "_times",
        "_weight",
        "flat",
        "slope",
    )

    def __init__(self) -> None:
        self.slope = 0.0
        """r. 0: prompts make no difference, as far as is known."""
        self.flat = 1.0
        """1 - r P0."""
        self._shortest = self._longest = 0.0
        self._count = 0
        self._weight = 0.0
        self._prompt = self._time = 0.0
        self._spread = self._times = self._both = 0.0
        """Means of P and y, their variances, their covariance."""

    def scale(self, prompt_tokens: int) -> float:
        """F(P) / F."""
        tokens = float(prompt_tokens)
        if tokens > self._longest:
            tokens = self._longest
        elif tokens < self._shortest:
            tokens = self._shortest
        return self.flat + self.slope * tokens

    def learn(self, prompt_tokens: int, idle_s: float, output_s: float, scale: float, seconds: float) -> float:
        """A call took ``seconds``: its output ``output_s`` of them, and the rest was expected to be ``scale`` x ``idle_s`` (F).

        Gives the factor by which F changes because P0 does; mostly 1.
        """
        expected = idle_s * scale + output_s
        if seconds > FAR * expected:
            seconds = FAR * expected
        elif FAR * seconds < expected:
            seconds = expected / FAR
        share = idle_s / expected
        weight = share * share if share < 1.0 else 1.0
        total = self._weight + weight
        self._weight = total = total if total < WEIGHT_MAX else WEIGHT_MAX
        gain = weight / total
        tokens = float(prompt_tokens)
        longer = tokens - self._prompt
        later = (seconds - output_s) / idle_s - self._time
        self._prompt += gain * longer
        self._time += gain * later
        kept = 1.0 - gain
        self._spread = kept * (self._spread + gain * longer * longer)
        self._times = kept * (self._times + gain * later * later)
        self._both = kept * (self._both + gain * longer * later)
        if not self._count:
            self._shortest = self._longest = tokens
        elif tokens > self._longest:
            self._longest = tokens
        elif tokens < self._shortest:
            self._shortest = tokens
        self._count += 1
        return 1.0 if self._count % EACH else self._finish()

    def _finish(self) -> float:
        fading = EACH * FADING
        self._longest -= fading * (self._longest - self._prompt)
        self._shortest += fading * (self._prompt - self._shortest)
        slope, mean = self._credible(), self._prompt
        moved = self.flat + self.slope * mean
        self.slope = slope
        self.flat = 1.0 - slope * mean
        if moved != 1.0:
            # Times are shares of another F from now on.
            self._time /= moved
            self._both /= moved
            self._times /= moved * moved
        return moved

    def _credible(self) -> float:
        """The slope as far as it is believed."""
        mean, spread, both, chances = self._prompt, self._spread, self._both, self._spread * self._times
        if both <= 0.0 or chances <= 0.0 or self._time <= 0.0:
            return 0.0
        if self._weight < SAMPLES_MIN or spread < SPREAD_MIN * SPREAD_MIN * mean * mean:
            return 0.0
        explained = both * both / chances
        least = T_SQUARED / (self._weight + T_SQUARED - 2.0)
        if explained <= least:
            return 0.0
        slope = both / spread / self._time
        if explained < 2.0 * least:
            slope *= explained / least - 1.0
        most = SHARE_MAX / mean
        return slope if slope < most else most
