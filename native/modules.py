"""Which modules are compiled, and why the others of their folders are not."""

from collections.abc import Iterator
from pathlib import Path

COMPILED = (
    "messages/*.py",
    "actors/*.py",
    "actors/provider/*.py",
    "actors/router/**/*.py",
    "runtime/system/*.py",
    "runtime/courier/*.py",
    "runtime/dialects/*.py",
    "runtime/ports.py",
    "runtime/http/edge.py",
    "runtime/http/hints.py",
    "runtime/http/notes.py",
    "runtime/http/patience.py",
    "runtime/http/plain.py",
    "runtime/http/raw_*.py",
    "runtime/http/render.py",
    "runtime/upstream/choice.py",
    "runtime/upstream/raw_*.py",
    "otel/live_spans.py",
    "otel/propagation.py",
    "otel/sampling.py",
    "otel/spans.py",
)
"""What every request passes. What reads configuration, serves the admin API, simulates or talks to a terminal gains nothing."""

INTERPRETED = {
    "actors/consistency.py": "looks at configurations, not at requests",
    "actors/patterns.py": "what it does for a request, the standard library does: patterns, and clocks of time zones",
    "actors/prober.py": "wakes every few seconds",
    "actors/probe_bill.py": "the same",
    "actors/redirects.py": "looks at configurations, not at requests",
    "actors/regexes.py": "looks at configurations, not at requests",
    "actors/walkers.py": "looks at configurations, not at requests",
    "actors/router/strategies/narrowing.py": "inherits from a builtin type",
    "runtime/dialects/shapes.py": "msgspec reads its annotations, and does the work",
    "runtime/system/frontier.py": "pydantic reads its annotations; for bytes from elsewhere only",
    "runtime/system/virtual_loop.py": "for simulations, which are not the daemon's",
    "runtime/upstream/raw_dial.py": "waits where compiled code must not (`hazards`); once a connection",
    "runtime/upstream/raw_tls.py": "inherits from a class of C",
}
"""What is left out of them, each with the reason."""


def compiled(root: Path) -> list[Path]:
    """The files to compile, relative to ``root``, in order. Raises ``LookupError`` where a list names what is not there."""
    found = dict.fromkeys(_matches(root))
    for name in INTERPRETED:
        if found.pop(Path(name), "") is not None:
            raise LookupError(f"{name} is not among the modules to compile")
    return [name for name in found if name.name != "__init__.py"]


def _matches(root: Path) -> Iterator[Path]:
    for pattern in COMPILED:
        matches = sorted(root.glob(pattern))
        if not matches:
            raise LookupError(f"nothing matches {pattern}")
        yield from (path.relative_to(root) for path in matches)
