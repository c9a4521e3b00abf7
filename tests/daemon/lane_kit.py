"""Both lanes in this process, on transports that go nowhere: bytes in, bytes out, and whether the connection was closed.

``said = await spoken(lane, pieces)`` feeds the pieces to a connection of that lane, each in a turn of the loop's own, and
gives what came back.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from runtime.config.settings import ServerSettings
from runtime.http.admin import Admin
from runtime.http.edge import Edge
from runtime.http.server import HttpServer
from runtime.ports import EdgeRequest, EdgeSink
from tests.daemon.edge_desk import Desk
from tests.lines import LANES, LaneName, Line

MAX_BODY = 2000
TURNS = 60
"""Of the loop, after which nothing more can happen without time passing."""


async def say(request: EdgeRequest, sink: EdgeSink) -> None:
    """The body comes back, whole, or in two pieces of a stream where ``x-stream`` asks for one."""
    headers = [("content-type", "text/plain"), ("x-path", request.path)]
    if not request.header("x-stream"):
        await sink.whole(200, headers, request.body)
        return
    await sink.start(200, headers)
    await sink.write(request.body)
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
        await turns(4)
        for server in lanes.servers:
            await server.stop()
