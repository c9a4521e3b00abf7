"""``max_concurrency: auto`` in the running house: the hidden capacity of a provider is found, and shown."""

import asyncio
from typing import Any

import pytest

from actors.provider.concurrency import LIMIT_FIRST
from messages.decisions import DecisionFound, GetDecision
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, World, loaded, provider, run

PATIENT = {"max_wait": "600s"}
AUTO: dict[str, Any] = {"limits": {"max_concurrency": "auto"}}


def hidden(capacity: int) -> Behaviour:
    """Takes a second for a call of forty tokens, and lets whoever is beyond its capacity wait."""
    return Behaviour("a", ttfb_ms=220, sigma=0.2, tokens_per_second=50, capacity=capacity, models=(MODEL,))


async def callers(world: World, count: int, for_s: float) -> None:
    """So many callers, each with one request after the other."""

    async def call() -> None:
        until = world.now + for_s
        while world.now < until:
            await world.ask(stream=True, max_tokens=40)

    await asyncio.gather(*(call() for _ in range(count)))


async def limit_of(world: World, name: str = "a") -> int:
    found = (await world.report(name)).concurrency_limit
    assert found is not None
    return found


@pytest.mark.parametrize("capacity", [4, 16])
def test_the_hidden_capacity_of_a_provider_is_found_within_a_factor_and_callers_wait_here_instead_of_there(
    capacity: int,
) -> None:
    async def scene(world: World) -> None:
        await callers(world, 2 * capacity + 10, 40.0)
        found: list[int] = []
        waiting: list[int] = []

        async def watch() -> None:
            for _ in range(20):
                await asyncio.sleep(0.9)
                found.append(await limit_of(world))
                waiting.append(world.simulation("a").slots.waiting)

        await asyncio.gather(watch(), callers(world, 2 * capacity + 10, 20.0))

        assert {client.status for client in world.clients} == {200}
        assert capacity / 2 <= sum(found) / len(found) <= 2 * capacity
        assert sum(waiting) / len(waiting) <= capacity / 2 + 2

    run(loaded([provider("a", **AUTO)], queue=PATIENT), scene, {"a": hidden(capacity)})


def test_a_light_load_leaves_the_limit_where_it_began() -> None:
    async def scene(world: World) -> None:
        await callers(world, 3, 60.0)
        assert await limit_of(world) == LIMIT_FIRST

    run(loaded([provider("a", **AUTO)]), scene, {"a": hidden(100)})


def test_clients_that_leave_and_a_bad_key_do_not_lower_the_limit() -> None:
    async def scene(world: World) -> None:
        for _ in range(LIMIT_FIRST):
            world.send(stream=True)
        await asyncio.sleep(0.05)
        for client in world.clients:
            client.leave()
        await world.all_done()
        assert await limit_of(world) == LIMIT_FIRST

        world.fault("a", FaultKind.AUTH)
        for _ in range(LIMIT_FIRST):
            world.send(stream=True)
        await world.all_done()
        assert await limit_of(world) == LIMIT_FIRST

    run(loaded([provider("a", **AUTO)]), scene, {"a": hidden(100)})


def test_refusals_for_load_lower_the_limit_and_it_recovers() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.RATE_LIMIT, for_s=1.0, retry_after_s=0.1)
        for _ in range(LIMIT_FIRST):
            world.send(stream=True)
        await world.all_done()
        low = await limit_of(world)
        assert low < LIMIT_FIRST

        await asyncio.sleep(60.0)
        await callers(world, 40, 30.0)
        assert await limit_of(world) > low

    run(loaded([provider("a", **AUTO)], queue=PATIENT), scene, {"a": hidden(100)})


def test_who_is_held_back_by_a_limit_that_was_found_out_goes_on_to_the_next_and_the_decision_says_why() -> None:
    async def scene(world: World) -> None:
        for _ in range(LIMIT_FIRST):
            world.send(stream=True)
        await asyncio.sleep(0.05)
        client = await world.ask()

        assert client.provider == "b"
        found = await world.house.system.ask("router", GetDecision(client.headers["x-pointsman-decision"]))
        assert isinstance(found, DecisionFound)
        assert found.decision is not None
        (first,) = (candidate for candidate in found.decision.candidates if candidate.provider == "a")
        assert (first.reason, first.detail) == ("at_capacity", f"it takes {LIMIT_FIRST} at once now")

    run(loaded([provider("a", **AUTO), provider("b")], strategy="first"), scene, {"a": hidden(100)})
