"""``POST /admin/reload``: the reloader's outcome as the admin API tells it."""

from typing import Any

from runtime.http.admin_bodies import bad
from runtime.reload import NO_FILE, Reloader, ReloadFailed


async def reload(reloader: Reloader | None) -> dict[str, Any]:
    """Put the file as it is now in force. Raises ``AdminError`` with everything that is wrong, and then nothing has changed."""
    if reloader is None:
        raise bad(NO_FILE)
    try:
        done = await reloader.reload()
    except ReloadFailed as error:
        # One file, named once.
        source = f"{error.source}: " if error.source else ""
        raise bad(source + "; ".join(map(str, error.problems)), error.problems[0].path or None) from error
    return {"generation": done.generation, "needs_restart": list(done.needs_restart)}
