"""A bound on the time something may take, as a call: compiled code must not use ``async with`` (``native.hazards``)."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

CLOCK_GRAIN_S = 0.001
"""uvloop counts in whole milliseconds: a time that seems just over may be up to one short, and so may a timer's."""
STALL_S = 0.5
"""A timer that rings so much too late rings after a stall: the daemon itself stood still, because the machine was too busy, the
process was stopped, or a handler took too long. What came meanwhile lies in the sockets, unread."""
AFTER_STALL_S = 0.05
"""So long after a stall nobody's time is over: what came is read first."""
STALL_UNSEEN_S = 1.0
"""A stall may have begun so long before the time of the timer that tells of it. Whoever we call gets that time and the rest of
the stall again: it may not even have had the request."""


async def within(limit_s: float, wanted: Awaitable[T]) -> T:
    """What ``wanted`` gives. Raises ``TimeoutError`` if that takes longer than ``limit_s`` seconds."""
    async with asyncio.timeout(limit_s):
        return await wanted
