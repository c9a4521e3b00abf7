"""A new file in the running house: in force whole or not at all, and neither a request nor a count is lost (FEATURES B9)."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from messages.calls import Award
from messages.changes import SetDefault
from messages.control import LimitsSpec, Propose
from messages.health import CircuitState, Status
from messages.stats import GetStats, Stats
from runtime.config.loading import load_bytes
from runtime.config.settings import Loaded
from runtime.reload import Reloaded, Reloader, ReloadFailed
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, World, provider, run, url_of
from tests.system.test_changes import change

NAMES = ("a", "b", "c", "d", "e")
BRISK = Behaviour("brisk", ttfb_ms=60, sigma=0.5, tokens_per_second=60, capacity=1000, models=(MODEL,), chunk_tokens=1)
RELOADS = 100
USERS = 8
CONCURRENCY_MAX = 6
REAPED_S = 2.5
"""By then a provider that has drained is stopped."""

File = Mapping[str, Any]


def loaded_of(file: File | bytes) -> Loaded:
    raw = file if isinstance(file, bytes) else json.dumps(file).encode()
    return load_bytes(raw, Path("pointsman.yaml"), {})


def file_of(*providers: Mapping[str, Any], **routing: Any) -> dict[str, Any]:
    """A file in which each request is one call."""
    alone = {"hedge": {"enabled": False}, "explore": {"enabled": False}}
    return {"providers": list(providers), "routing": alone | routing}


@dataclass
class Disk:
    """The file, and the reloader that reads it."""

    world: World
    file: File | bytes
    reads: int = 0
    reading: int = 0
    """Readings under way."""
    most_reading: int = 0
    reloader: Reloader = field(init=False)

    def __post_init__(self) -> None:
        house = self.world.house
        self.reloader = Reloader(house.system, house.credentials, house.loaded, self._read)

    async def _read(self) -> Loaded:
        self.reads += 1
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        file = self.file
        await asyncio.sleep(0.01)
        self.reading -= 1
        return loaded_of(file)

    async def put(self, file: File | bytes) -> Reloaded:
        """Write a file and have it reloaded."""
        self.file = file
        return await self.reloader.reload()


def drawn(rng: Random) -> dict[str, Any]:
    """A file as good as any other: who is in it, where, with which key, limits and strategy. One stays through all."""
    others = rng.sample(NAMES[1:], rng.randint(1, 4))
    entries = [
        provider(
            name,
            api_key=f"key-{rng.randint(1, 3)}",
            base_url=url_of(name if name == "a" else rng.choice((name, f"{name}-moved"))),
            weight=rng.randint(1, 5),
            priority=rng.randint(0, 3),
            limits={"max_concurrency": rng.choice((2, 3, CONCURRENCY_MAX))},
            circuit={"failures": rng.randint(3, 9), "half_open_calls": rng.randint(1, 3)},
        )
        for name in ("a", *others)
    ]
    rng.shuffle(entries)
    strategy = rng.choice(("adaptive", "round_robin", "least_latency", "random", "weighted", "priority", "cost"))
    return file_of(*entries, strategy=strategy, failover={"retry_share": rng.choice((0.1, 0.5))})


BAD: tuple[bytes, ...] = (
    b"providers: [",
    b"providers: []",
    b"{}",
    json.dumps(file_of(provider("a"), provider("a"))).encode(),
    json.dumps(file_of(provider("a"), strategy="astrology")).encode(),
    json.dumps(file_of(provider("a")) | {"default_provider": "nobody"}).encode(),
)


async def use(world: World, is_over: asyncio.Event, rng: Random) -> None:
    """One of those who ask all the time."""
    while not is_over.is_set():
        await world.ask(stream=rng.random() < 0.5, max_tokens=rng.randint(1, 30))
        await asyncio.sleep(rng.uniform(0.0, 0.05))


async def settled_stats(world: World) -> Stats:
    stats = await world.house.system.ask("aggregator", GetStats())
    assert isinstance(stats, Stats)
    return stats


@pytest.mark.parametrize("seed", range(2))
def test_pain_21_B9_a_hundred_reloads_under_load_lose_no_request_and_no_count(seed: int) -> None:
    rng = Random(f"reloads/{seed}")
    first = file_of(*(provider(name, api_key="key-1") for name in NAMES))

    async def scene(world: World) -> None:
        for name in NAMES:
            # Limits come and go with the files: the watch of the house knows those of the first alone.
            world.watch._limits[name] = LimitsSpec()
            world.upstream._behaviours[url_of(f"{name}-moved")] = replace(BRISK, name=f"{name}-moved")
        disk, is_over = Disk(world, first), asyncio.Event()
        users = [world.loop.create_task(use(world, is_over, Random(f"{seed}/{number}"))) for number in range(USERS)]
        generation, refusals = 1, 0
        for number in range(RELOADS):
            await asyncio.sleep(rng.uniform(0.0, 0.3))
            if number % 7 == 3:
                before = world.house.directory.snapshot
                with pytest.raises(ReloadFailed):
                    await disk.put(rng.choice(BAD))
                assert world.house.directory.snapshot is before
                refusals += 1
                continue
            reloaded = await disk.put(drawn(rng))
            generation += 1
            assert reloaded.generation == world.house.directory.snapshot.generation == generation
        is_over.set()
        await asyncio.wait(users)
        await asyncio.sleep(REAPED_S)

        assert (generation, disk.reads) == (1 + RELOADS - refusals, RELOADS)
        await no_request_is_lost(world)
        await no_count_is_lost(world)

    run(loaded_of(first), scene, dict.fromkeys(NAMES, BRISK), f"reloads/{seed}")


async def no_request_is_lost(world: World) -> None:
    assert len(world.clients) > 3 * RELOADS
    assert [client for client in world.clients if (client.fate, client.status) != ("answer", 200)] == []
    # Nobody was told to try again because of a reload.
    assert [client for client in world.clients if client.attempts != 1] == []
    router = await world.router_stats()
    assert (router.total, router.succeeded) == (len(world.clients), len(world.clients))


async def no_count_is_lost(world: World) -> None:
    answered = {name: sum(client.provider == name for client in world.clients) for name in NAMES}
    counted = {line.name: (line.requests, line.successes) for line in (await settled_stats(world)).providers}
    assert counted == {name: (count, count) for name, count in answered.items() if count}
    assert sum(answered.values()) == len(world.clients)
    # Who stayed has counted for himself, over all generations, keys and limits.
    stayed = await world.report("a")
    assert (stayed.requests, stayed.successes, stayed.failures) == (answered["a"], answered["a"], 0)
    assert answered["a"] == len(world.calls("a"))
    for spec in world.house.directory.snapshot.providers:
        assert (await world.report(spec.id)).in_flight == 0


def test_pain_21_a_bad_file_changes_nothing_and_says_every_reason_with_its_path(caplog: pytest.LogCaptureFixture) -> None:
    first = file_of(provider("a"), provider("b"))
    bad = file_of(provider("a", weight=-1, api_key="sk-never-shown"), provider("b", limits={"burst": 3}), strategy="astrology")

    async def scene(world: World) -> None:
        before, disk = world.house.directory.snapshot, Disk(world, first)

        with pytest.raises(ReloadFailed) as failed:
            await disk.put(bad)

        assert world.house.directory.snapshot is before
        paths = [problem.path for problem in failed.value.problems]
        assert sorted(paths) == ["providers[0].weight", "providers[1].limits.burst", "routing.strategy"]
        assert all(path in caplog.text for path in paths)
        assert "sk-never-shown" not in caplog.text + str(failed.value)
        assert (await world.ask()).status == 200

    run(loaded_of(first), scene)


def test_pain_21_a_file_that_contradicts_the_admin_api_is_refused_by_the_registry_and_changes_nothing() -> None:
    first = file_of(provider("a"), provider("b"))

    async def scene(world: World) -> None:
        disk = Disk(world, first)
        await change(world, SetDefault("b"))
        before = world.house.directory.snapshot

        with pytest.raises(ReloadFailed) as failed:
            await disk.put(file_of(provider("a", api_key="another")))

        assert world.house.directory.snapshot is before
        assert "default provider 'b' set through the admin API" in str(failed.value)
        credential = world.house.credentials.get("a")
        assert credential is not None
        assert credential.api_key is None
        assert not world.house.credentials._proposed, "nor is the key kept that was refused with it"

    run(loaded_of(first), scene)


def test_B9_calls_in_flight_finish_where_they_began_also_at_one_that_was_removed() -> None:
    first = file_of(provider("a"), provider("b"), strategy="first")

    async def scene(world: World) -> None:
        disk = Disk(world, first)
        held = [world.send(stream=True, max_tokens=60) for _ in range(3)]
        whole = world.send(max_tokens=60)
        await asyncio.sleep(0.4)

        await disk.put(file_of(provider("b"), strategy="first"))
        later = await world.ask()

        assert later.provider == "b"
        for client in (*held, whole):
            await client.wait()
            assert (client.provider, client.fate, client.attempts) == ("a", "answer", 1)
        await asyncio.sleep(REAPED_S)
        assert world.house.system.state_of("provider:a") is None
        assert world.house.directory.track_of_call("a") is None

    run(loaded_of(first), scene, {"a": BRISK, "b": BRISK})


def test_B9_a_call_that_was_granted_before_its_provider_was_removed_is_made_there() -> None:
    first = file_of(provider("a"), provider("b"), strategy="first")

    async def scene(world: World) -> None:
        disk = Disk(world, first)
        # Its award lies unread until the provider is told to drain, right behind it.
        world.freeze("provider:a", on=Award)
        client = world.send()
        await asyncio.sleep(0.05)
        await disk.put(file_of(provider("b"), strategy="first"))
        await client.wait()

        assert (client.provider, client.fate, client.attempts) == ("a", "answer", 1)

    run(loaded_of(first), scene, {"a": BRISK, "b": BRISK})


def test_B9_a_key_rotation_is_used_from_the_next_call_on_and_keeps_circuit_counts_and_calls() -> None:
    def keyed(key: str) -> File:
        return file_of(provider("a", api_key=key), queue={"max_wait": "0s"}, failover={"enabled": False})

    async def scene(world: World) -> None:
        disk = Disk(world, keyed("old"))
        for _ in range(4):
            assert (await world.ask()).status == 200
        world.fault("a", FaultKind.ERRORS)
        await world.ask()
        world.heal("a")
        held = world.send(stream=True, max_tokens=60)
        await asyncio.sleep(0.3)
        before = await world.report("a")
        simulation = world.simulation("a")

        await disk.put(keyed("new"))
        simulation.behaviour = replace(simulation.behaviour, api_key="new")

        assert await world.report("a") == before
        assert (before.in_flight, before.successes, before.failures) == (1, 4, 1)
        assert (await world.ask()).status == 200
        assert (await held.wait()).fate == "answer"
        after = await world.report("a")
        assert (after.in_flight, after.successes, after.failures, after.circuit) == (0, 6, 1, CircuitState.CLOSED)

    run(loaded_of(keyed("old")), scene, {"a": replace(BRISK, api_key="old")})


def test_B9_a_refused_key_is_forgotten_with_its_rotation_and_traffic_returns_at_once() -> None:
    def keyed(key: str) -> File:
        return file_of(provider("a", api_key=key), queue={"max_wait": "0s"})

    async def scene(world: World) -> None:
        disk = Disk(world, keyed("wrong"))
        assert (await world.ask()).code == "provider_auth_failed"
        assert (await world.report("a")).status is Status.AUTH_FAILED

        await disk.put(keyed("right"))

        assert (await world.ask()).status == 200

    run(loaded_of(keyed("wrong")), scene, {"a": replace(BRISK, api_key="right")})


def test_B9_an_open_circuit_stays_open_over_a_reload_and_another_endpoint_starts_anew() -> None:
    def at(url: str) -> File:
        entry = provider("a", base_url=url, circuit={"failures": 1, "open_for": "60s"})
        return file_of(entry, queue={"max_wait": "0s"}, failover={"enabled": False})

    async def scene(world: World) -> None:
        disk = Disk(world, at(url_of("a")))
        world.upstream._behaviours[url_of("a-moved")] = replace(BRISK, name="a-moved")
        world.fault("a", FaultKind.OUTAGE)
        await world.ask()
        await disk.put(at(url_of("a")))
        assert (await world.ask()).status == 503
        assert (await world.report("a")).circuit is CircuitState.OPEN

        await disk.put(at(url_of("a-moved")))

        assert (await world.report("a")).circuit is CircuitState.CLOSED
        assert (await world.ask()).status == 200
        assert len(world.calls("a-moved")) == 1

    run(loaded_of(at(url_of("a"))), scene)


def test_B9_new_limits_hold_at_once_for_what_comes_and_waiters_profit() -> None:
    def limited(concurrency: int) -> File:
        return file_of(provider("a", limits={"max_concurrency": concurrency}))

    async def scene(world: World) -> None:
        world.watch._limits["a"] = LimitsSpec()
        disk = Disk(world, limited(1))
        clients = [world.send(max_tokens=30) for _ in range(4)]
        await asyncio.sleep(0.1)
        assert (await world.report("a")).in_flight == 1

        await disk.put(limited(4))
        await asyncio.sleep(0.0)
        assert (await world.report("a")).in_flight == 4

        await disk.put(limited(2))
        more = [world.send(max_tokens=30) for _ in range(4)]
        await asyncio.gather(*(client.wait() for client in clients))
        await asyncio.sleep(0.05)
        assert (await world.report("a")).in_flight == 2
        await asyncio.gather(*(client.wait() for client in more))
        assert {client.status for client in (*clients, *more)} == {200}

    run(loaded_of(limited(1)), scene, {"a": BRISK})


def test_who_asks_while_a_reload_is_under_way_gets_the_next_and_all_of_them_one() -> None:
    first = file_of(provider("a"))

    async def scene(world: World) -> None:
        disk = Disk(world, first)
        reload = world.loop.create_task
        begun = reload(disk.put(file_of(provider("a", weight=2))))
        await asyncio.sleep(0.005)
        late = [reload(disk.put(file_of(provider("a", weight=number)))) for number in (3, 4, 5)]

        generations = [(await task).generation for task in (begun, *late)]

        assert generations == [2, 3, 3, 3]
        assert (disk.reads, world.house.directory.snapshot.providers[0].weight) == (2, 5)

    run(loaded_of(first), scene)


def test_a_reload_that_has_begun_ends_also_if_who_asked_has_left() -> None:
    first = file_of(provider("a"))

    async def scene(world: World) -> None:
        disk = Disk(world, first)
        asking = world.loop.create_task(disk.put(file_of(provider("a", weight=9))))
        await asyncio.sleep(0.005)
        asking.cancel()
        await asyncio.sleep(0.1)

        assert world.house.directory.snapshot.providers[0].weight == 9

    run(loaded_of(first), scene)


def test_what_cannot_change_at_run_time_is_named_and_the_rest_is_in_force(caplog: pytest.LogCaptureFixture) -> None:
    first = file_of(provider("a"))
    changed = file_of(provider("a", weight=2)) | {
        "server": {"port": 9999, "drain": "5s", "max_body": "1MiB"},
        "telemetry": {"sample_ratio": 1},
    }

    async def scene(world: World) -> None:
        reloaded = await Disk(world, first).put(changed)

        assert reloaded.needs_restart == ("server.port", "server.drain", "server.max_body", "telemetry.sample_ratio")
        assert "server.port" in caplog.text
        assert world.house.directory.snapshot.providers[0].weight == 2

    run(loaded_of(first), scene)


def test_B9_the_retry_budget_and_its_share_follow_the_file() -> None:
    def shared(share: float) -> File:
        return file_of(provider("a"), failover={"retry_share": share})

    async def scene(world: World) -> None:
        budgets = world.house.budgets
        assert budgets.share == 0.2
        await Disk(world, shared(0.2)).put(shared(0.7))
        assert budgets.share == 0.7

    run(loaded_of(shared(0.2)), scene)


def test_pain_21_one_reload_at_a_time_and_who_asks_meanwhile_gets_what_was_written_before_the_question() -> None:
    async def scene(world: World) -> None:
        disk = Disk(world, file_of(provider("a")))
        first = asyncio.create_task(disk.put(file_of(provider("a", weight=2))))
        await asyncio.sleep(0.005)
        later = [asyncio.create_task(disk.put(file_of(provider("a", weight=weight)))) for weight in (3, 4)]

        assert (await first).generation == 2
        assert [(await one).generation for one in later] == [3, 3], "one reading is enough for both"
        assert (disk.reads, disk.most_reading) == (2, 1)
        assert world.house.directory.snapshot.providers[0].weight == 4

    run(loaded_of(file_of(provider("a"))), scene)


def test_without_a_file_a_reload_is_refused_and_says_why() -> None:
    async def scene(world: World) -> None:
        assert not world.house.reloader.has_file
        with pytest.raises(ReloadFailed, match="started without one"):
            await world.house.reloader.reload()

    run(loaded_of(file_of(provider("a"))), scene)


def test_B9_a_registry_that_falls_over_a_file_keeps_the_one_before_and_takes_it_when_asked_again() -> None:
    first = file_of(provider("a"))

    async def scene(world: World) -> None:
        disk = Disk(world, first)
        world.crash("registry", Propose)
        with pytest.raises(ReloadFailed, match="the registry did not decide"):
            await disk.put(file_of(provider("a", weight=3)))
        assert world.house.directory.snapshot.providers[0].weight == 1

        assert (await disk.reloader.reload()).generation == 2
        assert world.house.directory.snapshot.providers[0].weight == 3
        assert (await world.ask()).status == 200

    run(loaded_of(first), scene)
