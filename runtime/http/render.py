"""Messages as the admin API shows them: plain data for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from messages.base import Message, field_names
from messages.control import HealthSpec, LimitsSpec, ModelSpec, ProviderSpec
from messages.decisions import Decision, RouterStats
from messages.health import CircuitReport, CircuitState, HealthReport, ProviderReport, Status
from messages.quota import QuotaReport
from messages.stats import Stats, UsageLine


def plain(value: Any) -> Any:
    """A message as a mapping of its fields, all the way down."""
    if isinstance(value, Message):
        return {name: plain(getattr(value, name)) for name in field_names(type(value))}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def is_available(report: ProviderReport) -> bool:
    """Whether a provider can take calls."""
    return report.status in (Status.READY, Status.UNCHECKED) and report.circuit is not CircuitState.OPEN


def provider(spec: ProviderSpec, report: ProviderReport, pushed: Mapping[str, float] | None = None) -> dict[str, Any]:
    """A provider as ``GET /admin/providers`` shows it, with the metrics that were ``pushed``. Times in ms."""
    return {
        "id": spec.id,
        "kind": spec.kind,
        "models": [_model(model) for model in spec.models],
        "takes_any": spec.takes_any,
        "enabled": spec.enabled,
        "available": is_available(report),
        "status": report.status,
        "reason": report.reason,
        "circuit": report.circuit,
        "health": round(report.health, 4),
        "in_flight": report.in_flight,
        "weight": spec.weight,
        "priority": spec.priority,
        "region": spec.region,
        "zone": spec.zone,
        "tags": list(spec.tags),
        "limits": _limits(spec.limits, report),
        "latency_ms": {
            "ewma": round(report.latency_ewma_ms, 3),
            "p50": round(report.latency_p50_ms, 3),
            "p95": round(report.latency_p95_ms, 3),
        },
        "metrics": None if pushed is None else dict(pushed),
        "requests": report.requests,
        "successes": report.successes,
        "failures": report.failures,
    }


def health(report: HealthReport, spec: HealthSpec) -> dict[str, Any]:
    """A provider's health as ``GET /admin/providers/{id}/health`` shows it. ``spec``: by which constants."""
    parts = {
        "success_rate": round(report.success_rate, 4),
        "error_rate": round(report.error_rate, 4),
        "slowness": round(report.slowness, 3),
        "failures_in_a_row": report.failures_in_a_row,
    }
    weights = {"success": spec.success_weight, "errors": spec.error_weight, "latency": spec.latency_weight}
    return {
        "provider": report.provider,
        "status": report.status,
        "reason": report.reason,
        "available": report.status in (Status.READY, Status.UNCHECKED) and report.circuit.state is not CircuitState.OPEN,
        "healthy": report.is_healthy,
        "score": round(report.score, 4),
        "min_score": spec.min_score,
        "parts": parts,
        "weights": weights,
        "circuit": _circuit(report.circuit),
        "credential": _circuit(report.credential),
        "latency_ms": {
            "ewma": round(report.latency_ewma_ms, 3),
            "p50": round(report.latency_p50_ms, 3),
            "p95": round(report.latency_p95_ms, 3),
        },
        "successes": report.successes,
        "failures": report.failures,
        "last_failures": [plain(past) | {"ago_s": round(past.ago_s, 3)} for past in report.last_failures],
        "heard_s_ago": _seconds(report.heard_s),
        "proved_s_ago": _seconds(report.proved_s),
        "next_probe_in_s": _seconds(report.next_probe_s),
        "probes_usd": report.probes_usd,
    }


def _circuit(report: CircuitReport) -> dict[str, Any]:
    shown: dict[str, Any] = plain(report)
    return shown | {"retry_in_s": _seconds(report.retry_in_s)}


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _limits(limits: LimitsSpec, report: ProviderReport) -> dict[str, Any]:
    """As configured, and as they stand. ``concurrency`` is what ``max_concurrency: auto`` has come to."""
    shown: dict[str, Any] = plain(limits)
    if shown.pop("adaptive"):
        shown["max_concurrency"] = "auto"
    left = {"requests_left": report.requests_left, "tokens_left": report.tokens_left}
    return shown | left | {"concurrency": report.concurrency_limit}


def _model(model: ModelSpec) -> dict[str, Any]:
    return {name: value for name, value in plain(model).items() if value is not None}


def quota(report: QuotaReport) -> dict[str, Any]:
    """The quota of a tenant or a pool as ``GET /admin/stats`` shows it: its limits, and how they stand."""
    kind, _, name = report.quota.partition(":")
    limits: dict[str, Any] = plain(report.limits)
    # Of providers only.
    del limits["adaptive"]
    limits |= {"requests_left": _tenths(report.requests_left), "tokens_left": _tenths(report.tokens_left)}
    counts = {"in_flight": report.in_flight, "reserved": report.reserved, "refused": dict(report.refused)}
    return {"kind": kind, "name": name, "limits": limits} | counts


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def stats(counted: Stats, router: RouterStats, quotas: Sequence[QuotaReport], strategy: str) -> dict[str, Any]:
    """``GET /admin/stats``. Times in ms, decisions in µs, money in USD. ``strategy``: the one for all."""
    return {
        "providers": [_line(line) for line in counted.providers],
        "models": [_line(line) for line in counted.models],
        "quotas": [quota(report) for report in quotas],
        "router": {
            "strategy": strategy,
            "total": router.total,
            "succeeded": router.succeeded,
            "failed": router.failed,
            "waiting": router.waiting,
            "rule_hits": dict(router.rule_hits),
            "strategy_errors": router.strategy_errors,
            "latency_ms": {"avg": round(_mean_latency_ms(counted.providers), 3)},
            "decision_us": {
                "p50": round(router.decision_p50_us, 1),
                "p95": round(router.decision_p95_us, 1),
                "p99": round(router.decision_p99_us, 1),
            },
        },
    }


def _mean_latency_ms(lines: Sequence[UsageLine]) -> float:
    """The providers' averages, each by its successes; 0 without any."""
    successes = sum(line.successes for line in lines)
    return sum(line.latency_avg_ms * line.successes for line in lines) / successes if successes else 0.0


def _line(line: UsageLine) -> dict[str, Any]:
    shown: dict[str, Any] = plain(line)
    cost_nusd = shown.pop("cost_nusd")
    latency = {name: round(shown.pop(f"latency_{name}_ms"), 3) for name in ("avg", "min", "max", "p95")}
    lost_nusd = shown.pop("lost_cost_nusd")
    return shown | {"latency_ms": latency, "cost_usd": cost_nusd / 1e9, "lost_cost_usd": lost_nusd / 1e9}


def decision(record: Decision) -> dict[str, Any]:
    """A decision record as JSON: candidates with score and inputs, or the reason they were left out."""
    shown: dict[str, Any] = plain(record)
    shown["selection_us"] = round(shown["selection_us"], 1)
    return shown
