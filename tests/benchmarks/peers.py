"""Other gateways to measure beside ours: what installs each into a scratch folder, and what starts it before an upstream.

Nothing of theirs is among our dependencies; the versions are the newest of the package registries on the day of the run.
"""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from tests.benchmarks.harness import GATEWAY_CORE, Target, free_port, pinned, process
from tests.benchmarks.payload import MODEL

_START_S = 90.0
"""Some of them need half a minute to start."""


def _installed(folder: Path, package: str) -> Path:
    """A Python environment of its own with ``package`` in it."""
    home = folder / package.split("[")[0]
    if not (home / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "--quiet", package], check=True)
    return home / "bin"


def version_of(bin_folder: Path, package: str) -> str:
    """The version that is installed, for the table."""
    asked = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([str(bin_folder / "python"), "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def rust_router(package: str, folder: Path, upstream_port: int) -> Iterator[Target]:
    """``vllm-router`` or ``sglang-router`` with three workers, which are one."""
    bin_folder, port = _installed(folder, package), free_port()
    module = package.replace("-", "_")
    workers = [f"http://127.0.0.1:{upstream_port}", f"http://localhost:{upstream_port}", f"http://127.0.0.2:{upstream_port}"]
    argv = [str(bin_folder / "python"), "-m", f"{module}.launch_router", "--worker-urls", *workers, "--policy", "round_robin"]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port()), "--log-level", "error"]
    with process(pinned(GATEWAY_CORE, argv), port, folder / f"{package}.log", _START_S) as pid:
        yield Target(f"{package} {version_of(bin_folder, package)}", port, pid)


@contextlib.contextmanager
def litellm(folder: Path, upstream_port: int) -> Iterator[Target]:
    """LiteLLM's proxy with three deployments of one model."""
    bin_folder, port = _installed(folder, "litellm[proxy]"), free_port()
    parameters = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "key"}
    configuration = folder / "litellm.yaml"
    master_key = "sk-benchmark-on-loopback"  # It does not start without one.
    told = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}] * 3,
        "general_settings": {"master_key": master_key},
    }
    configuration.write_text(json.dumps(told))
    argv = [str(bin_folder / "litellm"), "--config", str(configuration), "--host", "127.0.0.1", "--port", str(port)]
    with process(pinned(GATEWAY_CORE, argv), port, folder / "litellm.log", _START_S) as pid:
        yield Target(f"litellm {version_of(bin_folder, 'litellm')}", port, pid, {"Authorization": f"Bearer {master_key}"})


@contextlib.contextmanager
def portkey(folder: Path, upstream_port: int) -> Iterator[Target]:
    """Portkey's gateway; it is told its upstream by headers."""
    home, port = folder / "portkey", free_port()
    package = home / "node_modules" / "@portkey-ai" / "gateway"
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise SystemExit("Portkey's gateway needs node and npm")
    if not package.exists():
        home.mkdir(parents=True, exist_ok=True)
        wanted = ["@portkey-ai/gateway", "@hono/node-server@1.13.7"]
        subprocess.run([npm, "install", "--silent", "--no-save", "--prefix", str(home), *wanted], check=True, cwd=home)
    version = json.loads((package / "package.json").read_text())["version"]
    argv = [node, str(package / "build" / "start-server.js"), f"--port={port}", "--headless"]
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
        "Authorization": "Bearer key",
    }
    with process(pinned(GATEWAY_CORE, argv), port, folder / "portkey.log", _START_S) as pid:
        yield Target(f"Portkey {version}", port, pid, headers)


@contextlib.contextmanager
def all_peers(folder: Path, upstream_port: int) -> Iterator[list[Target]]:
    """All of them, one after the other installed and started; one that cannot be is told and left out."""
    makers: dict[str, Callable[[], AbstractContextManager[Target]]] = {
        "vllm-router": partial(rust_router, "vllm-router", folder, upstream_port),
        "sglang-router": partial(rust_router, "sglang-router", folder, upstream_port),
        "litellm": partial(litellm, folder, upstream_port),
        "Portkey": partial(portkey, folder, upstream_port),
    }
    with contextlib.ExitStack() as stack:
        found: list[Target] = []
        for name, make in makers.items():
            try:
                found.append(stack.enter_context(make()))
            except (SystemExit, subprocess.CalledProcessError) as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
        yield found
