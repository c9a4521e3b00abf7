"""What the benchmarks of whole gateways share: processes on their cores, an instant upstream, wrk, and what it prints."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.payload import ANSWER, BODY

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
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with each request, besides the content type."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def pinned(core: str, argv: list[str]) -> list[str]:
    """The command on one core, where taskset is there and there are two."""
    return ["taskset", "-c", core, *argv] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else argv


@contextlib.contextmanager
def process(argv: list[str], port: int, log: Path, within_s: float = 20.0) -> Iterator[int]:
    """Run a server until the block is left; yields its pid once it listens."""
    with log.open("wb") as out:
        child = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        wait_listening(port, child, log, within_s)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_listening(port: int, child: "subprocess.Popen[bytes]", log: Path, within_s: float) -> None:
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
    if nginx_path() is None:
        argv = pinned(LOAD_CORE, [sys.executable, "-m", "tests.benchmarks.instant_upstream", str(port)])
        with process(argv, port, folder / "upstream.log"):
            yield port, "asyncio.Protocol"
        return
    listens = " ".join(f"listen 127.0.0.{host}:{port} backlog=1024;" for host in (1, 2, 3))
    server = (
        f"{listens} default_type application/json;\n"
        f"location / {{ return 200 '{ANSWER.decode()}'; }} location /v1/traces {{ return 200 ''; }}"
    )
    with nginx_serving(folder / "upstream", server, LOAD_CORE, port):
        yield port, "nginx"


@contextlib.contextmanager
def nginx_serving(home: Path, server: str, core: str, port: int, around: str = "") -> Iterator[int]:
    """An nginx with one worker that serves a ``server`` block (and what stands ``around`` it); yields the worker's pid."""
    home.mkdir()
    configuration = home / "nginx.conf"
    configuration.write_text(
        "daemon off; worker_processes 1; pid nginx.pid; error_log stderr error;\n"
        "events { worker_connections 8192; }\n"
        "http { access_log off; keepalive_requests 100000000; client_max_body_size 100m; client_body_buffer_size 16m;\n"
        "client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n"
        f"{around}\nserver {{ {server} }} }}\n"
    )
    argv = pinned(core, [nginx_path() or "nginx", "-p", str(home), "-c", str(configuration)])
    with process(argv, port, home / "nginx.log") as pid:
        # The process started is the master; the one that works is its child.
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        yield int(children[0]) if children else pid


def nginx_path() -> str | None:
    """Where nginx is; None: nowhere."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def cpu_seconds(pid: int | None) -> float:
    """CPU time a process has used."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(target: Target, seconds: float, connections: int, folder: Path, body: bytes = BODY) -> Run:
    """One closed loop of requests with ``body`` against one target. Another body than the usual one needs wrk."""
    before = cpu_seconds(target.pid)
    wrk = shutil.which("wrk")
    if wrk is None:
        argv = [sys.executable, "-m", "tests.benchmarks.load", str(target.port), str(seconds), str(connections)]
    else:
        script = folder / "post.lua"
        lua = body.decode().replace("\\", "\\\\").replace("'", "\\'")
        sent = {"Content-Type": "application/json", **target.headers}
        headers = "".join(f"wrk.headers['{name}'] = '{value}'\n" for name, value in sent.items())
        script.write_text(f"wrk.method = 'POST'\n{headers}wrk.body = '{lua}'\n")
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
