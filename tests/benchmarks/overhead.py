"""What Pointsman adds to a request: closed loop against the same instant upstream, side by side in one run.

``python -m tests.benchmarks.overhead [--seconds 4] [--rounds 3] [--connections 64]``

(a) the upstream alone, (b) a bare aiohttp pass-through, (c) Pointsman with three providers, routing, limits, breaker and
statistics on and tracing at 10 %. Load generator and upstream share one core, the gateway has the other (taskset). The load
comes from wrk where it is installed, else from a Python generator; the upstream is nginx where it is installed. Absolute
figures belong to the machine of that minute: quote the ratios.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.benchmarks.payload import ANSWER, BODY, MODEL

GATEWAY_CORE, LOAD_CORE = "1", "0"
PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. Latencies in ms."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """CPU time of the gateway's process per request; 0 where there is none."""
    errors: int


@dataclass(frozen=True, slots=True)
class Target:
    """Something to measure."""

    name: str
    port: int
    pid: int | None


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def pinned(core: str, argv: list[str]) -> list[str]:
    """The command on one core, where taskset is there and there are two."""
    return ["taskset", "-c", core, *argv] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else argv


@contextlib.contextmanager
def process(argv: list[str], port: int, log: Path) -> Iterator[int]:
    """Run a server until the block is left; yields its pid once it listens."""
    with log.open("wb") as out:
        child = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        wait_listening(port, child, log)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_listening(port: int, child: "subprocess.Popen[bytes]", log: Path, within_s: float = 20.0) -> None:
    """Until something accepts connections. Raises ``SystemExit`` with the log if the process ends first."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if child.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}:\n{log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[tuple[int, str]]:
    """An upstream that answers at once, which also takes traces."""
    port = free_port()
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        argv = pinned(LOAD_CORE, [sys.executable, "-m", "tests.benchmarks.instant_upstream", str(port)])
        with process(argv, port, folder / "upstream.log"):
            yield port, "asyncio.Protocol"
        return
    configuration = folder / "nginx.conf"
    configuration.write_text(
        "daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; keepalive_requests 100000000; client_body_temp_path body; proxy_temp_path proxy;\n"
        " fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n"
        f" server {{ listen 127.0.0.1:{port} backlog=1024; default_type application/json;\n"
        f"  location / {{ return 200 '{ANSWER.decode()}'; }} location /v1/traces {{ return 200 ''; }} }} }}\n"
    )
    with process(pinned(LOAD_CORE, [nginx, "-p", str(folder), "-c", str(configuration)]), port, folder / "nginx.log"):
        yield port, "nginx"


@contextlib.contextmanager
def targets(folder: Path, upstream_port: int, sample_ratio: float) -> Iterator[list[Target]]:
    """The three things to measure, running."""
    bare, ours = free_port(), free_port()
    base = f"http://127.0.0.1:{upstream_port}/v1"
    provider = {
        "kind": "openai_compatible",
        "base_url": base,
        "api_key": "key-for-benchmarks",
        "models": [{"name": MODEL, "input_price": 1.0, "output_price": 2.0}],
        "limits": {"requests_per_minute": 100_000_000, "tokens_per_minute": 100_000_000_000, "max_concurrency": 10_000},
        "probe": {"kind": "off"},
    }
    telemetry = {"otlp_endpoint": f"http://127.0.0.1:{upstream_port}", "sample_ratio": sample_ratio}
    configuration = folder / "pointsman.yaml"
    providers = [provider | {"id": f"provider-{index}"} for index in range(3)]
    configuration.write_text(json.dumps({"providers": providers, "telemetry": telemetry}))
    serve = [sys.executable, "-m", "runtime", "serve", "-c", str(configuration), "--port", str(ours)]
    through = [sys.executable, "-m", "tests.benchmarks.passthrough", str(bare), base + PATH.removeprefix("/v1")]
    with (
        process(pinned(GATEWAY_CORE, through), bare, folder / "bare.log") as bare_pid,
        process(pinned(GATEWAY_CORE, serve), ours, folder / "pointsman.log") as our_pid,
    ):
        yield [
            Target("a  upstream alone", upstream_port, None),
            Target("b  bare aiohttp pass-through", bare, bare_pid),
            Target("c  Pointsman, 3 providers", ours, our_pid),
        ]


def cpu_seconds(pid: int | None) -> float:
    """CPU time a process has used."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(target: Target, seconds: float, connections: int, folder: Path) -> Run:
    """One closed loop against one target."""
    before = cpu_seconds(target.pid)
    wrk = shutil.which("wrk")
    if wrk is None:
        argv = [sys.executable, "-m", "tests.benchmarks.load", str(target.port), str(seconds), str(connections)]
    else:
        script = folder / "post.lua"
        lua = BODY.decode().replace("\\", "\\\\").replace("'", "\\'")
        script.write_text(f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{lua}'\n")
        url = f"http://127.0.0.1:{target.port}{PATH}"
        argv = [wrk, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "--timeout", "10s", "-s", str(script), url]
    shown = subprocess.run(pinned(LOAD_CORE, argv), capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(target.pid) - before
    return parsed(shown, used)


def parsed(shown: str, cpu_s: float) -> Run:
    """A measurement from what wrk (or our generator, in the same words) has printed."""
    total = re.search(r"(\d+) requests in", shown)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", shown)
    p50 = re.search(r"50%\s+([\d.]+)(us|ms|s)", shown)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", shown)
    if total is None or rate is None or p50 is None or p99 is None:
        raise SystemExit(f"the load generator printed something else:\n{shown}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", shown)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", shown)
    errors = (int(bad.group(1)) if bad else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    return Run(
        float(rate.group(1)),
        float(p50.group(1)) * unit[p50.group(2)],
        float(p99.group(1)) * unit[p99.group(2)],
        cpu_s / max(1, int(total.group(1))) * 1e6,
        errors,
    )


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
        measured = stack.enter_context(targets(folder, port, options.sample_ratio))
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
    direct, bare, ours = runs.values()
    against_bare = [c.requests_per_s / b.requests_per_s for b, c in zip(bare, ours, strict=True)]
    against_direct = [c.requests_per_s / a.requests_per_s for a, c in zip(direct, ours, strict=True)]
    print(
        f"\nPointsman / bare pass-through: {median(against_bare):.2f}  (rounds: {', '.join(f'{r:.2f}' for r in against_bare)})"
    )
    print(f"Pointsman / upstream alone:    {median(against_direct):.3f}")
    if any(run.errors for several in runs.values() for run in several):
        raise SystemExit("some requests failed: the figures mean nothing")


if __name__ == "__main__":
    main()
