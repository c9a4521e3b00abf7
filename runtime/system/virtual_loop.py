"""The virtual twin of the event loop: when nothing is ready, time jumps to the next timer.

Owns: its own time, in seconds from 0.
Always: callbacks run in the order in which they were asked for, timers by due time and those due together in the order in
which they were set, so the same program with the same seed runs the same way. A real socket or thread would bring in the
outside world's timing, so asking for one raises ``RealWorldError``; waiting with no timer left can never end, so it raises
``NothingLeftError``.

Start it with ``asyncio.Runner(loop_factory=VirtualLoop)``.
"""

import asyncio
import heapq
import math
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any, NoReturn, TypeVarTuple

Arguments = TypeVarTuple("Arguments")


class RealWorldError(RuntimeError):
    """Virtual time cannot wait for a real socket, pipe, process or thread."""


class NothingLeftError(RuntimeError):
    """Everything waits, no timer is set: this would hang for ever."""


class _JumpingSelector:
    """Stands where the loop's selector stands: instead of sleeping it moves the time."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise NothingLeftError("everything waits and no timer is set")
        if timeout > 0:
            self._loop.jump()
        return []

    def get_map(self) -> dict[Any, Any]:
        return {}

    def close(self) -> None:
        pass


class _OrderedTimer(asyncio.TimerHandle):
    """A timer that knows which of those due at the same time it is."""

    __slots__ = ("_number",)

    _scheduled: bool
    """asyncio's mark that it is in the heap."""
    _when: float

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
        number: int,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._number = number

    def __lt__(self, other: Any) -> bool:
        if isinstance(other, _OrderedTimer):
            # A heap compares a dozen times for each timer, and a tuple costs more than the rest of it.
            due, others = self._when, other._when
            return due < others or (due == others and self._number < other._number)
        return NotImplemented


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without a world."""

    _scheduled: list[asyncio.TimerHandle]
    """asyncio's own heap of timers."""
    _thread_id: int | None

    def __init__(self) -> None:
        super().__init__()
        self._time_s = 0.0
        self._selector = _JumpingSelector(self)
        self._timers_set = 0
        self._set_resolution()

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._time_s

    def jump(self) -> None:
        """Move the time to the next timer: to its very due time, for adding up waits would drift."""
        self._time_s = max(self._time_s, self._scheduled[0].when())
        self._set_resolution()

    def call_at(
        self, when: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, but timers due at the same time keep their order: in virtual time many are."""
        self._timers_set += 1
        timer = _OrderedTimer(when, callback, args, self, context, self._timers_set)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def _set_resolution(self) -> None:
        # asyncio fires what is due before now + resolution. The least that is more than nothing: no timer fires early, and
        # one that is due fires however many the seconds are.
        self._clock_resolution = math.ulp(self._time_s)

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """There is no sleep to wake this loop from."""

    def call_soon_threadsafe(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """As ``call_soon``. Raises ``RealWorldError`` in any thread but the loop's own."""
        if self._thread_id not in (None, threading.get_ident()):
            raise RealWorldError("virtual time cannot wait for a real thread")
        return self.call_soon(callback, *args, context=context)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's signature
        """There is none."""


def _refuse(self: VirtualLoop, *args: Any, **kwargs: Any) -> NoReturn:
    raise RealWorldError("virtual time cannot wait for a real socket, pipe, process or thread")


for _worldly in (
    *("add_reader", "remove_reader", "add_writer", "remove_writer", "add_signal_handler", "remove_signal_handler"),
    *("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto", "sock_sendfile"),
    *("sock_connect", "sock_accept", "getaddrinfo", "getnameinfo", "run_in_executor", "sendfile", "start_tls"),
    *("create_connection", "create_server", "create_datagram_endpoint", "create_unix_connection", "create_unix_server"),
    *("connect_accepted_socket", "connect_read_pipe", "connect_write_pipe", "subprocess_exec", "subprocess_shell"),
):
    setattr(VirtualLoop, _worldly, _refuse)
