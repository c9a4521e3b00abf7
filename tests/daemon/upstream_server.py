"""A raw server for tests of the upstream port: what comes back, and when, the test says byte for byte."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from runtime.ports import CallFailed, Upstream, UpstreamRequest

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """A raw server: each request is read whole, then ``answers`` says, one entry per connection, what comes back."""

    def __init__(self) -> None:
        self.behave: Callable[[Server, Reader, Writer], Awaitable[None]] = one_answer(OK)
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.changed = asyncio.Condition()
        self.release = asyncio.Event()
        self.url = ""

    async def serve(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        self.open += 1
        await self.note()
        try:
            await self.behave(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()
            await self.note()

    async def take_request(self, reader: Reader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        self.requests.append(head + await reader.readexactly(length))
        await self.note()

    async def note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(is_so)


def one_answer(answer: bytes, then: str = "serve") -> Callable[[Server, Reader, Writer], Awaitable[None]]:
    """Answer each request with ``answer``, then serve on, ``close``, ``reset``, or ``hang`` until the peer leaves."""

    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        while True:
            await server.take_request(reader)
            writer.write(answer)
            await writer.drain()
            if then == "close":
                return
            if then == "reset":
                writer.transport.abort()
                return
            if then == "hang":
                await reader.read()
                return

    return behave


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """The server, until the block is left; by then nobody may be connected any more."""
    made = Server()
    listener = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    made.url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/chat/completions"
    try:
        yield made
    finally:
        made.release.set()
        listener.close()
        await made.until(lambda: made.open == 0)


def request(
    url: str, *, body: bytes = b'{"model":"m"}', connect_s: float = 2.0, headers_s: float = 5.0, idle_s: float = 5.0
) -> UpstreamRequest:
    headers = (("Content-Type", "application/json"), ("Authorization", "Bearer k"))
    return UpstreamRequest("POST", url, headers, body, connect_s, headers_s, idle_s)


async def failing(upstream: Upstream, wanted: UpstreamRequest) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await (await upstream.call(wanted)).read(1_000_000)
    return caught.value
