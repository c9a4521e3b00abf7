"""Sees that the configuration file, or a file that one of its secrets comes from, has changed, and has it reloaded.

It looks every second at inode, size and time of change, through symbolic links: that works on every file system, also where
files are swapped by a link (Kubernetes) and where nobody reports changes (network file systems). A file is taken when two
looks agree, so that one which is being written is not read half. It asks for no reload of what was read already: the stamps
it compares with are those of the last reading, whoever asked for that.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from runtime.config.sources import Sources
from runtime.reload import Reloader, ReloadFailed

log = logging.getLogger("pointsman.reload")

LOOK_S = 1.0
SETTLED_S = 0.2
SETTLING_MAX = 25
"""Looks at files that change all the time before they are taken as they are."""

Look = Callable[[Sources], Awaitable[Sources]]
"""The same files as they are now."""


class Watching:
    """Looks at the files of the last reading. ``run`` until it is cancelled."""

    def __init__(self, reloader: Reloader, look: Look) -> None:
        self._reloader = reloader
        self._look = look

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look_once()
            except ReloadFailed:
                # The log has it, and the stamps are those of the attempt: the next one waits for another change.
                continue
            except Exception as error:
                log.error("the look at the configuration file failed", exc_info=error)

    async def look_once(self) -> bool:
        """Whether something had changed, and was reloaded. Raises ``ReloadFailed``."""
        known = self._reloader.sources
        seen = await self._look(known)
        if seen == known:
            return False
        for _ in range(SETTLING_MAX):
            await asyncio.sleep(SETTLED_S)
            before, seen = seen, await self._look(known)
            if seen == before:
                break
        if self._reloader.sources is not known:
            # Somebody else has asked for it meanwhile.
            return False
        if seen == known:
            return False
        log.info("the configuration file has changed")
        # Should the reading fail in a way nobody thought of, this is not tried again every second.
        self._reloader.sources = seen
        await self._reloader.reload()
        return True
