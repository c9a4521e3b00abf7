"""The open connections, so that the daemon can end though somebody at their other side reads nothing.

Owns: the transport of each connection from its first moment to its last, when its last bytes are out or it was cut.
"""

import asyncio
from contextlib import suppress
from typing import cast


class Lines:
    """Transports by whoever serves them. aiohttp forgets one as soon as it is told to close, which may take for ever."""

    def __init__(self) -> None:
        self._open: dict[object, asyncio.Transport] = {}
        self._empty: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, owner: object, transport: asyncio.BaseTransport) -> None:
        """A connection was made."""
        self._open[owner] = cast(asyncio.Transport, transport)

    def remove(self, owner: object) -> None:
        """It is no more."""
        self._open.pop(owner, None)
        if self._empty is not None and not self._open:
            self._empty.set()

    async def cut(self, within_s: float) -> None:
        """Wait until all are gone, but for ``within_s`` seconds at most; then cut those that are left."""
        if self._open:
            self._empty = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._empty.wait()
        for transport in list(self._open.values()):
            transport.abort()
        # Their ends are told in the loop's next turn.
        await asyncio.sleep(0)
