"""Fair queueing in the running house: what a flood costs other tenants, who may overtake whom, how long it really takes."""

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.system.house import Client, World, loaded, provider, run

SLOTS = 4
CALL_S = 0.19
"""Of ten tokens, at any load."""
NARROW = provider("a", limits={"max_concurrency": SLOTS})
PACE = SLOTS / CALL_S
"""Requests a second it can take."""
LONG_S = 30.0


def percentile(clients: list[Client], share: float) -> float:
    """ms until the whole answer."""
    took = sorted(client.took_s for client in clients)
    return 1e3 * took[min(len(took) - 1, int(share * len(took)))]


async def traffic(
    world: World, rate: float, for_s: float, tenant: str, seed: int = 1, headers: Mapping[str, str] | None = None, **how: Any
) -> list[Client]:
    """Requests of a tenant as a Poisson process (``rate`` a second): it does not wait for answers."""
    rng, clients, until = Random(seed), [], world.now + for_s
    while world.now < until:
        clients.append(world.send(headers={"x-pointsman-tenant": tenant, **(headers or {})}, **how))
        await asyncio.sleep(rng.expovariate(rate))
    return clients


def quiet_among(flood: Mapping[str, Any] | None, queue: Mapping[str, Any] | None = None) -> tuple[list[Client], list[Client]]:
    """Half a minute of two requests a second of one tenant, in the flood of another. The requests of both."""

    async def scene(world: World) -> tuple[list[Client], list[Client]]:
        flooding = asyncio.ensure_future(traffic(world, for_s=LONG_S + 2, tenant="flood", seed=2, **flood)) if flood else None
        # When it comes the queue is full already.
        await asyncio.sleep(2 if flood else 0)
        quiet = await traffic(world, 2, LONG_S, "quiet")
        flooded = await flooding if flooding else []
        await world.all_done()
        return quiet, flooded

    return run(loaded([NARROW], queue=queue or {}), scene)


@pytest.mark.parametrize(
    ("flood", "more_ms"),
    [
        # Until the next of four calls ends, or the one after.
        ({"rate": 2 * PACE}, (60, 150)),
        # None is broken off: these take four seconds.
        ({"rate": 2, "max_tokens": 400}, (2500, 4100)),
    ],
    ids=["of-short-ones", "of-long-ones"],
)
def test_pain_25_one_tenants_flood_leaves_anothers_latency_nearly_as_it_was(
    flood: Mapping[str, Any], more_ms: tuple[float, float]
) -> None:
    alone, _ = quiet_among(None)
    quiet, flooded = quiet_among(flood)
    assert {client.status for client in quiet} == {200}
    for share, more in zip((0.5, 0.95), more_ms, strict=True):
        assert percentile(quiet, share) <= percentile(alone, share) + more
    # What is left over goes to the flood, of which some wait for their ten seconds in vain.
    served = [client for client in flooded if client.status == 200]
    assert {client.status for client in flooded} == {200, 503}
    if "max_tokens" not in flood:
        assert len(served) + len(quiet) >= 0.98 * (LONG_S + 2) * PACE


def test_pain_25_a_flood_that_fills_the_queue_shuts_nobody_else_out() -> None:
    quiet, flooded = quiet_among({"rate": 4 * PACE}, {"max_length": 50})
    assert {client.status for client in quiet} == {200}
    assert percentile(quiet, 0.95) < 350
    assert [client.status for client in flooded].count(503) > len(flooded) / 2


def test_pain_25_among_four_floods_each_gets_a_quarter_by_tokens() -> None:
    async def scene(world: World) -> dict[str, int]:
        sizes = {"a": 10, "b": 10, "c": 150, "d": 400}
        floods = [
            traffic(world, 6 / (1 + size / 100), 60, tenant, seed=size, max_tokens=size) for tenant, size in sizes.items()
        ]
        served = {}
        for tenant, clients in zip(sizes, await asyncio.gather(*floods), strict=True):
            # Those that end in the middle, when all four wait all the time; each call counts for 50 tokens besides.
            done = [client for client in clients if 15 < (client.done_at or 0.0) < 60 and client.status == 200]
            served[tenant] = len(done) * (sizes[tenant] + 50)
        await world.all_done()
        return served

    served = run(loaded([NARROW], queue={"max_wait": "30s"}), scene)
    mean = sum(served.values()) / 4
    assert all(tokens == pytest.approx(mean, rel=0.25) for tokens in served.values()), served


