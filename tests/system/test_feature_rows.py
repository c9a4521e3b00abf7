"""Rows of FEATURES in the running house: what providers are and have done decides, and the figures tell it."""

import asyncio
from typing import Any

import pytest

from messages.changes import Changed, PatchProvider, SetStrategy
from messages.decisions import Decision, DecisionFound, GetDecision
from messages.routing import NoRoute, RequestProfile, RoutePlan, RouteQuery
from runtime.simulation.behaviour import Behaviour
from tests.system.house import MODEL, Client, World, loaded, provider, run

SLOW = Behaviour("slow", ttfb_ms=900, sigma=0, tokens_per_second=100, capacity=1000, models=(MODEL,))


def priced(name: str, price: float, **more: Any) -> dict[str, Any]:
    return provider(name, models=[{"name": MODEL, "input_price": price, "output_price": price} | more])


async def proposed(world: World, **profile: Any) -> RoutePlan | NoRoute:
    """What the router would do with a request of these sizes."""
    now = world.now
    query = RouteQuery("explain-1", RequestProfile(MODEL, **profile), now + 10.0, now, may_wait=False)
    answer = await world.house.system.ask("router", query, sender="test")
    assert isinstance(answer, RoutePlan | NoRoute)
    return answer


async def decision(world: World, client: Client) -> Decision:
    found = await world.house.system.ask("router", GetDecision(client.headers["x-pointsman-decision"]), sender="test")
    assert isinstance(found, DecisionFound)
    assert found.decision is not None
    return found.decision


async def changed(world: World, change: PatchProvider | SetStrategy) -> None:
    assert isinstance(await world.house.system.ask("registry", change, sender="admin"), Changed)


# -- C4


def test_C4_load_is_what_is_out_now_and_the_next_call_goes_where_there_is_less_of_it() -> None:
    async def scene(world: World) -> None:
        held = [world.send(stream=True, max_tokens=400, headers={"x-pointsman-provider": "a"}) for _ in range(3)]
        await asyncio.sleep(0.2)
        assert [(await world.report(name)).in_flight for name in "ab"] == [3, 0]
        assert [(await world.ask()).provider for _ in range(4)] == ["b"] * 4

        held[0].leave()
        await held[0].wait()
        assert (await world.report("a")).in_flight == 2
        await world.all_done()
        report = await world.report("a")
        assert (report.in_flight, report.requests) == (0, 3)

        # What ever was out is no load: now it is the other one's turn to be spared.
        world.send(stream=True, headers={"x-pointsman-provider": "b"})
        await asyncio.sleep(0.05)
        assert (await world.ask()).provider == "a"

    run(loaded([provider("a"), provider("b")], strategy="least_connections"), scene)


# -- A3


def test_A3_unchecked_and_ready_take_traffic_disabled_gives_unavailable() -> None:
    async def scene(world: World) -> None:
        assert (await world.report("a")).status == "unchecked"
        for _ in range(2):
            answer = await world.ask()
            assert (answer.status, answer.provider) == (200, "a")
        assert (await world.report("a")).status == "ready"

        await changed(world, PatchProvider("a", enabled=False))

        refused = await world.ask()
        assert (refused.status, refused.code) == (503, "no_provider_available")
        assert "a is disabled" in refused.text

    run(loaded([provider("a")], strategy="first"), scene)


def test_A3_an_unavailable_one_is_passed_over_with_its_reason_and_the_next_one_answers() -> None:
    async def scene(world: World) -> None:
        await changed(world, PatchProvider("a", status="unavailable", status_reason="moving house"))
        answer = await world.ask()

        assert (answer.status, answer.provider, answer.attempts) == (200, "b", 1)
        (left,) = (one for one in (await decision(world, answer)).candidates if one.reason)
        assert (left.provider, left.reason, left.detail) == ("a", "unavailable", "moving house")

    run(loaded([provider("a"), provider("b")], strategy="first"), scene)


# -- A5


def test_A5_the_strategy_changes_between_two_requests_and_back() -> None:
    async def scene(world: World) -> None:
        told = []
        for strategy in ("priority", "first", "priority"):
            await changed(world, SetStrategy(strategy))
            answer = await world.ask()
            told.append((answer.headers["x-pointsman-strategy"], answer.provider))
        assert told == [("priority", "b"), ("first", "a"), ("priority", "b")]

    run(loaded([provider("a"), provider("b", priority=9)], strategy="first"), scene)


# -- D1


