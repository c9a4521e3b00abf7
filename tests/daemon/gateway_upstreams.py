"""What stands behind the gateway in its tests: simulated providers, and upstreams that send exactly the bytes a test says.

Both run in a thread of their own, so that a test may be plain blocking code and its gateway may serve a whole module.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import orjson

from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import Fault
from runtime.simulation.server import SimulatedProvider
from tests.daemon.gateway import WITHIN_S

T = TypeVar("T")

CONTENT = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "u"}


class Backstage:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WITHIN_S)

    def close(self) -> None:
        """End whatever still runs, then the loop."""
        self.run(_end_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @contextmanager
    def simulated(self, behaviour: Behaviour, seed: int = 1) -> Iterator[SimulatedProvider]:
        """A simulated provider. Its records may be read from anywhere; faults go by ``switch_on``."""
        provider = SimulatedProvider(behaviour, seed)
        self.run(provider.start())
        try:
            yield provider
        finally:
            self.run(provider.stop())

    def switch_on(self, provider: SimulatedProvider, fault: Fault) -> None:
        """Let a fault hold from now."""

        async def switch() -> None:
            provider.switch_on(fault)

        self.run(switch())


async def _end_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Gate:
    """Something a script waits for and a test opens."""

    def __init__(self, backstage: Backstage) -> None:
        self._loop = backstage.loop
        self._event = asyncio.Event()

    def open(self) -> None:
        """Let the script go on."""
        self._loop.call_soon_threadsafe(self._event.set)

    async def passed(self) -> None:
        """Wait until it is open."""
        await self._event.wait()


class Exchange:
    """One request at a scripted upstream, and the pen its answer is written with."""

    def __init__(
        self,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.target = target
        self.headers = headers
        self.body = body
        self.is_left = False
        """The caller has left before the script was done."""
        self._reader = reader
        self._writer = writer
        self.closes = False
        """The connection is not to be used again."""

    def header(self, name: str) -> str | None:
        """The value of the only header called ``name``, or None."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def reply(self, status: int, body: bytes, *headers: tuple[str, str], content_type: str = "application/json") -> None:
        """A whole answer."""
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
        lines += ["Connection: close"] * self.closes
        lines += [f"{name}: {value}" for name, value in headers]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def begin_stream(self, *headers: tuple[str, str]) -> None:
        """The head of a stream."""
        lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked"]
        lines += ["Connection: close"] * self.closes
        lines += [f"{name}: {value}" for name, value in headers]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def chunk(self, data: bytes) -> None:
        """One chunk of a stream's body."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        """The proper end of the body."""
        await self.send(b"0\r\n\r\n")

    async def hang(self) -> None:
        """Say nothing more until the caller leaves."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass
        self.is_left = True
        self.closes = True

    def cut(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()
        self.closes = True


Script = Callable[[Exchange], Awaitable[None]]


class ScriptedUpstream:
    """Many upstreams on one port: ``base_url(name)`` leads to the script that ``name`` has at the time."""

    def __init__(self, backstage: Backstage) -> None:
        self.backstage = backstage
        self.scripts: dict[str, Script] = {}
        self._exchanges: dict[str, list[Exchange]] = {}
        self._server: asyncio.Server | None = None
        self.port = 0
        self.keeps_alive = True
        """False: each request comes on a connection of its own, so that none can be taken for stale and sent again."""

    def base_url(self, name: str) -> str:
        """Where the upstream called ``name`` is."""
        return f"http://127.0.0.1:{self.port}/{name}/v1"

    def requests(self, name: str) -> list[Exchange]:
        """The requests that came to ``name``, oldest first."""
        return list(self._exchanges.get(name, ()))

    def forget(self) -> None:
        """Forget all requests."""
        self._exchanges.clear()

    def gate(self) -> Gate:
        """A gate for scripts here."""
        return Gate(self.backstage)

    def __enter__(self) -> "ScriptedUpstream":
        async def listen() -> asyncio.Server:
            return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)

        self._server = self.backstage.run(listen())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            assert self._server is not None
            self._server.close()
            await _end_others()

        self.backstage.run(stop())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange: Exchange | None = None
        try:
            while (exchange := await _read_request(reader, writer)) is not None:
                name = exchange.target.split("/")[1]
                self._exchanges.setdefault(name, []).append(exchange)
                exchange.closes = not self.keeps_alive
                await self.scripts[name](exchange)
                if exchange.closes:
                    return
        except ConnectionError:
            if exchange is not None:
                exchange.is_left = True
        except asyncio.CancelledError:
            # The end of the test; raised on, asyncio would log it.
            return
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    body = await reader.readexactly(length)
    return Exchange(first.split(" ")[1], headers, body, reader, writer)


# -- what most upstreams say


def completion(text: str = "hi", **more: Any) -> bytes:
    """A whole chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    whole = {"id": "c1", "object": "chat.completion", "created": 1, "model": "u", "choices": [choice], "usage": usage}
    return orjson.dumps({**whole, **more})


def error(message: str, code: str | None = None, kind: str = "invalid_request_error", param: str | None = None) -> bytes:
    """An error in OpenAI's shape."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    """One event of a stream."""
    return (
        b"data: "
        + orjson.dumps({**CONTENT, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})
        + b"\n\n"
    )


ROLE = event({"role": "assistant", "content": ""})
DONE = b"data: [DONE]\n\n"


async def answers(exchange: Exchange) -> None:
    """A good provider, streaming or not, also when it is probed."""
    if not exchange.body:
        await exchange.reply(200, b'{"object":"list","data":[]}')
        return
    if not orjson.loads(exchange.body).get("stream"):
        await exchange.reply(200, completion())
        return
    await exchange.begin_stream()
    for piece in (ROLE, event({"content": "hi"}), event({}, "stop"), DONE):
        await exchange.chunk(piece)
    await exchange.end_stream()


async def hangs(exchange: Exchange) -> None:
    """Takes the request and says nothing."""
    await exchange.hang()


def replies(status: int, body: bytes, *headers: tuple[str, str], content_type: str = "application/json") -> Script:
    """Always the same answer."""

    async def script(exchange: Exchange) -> None:
        await exchange.reply(status, body, *headers, content_type=content_type)

    return script


def streams(*pieces: bytes, cut: bool = False) -> Script:
    """Always the same stream; ``cut``: without its proper end."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for piece in pieces:
            await exchange.chunk(piece)
        if cut:
            exchange.cut()
        else:
            await exchange.end_stream()

    return script
