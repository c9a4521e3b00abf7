"""Numbers from outside, made fit to learn from."""

from math import isfinite

TINY_S, HUGE_S = 1e-4, 1e4
"""The shortest and the longest time (s) that is believed."""


def sane_s(seconds: float | None) -> float | None:
    """A time (s) within what is believed, or None where there is none: not told, negative, not finite."""
    if seconds is None:
        return None
    if TINY_S <= seconds <= HUGE_S:
        return seconds
    if not isfinite(seconds) or seconds < 0.0:
        return None
    return TINY_S if seconds < TINY_S else HUGE_S


def share(value: float | None, most: float = 1.0) -> float:
    """``value`` within 0 and ``most``; 0 where there is none (not told, or no number)."""
    if value is None or not value > 0.0:
        return 0.0
    return value if value < most else most
