"""A bound on the time something may take, as a call: compiled code must not use ``async with`` (``native.hazards``)."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(limit_s: float, wanted: Awaitable[T]) -> T:
    """What ``wanted`` gives. Raises ``TimeoutError`` if that takes longer than ``limit_s`` seconds."""
    async with asyncio.timeout(limit_s):
        return await wanted