@pytest.mark.parametrize("is_same", [True, False], ids=["same-tenant", "other-tenant"])
def test_low_is_served_within_the_longest_wait_though_more_urgent_ones_keep_coming(is_same: bool) -> None:
    async def scene(world: World) -> list[Client]:
        urgent = asyncio.ensure_future(traffic(world, 1.02 * PACE, 60, "t", headers={"x-pointsman-priority": "critical"}))
        await asyncio.sleep(10)
        low = await traffic(world, 1, 40, "t" if is_same else "other", 2, headers={"x-pointsman-priority": "low"})
        await urgent
        await world.all_done()
        return low

    low = run(loaded([NARROW]), scene)
    assert {client.status for client in low} == {200}


def test_critical_is_served_at_once_in_a_flood_of_its_own_tenant() -> None:
    async def scene(world: World) -> list[Client]:
        flood = asyncio.ensure_future(traffic(world, 1.05 * PACE, 25, "t"))
        await asyncio.sleep(10)
        critical = await traffic(world, 1, 15, "t", 2, headers={"x-pointsman-priority": "critical"})
        await flood
        await world.all_done()
        return critical

    assert percentile(run(loaded([NARROW]), scene), 0.95) < 300


def test_pain_12_who_is_shed_and_comes_back_when_told_is_served() -> None:
    """``Retry-After`` is what a place in the queue took those who had one."""

    async def scene(world: World) -> None:
        flood = await traffic(world, 2 * PACE, 25, "t")
        shed = [client for client in flood if client.status == 503 and client.begun_at > 10]
        told = [int(client.headers["retry-after"]) for client in shed]
        waited = [client.took_s - CALL_S for client in flood if client.status == 200 and client.begun_at > 10]
        # 100 places at some 21 a second.
        assert min(waited) > 4.0
        assert all(min(waited) - 0.5 <= told_s <= max(waited) + 1.5 for told_s in told), (min(waited), max(waited), set(told))
        await world.all_done()
        again = await world.ask()
        assert again.status == 200

    run(loaded([NARROW], queue={"max_length": 100}), scene)


def test_pain_12_who_waited_in_vain_is_told_how_long_it_takes() -> None:
    async def scene(world: World) -> None:
        flood = await traffic(world, 3 * PACE, 20, "t")
        await world.all_done()
        late = [client for client in flood if client.status == 503]
        assert late
        # What comes in two seconds takes six.
        told = [int(client.headers["retry-after"]) for client in late if 5 < client.begun_at < 15]
        assert {5, 6, 7} >= set(told)

    run(loaded([NARROW], queue={"max_wait": "2s"}), scene)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_B3_no_wake_up_is_lost_nobody_barges_and_nobody_dead_keeps_a_place(seed: int, slots: int) -> None:
    """Whoever comes and goes: a place is never empty while somebody waits, and within a tenant the order is that of arrival."""
    order: dict[str, list[tuple[float, Client]]] = {}
    assert run(loaded([provider("a", limits={"max_concurrency": slots})], queue={"max_wait": "60s"}), crowd(seed, order)) > 0
    for clients in order.values():
        served = [(client.begun_at, (client.done_at or 0.0) - length_s) for length_s, client in clients if client.status == 200]
        # Of those who came at the very same instant any may be first.
        assert all(one <= other + 1e-6 for came, one in served for later, other in served if came < later), served


def crowd(seed: int, order: dict[str, list[tuple[float, Client]]]) -> Callable[[World], Any]:
    """Tenants that come at random, with requests of some lengths, and sometimes leave."""

    async def scene(world: World) -> int:
        rng = Random(seed)
        for _ in range(60):
            tenant, tokens = rng.choice("xyz"), rng.choice([10, 20, 50])
            client = world.send(headers={"x-pointsman-tenant": tenant}, max_tokens=tokens)
            order.setdefault(tenant, []).append((0.1 + 0.01 * (tokens - 1), client))
            if rng.random() < 0.3:
                leaver = rng.choice(world.clients)
                leaver.leave()
            await asyncio.sleep(rng.choice([0.0, 0.001, 0.05, 0.3]))
            actor: Any = world.cell("router").actor
            assert actor.invariant() is None
        waiting = (await world.router_stats()).waiting
        # A place that has just come free may be on its way to somebody.
        taken = len(world.provider_actor("a").permits) + actor._plans.counts.get("a", 0)
        assert waiting == 0 or taken >= world.watch.most_out["a"]
        await world.all_done()
        assert all(client.status == 200 or client.has_left for client in world.clients)
        assert (await world.router_stats()).waiting == 0
        return sum(client.status == 200 for client in world.clients)

    return scene
