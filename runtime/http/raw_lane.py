"""What the connections of the fast lane share: bounds, who is open, and one timer for all of them.

Owns: the list of open connections, which is walked every second or so for those whose time is up.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from runtime.http.edge import Edge
from runtime.http.lines import Lines
from runtime.timely import CLOCK_GRAIN_S

KEEPALIVE_SHARE = 1.25
"""Idle connections, and headers that never end, are cut after so many times ``server.client_idle``: later than a proxy with
the usual 60 s would do, so that it never sends on a connection we are just closing."""
SWEEP_S = 1.0
SWEEPS_PER_IDLE = 10
"""A time is up at most a tenth of ``server.client_idle`` too late, and never too early."""


class Timed(Protocol):
    """A connection, as far as its lane deals with it."""

    deadline: float
    """By the loop's clock: when ``expire`` is due."""

    def expire(self) -> None:
        """The deadline has passed."""

    def close_if_idle(self) -> None:
        """The daemon ends: close if nothing is under way."""


class RawLane:
    """What the connections of one listener share. ``successor`` makes the protocol that a connection is handed over to."""

    def __init__(
        self, edge: Edge, lines: Lines, max_body_bytes: int, client_idle_s: float, successor: Callable[[], asyncio.Protocol]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.time = self.loop.time
        """By which deadlines are told (s)."""
        self.edge = edge
        self.lines = lines
        self.max_body_bytes = max_body_bytes
        self.idle_s = client_idle_s
        self.keepalive_s = KEEPALIVE_SHARE * client_idle_s
        self.successor = successor
        self.is_draining = False
        """Every answer is its connection's last."""
        self._open: dict[Timed, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, connection: Timed) -> None:
        """A connection was made."""
        self._open[connection] = None
        if self._timer is None:
            self._set_timer()

    def leave(self, connection: Timed) -> None:
        """It is closed, or no longer ours."""
        self._open.pop(connection, None)

    def close_idle(self) -> None:
        """Close the connections that nothing is under way on; the others close with their answer."""
        self.is_draining = True
        for connection in list(self._open):
            connection.close_if_idle()

    def _set_timer(self) -> None:
        self._timer = self.loop.call_later(min(SWEEP_S, self.idle_s / SWEEPS_PER_IDLE), self._sweep)

    def _sweep(self) -> None:
        # Half a grain more than is wanted, for the clock has whole ones only and sums of times are not exact.
        until = self.time() - CLOCK_GRAIN_S / 2
        for connection in [one for one in self._open if one.deadline <= until]:
            connection.expire()
        self._timer = None
        if self._open:
            self._set_timer()
