"""What to do about an actor that failed: a pure function of its history."""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.kernel import SupervisionSpec

UNLIMITED_DELAY_S = 0.1
"""Who may restart for ever waits at least so long the first time, so that failing at start is no endless loop."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start a new incarnation after ``delay_s`` seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It failed too often."""

    failures: int


def decide(history: Sequence[float], now: float, spec: SupervisionSpec) -> Restart | GiveUp:
    """Restart or give up after a failure at ``now``.

    ``history`` holds the monotonic times (s) of earlier failures, oldest first. Only those within ``spec.period_s`` count: the
    intensity and period of OTP's supervisors. The wait is ``backoff_s``, doubled for each failure that counts, up to
    ``backoff_max_s``.
    """
    recent = sum(1 for at in history if now - at < spec.period_s)
    if spec.limit is not None and recent >= spec.limit:
        return GiveUp(recent + 1)
    first_s = spec.backoff_s if spec.limit is not None else max(spec.backoff_s, UNLIMITED_DELAY_S)
    longest_s = spec.backoff_max_s if spec.limit is not None else max(spec.backoff_max_s, UNLIMITED_DELAY_S)
    return Restart(min(first_s * 2.0 ** min(recent, 64), longest_s))
