"""A decision record as a person reads it: who was considered, who was left out where and why, who won, and at what price.

Always: takes a record of any version, so that an older or newer daemon can be asked; what it does not tell is left empty.
Names of models come from anywhere, so nothing is printed that is not text.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from messages.policy import NORMAL, PRIORITIES

Record = Mapping[str, Any]

WIDTH_WITHOUT_TERMINAL = 240
"""Characters. A file or a pipe has no width, and a line that is cut cannot be searched."""
_COLUMNS = ("rank", "score", "expected", "prefill", "price", "in flight", "health")


def console() -> Console:
    """Standard output: as wide as the terminal and in its colours, or plain where there is none."""
    # Asked here, for the library's own answer can be forced by the environment.
    is_terminal = sys.stdout.isatty()
    return Console(soft_wrap=True) if is_terminal else Console(soft_wrap=True, width=WIDTH_WITHOUT_TERMINAL, color_system=None)


def show(record: Record, out: Console) -> None:
    """Print a decision record: what was asked, every provider with its score or why it was left out, winner and chain."""
    chosen: Sequence[str] = record.get("chosen") or ()
    candidates: Sequence[Record] = record.get("candidates") or ()
    for name, value in _head(record):
        _line(out, name, value)
    out.print(_table(candidates, chosen))
    others = ", ".join(f"{count} {reason}" for reason, count in _counts(record.get("rest")))
    if others:
        _line(out, "others", others)
    if record.get("error"):
        out.print(_text(f"no provider: {record['error']}", "bold red"))
    elif chosen:
        winner, *rest = chosen
        _line(out, "winner", winner + (f", then {', '.join(rest)}" if rest else ""), "bold green")
        bid = next((one.get("bid") for one in candidates if one.get("provider") == winner), None)
        if bid:
            _line(out, "predicted", f"{_expected(bid, 'latency unknown')}, {_price(bid, 'price unknown')}")
    if record.get("note"):
        _line(out, "note", record["note"], "yellow")
    seed = f", seed {record['seed']}" if record.get("seed") else ""
    out.print(_text(f"decided in {record.get('selection_us', 0):.0f} µs, generation {record.get('generation')}{seed}", "dim"))


def _head(record: Record) -> Iterable[tuple[str, str]]:
    asked, resolved = record.get("requested_model") or "", record.get("model") or "nobody"
    yield "model", asked if resolved == asked else f"{asked} → {resolved}"
    profile: Record = record.get("profile") or {}
    if profile.get("tenant"):
        yield "tenant", profile["tenant"]
    labels = ", ".join(f"{name}={value}" for name, value in _counts(profile.get("labels")))
    if labels:
        yield "labels", labels
    if record.get("rule"):
        yield "rule", record["rule"]
    yield "strategy", record.get("strategy") or ""
    priority = record.get("priority", NORMAL)
    if isinstance(priority, int) and 0 <= priority < len(PRIORITIES):
        priority = PRIORITIES[priority]
    if priority != PRIORITIES[NORMAL]:
        yield "priority", str(priority)


def _counts(pairs: Any) -> Iterable[tuple[Any, Any]]:
    """Pairs, told as a mapping or as a list."""
    if isinstance(pairs, Mapping):
        return pairs.items()
    return [(first, second) for first, second in pairs or ()]


def _table(candidates: Sequence[Record], chosen: Sequence[str]) -> Table:
    """Winner and chain first, then who bid and was not needed, then the rest as configured."""
    ranks = {provider: rank for rank, provider in enumerate(chosen, 1)}

    def place(candidate: Record) -> tuple[int, float]:
        rank, score = ranks.get(candidate.get("provider", "")), candidate.get("score")
        if rank is not None:
            return 0, rank
        return (1, score) if score is not None and not candidate.get("reason") else (2, 0.0)

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("provider", overflow="fold")
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why not", overflow="fold")
    for candidate in sorted(candidates, key=place):
        rank = ranks.get(candidate.get("provider", ""))
        style = "green" if rank == 1 else "" if rank or not candidate.get("reason") else "dim"
        table.add_row(*(_text(cell, style) for cell in _row(candidate, str(rank or ""))))
    return table


def _row(candidate: Record, rank: str) -> list[str]:
    bid, score = candidate.get("bid"), candidate.get("score")
    why = _why_not(candidate)
    inputs = ["", "", "", "", ""]
    if bid:
        inputs = [
            _expected(bid, "unknown"),
            _prefill(bid),
            _price(bid, "unknown"),
            str(bid.get("in_flight", "")),
            f"{bid.get('health', 0):.2f}",
        ]
    return [candidate.get("provider", ""), rank, "" if score is None else f"{score:.4g}", *inputs, why]


def _why_not(candidate: Record) -> str:
    """Stage, reason and detail; nothing twice: a detail may begin with the word that the reason is."""
    stage, reason, detail = (str(candidate.get(name) or "") for name in ("stage", "reason", "detail"))
    if detail.startswith(f"{reason} "):
        reason = ""
    return ": ".join(part for part in (stage, reason, detail) if part)


def _expected(bid: Record, unknown: str) -> str:
    """Without a sample the estimate is no more than a prior."""
    return f"{bid['expected_s'] * 1000:.0f} ms" if bid.get("samples") else unknown


def _prefill(bid: Record) -> str:
    """Part of what is expected; empty where prompts were not seen to make a difference."""
    return f"{bid['prefill_s'] * 1000:.0f} ms" if bid.get("prefill_s") else ""


def _price(bid: Record, unknown: str) -> str:
    return unknown if bid.get("cost_usd") is None else f"${bid['cost_usd']:.6f}"


def _line(out: Console, name: str, value: Any, style: str = "") -> None:
    out.print(Text.assemble(f"{name:<9} ", _text(value, style)))


def _text(value: Any, style: str = "") -> Text:
    return Text("".join(char if char.isprintable() else "?" for char in str(value)), style)
