"""The watch over the configuration file: every change is taken once, when it is whole, and a bad one is not tried again."""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from runtime.config.loading import load_bytes, load_file
from runtime.config.problems import ConfigError
from runtime.config.settings import Loaded
from runtime.config.sources import Sources, stamps_now
from runtime.reload import Reloader, ReloadFailed
from runtime.watching import LOOK_S, SETTLED_S, SETTLING_MAX, Watching
from tests.system.house import World, provider, run
from tests.system.test_reload import file_of, loaded_of

FILE, KEY = Path("pointsman.yaml"), Path("key")
GOOD = file_of(provider("a"))


@dataclass
class Watched:
    """A house that watches a file of which a test says when it is written."""

    world: World
    raw: bytes = b""
    written: dict[Path, int] = field(default_factory=lambda: {FILE: 0, KEY: 0})
    reads: int = 0
    reloader: Reloader = field(init=False)
    watching: Watching = field(init=False)

    def __post_init__(self) -> None:
        house = self.world.house
        running = replace(house.loaded, sources=self._stamps())
        self.reloader = Reloader(house.system, house.credentials, running, self._read)
        self.watching = Watching(self.reloader, self._look)

    def write(self, weight: int, path: Path = FILE) -> None:
        self.raw = b"providers: [{id: a, kind: vllm, weight: %d}]" % weight
        self.written[path] += 1

    @property
    def weight(self) -> int:
        return self.world.house.directory.snapshot.providers[0].weight

    def _stamps(self) -> Sources:
        return {path: (0, 0, 0, number) for path, number in self.written.items()}

    async def _read(self) -> Loaded:
        self.reads += 1
        sources = self._stamps()
        try:
            return replace(load_bytes(self.raw, FILE, {}), sources=sources)
        except ConfigError as error:
            raise ConfigError(error.problems, str(FILE), sources) from None

    async def _look(self, sources: Sources) -> Sources:
        now = self._stamps()
        return {path: now[path] for path in sources}


def test_pain_21_a_change_is_taken_by_itself_and_once() -> None:
    async def scene(world: World) -> None:
        watched = Watched(world)
        task = world.loop.create_task(watched.watching.run())
        await asyncio.sleep(5.5 * LOOK_S)
        assert watched.reads == 0

        watched.write(7)
        await asyncio.sleep(LOOK_S + 3 * SETTLED_S)
        assert (watched.reads, watched.weight) == (1, 7)
        await asyncio.sleep(20 * LOOK_S)
        assert watched.reads == 1
        await ended(task)

    run(loaded_of(GOOD), scene)


def test_pain_21_a_change_of_a_secrets_file_is_one_of_the_configuration() -> None:
    async def scene(world: World) -> None:
        watched = Watched(world)
        watched.write(5, KEY)

        assert await watched.watching.look_once()
        assert watched.weight == 5

    run(loaded_of(GOOD), scene)


def test_a_file_that_is_being_written_is_taken_when_it_is_whole() -> None:
    async def scene(world: World) -> None:
        watched = Watched(world)
        watched.write(1)
        looking = world.loop.create_task(watched.watching.look_once())
        for weight in range(2, 6):
            await asyncio.sleep(0.9 * SETTLED_S)
            assert watched.reads == 0
            watched.write(weight)

        assert await looking
        assert (watched.reads, watched.weight) == (1, 5)

    run(loaded_of(GOOD), scene)


def test_a_file_that_never_comes_to_rest_is_taken_as_it_is() -> None:
    async def scene(world: World) -> None:
        watched = Watched(world)

        async def scribble() -> None:
            while True:
                watched.write(watched.written[FILE] % 9)
                await asyncio.sleep(SETTLED_S / 2)

        scribbling = world.loop.create_task(scribble())
        await asyncio.sleep(0.0)
        begun = world.now
        assert await watched.watching.look_once()
        assert world.now - begun <= (SETTLING_MAX + 1) * SETTLED_S
        await ended(scribbling)

    run(loaded_of(GOOD), scene)


