"""Holds many streams open and prints what came over them, as JSON. For ``streams``.

``python -m tests.benchmarks.stream_load PORT STREAMS SECONDS``

Streams are opened over two seconds. Printed: ``first_ms`` (p50 and p99 of the time from request to first event), ``events``
received in the ``SECONDS`` after the last stream had its first event, and ``failed`` streams.
"""

import asyncio
import json
import sys
import time

import uvloop

from tests.benchmarks.payload import MODEL

_OPENING_S = 2.0
_FIRST_WITHIN_S = 30.0


class Listening(asyncio.Protocol):
    """One stream: counts its events by their marks."""

    def __init__(self) -> None:
        self.begun = 0.0
        self.first_s: float | None = None
        self.events = 0
        self.is_lost = False
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done at the first event, or when there will be none."""
        self._is_ok: bool | None = None

    def data_received(self, data: bytes) -> None:
        if self._is_ok is None:
            self._is_ok = data.startswith(b"HTTP/1.1 200")
        found = data.count(b"data: ") if self._is_ok else 0
        if found and self.first_s is None:
            self.first_s = time.monotonic() - self.begun
            self._settle()
        self.events += found

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._settle()

    def _settle(self) -> None:
        if not self.settled.done():
            self.settled.set_result(None)


async def _open(port: int) -> tuple[asyncio.BaseTransport, Listening]:
    body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hello?"}]}).encode()
    lines = ("POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}")
    head = "\r\n".join((*lines, "", ""))
    transport, stream = await asyncio.get_running_loop().create_connection(Listening, "127.0.0.1", port)
    stream.begun = time.monotonic()
    transport.write(head.encode() + body)
    return transport, stream


async def _main(port: int, count: int, seconds: float) -> None:
    pairs = []
    for _ in range(count):
        pairs.append(await _open(port))
        await asyncio.sleep(_OPENING_S / count)
    streams = [stream for _, stream in pairs]
    await asyncio.wait([stream.settled for stream in streams], timeout=_FIRST_WITHIN_S)
    before, begun = sum(stream.events for stream in streams), time.monotonic()
    print(json.dumps({"open": sum(not stream.is_lost for stream in streams)}), flush=True)
    await asyncio.sleep(seconds)
    events, took_s = sum(stream.events for stream in streams) - before, time.monotonic() - begun
    firsts = sorted(stream.first_s * 1e3 for stream in streams if stream.first_s is not None)
    p50, p99 = (firsts[min(len(firsts) - 1, len(firsts) * share // 100)] if firsts else 0.0 for share in (50, 99))
    failed = sum(stream.is_lost or stream.first_s is None for stream in streams)
    print(json.dumps({"first_ms": [p50, p99], "events_per_s": events / took_s, "failed": failed}), flush=True)
    for transport, _ in pairs:
        transport.close()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
