"""What somebody else has measured of a provider and told us (FEATURES C2, "pushed metrics").

It holds for ``PUSHED_FOR_S`` after it was told, then it is forgotten; the next push replaces it whole. Own measurements
outrank it: its latency counts only for models of which we have no sample, its error rate only where it is the higher one.
"""

from dataclasses import dataclass

from actors.provider.evidence import UNKNOWN_AGAIN_P, ModelEvidence
from actors.provider.sanity import sane_s, share
from messages.health import PushMetrics

PUSHED_FOR_S = 60.0
"""Seconds a push is believed: the default window of the health score."""
LOAD_MAX = 0.95
"""However busy others keep it, a request is expected to take no more than twenty times as long."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """One push, clamped to sense."""

    latency_s: float | None
    """None: not told, or nonsense (negative, not finite)."""
    error_rate: float
    """0–1; 0: not told."""
    load: float
    """0 to ``LOAD_MAX``; 0: not told."""
    until: float
    """Monotonic s."""

    def weigh(
        self, evidence: ModelEvidence, output_tokens: float, stream: bool, known: int, failure_p: float, expected_s: float
    ) -> tuple[int, float, float, float | None]:
        """What becomes of a bid's ``samples``, ``failure_p`` and ``expected_s``, and the latency (s) that stands in.

        The latency is None where the bid has its own. Load and overdue calls of ours weigh on a pushed latency as they do
        on a measured one. An error rate makes a model known as failures of our own would: nobody is curious about it.
        """
        stands_in_s = None
        if self.error_rate > failure_p:
            failure_p = self.error_rate
        if not evidence.samples:
            if self.latency_s is not None:
                expected_s *= self.latency_s / (evidence.first_s + evidence.token_s * output_tokens)
                known, stands_in_s = 1, self.latency_s
            elif not known and failure_p > UNKNOWN_AGAIN_P:
                known, stands_in_s = 1, evidence.first_s if stream else expected_s
        return known, failure_p, expected_s / (1.0 - self.load), stands_in_s


def pushed(metrics: PushMetrics, now: float) -> Pushed | None:
    """What is kept of a push told at ``now`` (s); None if nothing in it can be used."""
    latency_s = sane_s(metrics.average_latency_s)
    error_rate, load = share(metrics.error_rate), share(metrics.load, LOAD_MAX)
    if latency_s is None and not error_rate and not load:
        return None
    return Pushed(latency_s, error_rate, load, now + PUSHED_FOR_S)
