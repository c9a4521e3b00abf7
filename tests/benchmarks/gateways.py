"""How fast is the gateway? Beside nginx as a reverse proxy, a bare aiohttp pass-through and, if asked for, other gateways.

``python -m tests.benchmarks.gateways [--seconds 4] [--rounds 3] [--connections 64] [--peers FOLDER]``

Three tables, each measured in turns in one run: a closed loop over many connections; one connection, which shows the latency
that is added; large request bodies. Load generator (wrk) and upstream (nginx) share one core, whatever is measured has the
other. Pointsman runs with all its features and tracing at 1 %. Quote the ratios: absolute figures belong to the machine of
that minute. ``--peers`` installs other gateways from the package registries into FOLDER and measures them too.
"""

import argparse
import contextlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.contestants import BARE, NGINX, bare, nginx_proxy, pointsman
from tests.benchmarks.harness import Run, Target, measure, nginx_path, upstream
from tests.benchmarks.payload import BODY, MODEL
from tests.benchmarks.peers import all_peers

PROVIDERS = (3, 50, 200)
BODIES = {"20 kB": 20_000, "1 MB": 1_000_000, "10 MB": 10_000_000}


Runs = dict[str, list[Run]]


def in_turns(targets: Sequence[Target], options: argparse.Namespace, folder: Path, connections: int, body: bytes) -> Runs:
    """``rounds`` measurements of each target, one target after the other in each round, after a short warm-up of all."""
    runs: Runs = {target.name: [] for target in targets}
    for target in targets:
        measure(target, 1.0, connections, folder, body)
    for _ in range(options.rounds):
        for target in targets:
            runs[target.name].append(measure(target, options.seconds, connections, folder, body))
    return runs


def show(title: str, runs: Runs) -> None:
    """Print one table: ratios first, medians of the rounds."""
    print(f"\n{title}\n{'':32}{'/ nginx':>9}{'/ aiohttp':>10}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}{'errors':>8}")
    for name, several in runs.items():
        ratios = [_ratio(several, runs[other]) for other in (NGINX, BARE)]
        figures = [median(getattr(run, field) for run in several) for field in ("requests_per_s", "p50_ms", "p99_ms", "cpu_us")]
        errors = sum(run.errors for run in several)
        print(
            f"{name:32}{ratios[0]:9.3f}{ratios[1]:10.2f}"
            f"{figures[0]:9.0f}{figures[1]:9.2f}{figures[2]:9.2f}{figures[3]:9.0f}{errors:8d}"
        )


def _ratio(one: list[Run], other: list[Run]) -> float:
    return median(a.requests_per_s / b.requests_per_s for a, b in zip(one, other, strict=True))


def of_size(size: int) -> bytes:
    """A chat request of about ``size`` bytes."""
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x" * size}], "max_tokens": 64}).encode()


def main() -> None:
    """Measure and print everything. Ends with an error if a request to ours or to a yardstick failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="install other gateways there and measure them too")
    options = parser.parse_args()
    if nginx_path() is None or shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs nginx and wrk (Debian: apt-get install nginx-light wrk)")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, _ = stack.enter_context(upstream(folder))
        targets = [stack.enter_context(nginx_proxy(folder, port)), stack.enter_context(bare(folder, port))]
        targets += [stack.enter_context(pointsman(folder, port, count)) for count in PROVIDERS]
        ours = targets[2]
        direct = Target("upstream alone", port, None)
        peers: list[Target] = []
        if options.peers is not None:
            peers_folder = options.peers.resolve()
            peers_folder.mkdir(parents=True, exist_ok=True)
            peers = stack.enter_context(all_peers(peers_folder, port))
        tables = {
            f"Closed loop, {options.connections} connections": in_turns(
                [direct, *targets, *peers], options, folder, options.connections, BODY
            ),
            "One connection": in_turns([direct, *targets, *peers], options, folder, 1, BODY),
        }
        for name, size in BODIES.items():
            tables[f"Bodies of {name}, 8 connections"] = in_turns([*targets[:2], ours], options, folder, 8, of_size(size))
        for title, runs in tables.items():
            show(title, runs)
        known = {target.name for target in (direct, *targets)}
        if any(run.errors for runs in tables.values() for name, several in runs.items() for run in several if name in known):
            raise SystemExit("some requests failed: the figures mean nothing")


if __name__ == "__main__":
    main()
