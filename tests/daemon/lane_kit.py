"""Both lanes in this process, on transports that go nowhere: bytes in, bytes out, and whether the connection was closed.

``said = await spoken(lane, pieces)`` feeds the pieces to a connection of that lane, each in a turn of the loop's own, and
gives what came back.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import orjson

from runtime.config.settings import ServerSettings
from runtime.http.admin import Admin
from runtime.http.edge import Edge
from runtime.http.server import HttpServer
from runtime.ports import EdgeRequest, EdgeSink
from tests.daemon.edge_desk import Desk

LaneName = Literal["raw", "aiohttp"]
LANES: tuple[LaneName, ...] = ("raw", "aiohttp")
MAX_BODY = 2000
TURNS = 60
"""Of the loop, after which nothing more can happen without time passing."""


class Line(asyncio.Transport):
    """A transport that keeps what it is given, and closes as a real one does: in the loop's next turn."""

    def __init__(self) -> None:
        super().__init__()
        self.said = bytearray()
        self.protocol: Any = None
        self.is_closed = False
        self.is_ended = False
        self._is_reading = True
        self._unread: list[bytes] = []

    def write(self, data: Any) -> None:
        if not self.is_closed:
            assert not self.is_ended, "written after the end"
            self.said += bytes(data)

    def write_eof(self) -> None:
        self.is_ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(lambda: self.protocol.connection_lost(None))

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.is_closed

    def is_reading(self) -> bool:
        return self._is_reading

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        asyncio.get_running_loop().call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def give(self, data: bytes) -> None:
        """Bytes of the client's."""
        self._unread.append(data)
        self._deliver()

    def _deliver(self) -> None:
        while self._unread and self._is_reading and not self.is_closed:
            self.protocol.data_received(self._unread.pop(0))


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, as far as the lanes must agree."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_whole: bool = True


async def say(request: EdgeRequest, sink: EdgeSink) -> None:
    """The body comes back, whole, or in two pieces of a stream where ``x-stream`` asks for one."""
    is_stream = bool(request.header("x-stream"))
    await sink.start(200, [("content-type", "text/plain"), ("x-path", request.path)], None if is_stream else len(request.body))
    await sink.write(request.body)
    if is_stream:
        await sink.write(b"and more")
    await sink.end()


class _Admin:
    async def explain(self, body: bytes) -> Any:
        return {"bytes": len(body)}


class Lanes:
    """Both lanes before one desk each; or before ``edges`` of the test's own."""

    def __init__(self, idle_s: float = 30.0, edges: Mapping[LaneName, Edge] | None = None) -> None:
        self.desks = {name: Desk(say) for name in LANES}
        self._factories = {}
        self._lines: list[Line] = []
        self.servers = []
        for name in LANES:
            settings = ServerSettings(lane=name, max_body_bytes=MAX_BODY, client_idle_s=idle_s)
            edge = edges[name] if edges is not None else cast(Edge, self.desks[name])
            server = HttpServer(edge, cast(Admin, _Admin()), settings, "test")
            self._factories[name] = server.protocols()
            self.servers.append(server)

    def connect(self, lane: LaneName) -> Line:
        """A new connection."""
        line = Line()
        line.protocol = self._factories[lane]()
        line.protocol.connection_made(line)
        self._lines.append(line)
        return line

    async def say(self, lane: LaneName, *pieces: bytes, said_bytes: int | None = None) -> Line:
        """A connection on which the client said ``pieces``, one after the other, and waited for what it gets.

        ``said_bytes``: with so many it has got all it expects, which spares the waiting for more.
        """
        line = self.connect(lane)
        for piece in pieces:
            if piece and not line.is_closed:
                line.give(piece)
                await turns(4)
        for _ in range(TURNS):
            if said_bytes is not None and len(line.said) >= said_bytes:
                # It may be about to be closed.
                await turns(3)
                break
            await turns(1)
        return line

    def leave(self) -> None:
        """All clients leave, so that nobody's last words are waited for."""
        for line in self._lines:
            line.close()

    def seen(self, lane: LaneName) -> list[tuple[str, tuple[tuple[str, str], ...], bytes]]:
        """What the edge was asked on that lane since it was last looked: path, headers, body."""
        requests = self.desks[lane].requests
        found = [(one.path, tuple((name.lower(), value) for name, value in one.headers), one.body) for one in requests]
        requests.clear()
        return found


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def both_lanes(idle_s: float = 30.0, edges: Mapping[LaneName, Edge] | None = None) -> AsyncIterator[Lanes]:
    lanes = Lanes(idle_s, edges)
    try:
        yield lanes
    finally:
        lanes.leave()
        for server in lanes.servers:
            await server.stop()


_UNCOMPARED = frozenset({"content-length", "date", "transfer-encoding"})


def replies(said: bytes | bytearray) -> list[Reply]:
    """The answers in what was said, their headers in one order and spelling, without the date and what frames them.

    A refused request is answered in words of each lane's own, and by aiohttp, where it cannot read it, in HTTP/1.0: that it is
    refused, with which status and code, is the same.
    """
    found = []
    rest = bytes(said)
    while rest:
        head, separator, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/([01]\.[019]) (\d{3}) .*", first)
        assert match, said
        assert separator, said
        status = int(match[2])
        pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if status == 100:
            # It may be left out where the body is here already.
            continue
        body, rest, is_whole = _body(dict(pairs), rest)
        if status in (400, 431):
            pairs = [pair for pair in pairs if pair[0] != "connection"]
            error = orjson.loads(body)["error"]
            body = orjson.dumps({**error, "message": ""})
        shown = {name: value for name, value in pairs if name not in _UNCOMPARED}
        if match[1] == "1.0" and shown.get("connection") == "close":
            # It goes without saying there.
            del shown["connection"]
        shown["http"] = match[1] if status not in (400, 431) else ""
        found.append(Reply(status, tuple(sorted(shown.items())), body, is_whole))
    return found


def _body(headers: dict[str, str], rest: bytes) -> tuple[bytes, bytes, bool]:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            body += rest[:length]
            rest = rest[length + 2 :]
            if not length:
                return body, rest, True
        return body, rest, False
    if "content-length" not in headers:
        return rest, b"", True
    length = int(headers["content-length"])
    return rest[:length], rest[length:], len(rest) >= length
