"""Which files a configuration was read from, and whether one of them has changed since.

A stamp is taken of the very file that was opened, before it is read: what is written while we read shows as a change.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

Stamp = tuple[int, int, int, int]
"""Device, inode, size in bytes and time of change in ns. A symbolic link that leads elsewhere (as in Kubernetes) changes it."""
Sources = Mapping[Path, Stamp | None]
"""The files that were read, or would have been; None: it was not there, could not be looked at, or is no plain file."""


def stamp(found: os.stat_result) -> Stamp | None:
    """The stamp of a file. None for what is no plain file: a pipe tells nothing by its times."""
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def stamp_at(path: Path) -> Stamp | None:
    """The stamp of what is at ``path`` now; symbolic links are followed."""
    try:
        return stamp(path.stat())
    except (OSError, ValueError):
        return None


def stamps_now(sources: Sources) -> Sources:
    """The same files as they are now. Looks at the disk."""
    return {path: stamp_at(path) for path in sources}
