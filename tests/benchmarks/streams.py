"""What streams cost: many at once through the gateway, beside a bare aiohttp pass-through and nginx, in one run.

``python -m tests.benchmarks.streams [--streams 1000] [--rate 50] [--seconds 10]``

First silent streams, whose growth in resident memory shows what one costs that is only open; then streams that each bring
``rate`` events a second: processor time of whatever is measured, added time to first event, events that arrived. Load and
upstream share one core, what is measured has the other. Where events arrive later than they were sent the share of the core
is near 100 %: look at events per second then.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.contestants import bare, nginx_proxy, pointsman
from tests.benchmarks.harness import LOAD_CORE, Target, cpu_seconds, free_port, nginx_path, pinned, process


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement of one target."""

    first_ms: tuple[float, float]
    """p50 and p99."""
    events_per_s: float
    cpu_share: float
    """Of one core."""
    kb_per_stream: float
    """Growth of resident memory."""
    failed: int


def resident_kb(pid: int | None) -> int:
    """Resident memory of a process."""
    if pid is None:
        return 0
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


def measure(target: Target, count: int, seconds: float) -> Figures:
    """Hold ``count`` streams open for ``seconds``."""
    before_kb = resident_kb(target.pid)
    argv = pinned(LOAD_CORE, [sys.executable, "-m", "tests.benchmarks.stream_load", str(target.port), str(count), str(seconds)])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        before_s, open_kb = cpu_seconds(target.pid), resident_kb(target.pid)
        told = json.loads(child.stdout.readline())
        used_s = cpu_seconds(target.pid) - before_s
    first = (told["first_ms"][0], told["first_ms"][1])
    return Figures(first, told["events_per_s"], used_s / seconds, (open_kb - before_kb) / count, told["failed"])


def table(rate: float, options: argparse.Namespace) -> bool:
    """Measure and print; returns whether a stream failed."""
    failed = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        argv = pinned(LOAD_CORE, [sys.executable, "-m", "tests.benchmarks.stream_upstream", str(port), str(rate)])
        stack.enter_context(process(argv, port, folder / "upstream.log"))
        targets = [Target("upstream alone", port, None)]
        if nginx_path() is not None:
            targets.append(stack.enter_context(nginx_proxy(folder, port)))
        targets += [stack.enter_context(bare(folder, port)), stack.enter_context(pointsman(folder, port, 3))]
        print(f"\n{options.streams} streams, {rate:g} events/s each")
        print(f"{'':32}{'first p50':>10}{'p99 ms':>9}{'events/s':>10}{'CPU':>7}{'kB each':>9}{'failed':>8}", flush=True)
        for target in targets:
            measure(target, min(100, options.streams), 0.5)
            got = measure(target, options.streams, options.seconds)
            failed += got.failed
            print(
                f"{target.name:32}{got.first_ms[0]:10.1f}{got.first_ms[1]:9.1f}{got.events_per_s:10.0f}"
                f"{got.cpu_share:7.0%}{got.kb_per_stream:9.1f}{got.failed:8d}",
                flush=True,
            )
    return bool(failed)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50.0, help="events per second of each stream")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    has_failed = table(0.0, options)
    has_failed = table(options.rate, options) or has_failed
    if has_failed:
        raise SystemExit("some streams failed: the figures mean nothing")


if __name__ == "__main__":
    main()
