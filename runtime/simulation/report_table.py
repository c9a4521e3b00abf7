"""The report of a simulated run as a person reads it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Report = Mapping[str, Any]
NOTHING = "–"


def show(report: Report, out: Console) -> None:
    """Print a report: the whole, then by provider, by tenant, and what went wrong."""
    for name, value in _head(report):
        out.print(_text(f"{name:<14} {value}"))
    out.print(_providers(report["providers"]))
    if report["tenants"]:
        out.print(_tenants(report["tenants"]))
    if report["errors"]:
        out.print(_errors(report["errors"]))
    for reason in report["fatal"]:
        out.print(_text(f"the daemon would have ended: {reason}", "bold red"))


def _head(report: Report) -> list[tuple[str, str]]:
    queue = report["queue"]
    cost = f"${report['cost_usd']:.4f}" + ("" if report["is_cost_known"] else " and what has no price")
    return [
        ("played", f"{report['duration_s']:g} s, seed {report['seed']}; times are p50 / p95 / p99"),
        ("requests", f"{report['requests']}, answered {report['answered']} ({_percent(report['success'])})"),
        ("first content", _quantiles(report["first_content_ms"])),
        ("whole answer", _quantiles(report["whole_ms"])),
        ("calls", f"{report['calls']}, {report['calls_per_request']:.3f} per request"),
        ("cost", cost),
        ("queue", f"{queue['waited']} waited ({_percent(queue['share'])}), {_quantiles(queue['wait_ms'])}"),
    ]


def _providers(providers: Sequence[Report]) -> Table:
    table = _table("provider", "share", "answers", "calls", "called off", "success", "first content", "whole answer", "cost")
    table.add_column("failures", overflow="fold")
    for one in providers:
        failures = ", ".join(f"{count} {code}" for code, count in one["failures"].items())
        cells = [
            one["provider"],
            _percent(one["share"]),
            str(one["answers"]),
            str(one["calls"]),
            str(one["called_off"]),
            _percent(one["success"]),
            _quantiles(one["first_content_ms"]),
            _quantiles(one["whole_ms"]),
            NOTHING if one["cost_usd"] is None else f"${one['cost_usd']:.4f}",
            failures,
        ]
        table.add_row(*map(_text, cells))
    return table


def _tenants(tenants: Sequence[Report]) -> Table:
    table = _table("tenant", "requests", "success", "first content", "whole answer")
    for one in tenants:
        cells = [
            one["tenant"],
            str(one["requests"]),
            _percent(one["success"]),
            _quantiles(one["first_content_ms"]),
            _quantiles(one["whole_ms"]),
        ]
        table.add_row(*map(_text, cells))
    return table


def _errors(errors: Sequence[Report]) -> Table:
    table = _table("what clients got", "status", "count")
    for one in errors:
        table.add_row(*map(_text, (one["code"], str(one["status"]), str(one["count"]))))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _percent(part: float | None) -> str:
    return NOTHING if part is None else f"{part * 100:.2f} %"


def _quantiles(found: Mapping[str, float] | None) -> str:
    """p50 / p95 / p99 in ms."""
    return NOTHING if found is None else " / ".join(f"{found[name]:.0f}" for name in ("p50", "p95", "p99")) + " ms"


def _text(value: str, style: str = "") -> Text:
    return Text("".join(char if char.isprintable() else "?" for char in value), style)
