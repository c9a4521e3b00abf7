"""How fast a line moves: what ``Retry-After`` is made of when the queue sends somebody away."""

from math import exp

MEMORY_S = 30.0
"""What is so old counts a third."""


class Drain:
    """Tokens that left a line for each second in which somebody waited in it, of late. Times in monotonic seconds."""

    __slots__ = ("_at", "_seconds", "_tokens")

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0
        self._at = 0.0

    def begin(self, now: float) -> None:
        """Somebody waits, after a time in which nobody did. That time says nothing."""
        self._at = now

    def went(self, tokens: int, now: float) -> None:
        """Somebody had a turn; less than 0 tokens: nothing came of one."""
        passed_s = max(0.0, now - self._at)
        kept = exp(-passed_s / MEMORY_S)
        self._tokens = max(0.0, self._tokens * kept + tokens)
        self._seconds = self._seconds * kept + passed_s
        self._at = now

    def wait_s(self, tokens: int, now: float) -> float | None:
        """Seconds until so many tokens have left; None while nothing is known. It grows while nothing leaves."""
        seconds = self._seconds + max(0.0, now - self._at)
        if self._tokens > 0.0 and seconds > 0.0:
            return tokens * seconds / self._tokens
        # Nobody has left in all that time, and it will be no quicker for whoever comes last.
        return seconds or None
