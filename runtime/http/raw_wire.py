"""A connection to a client as a wire: bytes out at its pace, a deadline, and one task that may wait.

Owns: the transport, the deadline, and the waiter.
Always: at most one task waits, for what was sent to be taken or for something its connection tells by ``_wake``. A client that
takes anything of what waits for it, however little, is not given up.
"""

import asyncio
import socket
from math import inf
from typing import cast

from runtime.http.patience import Progress
from runtime.http.raw_lane import RawLane
from runtime.ports import ClientGone


class RawWire(asyncio.Protocol):
    """See the law above. What comes, and what is to be done when time is up, are its connection's matter."""

    def __init__(self, lane: RawLane) -> None:
        self._lane = lane
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self.deadline = inf
        """By the loop's clock: when ``expire`` is due."""
        self._progress = Progress(0)
        """Of the client in taking what was written, since the deadline was set."""
        self._waiter: asyncio.Future[None] | None = None
        self._is_writing = False
        """The task waits for the client to take what was sent."""
        self._is_paused = False
        self._is_client_last = False
        """The client wants nothing after this answer."""
        self.is_full = False
        self.is_gone = False

    @property
    def _line(self) -> asyncio.Transport:
        transport = self._transport
        assert transport is not None
        return transport

    # -- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        line = transport.get_extra_info("socket")
        if line is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._lane.lines.add(self, transport)

    def pause_writing(self) -> None:
        """The client takes less than it is sent."""
        self.is_full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self.is_full = False
        if self._is_writing:
            self._wake()

    # -- what an answer needs

    @property
    def is_last(self) -> bool:
        """Whether the connection is to end with this answer."""
        return self._is_client_last or self._lane.is_draining

    def break_off(self) -> None:
        """Close after what was written. A client that does not take it would keep it, and us, for ever: not for long."""
        if not self.is_gone:
            self._set_deadline(self._lane.idle_s)
            self._line.close()

    def send(self, data: bytes) -> None:
        """Write; never waits."""
        self._line.write(data)

    async def drained(self) -> None:
        """Wait until the client has taken the most of what was written. Raises ``ClientGone``."""
        self._set_deadline(self._lane.idle_s)
        self._is_writing = True
        try:
            await self._wait()
        finally:
            self._is_writing = False
            self.deadline = inf

    # -- inside

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._line.pause_reading()

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._line.resume_reading()

    def _set_deadline(self, in_s: float) -> None:
        self.deadline = self._lane.time() + in_s
        self._progress.is_made(self._line.get_write_buffer_size())

    def _has_taken(self) -> bool:
        """The deadline has passed: put it off if the client took anything meanwhile."""
        if not self._progress.is_made(self._line.get_write_buffer_size()):
            return False
        self.deadline = self._lane.time() + self._lane.idle_s
        return True

    async def _wait(self) -> None:
        self._waiter = self._lane.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self, error: ClientGone | None = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            if error is not None:
                self._waiter.set_exception(error)
            else:
                self._waiter.set_result(None)
