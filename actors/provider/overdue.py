"""When a call is overdue, by the spread that a provider's own times have shown; and how long nothing was heard."""

from math import exp

from actors.provider.evidence import EARLY_Z, OVERDUE_MARGIN_S, OVERDUE_Z, ModelEvidence

UNHEARD_MAX_S = 1e6
"""What is said of a model that never told anything: it is no infinity, for that is not JSON."""


def overdue_ages(evidence: ModelEvidence, stream: bool, output_tokens: float) -> tuple[float, float]:
    """Ages (s) at which one more request would be overdue, late (about p99.4) and early (p95). Changes nothing.

    The late one is what ``ModelEvidence.sent`` would find.
    """
    predicted, knee, load = evidence.idle_s, evidence.knee, evidence.in_flight + 1
    if stream and load <= knee:
        late, early = evidence.overdue_s, evidence.overdue_early_s
    else:
        deviation = evidence.deviation
        output_s = evidence.token_s * output_tokens
        if not stream:
            predicted += output_s
            deviation = evidence.deviation_whole
            if evidence.output.deviation > deviation:
                deviation = evidence.output.deviation
        if deviation > 1.0:
            deviation = 1.0
        if load > knee:
            predicted += evidence.soft * (load - knee) / knee * (evidence.first_s + output_s)
        late, early = predicted * exp(OVERDUE_Z * deviation), predicted * exp(EARLY_Z * deviation)
    least = predicted + OVERDUE_MARGIN_S
    return late if late > least else least, early if early > least else least


def unheard_s(evidence: ModelEvidence, now: float) -> float:
    """Seconds since a call told anything of the model, ``UNHEARD_MAX_S`` at most."""
    unheard = now - evidence.heard_at
    return unheard if unheard < UNHEARD_MAX_S else UNHEARD_MAX_S
