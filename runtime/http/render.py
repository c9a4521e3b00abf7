"""Messages as the admin API shows them: plain data for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from messages.base import Message, field_names
from messages.control import ModelSpec, ProviderSpec
from messages.decisions import Decision, RouterStats
from messages.health import CircuitState, ProviderReport, Status
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
        "limits": plain(spec.limits) | {"requests_left": report.requests_left, "tokens_left": report.tokens_left},
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


def _model(model: ModelSpec) -> dict[str, Any]:
    return {name: value for name, value in plain(model).items() if value is not None}


def stats(counted: Stats, router: RouterStats, strategy: str) -> dict[str, Any]:
    """``GET /admin/stats``. Times in ms, decisions in µs, money in USD. ``strategy``: the one for all."""
    return {
        "providers": [_line(line) for line in counted.providers],
        "models": [_line(line) for line in counted.models],
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
    return shown | {"latency_ms": latency, "cost_usd": cost_nusd / 1e9}


def decision(record: Decision) -> dict[str, Any]:
    """A decision record as JSON: candidates with score and inputs, or the reason they were left out."""
    shown: dict[str, Any] = plain(record)
    shown["selection_us"] = round(shown["selection_us"], 1)
    return shown
