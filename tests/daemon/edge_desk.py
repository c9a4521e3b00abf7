"""What stands behind the listener in its own tests: an edge that notes what it is asked, and a wire that is none."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

from runtime.config.settings import ServerSettings, TlsFiles
from runtime.courier.problems import Problem
from runtime.http.admin import Admin
from runtime.http.edge import Edge, Task
from runtime.http.errand import Host
from runtime.http.lines import Lines
from runtime.http.raw_edge import RawConnection
from runtime.http.raw_lane import RawLane
from runtime.http.server import HttpServer
from runtime.ports import EdgeRequest, EdgeSink, ReadySink

WITHIN_S = 10.0
MAX_BODY = 400_000
IDLE_S = 5.0
Behaviour = Callable[[EdgeRequest, EdgeSink], Awaitable[None]]


async def echo(request: EdgeRequest, sink: EdgeSink) -> None:
    """The body comes back whole, and the value of ``x-say`` in a header."""
    await sink.whole(200, [("x-said", request.header("x-say"))], request.body)


async def hangs(request: EdgeRequest, sink: EdgeSink) -> None:
    """No answer ever."""
    await asyncio.Event().wait()


async def pours(request: EdgeRequest, sink: EdgeSink) -> None:
    """A stream of 20 MB."""
    await sink.start(200, [])
    for number in range(400):
        await sink.write(b"%d" % (number % 10) * 50_000)
    await sink.end()


class _Late:
    """A request that needs a task from its beginning."""

    def __init__(self, desk: "Desk", request: EdgeRequest, sink: EdgeSink, host: Host) -> None:
        self.desk, self.request, self.sink, self.host = desk, request, sink, host
        self.task: Task | None = None

    def start(self) -> None:
        self.host.late()

    async def carry_on(self) -> None:
        self.task = asyncio.current_task()
        assert self.task is not None
        await self.desk.serve(self.request, self.sink, self.task)

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()
        else:
            asyncio.get_running_loop().call_soon(self.cancel)


class _AtOnce:
    """A request that is answered with its own body as soon as it is begun, without a task."""

    def __init__(self, desk: "Desk", request: EdgeRequest, sink: EdgeSink, host: Host) -> None:
        self.desk, self.request, self.sink, self.host = desk, request, sink, host

    def start(self) -> None:
        self.desk.requests.append(self.request)
        cast(ReadySink, self.sink).give(200, "", self.request.body)
        self.host.over()


class Desk:
    """An edge, as the listener uses it. ``at_once``: it answers without a task."""

    def __init__(self, behave: Behaviour = echo, *, at_once: bool = False) -> None:
        self.behave = behave
        self.at_once = at_once
        self.is_cut = False
        self.is_draining = False
        self.refusal: Problem | None = None
        self.requests: list[EdgeRequest] = []
        self.refusals: list[int] = []
        self.ends: list[str] = []
        self.count = 0

    def admit(self, carrier: object) -> Problem | None:
        if self.refusal is None:
            self.count += 1
        return self.refusal

    def leave(self, carrier: object) -> None:
        self.count -= 1

    def refused(self, status: int) -> None:
        self.refusals.append(status)

    def left(self, *, is_here: bool) -> None:
        self.ends.append("cut" if is_here else "left")

    def shown(self) -> dict[str, Any]:
        return {}

    async def serve(self, request: EdgeRequest, sink: EdgeSink, task: Task) -> None:
        self.requests.append(request)
        try:
            await self.behave(request, sink)
            self.ends.append("whole")
        except BaseException as error:
            self.ends.append(type(error).__name__)
            if isinstance(error, asyncio.CancelledError):
                raise

    def errand(self, request: EdgeRequest, sink: EdgeSink, host: Host) -> "_Late | _AtOnce":
        return (_AtOnce if self.at_once else _Late)(self, request, sink, host)

    @property
    def bodies(self) -> list[bytes]:
        return [request.body for request in self.requests]


class _Admin:
    async def explain(self, body: bytes) -> Any:
        return {"bytes": len(body)}


@asynccontextmanager
async def listening(
    desk: Desk, idle_s: float = IDLE_S, lane: Literal["raw", "aiohttp"] = "raw", tls: TlsFiles | None = None
) -> AsyncIterator[tuple[HttpServer, int]]:
    """The product's listener on a port of its own."""
    settings = ServerSettings(port=0, max_body_bytes=MAX_BODY, client_idle_s=idle_s, lane=lane, tls=tls)
    server = HttpServer(cast(Edge, desk), cast(Admin, _Admin()), settings, "test")
    port = await server.start()
    try:
        yield server, port
    finally:
        await server.stop()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that other tasks bring about."""
    async with asyncio.timeout(WITHIN_S):
        while not is_so():  # noqa: ASYNC110 – what is waited for tells nobody
            await asyncio.sleep(0.001)


class Peer:
    """A client that says bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[bytes, bytes]:
        """Head and body of the next answer, whose length is announced."""
        async with asyncio.timeout(WITHIN_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"),
                0,
            )
            return head, await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """All until the other side ends."""
        async with asyncio.timeout(WITHIN_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@asynccontextmanager
async def speaking(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.protocol: asyncio.BaseProtocol | None = None
        self.is_paused = False
        self.is_over = False
        self.is_cut = False
        self.unsent_bytes = 0

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def write_eof(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.is_over = True

    def abort(self) -> None:
        self.is_over = self.is_cut = True

    def is_closing(self) -> bool:
        return self.is_over

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Successor(asyncio.Protocol):
    """Who is handed the connections, and notes what it gets."""

    def __init__(self) -> None:
        self.got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data


class Stage:
    """One connection on a wire that is none. ``feed`` as the loop would, in the pieces given."""

    def __init__(self, desk: Desk, idle_s: float = IDLE_S) -> None:
        self.desk = desk
        self.successor = Successor()
        self.wire = Wire()
        self.lane = RawLane(cast(Edge, desk), Lines(), MAX_BODY, idle_s, lambda: self.successor)
        self.connection = RawConnection(self.lane)
        self.wire.protocol = self.connection
        self.connection.connection_made(self.wire)

    async def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            if piece and not self.wire.is_over:
                cast(asyncio.Protocol, self.wire.protocol).data_received(piece)
                await self.turn()

    async def turn(self) -> None:
        """Let the tasks that can go on go on."""
        for _ in range(20):
            await asyncio.sleep(0)

    def end(self) -> None:
        self.connection.connection_lost(None)
