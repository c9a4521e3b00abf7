"""CPU time of one call upstream, client by client: the same server, which answers at once, in a process of its own.

``python -m tests.benchmarks.upstream [--calls 20000] [--connections 64] [--rounds 3] [--loop uvloop|asyncio]``

Rows: the floor (a protocol that writes fixed bytes and counts those that come back), the raw client, ours on aiohttp, a plain
aiohttp session. What is told is the CPU time of this process per call, the median of the rounds; the server's is not in it.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import cast

import aiohttp
import uvloop

from runtime.ports import Upstream, UpstreamRequest
from runtime.upstream.aiohttp_client import AiohttpUpstream
from runtime.upstream.choice import ChoosingUpstream
from runtime.upstream.raw_client import RawUpstream
from tests.benchmarks.harness import LOAD_CORE, free_port, pinned, process
from tests.benchmarks.payload import ANSWER, BODY

PATH = "/v1/chat/completions"
HEADERS = (
    ("Content-Type", "application/json"),
    ("User-Agent", "pointsman"),
    ("Accept-Encoding", "identity"),
    ("Authorization", "Bearer key-for-benchmarks"),
    ("Accept", "application/json"),
)
WARM_UP_CALLS = 2000

Call = Callable[[], Awaitable[None]]


class Floor(asyncio.Protocol):
    """The least a client can do: no parser, no pool, no limits."""

    def __init__(self, answer_bytes: int, request: bytes) -> None:
        self._answer_bytes = answer_bytes
        self._request = request
        self._left_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._left_bytes -= len(data)
        if self._left_bytes == 0 and self._waiter is not None:
            self._waiter.set_result(None)

    async def call(self) -> None:
        assert self.transport is not None
        self._left_bytes = self._answer_bytes
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(self._request)
        await self._waiter


async def closed_loop(calls: int, callers: list[Call]) -> float:
    """CPU time per call in µs, each caller beginning its next call when the last has ended."""

    async def caller(call: Call) -> None:
        for _ in range(max(1, calls // len(callers))):
            await call()

    begun_s = time.process_time()
    await asyncio.gather(*(caller(call) for call in callers))
    return (time.process_time() - begun_s) / calls * 1e6


async def measure_port(upstream: Upstream, url: str, calls: int, connections: int) -> float:
    """An upstream port of ours."""

    async def call() -> None:
        answer = await upstream.call(UpstreamRequest("POST", url, tuple(HEADERS), BODY, 2.0, 60.0, 30.0))
        body = await answer.read(1_000_000)
        answer.close()
        assert len(body) == len(ANSWER)

    await closed_loop(WARM_UP_CALLS, [call] * connections)
    taken_us = await closed_loop(calls, [call] * connections)
    await upstream.close()
    return taken_us


async def measure_session(url: str, calls: int, connections: int) -> float:
    """aiohttp as most would use it."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call() -> None:
            async with session.post(url, data=BODY, headers=dict(HEADERS)) as answer:
                assert len(await answer.read()) == len(ANSWER)

        await closed_loop(WARM_UP_CALLS, [call] * connections)
        return await closed_loop(calls, [call] * connections)


async def measure_floor(port: int, calls: int, connections: int) -> float:
    """Nothing but the loop and the sockets."""
    loop = asyncio.get_running_loop()
    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS)
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}Content-Length: {len(BODY)}\r\n\r\n"
    answer_bytes = len(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER))
    answer_bytes += len(ANSWER)
    made = []
    for _ in range(connections):
        made.append((await loop.create_connection(lambda: Floor(answer_bytes, head.encode() + BODY), "127.0.0.1", port))[1])
    await closed_loop(WARM_UP_CALLS, [floor.call for floor in made])
    taken_us = await closed_loop(calls, [floor.call for floor in made])
    for floor in made:
        assert floor.transport is not None
        floor.transport.abort()
    return taken_us


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of one call upstream, client by client.")
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.port:
        port = free_port()
        server = pinned(LOAD_CORE, [sys.executable, "-m", "tests.benchmarks.instant_upstream", str(port)])
        with tempfile.TemporaryDirectory() as folder, process(server, port, Path(folder) / "server.log"):
            arguments.port = port
            report(arguments)
    else:
        report(arguments)


def report(arguments: argparse.Namespace) -> None:
    """Measure by turns, so that a busy moment of the machine meets everybody."""
    port, calls, connections = arguments.port, arguments.calls, arguments.connections
    url = f"http://127.0.0.1:{port}{PATH}"
    rows: dict[str, Callable[[], Awaitable[float]]] = {
        "floor": lambda: measure_floor(port, calls, connections),
        "raw": lambda: measure_port(RawUpstream(), url, calls, connections),
        "chosen (auto)": lambda: measure_port(ChoosingUpstream(), url, calls, connections),
        "ours on aiohttp": lambda: measure_port(AiohttpUpstream(), url, calls, connections),
        "aiohttp session": lambda: measure_session(url, calls, connections),
    }
    taken_us: dict[str, list[float]] = {name: [] for name in rows}

    async def rounds() -> None:
        for _ in range(arguments.rounds):
            for name, measure in rows.items():
                taken_us[name].append(await measure())

    factory = uvloop.new_event_loop if arguments.loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(rounds())
    floor_us = median(taken_us["floor"])
    print(f"{arguments.loop}, {connections} connections, {calls} calls, median of {arguments.rounds} (µs of CPU per call)")
    for name, all_us in taken_us.items():
        print(f"  {name:<16} {median(all_us):7.1f}   above the floor {median(all_us) - floor_us:7.1f}")


if __name__ == "__main__":
    main()
