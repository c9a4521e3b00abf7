"""A new file while requests have two calls out: neither a request nor a call is lost or counted twice (FEATURES B9)."""

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from messages.control import LimitsSpec
from messages.stats import UsageLine
from runtime.reload import ReloadFailed
from runtime.simulation.faults import FaultKind
from tests.system.house import World, provider, run, url_of
from tests.system.test_reload import (
    BAD,
    BRISK,
    NAMES,
    REAPED_S,
    RELOADS,
    USERS,
    Disk,
    drawn,
    file_of,
    loaded_of,
    settled_stats,
    use,
)

SHARE_MAX = 1.0
"""No file of these allows more hedges than this share of requests."""


def drawn_with_second_calls(rng: Random) -> dict[str, Any]:
    """A file as good as any other, which says when second calls are made and how many; one in eight allows none."""
    file = drawn(rng)
    for entry in file["providers"]:
        # Who has used four fifths of this gets no second call.
        entry["limits"] = {"max_concurrency": rng.choice((2, 6, 20))}
    file["routing"] |= {
        "strategy": rng.choice(("adaptive", "adaptive", "least_latency", "thompson", "round_robin")),
        "hedge": {
            "enabled": rng.random() < 0.875,
            "after": rng.choice(("auto", "p95", "80ms")),
            "max_share": rng.choice((0.05, 0.5, SHARE_MAX)),
        },
        "explore": {"enabled": rng.random() < 0.875, "max_share": rng.choice((0.03, 0.5)), "idle": "500ms"},
    }
    return file


@pytest.mark.parametrize("seed", range(2))
def test_pain_21_B9_a_hundred_reloads_among_hedges_and_copies_lose_no_request_and_no_count(seed: int) -> None:
    rng = Random(f"reloads with hedges/{seed}")
    first = file_of(*(provider(name, api_key="key-1") for name in NAMES), hedge={"max_share": SHARE_MAX}, explore={})

    async def scene(world: World) -> None:
        for name in NAMES:
            # Limits come and go with the files: the watch of the house knows those of the first alone.
            world.watch._limits[name] = LimitsSpec()
            world.upstream._behaviours[url_of(f"{name}-moved")] = replace(BRISK, name=f"{name}-moved")
            # Nobody fails, so every call beyond the first of a request is one beside it.
            world.fault(name, FaultKind.SLOW, factor=6.0, p=0.3)
        disk, is_over = Disk(world, first), asyncio.Event()
        users = [world.loop.create_task(use(world, is_over, Random(f"{seed}/{number}"))) for number in range(USERS)]
        for number in range(RELOADS):
            await asyncio.sleep(rng.uniform(0.0, 0.3))
            if number % 7 == 3:
                with pytest.raises(ReloadFailed):
                    await disk.put(rng.choice(BAD))
            else:
                await disk.put(drawn_with_second_calls(rng))
        is_over.set()
        await asyncio.wait(users)
        await asyncio.sleep(REAPED_S)

        assert [client for client in world.clients if (client.fate, client.status) != ("answer", 200)] == []
        await every_call_is_counted_once(world)

    run(loaded_of(first), scene, dict.fromkeys(NAMES, BRISK), f"reloads with hedges/{seed}")


async def every_call_is_counted_once(world: World) -> None:
    requests = len(world.clients)
    answered = {name: sum(client.provider == name for client in world.clients) for name in NAMES}
    made = {name: len(world.calls(name)) + len(world.calls(f"{name}-moved")) for name in NAMES}
    stats = await settled_stats(world)
    lines = {line.name: line for line in stats.providers}

    assert {name: line.requests for name, line in lines.items()} == {name: count for name, count in made.items() if count}
    assert {name: line.successes for name, line in lines.items() if line.successes} == {
        name: count for name, count in answered.items() if count
    }
    hedges, copies, lost = (sum(getattr(line, what) for line in lines.values()) for what in ("hedges", "explores", "lost"))
    # That nothing was lost among them means something only if there were some.
    assert (hedges > 30, copies > 15) == (True, True), (hedges, copies)
    assert hedges <= SHARE_MAX * requests
    # Of the calls of one request one has won, and the others are booked as lost.
    assert sum(made.values()) == requests + hedges + copies
    assert lost == sum(line.cancelled for line in lines.values()) == hedges + copies
    assert sum(line.failures for line in lines.values()) == 0
    assert world.books.against(stats, []) == []

    router = await world.router_stats()
    assert (router.total, router.succeeded, router.failed) == (requests, requests, 0)
    await who_stayed_has_counted_for_himself(world, lines["a"], made["a"])


async def who_stayed_has_counted_for_himself(world: World, line: UsageLine, made: int) -> None:
    stayed = await world.report("a")
    assert (stayed.requests, stayed.successes, stayed.failures) == (made, line.successes, 0)
    for spec in world.house.directory.snapshot.providers:
        assert (await world.report(spec.id)).in_flight == 0
