"""What Pointsman adds to a request: closed loop against the same instant upstream, side by side in one run.

``python -m tests.benchmarks.overhead [--seconds 4] [--rounds 3] [--connections 64]``

(a) the upstream alone, (b) a bare aiohttp pass-through, (c) Pointsman with three providers, routing, limits, breaker and
statistics on and tracing at 10 %. Load generator and upstream share one core, the gateway has the other (taskset). The load
comes from wrk where it is installed, else from a Python generator; the upstream is nginx where it is installed. Absolute
figures belong to the machine of that minute: quote the ratios.
"""

import argparse
import contextlib
import shutil
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmarks.contestants import bare, pointsman
from tests.benchmarks.harness import Run, Target, measure, upstream


def main() -> None:
    """Measure in turns, print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--sample-ratio", type=float, default=0.1, help="share of requests that are traced")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, kind = stack.enter_context(upstream(folder))
        measured = [Target("upstream alone", port, None), stack.enter_context(bare(folder, port))]
        measured.append(stack.enter_context(pointsman(folder, port, 3, options.sample_ratio)))
        load = "wrk" if shutil.which("wrk") else "Python load generator"
        print(f"upstream: {kind}, load: {load}, {options.connections} connections, {options.rounds} x {options.seconds:g} s")
        runs: dict[str, list[Run]] = {target.name: [] for target in measured}
        for target in measured:
            measure(target, 1.0, options.connections, folder)
        for _ in range(options.rounds):
            for target in measured:
                runs[target.name].append(measure(target, options.seconds, options.connections, folder))
    print(f"\n{'':32}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}{'errors':>8}")
    for label, several in runs.items():
        figures = [median(getattr(run, field) for run in several) for field in ("requests_per_s", "p50_ms", "p99_ms", "cpu_us")]
        errors = sum(run.errors for run in several)
        print(f"{label:32}{figures[0]:9.0f}{figures[1]:9.2f}{figures[2]:9.2f}{figures[3]:9.0f}{errors:8d}")
    direct, passthrough, ours = runs.values()
    against_bare = [c.requests_per_s / b.requests_per_s for b, c in zip(passthrough, ours, strict=True)]
    against_direct = [c.requests_per_s / a.requests_per_s for a, c in zip(direct, ours, strict=True)]
    print(
        f"\nPointsman / bare pass-through: {median(against_bare):.2f}  (rounds: {', '.join(f'{r:.2f}' for r in against_bare)})"
    )
    print(f"Pointsman / upstream alone:    {median(against_direct):.3f}")
    if any(run.errors for several in runs.values() for run in several):
        raise SystemExit("some requests failed: the figures mean nothing")


if __name__ == "__main__":
    main()