def test_D1_what_fits_no_small_window_goes_to_a_large_one_and_what_fits_nowhere_is_refused() -> None:
    small = provider("small", models=[{"name": MODEL, "context_window": 100}])
    short = provider("short", models=[{"name": MODEL, "context_window": 1000, "max_output_tokens": 50}])
    large = provider("large", models=[{"name": MODEL, "context_window": 1000}])

    async def scene(world: World) -> None:
        assert [(await world.ask(max_tokens=tokens)).provider for tokens in (10, 200)] == ["small", "large"]
        assert [world.calls(name) != [] for name in ("small", "short", "large")] == [True, False, True]
        refused = await world.ask(max_tokens=5000)
        assert (refused.status, refused.code) == (400, "context_length_exceeded")

    run(loaded([small, short, large], strategy="first"), scene)


# -- D3, E2: the price of this very request


@pytest.mark.parametrize("strategy", ["cost", "optimize_cost"])
def test_D3_cost_is_that_of_the_prompt_and_of_max_tokens(strategy: str) -> None:
    talkative = provider("in", models=[{"name": MODEL, "input_price": 1, "output_price": 10}])
    wordy = provider("out", models=[{"name": MODEL, "input_price": 10, "output_price": 1}])

    async def scene(world: World) -> None:
        for prompt, output, cheaper in ((250, 10, "in"), (10, 250, "out")):
            plan = await proposed(world, prompt_tokens=prompt, max_tokens=output)
            assert isinstance(plan, RoutePlan)
            assert plan.choices[0].provider == cheaper
            assert plan.choices[0].cost_usd == pytest.approx(250e-6 + 10 * 10e-6)

    run(loaded([talkative, wordy], strategy=strategy), scene)


def test_E2_the_decision_predicts_what_was_measured_and_names_the_next_two() -> None:
    async def scene(world: World) -> None:
        for name in ("slow", "a", "b"):
            others = ",".join({"slow", "a", "b", "c"} - {name})
            for _ in range(20):
                assert (await world.ask(headers={"x-pointsman-exclude": others})).provider == name

        plan = await proposed(world, prompt_tokens=100, max_tokens=10)

        assert isinstance(plan, RoutePlan)
        winner, *chain = plan.choices
        assert len(chain) >= 2
        assert winner.cost_usd == pytest.approx(110 * 2e-6)
        expected = {choice.provider: choice.expected_s for choice in plan.choices}
        # Ten tokens: after 0.1 s and after 0.9 s of silence, 0.09 s apart.
        assert expected["a"] == pytest.approx(0.19, rel=0.1)
        assert expected["slow"] == pytest.approx(0.99, rel=0.1)

    names = ("slow", "a", "b", "c")
    run(loaded([priced(name, 2) for name in names], strategy="optimize_reliability"), scene, {"slow": SLOW})


# -- E3


def test_E3_outcomes_are_recorded_online_and_change_the_next_choice() -> None:
    async def scene(world: World) -> None:
        winners = [(await world.ask()).provider for _ in range(12)]
        assert set(winners) == {"slow", "quick"}
        assert winners[-6:] == ["quick"] * 6

    run(loaded([provider("slow"), provider("quick")], strategy="optimize_latency"), scene, {"slow": SLOW})


def test_E3_the_statistics_tell_total_requests_providers_average_latency_and_strategy() -> None:
    async def scene(world: World) -> None:
        for name in ("slow", "quick", "quick", "quick"):
            await world.ask(headers={"x-pointsman-provider": name})
        shown = await world.house.admin.stats()

        router = shown["router"]
        assert (router["total"], router["succeeded"], router["failed"], router["strategy"]) == (4, 4, 0, "first")
        assert {line["name"]: line["requests"] for line in shown["providers"]} == {"slow": 1, "quick": 3}
        averages = {line["name"]: line["latency_ms"]["avg"] for line in shown["providers"]}
        assert averages["slow"] > 900 > 200 > averages["quick"] > 100
        assert router["latency_ms"]["avg"] == pytest.approx((averages["slow"] + 3 * averages["quick"]) / 4, abs=0.01)

    run(loaded([provider("slow"), provider("quick")], strategy="first"), scene, {"slow": SLOW})


def test_E3_before_the_first_request_the_average_is_zero() -> None:
    async def scene(world: World) -> None:
        assert (await world.house.admin.stats())["router"]["latency_ms"] == {"avg": 0.0}

    run(loaded([provider("a")]), scene)
