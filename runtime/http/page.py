"""The first page: providers, how they stand, and the last decisions. Plain HTML, nothing loaded from elsewhere."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
 color: #1b2430; background: #fcfcfa }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem } p { margin: .25rem 0 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #ddd }
th { font-weight: 600; color: #556 } td.n { text-align: right; font-variant-numeric: tabular-nums }
.good { color: #18703a } .bad { color: #a3241b } code { background: #f0f0ea; padding: 0 .25rem }
@media (prefers-color-scheme: dark) {
 body { color: #dfe4ea; background: #14181d } th, td { border-color: #333 } th { color: #9aa }
 a { color: #8ab4f8 } code { background: #222a31 } .good { color: #6fcf8d } .bad { color: #f0857b } }
"""


def first_page(version: str, providers: Mapping[str, Any], decisions: Iterable[Mapping[str, Any]]) -> str:
    """The page for who may see the state. ``providers`` and ``decisions`` as the admin API gives them."""
    rows = "".join(_provider(one) for one in providers["providers"])
    made = "".join(_decision(one) for one in decisions)
    return _page(
        version,
        f"<p>Configuration generation {providers['generation']}, default provider <code>{_text(providers['default'])}</code>. "
        "Reload to see changes; the same as JSON: <a href='/admin/providers'>/admin/providers</a>, "
        "<a href='/admin/stats'>/admin/stats</a>.</p>"
        "<h2>Providers</h2><table><tr><th>id<th>kind<th>status<th>circuit<th>health<th>in flight<th>p50 ms<th>p95 ms"
        f"<th>requests<th>failures</tr>{rows}</table>"
        "<h2>Last decisions</h2><table><tr><th>decision<th>model<th>strategy<th>chosen<th>left out<th>attempts</tr>"
        f"{made or '<tr><td colspan=6>none yet</tr>'}</table>",
    )


def closed_page(version: str, why: str) -> str:
    """The page for everybody else: that this is Pointsman, and no more."""
    return _page(version, f"<p>State is for administrators: {_text(why)}.</p>")


def _page(version: str, body: str) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Pointsman</title><style>{_STYLE}</style><h1>Pointsman {_text(version)}</h1>"
        "<p>OpenAI's API is at <code>/v1</code>: set it as <code>base_url</code> of any SDK.</p>"
        f"{body}</html>"
    )


def _provider(one: Mapping[str, Any]) -> str:
    latency = one["latency_ms"]
    status = one["status"] + (f" ({one['reason']})" if one["reason"] else "")
    mood = "good" if one["status"] in ("ready", "unchecked") else "bad"
    numbers = (one["in_flight"], f"{latency['p50']:.0f}", f"{latency['p95']:.0f}", one["requests"], one["failures"])
    return (
        f"<tr><td><code>{_text(one['id'])}</code><td>{_text(one['kind'])}<td class={mood}>{_text(status)}"
        f"<td class={'good' if one['circuit'] == 'closed' else 'bad'}>{_text(one['circuit'])}<td class=n>{one['health']:.2f}"
        + "".join(f"<td class=n>{_text(value)}" for value in numbers)
        + "</tr>"
    )


def _decision(one: Mapping[str, Any]) -> str:
    left_out = ", ".join(f"{who['provider']}: {who['reason']}" for who in one["candidates"] if who["reason"])
    attempts = ", ".join(f"{who['provider']} {who['outcome']} {who['duration_ms']:.0f} ms" for who in one["attempts"])
    address = f"/admin/decisions/{_text(one['decision_id'])}"
    chosen = " → ".join(one["chosen"]) or one["error"]
    cells = (one["model"], one["strategy"], chosen, left_out, attempts)
    return f"<tr><td><a href='{address}'>{_text(one['decision_id'])}</a>" + "".join(f"<td>{_text(c)}" for c in cells) + "</tr>"


def _text(value: Any) -> str:
    return escape(str(value), quote=True)