def test_a_touch_that_is_taken_back_while_it_settles_is_nothing() -> None:
    async def scene(world: World) -> None:
        watched = Watched(world)
        watched.written[FILE] = 8
        looking = world.loop.create_task(watched.watching.look_once())
        await asyncio.sleep(SETTLED_S / 2)
        watched.written[FILE] = 0

        assert not await looking
        assert watched.reads == 0

    run(loaded_of(GOOD), scene)


def test_what_somebody_else_has_had_reloaded_meanwhile_is_not_read_again() -> None:
    async def scene(world: World) -> None:
        watched = Watched(world)
        watched.write(3)
        looking = world.loop.create_task(watched.watching.look_once())
        await asyncio.sleep(SETTLED_S / 2)
        await watched.reloader.reload()

        assert not await looking
        assert not await watched.watching.look_once()
        assert watched.reads == 1

    run(loaded_of(GOOD), scene)


def test_pain_21_a_bad_file_is_told_once_and_the_next_good_one_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(world: World) -> None:
        watched = Watched(world)
        task = world.loop.create_task(watched.watching.run())
        watched.write(-4)
        await asyncio.sleep(30 * LOOK_S)
        assert (watched.reads, watched.weight) == (1, 1)
        assert caplog.text.count("providers[0].weight") == 1

        watched.write(4)
        await asyncio.sleep(LOOK_S + 3 * SETTLED_S)
        assert watched.weight == 4
        await ended(task)

    run(loaded_of(GOOD), scene)


def test_a_reading_that_fails_as_nobody_thought_of_is_logged_and_the_watch_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(world: World) -> None:
        watched = Watched(world)
        task = world.loop.create_task(watched.watching.run())
        watched.reloader._load = _broken
        watched.write(2)
        await asyncio.sleep(10 * LOOK_S)
        assert caplog.text.count("the look at the configuration file failed") == 1

        watched.reloader._load = watched._read
        watched.write(6)
        await asyncio.sleep(LOOK_S + 3 * SETTLED_S)
        assert watched.weight == 6
        await ended(task)

    run(loaded_of(GOOD), scene)


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


async def _broken() -> Loaded:
    raise RuntimeError("the disk is on fire")


def test_the_stamps_of_a_reading_are_those_of_all_files_it_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("sk-1")
    path = tmp_path / "pointsman.yaml"
    path.write_text("providers: [{id: a, kind: openai, api_key: 'file:secret'}]")

    sources = load_file(path, {}).sources

    assert list(sources) == [path, tmp_path / "secret"]
    assert stamps_now(sources) == sources
    (tmp_path / "secret").write_text("sk-22")
    assert stamps_now(sources) != sources


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "pointsman.yaml").write_text("providers: [{id: a, kind: vllm}]")
    (tmp_path / "now").symlink_to("1")
    path = tmp_path / "now" / "pointsman.yaml"
    sources = load_file(path, {}).sources

    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").replace(tmp_path / "now")

    assert stamps_now(sources) != sources


def test_a_file_that_is_missing_or_bad_is_watched_until_it_is_good(tmp_path: Path) -> None:
    path, secret = tmp_path / "pointsman.yaml", tmp_path / "secret"
    with pytest.raises(ConfigError) as gone:
        load_file(path, {})
    assert gone.value.sources == {path: None}

    path.write_text("providers: [{id: a, kind: openai, api_key: 'file:secret'}]")
    with pytest.raises(ConfigError) as bad:
        load_file(path, {})
    assert stamps_now(bad.value.sources) == bad.value.sources == {path: bad.value.sources[path], secret: None}
    secret.write_text("sk-1")
    assert stamps_now(bad.value.sources) != bad.value.sources


def test_a_reload_by_somebody_who_is_refused_says_so_to_him_too() -> None:
    async def scene(world: World) -> None:
        watched = Watched(world)
        watched.write(-1)
        with pytest.raises(ReloadFailed, match="weight"):
            await watched.watching.look_once()

    run(loaded_of(GOOD), scene)
