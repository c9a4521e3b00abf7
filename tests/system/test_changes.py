"""Changes at run time in the running house, under traffic: each is in force at once, and no call is lost to it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from messages.changes import (
    Change,
    Changed,
    ChangeFault,
    ChangeRefused,
    DeleteAlias,
    PatchProvider,
    PutAlias,
    RegisterProvider,
    SetDefault,
    SetStrategy,
    UnregisterProvider,
)
from messages.control import ConfigSnapshot, Configured, GetSnapshot, LimitsSpec, ModelSpec, Propose, ProviderSpec
from messages.decisions import Decision, DecisionFound, GetDecision
from messages.health import PushMetrics, Status
from runtime.simulation.behaviour import Behaviour
from runtime.system.replies import ActorGone
from tests.system.house import MODEL, PLAIN, Client, World, loaded, provider, run, url_of

SLOW = Behaviour("slow", ttfb_ms=100, sigma=0, tokens_per_second=10, capacity=1000, models=(MODEL,), chunk_tokens=1)
"""Takes a second over ten tokens."""
REAPED_S = 1.5
"""By then a provider that has drained is stopped."""


def spec(name: str, **more: Any) -> ProviderSpec:
    """What the admin API makes of an entry with one model."""
    made = loaded([provider(name)]).snapshot.providers[0]
    return replace(made, **more)


def add_upstream(world: World, name: str, behaviour: Behaviour = PLAIN) -> None:
    """Let the simulated world have one provider more than the file."""
    world.upstream._behaviours[url_of(name)] = replace(behaviour, name=name)
    world.watch._limits[name] = LimitsSpec()


async def change(world: World, change: Change) -> int:
    """Ask for a change; returns the generation that is in force with it."""
    answer = await world.house.system.ask("registry", change, sender="admin")
    assert isinstance(answer, Changed), answer
    return answer.generation


async def unregister_busy(world: World, name: str, model: str = MODEL) -> None:
    """Take a provider out that is about to get a call for ``model``, and wait for its last call."""
    last = world.send(stream=True, model=model)
    await asyncio.sleep(0.05)
    await change(world, UnregisterProvider(name))
    await last.wait()
    assert (last.provider, last.fate) == (name, "answer")


async def in_force(world: World) -> ConfigSnapshot:
    answer = await world.house.system.ask("registry", GetSnapshot())
    assert isinstance(answer, Configured)
    return answer.snapshot


async def decision(world: World, client: Client) -> Decision:
    found = await world.house.system.ask("router", GetDecision(client.headers["x-pointsman-decision"]))
    assert isinstance(found, DecisionFound)
    assert found.decision is not None
    return found.decision


async def traffic(world: World, seconds: float, every_s: float = 0.02) -> list[Client]:
    """A request every so often, for so long."""
    clients: list[Client] = []
    until = world.now + seconds
    while world.now < until:
        clients.append(world.send(stream=len(clients) % 2 == 0))
        await asyncio.sleep(every_s)
    return clients


def providers_of(clients: list[Client]) -> set[str]:
    return {client.provider for client in clients}


def test_A1_C2_a_provider_registered_under_traffic_takes_calls() -> None:
    async def scene(world: World) -> None:
        add_upstream(world, "c")
        running = asyncio.ensure_future(traffic(world, 4.0))
        await asyncio.sleep(2.0)
        assert await change(world, RegisterProvider(spec("c"))) == 2
        began = world.now

        for client in await running:
            await client.wait()
            assert (client.status, client.fate) == (200, "answer")
        assert len(world.calls("c")) > 20
        assert min(world.calls("c")) >= began
        assert providers_of(world.clients) == {"a", "b", "c"}

    run(loaded([provider("a"), provider("b")], strategy="round_robin"), scene)


def test_A1_an_unregistered_provider_finishes_its_calls_takes_no_new_one_and_is_stopped() -> None:
    async def scene(world: World) -> None:
        last = world.send(stream=True, max_tokens=30)
        await asyncio.sleep(0.5)
        await change(world, UnregisterProvider("a"))

        clients = await traffic(world, 1.0)
        assert (await world.report("a")).status is Status.DRAINING
        assert len(world.calls("a")) == 1
        await last.wait()
        await asyncio.sleep(REAPED_S)

        assert (last.provider, last.fate) == ("a", "answer")
        assert last.took_s > 2.0
        assert "provider:a" not in world.house.system._dispatcher.cells
        for client in clients:
            await client.wait()
            assert (client.provider, client.fate) == ("b", "answer")

    run(loaded([provider("a"), provider("b")], strategy="first"), scene, {"a": SLOW})


def test_A1_an_unregistered_provider_reads_the_last_of_its_mail_before_it_is_stopped() -> None:
    async def scene(world: World) -> None:
        await change(world, UnregisterProvider("a"))
        await asyncio.sleep(0.1)
        # The end of a call, told in the turn of the loop in which the provider was to be stopped.
        world.house.system.tell("provider:a", PushMetrics(average_latency_s=1.0), sender="courier")
        world.house.tree._reap()
        assert world.provider_actor("a").is_draining

        await asyncio.sleep(REAPED_S)
        assert "provider:a" not in world.house.system._dispatcher.cells
        assert world.house.system.dead_letters == ()

    run(loaded([provider("a"), provider("b")]), scene)


def test_A1_C2_to_unregister_under_traffic_costs_no_request() -> None:
    async def scene(world: World) -> None:
        running = asyncio.ensure_future(traffic(world, 3.0, every_s=0.01))
        for _ in range(4):
            await asyncio.sleep(0.301)
            await change(world, UnregisterProvider("b"))
            await asyncio.sleep(0.303)
            await change(world, RegisterProvider(spec("b")))

        for client in await running:
            await client.wait()
            assert (client.status, client.fate) == (200, "answer")
        assert world.calls("b")
        assert (await in_force(world)).generation == 9

    run(loaded([provider("a"), provider("b")], strategy="round_robin"), scene)


def test_A1_B9_a_provider_registered_again_while_it_drains_goes_on_with_what_it_holds() -> None:
    async def scene(world: World) -> None:
        held = world.send(stream=True, max_tokens=30)
        await asyncio.sleep(0.5)
        actor = world.provider_actor("a")
        await change(world, UnregisterProvider("a"))
        await asyncio.sleep(0.2)

        await change(world, RegisterProvider(spec("a", priority=5, limits=LimitsSpec(max_concurrency=1))))
        await asyncio.sleep(0.0)

        assert world.provider_actor("a") is actor
        assert (await world.report("a")).in_flight == 1
        # Its only place is taken by the call from before, so the next one goes elsewhere.
        assert (await world.ask()).provider == "b"
        await held.wait()
        assert held.fate == "answer"
        assert (await world.ask()).provider == "a"
        await asyncio.sleep(REAPED_S)
        assert world.provider_actor("a") is actor

    run(loaded([provider("a"), provider("b")], strategy="priority"), scene, {"a": SLOW})


def test_A1_a_provider_registered_again_after_it_was_stopped_starts_anew() -> None:
    async def scene(world: World) -> None:
        actor = world.provider_actor("a")
        await unregister_busy(world, "a")
        await asyncio.sleep(REAPED_S)
        assert (await world.ask()).provider == "b"
        await change(world, RegisterProvider(spec("a", priority=1)))

        assert (await world.ask()).provider == "a"
        assert world.provider_actor("a") is not actor

    run(loaded([provider("a"), provider("b")], strategy="priority"), scene)


def test_A1_a_name_nobody_lists_goes_to_whoever_is_the_default_now() -> None:
    async def scene(world: World) -> None:
        assert (await world.ask(model="novel")).provider == "a"
        await change(world, SetDefault("b"))
        assert (await world.ask(model="novel")).provider == "b"
        await unregister_busy(world, "b", model="novel")
        assert (await world.ask(model="novel")).provider == "a"
        answer = await world.house.system.ask("registry", SetDefault("nobody"))
        assert isinstance(answer, ChangeRefused)
        assert answer.fault is ChangeFault.NOT_FOUND

    takes_any = replace(PLAIN, models=(MODEL, "novel"))
    file = loaded([provider("a", models=None), provider("b", models=None)])
    run(file, scene, {"a": takes_any, "b": takes_any})


def test_A1_without_any_provider_every_request_is_answered_until_there_is_one_again() -> None:
    async def scene(world: World) -> None:
        await unregister_busy(world, "a")
        refused = await world.ask()
        assert (refused.fate, refused.attempts) == ("error", 0)

        await change(world, RegisterProvider(spec("a")))
        assert (await world.ask()).fate == "answer"

    run(loaded([provider("a")]), scene)


def test_D2_a_changed_strategy_shows_in_the_next_decision_with_the_new_generation() -> None:
    async def scene(world: World) -> None:
        first = await decision(world, await world.ask())
        assert (first.strategy, first.generation) == ("first", 1)

        generation = await change(world, SetStrategy("round_robin"))

        client = await world.ask()
        then = await decision(world, client)
        assert (then.strategy, then.generation) == ("round_robin", generation) == ("round_robin", 2)
        assert client.headers["x-pointsman-strategy"] == "round_robin"
        assert providers_of([await world.ask() for _ in range(4)]) == {"a", "b"}

    run(loaded([provider("a"), provider("b")], strategy="first"), scene)


def test_D2_every_change_bumps_the_generation_of_the_next_decision_and_a_refused_one_does_not() -> None:
    async def scene(world: World) -> None:
        generations = []
        for step in (PatchProvider("b", weight=3), PutAlias("best", MODEL), SetDefault("b"), DeleteAlias("best")):
            generations.append(await change(world, step))
            assert (await decision(world, await world.ask())).generation == generations[-1]
        assert generations == [2, 3, 4, 5]

        answer = await world.house.system.ask("registry", UnregisterProvider("nobody"))
        assert isinstance(answer, ChangeRefused)
        assert (await decision(world, await world.ask())).generation == 5

    run(loaded([provider("a"), provider("b")]), scene)


def test_D2_weight_zero_takes_a_provider_out_of_a_weighted_choice_and_back() -> None:
    async def scene(world: World) -> None:
        await change(world, PatchProvider("a", weight=0))
        assert providers_of([await world.ask() for _ in range(6)]) == {"b"}
        await change(world, PatchProvider("a", weight=1))
        assert providers_of([await world.ask() for _ in range(6)]) == {"a", "b"}

    run(loaded([provider("a"), provider("b")], strategy="weighted"), scene)


def test_A3_a_provider_switched_off_takes_no_calls_and_those_it_has_go_on() -> None:
    async def scene(world: World) -> None:
        held = world.send(stream=True, max_tokens=20)
        await asyncio.sleep(0.5)
        await change(world, PatchProvider("a", status="disabled"))
        assert (await world.ask()).provider == "b"
        await held.wait()
        assert (held.provider, held.fate) == ("a", "answer")

        await change(world, PatchProvider("a", status="ready"))
        assert (await world.ask()).provider == "a"

    run(loaded([provider("a"), provider("b")], strategy="first"), scene, {"a": SLOW})


def test_A7_an_alias_leads_where_it_was_put_from_the_next_request_on() -> None:
    async def scene(world: World) -> None:
        assert (await world.ask(model="best")).status == 404
        await change(world, PutAlias("best", f"b:{MODEL}"))
        assert (await world.ask(model="best")).provider == "b"
        await change(world, PutAlias("best", f"a:{MODEL}"))
        assert (await world.ask(model="best")).provider == "a"
        await change(world, DeleteAlias("best"))
        gone = await world.ask(model="best")
        assert (gone.status, gone.code) == (404, "model_not_found")

    run(loaded([provider("a"), provider("b")]), scene)


def test_B9_a_new_file_keeps_calls_in_flight_and_what_the_admin_api_changed() -> None:
    async def scene(world: World) -> None:
        held = [world.send(stream=True, max_tokens=20) for _ in range(3)]
        await asyncio.sleep(0.5)
        await change(world, PatchProvider("b", weight=7))
        counts = [(await world.report(name)).in_flight for name in "ab"]
        assert sum(counts) == 3

        file = world.house.loaded.snapshot
        newer = tuple(replace(entry, credential="rotated", limits=LimitsSpec(max_concurrency=9)) for entry in file.providers)
        answer = await world.house.system.ask("registry", Propose(replace(file, providers=newer)))

        assert isinstance(answer, Configured)
        assert [entry.weight for entry in answer.snapshot.providers] == [1, 7]
        assert [(await world.report(name)).in_flight for name in "ab"] == counts
        for client in held:
            await client.wait()
            assert client.fate == "answer"
        assert [(await world.report(name)).in_flight for name in "ab"] == [0, 0]

    run(loaded([provider("a"), provider("b")]), scene, {"a": SLOW, "b": SLOW})


def test_a_registry_that_falls_over_a_change_keeps_those_before_and_takes_those_after() -> None:
    async def scene(world: World) -> None:
        await change(world, SetStrategy("round_robin"))
        world.crash("registry", PatchProvider)
        with pytest.raises(ActorGone):
            await world.house.system.ask("registry", PatchProvider("b", weight=3))

        assert (await in_force(world)).generation == 2
        assert (await world.ask()).headers["x-pointsman-strategy"] == "round_robin"
        assert await change(world, PatchProvider("b", weight=3)) == 3
        assert (await in_force(world)).providers[1].weight == 3

    run(loaded([provider("a"), provider("b")], strategy="first"), scene)


def test_C2_a_provider_that_names_no_models_is_asked_for_them_when_it_is_registered() -> None:
    async def scene(world: World) -> None:
        add_upstream(world, "c", replace(PLAIN, models=("only-c",)))
        lists = loaded([provider("c", models=None, probe={"kind": "models", "interval": "1s"})]).snapshot.providers[0]
        await change(world, RegisterProvider(lists))
        await asyncio.sleep(5.0)

        assert (await in_force(world)).providers[1].models == (ModelSpec("only-c", "only-c"),)
        assert (await world.ask(model="only-c")).provider == "c"

    run(loaded([provider("a")]), scene)
