"""Where time comes from: the machine, or a loop that jumps."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Two functions that give seconds. Fields, not methods: a call costs one look-up less on the hot path."""

    now: Callable[[], float]
    """Monotonic seconds."""
    wall: Callable[[], float]
    """Unix seconds, UTC."""


def real_clock() -> Clock:
    """The machine's clocks."""
    return Clock(time.monotonic, time.time)


def loop_clock(loop: asyncio.AbstractEventLoop, epoch: float = 1_800_000_000.0) -> Clock:
    """The time of an event loop, for loops that run virtual time. The wall starts at ``epoch`` (Unix s)."""
    return Clock(loop.time, lambda: epoch + loop.time())
