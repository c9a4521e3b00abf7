"""An upstream that streams: each request gets events at a constant rate until its client leaves. For ``streams``.

``python -m tests.benchmarks.stream_upstream PORT EVENTS_PER_S``; a rate of 0 sends one event and then keeps silent.

One timer serves all streams, so that the upstream costs little beside what is measured.
"""

import asyncio
import sys
from typing import cast

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1800000000,"model":"bench-model",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
_CHUNK = b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT)


class Streaming(asyncio.Protocol):
    """Starts a stream for each request head it sees."""

    def __init__(self, streams: set[asyncio.Transport]) -> None:
        self._streams = streams
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if b"\r\n\r\n" in self._buffer and self._transport is not None and self._transport not in self._streams:
            self._transport.write(_HEAD + _CHUNK)
            self._streams.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._streams.discard(self._transport)


async def _serve(port: int, rate: float) -> None:
    streams: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Streaming(streams), "127.0.0.1", port, backlog=4096)
    due = loop.time()
    async with server:
        while True:
            due += 1.0 / rate if rate else 3600.0
            await asyncio.sleep(max(0.0, due - loop.time()))
            for transport in streams:
                transport.write(_CHUNK)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
