"""``pointsman explain``: a dry run of a decision, from a configuration file alone or asked of a live daemon, as a table."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import orjson
from rich import box
from rich.console import Console
from rich.table import Table

from messages.control import Propose
from messages.envelope import Envelope
from runtime.config.settings import Loaded
from runtime.courier.directory import Directory
from runtime.courier.permits import PermitTable
from runtime.http.admin import Admin, AdminError
from runtime.system.system import ActorSystem
from runtime.tree import Tree

ANSWER_BYTES_MAX = 16 * 1024 * 1024
ASK_S = 10.0


class CannotExplain(Exception):
    """No decision could be had; the message says why."""


async def from_configuration(loaded: Loaded, question: Mapping[str, Any]) -> dict[str, Any]:
    """The decision of idle providers as configured. Raises ``CannotExplain``."""
    system = ActorSystem(loaded.snapshot.seed)
    directory = Directory(loaded.snapshot, loaded.credentials.get)
    tree = Tree(system, directory, PermitTable(), _no_probes)
    try:
        tree.start()
        await system.ask("registry", Propose(loaded.snapshot), sender="explain")
        return await Admin(system, directory).explain(orjson.dumps(question))
    except AdminError as error:
        raise CannotExplain(error.problem.message) from error
    finally:
        await system.stop()


def _no_probes(envelope: Envelope) -> None:
    """A dry run asks nobody outside."""


def from_daemon(url: str, question: Mapping[str, Any], admin_key: str) -> dict[str, Any]:
    """The decision a live daemon would make now. Raises ``CannotExplain``."""
    headers = {"Content-Type": "application/json"}
    if admin_key:
        headers["Authorization"] = f"Bearer {admin_key}"
    if not url.startswith(("http://", "https://")):
        raise CannotExplain(f"{url!r} is no http(s) address")
    address = url.rstrip("/") + "/admin/explain"
    request = urllib.request.Request(address, orjson.dumps(question), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=ASK_S) as answer:
            decision = orjson.loads(answer.read(ANSWER_BYTES_MAX))
    except urllib.error.HTTPError as error:
        raise CannotExplain(f"{address} answered {error.code}: {_message(error.read(ANSWER_BYTES_MAX))}") from error
    except (OSError, ValueError) as error:
        raise CannotExplain(f"{address}: {error}") from error
    if not isinstance(decision, dict):
        raise CannotExplain(f"{address} gave no decision")
    return decision


def _message(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "no message"


def show(decision: Mapping[str, Any], console: Console) -> None:
    """Print a decision record as a table: every provider, its score or why it was left out, the winner and the chain."""
    resolved = decision["model"] or "nobody"
    asked = decision["requested_model"]
    console.print(f"model     {asked}" + (f" → {resolved}" if resolved != asked else ""), highlight=False)
    console.print(f"strategy  {decision['strategy']}", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("provider", "rank", "score"):
        table.add_column(name, justify="left" if name == "provider" else "right")
    for name in ("expected", "price", "in flight", "health"):
        table.add_column(name, justify="right")
    table.add_column("why not")
    ranks = {provider: str(rank) for rank, provider in enumerate(decision["chosen"], 1)}
    for candidate in decision["candidates"]:
        table.add_row(*_row(candidate, ranks.get(candidate["provider"], "")))
    console.print(table)
    if decision["error"]:
        console.print(f"no provider: {decision['error']}", highlight=False)
    else:
        winner, *rest = decision["chosen"]
        console.print(f"winner    {winner}" + (f", then {', '.join(rest)}" if rest else ""), highlight=False)
    console.print(f"decided in {decision['selection_us']:.0f} µs, generation {decision['generation']}", highlight=False)


def _row(candidate: Mapping[str, Any], rank: str) -> list[str]:
    bid = candidate["bid"]
    score = candidate["score"]
    why = candidate["reason"] + (f": {candidate['detail']}" if candidate["detail"] else "")
    shown = "" if score is None else f"{score:.4g}"
    if bid is None:
        return [candidate["provider"], rank, shown, "", "", "", "", why]
    price = "unknown" if bid["cost_usd"] is None else f"${bid['cost_usd']:.6f}"
    expected = f"{bid['expected_s'] * 1000:.0f} ms" if bid["samples"] else "unknown"
    return [candidate["provider"], rank, shown, expected, price, str(bid["in_flight"]), f"{bid['health']:.2f}", why]
