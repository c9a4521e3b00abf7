"""When a call is overdue, by the spread that a provider's own times have shown."""

from math import exp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.provider.evidence import ModelEvidence

OVERDUE_Z = 2.5
"""Deviations after which a call is overdue: about p99.4."""
EARLY_Z = 1.65
"""Deviations after which it may be taken for overdue where somebody else would be faster: about p95."""
DEVIATION_MAX = 1.0
OVERDUE_MARGIN_S = 0.03
"""However small the spread, a call is not overdue before so long after its time."""


def overdue_ages(
    evidence: "ModelEvidence", stream: bool, output_tokens: float, scale: float = 1.0
) -> tuple[float, float, float]:
    """When (s after sending) one more request is expected to answer, and when it is overdue: late (p99.4) and early (p95).

    ``output_tokens`` is of no use for a stream while nobody queues; ``scale`` is that of its prompt. Changes nothing.
    """
    predicted, knee, load = evidence.idle_s, evidence.knee, evidence.in_flight + 1
    if stream and load <= knee and scale == 1.0:
        return predicted, evidence.overdue_s, evidence.overdue_early_s
    output_s, first_s = evidence.token_s * output_tokens, evidence.first_s
    if scale != 1.0:
        predicted, first_s = predicted * scale, first_s * scale
    if not stream:
        predicted += output_s
    if load > knee:
        predicted += evidence.soft * (load - knee) / knee * (first_s + output_s)
    if stream:
        idle_s, least = evidence.idle_s, predicted + OVERDUE_MARGIN_S
        late, early = predicted * (evidence.overdue_s / idle_s), predicted * (evidence.overdue_early_s / idle_s)
        return predicted, late if late > least else least, early if early > least else least
    return predicted, predicted * evidence.whole_late, predicted * evidence.whole_early


def late_and_early(predicted_s: float, deviation: float) -> tuple[float, float]:
    """Ages (s) from which a call is overdue that takes ``predicted_s``, give or take a factor of e^``deviation``."""
    if deviation > DEVIATION_MAX:
        deviation = DEVIATION_MAX
    late, early, least = (
        predicted_s * exp(OVERDUE_Z * deviation),
        predicted_s * exp(EARLY_Z * deviation),
        predicted_s + OVERDUE_MARGIN_S,
    )
    return late if late > least else least, early if early > least else least
