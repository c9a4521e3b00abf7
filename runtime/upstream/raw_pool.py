"""The connections to one origin: those that rest, the last used first, and those in use.

Owns: every connection to its origin until its socket is closed.
Always: at most ``IDLE_MAX`` rest, none of them for more than ``KEEPALIVE_S`` and a sweep's lateness. What ends or gets bytes
while it rests leaves at once. There is no limit for those in use: how many calls go where, the actors decide.
"""

import asyncio
from collections.abc import Callable

from runtime.timely import CLOCK_GRAIN_S
from runtime.upstream.failures import Closed
from runtime.upstream.raw_connection import RawConnection

IDLE_MAX = 256
KEEPALIVE_S = 30.0


class Pool:
    """See the law above."""

    __slots__ = ("_emptied", "_idle", "_is_closed", "_loop", "_on_served", "_sweep", "_time", "connections")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_served: Callable[[RawConnection], None] | None = None) -> None:
        self._loop = loop
        self._time = loop.time
        self._on_served = on_served
        """Told of each connection once, when it is given back for the first time."""
        self._idle: list[RawConnection] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._emptied: asyncio.Future[None] | None = None
        self.connections: dict[RawConnection, None] = {}
        """All whose socket is not closed yet."""

    def __repr__(self) -> str:
        return f"Pool({len(self._idle)} idle of {len(self.connections)})"

    def made(self) -> RawConnection:
        """A new connection, to be connected."""
        return RawConnection(self._loop, self)

    def take(self) -> RawConnection | None:
        """The connection that rested last, if any is ready."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_ready:
                return connection
        return None

    def give_back(self, connection: RawConnection) -> None:
        """The exchange is over: the connection rests, or is cut if it cannot serve again."""
        now = self._time()
        if self._on_served is not None and not connection.has_served:
            self._on_served(connection)
        if len(self._idle) >= IDLE_MAX or not connection.rest(now):
            connection.cut(Closed())
            return
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_at(now + KEEPALIVE_S, self._drop_old)

    def close(self) -> None:
        """Cut everything, also what is connected later; those who wait there get ``Closed``."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self.connections):
            connection.cut(Closed())

    async def emptied(self) -> None:
        """Until every socket is closed. To be awaited once, after ``close``."""
        if self.connections:
            self._emptied = self._loop.create_future()
            await self._emptied

    def enter(self, connection: RawConnection) -> None:
        """It is connected."""
        self.connections[connection] = None
        if self._is_closed:
            connection.cut(Closed())

    def take_out(self, connection: RawConnection) -> None:
        """It ended while it rested."""
        if connection in self._idle:
            self._idle.remove(connection)

    def forget(self, connection: RawConnection) -> None:
        """Its socket is closed."""
        self.connections.pop(connection, None)
        if not self.connections and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _drop_old(self) -> None:
        """The first have rested longest: what is used is taken from the end and given back to the end."""
        self._sweep = None
        until = self._time() - KEEPALIVE_S + CLOCK_GRAIN_S
        while self._idle and self._idle[0].rested_at <= until:
            self._idle.pop(0).cut(Closed())
        if self._idle:
            self._sweep = self._loop.call_at(self._idle[0].rested_at + KEEPALIVE_S, self._drop_old)
