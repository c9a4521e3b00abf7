"""``pointsman health``, ``probe`` and ``reset``: how the providers of a live daemon stand, and what can be done about it.

Always: takes an answer of any version of the daemon; what it does not tell is left empty.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from cyclopts import Parameter

from runtime.admin_client import CannotAsk, ask

EXIT_FAILED = 1

HERE = "http://127.0.0.1:8080"
Url = Annotated[str, Parameter(help="Address of the daemon.")]
Identity = Annotated[str | None, Parameter(name="ID", help="One provider instead of all.", negative=())]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]
Told = Mapping[str, Any]

_STANDING = ("provider", "status", "circuit", "health", "ewma ms", "p50 ms", "p95 ms", "in flight", "reason")
_PROBED = ("provider", "alive", "latency ms", "cost USD", "detail")
_COUNTS = ("successes", "failures", "heard_s_ago", "proved_s_ago", "next_probe_in_s", "probes_usd")
_RESET = ("provider", "status", "circuit", "health")


def health(provider: Identity = None, /, *, url: Url = HERE, json: AsJson = False) -> int:
    """Tell how the providers of a live daemon stand, with latency; with an ID, how its health came about.

    The key of the admin API is taken from POINTSMAN_ADMIN_KEY. The exit code is 1 if one that is shown takes no calls.
    """
    return _guarded(lambda: _health_of(url, provider, json) if provider is not None else _health(url, json))


def probe(provider: Identity = None, /, *, url: Url = HERE, json: AsJson = False) -> int:
    """Let a live daemon probe a provider now, or all of them.

    The key of the admin API is taken from POINTSMAN_ADMIN_KEY. The exit code is 1 if one does not answer as it should.
    """
    return _guarded(lambda: _probe(url, _chosen(url, provider), json))


def reset(provider: Identity = None, /, *, url: Url = HERE, json: AsJson = False) -> int:
    """Close the circuits of a provider of a live daemon, or of all, forget their failures, and bring back who is out.

    The key of the admin API is taken from POINTSMAN_ADMIN_KEY.
    """
    return _guarded(lambda: _reset(url, _chosen(url, provider), json))


def _guarded(command: Callable[[], int]) -> int:
    try:
        return command()
    except CannotAsk as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED


def _ask(method: str, url: str, path: str) -> dict[str, Any]:
    body: dict[str, Any] | None = {} if method == "POST" else None
    return ask(method, url, f"/admin/providers{path}", os.environ.get("POINTSMAN_ADMIN_KEY", ""), body)


def _providers(url: str) -> list[Told]:
    found = _ask("GET", url, "").get("providers")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _chosen(url: str, provider: str | None) -> list[str]:
    return [str(one.get("id")) for one in _providers(url)] if provider is None else [provider]


def _path(provider: str, what: str) -> str:
    return f"/{quote(provider, safe='')}/{what}"


def _health(url: str, json: bool) -> int:
    found = _providers(url)
    if json:
        _print_json(found)
    else:
        _print_table(_STANDING, [_standing(one) for one in found])
    return 0 if all(one.get("available") for one in found) else EXIT_FAILED


def _standing(one: Told) -> list[Any]:
    latency = _part(one, "latency_ms")
    head = [one.get("id"), one.get("status"), one.get("circuit"), one.get("health")]
    seen = [_ms(latency.get(name)) for name in ("ewma", "p50", "p95")]
    return [*head, *seen, one.get("in_flight"), one.get("reason")]


def _health_of(url: str, provider: str, json: bool) -> int:
    report = _ask("GET", url, _path(provider, "health"))
    if json:
        _print_json(report)
        return 0 if report.get("available") else EXIT_FAILED
    rows: list[list[Any]] = [
        [name, report.get(name)] for name in ("provider", "status", "reason", "healthy", "score", "min_score")
    ]
    rows += [[f"  {name}", value] for name, value in _part(report, "parts").items()]
    for name in ("circuit", "credential"):
        circuit = _part(report, name)
        rows.append([name, circuit.get("state")])
        rows += [[f"  {key}", value] for key, value in circuit.items() if key != "state" and value]
    rows += [[f"latency {name} ms", _ms(value)] for name, value in _part(report, "latency_ms").items()]
    rows += [[name, report.get(name)] for name in _COUNTS]
    for past in report.get("last_failures") or ():
        rows.append([f"failed {past.get('ago_s')} s ago", f"{past.get('code')} {past.get('model')} {past.get('detail')}"])
    _print_table(("", ""), rows)
    return 0 if report.get("available") else EXIT_FAILED


def _probe(url: str, providers: list[str], json: bool) -> int:
    found = [_ask("POST", url, _path(provider, "probe")) for provider in providers]
    if json:
        _print_json(found)
    else:
        rows = [
            [one.get("provider"), one.get("ok"), one.get("latency_ms"), one.get("cost_usd"), one.get("detail")] for one in found
        ]
        _print_table(_PROBED, rows)
    return 0 if all(one.get("ok") for one in found) else EXIT_FAILED


def _reset(url: str, providers: list[str], json: bool) -> int:
    found = [_ask("POST", url, _path(provider, "reset")) for provider in providers]
    if json:
        _print_json(found)
    else:
        rows = [[one.get("provider"), one.get("status"), _part(one, "circuit").get("state"), one.get("score")] for one in found]
        _print_table(_RESET, rows)
    return 0


def _part(told: Told, name: str) -> Mapping[str, Any]:
    found = told.get(name)
    return found if isinstance(found, dict) else {}


def _ms(latency: Any) -> Any:
    """A latency; 0 means that none was seen, and nobody is that quick."""
    return "–" if latency == 0 else latency


def _print_json(told: Any) -> None:
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())


def _print_table(columns: tuple[str, ...], rows: list[list[Any]]) -> None:
    # Loaded here: every command knows of these three, and few are one of them.
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from runtime.explain_table import console

    table = Table(box=box.SIMPLE_HEAD, show_header=any(columns), pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    console().print(table)


def _shown(cell: Any) -> str:
    """A cell as text: names and reasons come from anywhere, so nothing that is not printable is."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return "".join(letter if letter.isprintable() else "?" for letter in str(cell))
