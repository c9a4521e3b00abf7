"""What is measured side by side: nginx as a reverse proxy, a bare aiohttp pass-through, and Pointsman."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.harness import GATEWAY_CORE, PATH, Target, free_port, nginx_serving, pinned, process
from tests.benchmarks.payload import MODEL

NGINX, BARE = "nginx as reverse proxy", "bare aiohttp pass-through"


@contextlib.contextmanager
def nginx_proxy(folder: Path, upstream_port: int) -> Iterator[Target]:
    """The yardstick: a reverse proxy in C that keeps its connections."""
    port = free_port()
    around = f"upstream there {{ server 127.0.0.1:{upstream_port}; keepalive 128; keepalive_requests 100000000; }}"
    server = (
        f"listen 127.0.0.1:{port} backlog=1024; location / {{ proxy_pass http://there; proxy_http_version 1.1; "
        'proxy_set_header Connection ""; }'
    )
    with nginx_serving(folder / "proxy", server, GATEWAY_CORE, port, around) as pid:
        yield Target(NGINX, port, pid)


@contextlib.contextmanager
def bare(folder: Path, upstream_port: int) -> Iterator[Target]:
    """aiohttp's server and client and nothing else."""
    port = free_port()
    there = f"http://127.0.0.1:{upstream_port}{PATH}"
    argv = pinned(GATEWAY_CORE, [sys.executable, "-m", "tests.benchmarks.passthrough", str(port), there])
    with process(argv, port, folder / "bare.log") as pid:
        yield Target(BARE, port, pid)


@contextlib.contextmanager
def pointsman(folder: Path, upstream_port: int, count: int, sample_ratio: float = 0.01) -> Iterator[Target]:
    """Ours with ``count`` providers of one model, limits on all of them, and that share of requests traced."""
    port = free_port()
    provider = {
        "kind": "openai_compatible",
        "base_url": f"http://127.0.0.1:{upstream_port}/v1",
        "api_key": "key-for-benchmarks",
        "models": [{"name": MODEL, "input_price": 1.0, "output_price": 2.0}],
        "limits": {"requests_per_minute": 100_000_000, "tokens_per_minute": 100_000_000_000, "max_concurrency": 10_000},
        "probe": {"kind": "off"},
    }
    telemetry = {"otlp_endpoint": f"http://127.0.0.1:{upstream_port}", "sample_ratio": sample_ratio}
    configuration = folder / f"pointsman-{count}.yaml"
    providers = [provider | {"id": f"provider-{index}"} for index in range(count)]
    configuration.write_text(json.dumps({"providers": providers, "telemetry": telemetry}))
    argv = [sys.executable, "-m", "runtime", "serve", "-c", str(configuration), "--port", str(port)]
    with process(pinned(GATEWAY_CORE, argv), port, folder / f"pointsman-{count}.log") as pid:
        yield Target(f"Pointsman, {count} providers", port, pid)
