"""``pointsman demo``: three simulated providers and the gateway in front of them, in one process, on loopback only."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from runtime.config.loading import load_bytes
from runtime.daemon import Daemon
from runtime.simulation.demo_world import demo_config, demo_world
from runtime.simulation.server import SimulatedProvider

SEED = 1


async def run_demo(host: str, port: int, environ: Mapping[str, str], version: str) -> int:
    """Run until a signal; returns the exit code. Raises ``OSError`` if the address cannot be had."""
    async with demo_world(SEED) as providers:
        configuration = demo_config(providers) | {"server": {"host": host, "port": port, "drain": "5s"}}
        loaded = load_bytes(orjson.dumps(configuration), Path("demo.yaml"), {})
        return await Daemon(loaded, environ, version).run(lambda bound: print(_welcome(host, bound, providers), flush=True))


def _welcome(host: str, port: int, providers: Sequence[SimulatedProvider]) -> str:
    gateway = f"http://{host}:{port}"
    lines = ["", f"Pointsman is at {gateway} (its page: {gateway}/), in front of three simulated providers:", ""]
    for provider in providers:
        behaviour = provider.behaviour
        price = f"${behaviour.input_price:g} in, ${behaviour.output_price:g} out per million tokens"
        speed = f"first byte {behaviour.ttfb_ms:g} ms, {behaviour.tokens_per_second:g} tokens/s"
        lines.append(f"  {behaviour.name:<8} {provider.base_url}  {speed}, {price}")
    broken = providers[0]
    control = broken.base_url.removesuffix("/v1") + "/control/faults"
    body = '{"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]}'
    lines += [
        "",
        "Try it (the headers tell who answered and which decision sent it there):",
        "",
        f"  curl -si {gateway}/v1/chat/completions -H 'content-type: application/json' \\",
        f"    -d '{body}'",
        "",
        f"Break {broken.behaviour.name} for a minute and watch traffic move:",
        "",
        f'  curl -s {control} -H \'content-type: application/json\' -d \'{{"fault": "outage", "for": 60}}\'',
        "",
        "Ctrl-C ends it all.",
        "",
    ]
    return "\n".join(lines)
