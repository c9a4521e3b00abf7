"""How a provider's health came about, for people: the parts of its score, its circuits, what failed last, what comes next."""

from actors.provider.circuit import Circuit, Closed, Open
from actors.provider.standing import Noted, Standing, has_probes
from messages.control import ProviderSpec
from messages.health import CircuitReport, HealthReport, PastFailure, Status


def health_report(
    spec: ProviderSpec, status: Status, reason: str, standing: Standing, is_shut: bool, now: float
) -> HealthReport:
    """The report at ``now`` (monotonic s). Changes nothing. ``is_shut``: it takes no calls, and is not probed."""
    health = standing.health
    score, is_healthy = health.view(now)
    p50_s, p95_s = standing.latency_p50_and_p95_s(now)
    max_p95_s = health.spec.max_p95_s
    return HealthReport(
        spec.id,
        status,
        reason,
        score,
        is_healthy and (max_p95_s is None or p95_s <= max_p95_s),
        health.success_rate,
        health.error_rate,
        health.slowness,
        health.failures_in_a_row,
        circuit_report(standing.circuit, now),
        circuit_report(standing.credential, now),
        standing.latency_ewma_s * 1000.0,
        p50_s * 1000.0,
        p95_s * 1000.0,
        standing.successes,
        standing.failures,
        tuple(_past(noted, now) for noted in reversed(standing.last_failures)),
        _ago(standing.heard_at, now),
        _ago(standing.proved_at, now),
        None if is_shut else next_probe_s(spec, standing, now),
        standing.probes_usd,
    )


def circuit_report(circuit: Circuit, now: float) -> CircuitReport:
    """One circuit at ``now``."""
    state = circuit.state
    retry_at = circuit.retry_at(now)
    calls, failed = state.recent.totals(now) if isinstance(state, Closed) else (0, 0)
    return CircuitReport(
        circuit.name,
        state.in_a_row if isinstance(state, Closed) else 0,
        calls,
        failed,
        circuit.trials,
        None if retry_at is None else retry_at - now,
        None if isinstance(state, Closed) else state.wait_s,
    )


def next_probe_s(spec: ProviderSpec, standing: Standing, now: float) -> float | None:
    """Seconds until the next probe as things stand, give or take a tick of the prober; None: none is planned."""
    if not has_probes(spec):
        return None
    if standing.wish(spec, now):
        return 0.0
    waits = [one.state.until - now for one in (standing.credential, standing.circuit) if isinstance(one.state, Open)]
    if waits:
        return max(0.0, min(waits))
    heard_at = now if standing.heard_at is None else standing.heard_at
    return max(0.0, heard_at + spec.probe.interval_s - now)


def _past(noted: Noted, now: float) -> PastFailure:
    failure = noted.failure
    return PastFailure(now - noted.at, noted.model, failure.scope, failure.code, failure.status, failure.detail)


def _ago(at: float | None, now: float) -> float | None:
    return None if at is None else now - at
