"""The virtual twin of the event loop: when nothing is ready, time jumps to the next timer.

Owns: its own time, in seconds from 0.
Always: the order of callbacks is that of asyncio's own loop, so the same program with the same seed runs the same way. A real
socket or thread would bring in the outside world's timing, so asking for one raises ``RealWorldError``; waiting with no timer
left can never end, so it raises ``NothingLeftError``.

Start it with ``asyncio.Runner(loop_factory=VirtualLoop)``.
"""

import asyncio
from typing import Any, NoReturn


class RealWorldError(RuntimeError):
    """Virtual time cannot wait for a real socket, pipe, process or thread."""


class NothingLeftError(RuntimeError):
    """Everything waits, no timer is set: this would hang for ever."""


class _JumpingSelector:
    """Stands where the loop's selector stands: instead of sleeping it moves the time."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise NothingLeftError("everything waits and no timer is set")
        if timeout > 0:
            self.time_s += timeout
        return []

    def get_map(self) -> dict[Any, Any]:
        return {}

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without a world."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _JumpingSelector()
        # The resolution of a clock that does not tick is nothing: timers fire exactly when they are due.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._selector.time_s

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody wakes this loop from another thread."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's signature
        """There is none."""


def _refuse(self: VirtualLoop, *args: Any, **kwargs: Any) -> NoReturn:
    raise RealWorldError("virtual time cannot wait for a real socket, pipe, process or thread")


for _worldly in (
    *("add_reader", "remove_reader", "add_writer", "remove_writer", "add_signal_handler", "run_in_executor"),
    *("sock_recv", "sock_recv_into", "sock_sendall", "sock_connect", "sock_accept", "getaddrinfo"),
    *("create_connection", "create_server", "create_datagram_endpoint", "subprocess_exec", "subprocess_shell"),
    *("connect_read_pipe", "connect_write_pipe"),
):
    setattr(VirtualLoop, _worldly, _refuse)
