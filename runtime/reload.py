"""A new file in the running daemon: read, offered to the registry, in force whole or not at all.

Owns: the file as it was last read, and the one reload that is under way.
Always: one reload at a time, and who asks while one is under way gets the next, so that what was written before the question
counts. What is refused changes nothing, and the log says once everything that is wrong. A reload that has begun ends, also
if who asked has left.

What cannot change while the daemon runs (``server``, ``telemetry``) is named, and stays as it was.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import fields

from messages.changes import ChangeRefused
from messages.control import ConfigSnapshot, Configured, Propose
from runtime import logs
from runtime.config.problems import ConfigError, ConfigProblem
from runtime.config.settings import Loaded
from runtime.config.sources import Sources
from runtime.credentials import Credentials
from runtime.facts import fact
from runtime.system.replies import AskError
from runtime.system.system import ActorSystem

log = logging.getLogger("pointsman.reload")

Load = Callable[[], Awaitable[Loaded]]
"""Reads the configuration anew. Raises ``ConfigError``."""

NO_FILE = "there is no file to reload: the daemon was started without one, or from a pipe"

_KEYS = {"drain_s": "drain", "max_body_bytes": "max_body", "client_idle_s": "client_idle"}
"""Keys of the file that have another name than the setting."""


@fact
class Reloaded:
    """What came into force: its generation, and the keys of the file that wait for a restart."""

    generation: int
    needs_restart: tuple[str, ...]


class ReloadFailed(Exception):
    """Nothing has changed; ``problems`` say why. ``source``: the file they are about, as far as they are about one."""

    def __init__(self, problems: tuple[ConfigProblem, ...], source: str = "") -> None:
        self.problems = problems
        self.source = source
        super().__init__("; ".join(str(problem) for problem in problems))


class Reloader:
    """Puts new files in force. ``running``: what the daemon was started with. ``load`` None: it was started without a file."""

    def __init__(self, system: ActorSystem, credentials: Credentials, running: Loaded, load: Load | None) -> None:
        self._system = system
        self._credentials = credentials
        self._running = running
        self._load = load
        self._next: asyncio.Task[Reloaded] | None = None
        """The reload that has not begun."""
        self._turn = asyncio.Lock()
        self._tasks: dict[asyncio.Task[Reloaded], None] = {}
        self.sources: Sources = running.sources
        """The files of the last attempt as they were then, whether it came into force or not."""

    @property
    def has_file(self) -> bool:
        """Whether there is anything to reload."""
        return self._load is not None

    async def reload(self) -> Reloaded:
        """Put the file as it is now in force. Raises ``ReloadFailed``, and then nothing has changed."""
        if self._load is None:
            log.warning("reload: %s", NO_FILE)
            raise ReloadFailed((ConfigProblem("", None, NO_FILE),))
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._in_turn(self._load))
            self._tasks[self._next] = None
            self._next.add_done_callback(self._ended)
        return await asyncio.shield(self._next)

    async def stop(self) -> None:
        """Cut what is under way. The actors must still live."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, done: asyncio.Task[Reloaded]) -> None:
        self._tasks.pop(done, None)
        if self._next is done:
            self._next = None
        if not done.cancelled():
            # Nobody may be left to hear of a failure, and the log has it already.
            done.exception()

    async def _in_turn(self, load: Load) -> Reloaded:
        async with self._turn:
            self._next = None
            try:
                loaded = await load()
                self.sources = loaded.sources
                snapshot = await self._propose(loaded)
            except ConfigError as error:
                self.sources = error.sources or self.sources
                log.error("reload failed, nothing has changed: %s", error.text().replace("\n", "; "))
                raise ReloadFailed(error.problems, error.source) from error
            return self._told(loaded, snapshot)

    async def _propose(self, loaded: Loaded) -> ConfigSnapshot:
        """Offer a file to the registry, with no deadline: it answers once, and then it is certain what is in force."""
        self._credentials.propose(loaded.credentials)
        try:
            answer = await self._system.ask("registry", Propose(loaded.snapshot), sender="reload")
        except AskError as error:
            text = f"the registry did not decide: {error}"
            raise ConfigError([ConfigProblem("", None, text)], str(loaded.path or ""), loaded.sources) from error
        finally:
            self._credentials.decided()
        if isinstance(answer, ChangeRefused):
            problem = ConfigProblem(answer.path, None, answer.reason)
            raise ConfigError([problem], str(loaded.path or ""), loaded.sources)
        assert isinstance(answer, Configured)
        return answer.snapshot

    def _told(self, loaded: Loaded, snapshot: ConfigSnapshot) -> Reloaded:
        if loaded.server.admin_key is not None:
            logs.hide([loaded.server.admin_key.get_secret_value()])
        waiting = tuple(needs_restart(self._running, loaded))
        log.info("configuration reloaded: generation %d, %d providers", snapshot.generation, len(snapshot.providers))
        if waiting:
            log.warning("reload: %s cannot change at run time; restart to put that in force", ", ".join(waiting))
        for note in loaded.notes:
            log.warning("%s", note)
        return Reloaded(snapshot.generation, waiting)


def needs_restart(running: Loaded, loaded: Loaded) -> Iterator[str]:
    """Keys of the file whose value is another than what the daemon runs with. What the command line gave stays given."""
    for section, before, after in (
        ("server", running.server, loaded.server),
        ("telemetry", running.telemetry, loaded.telemetry),
    ):
        for one in fields(before):
            is_given = section == "server" and one.name in running.given
            if not is_given and getattr(before, one.name) != getattr(after, one.name):
                yield f"{section}.{_KEYS.get(one.name, one.name)}"
