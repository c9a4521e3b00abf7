"""Crashes behind a courier's back: what becomes of the request, and who goes on."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from messages.calls import Award, CallEnded
from messages.control import Configured, GetSnapshot
from messages.health import GetReport, ProbeTick
from messages.routing import CallForBids, Gathered, RoutePlan, RouteQuery
from runtime.courier.courier import Courier
from runtime.simulation.faults import FaultKind
from tests.system.house import PLAIN, World, loaded, provider, run

THREE = loaded([provider("a"), provider("b"), provider("c")], strategy="first")


def test_a_provider_that_crashes_on_a_call_for_bids_is_passed_over_and_not_restarted() -> None:
    async def scene(world: World) -> None:
        world.crash("provider:a", CallForBids)
        client = await world.ask()

        assert (client.status, client.provider, client.attempts) == (200, "b", 1)
        assert world.house.system.counters.restarts == 0
        assert (await world.ask()).provider == "a"

    run(THREE, scene)


def test_a_query_that_crashes_two_providers_is_answered_500_and_tried_no_further() -> None:
    async def scene(world: World) -> None:
        world.crash("provider:a", CallForBids)
        world.crash("provider:b", CallForBids)
        client = await world.ask()

        assert (client.status, client.code) == (500, "internal_error")
        assert client.headers["x-should-retry"] == "false"
        assert world.watch.permits == {}
        assert (await world.ask()).status == 200

    run(THREE, scene)


@pytest.mark.parametrize("is_broken", [True, False])
def test_a_request_whose_awards_crash_two_providers_is_answered_500_and_takes_no_pool_out(is_broken: bool) -> None:
    async def scene(world: World) -> None:
        for name in ("a", "b", "c"):
            world.crash(
                f"provider:{name}", lambda mail: isinstance(mail, Award) and mail.query_id == "q1", 100, is_broken=is_broken
            )
        client = await world.ask()

        assert (client.status, client.code) == (500, "internal_error")
        assert client.headers["x-should-retry"] == "false"
        assert world.house.system.counters.crashes == 2
        assert [permit.refusal for permit in world.watch.permits.values()] == ["crashed", "crashed"]
        assert (await world.ask()).status == 200

    run(THREE, scene)


def test_a_request_that_crashes_one_handler_bidding_and_one_awarding_is_answered_500_and_tried_no_further() -> None:
    async def scene(world: World) -> None:
        world.crash("provider:a", CallForBids)
        world.crash("provider:b", Award, is_broken=False)
        client = await world.ask()

        assert (client.status, client.code, client.attempts) == (500, "internal_error", 0)
        assert [(permit.provider, permit.refusal) for permit in world.watch.permits.values()] == [("b", "crashed")]
        assert (await world.ask()).provider == "a"

    run(THREE, scene)


def test_a_request_that_crashes_one_handler_awarding_and_later_one_bidding_is_answered_500_and_tried_no_further() -> None:
    async def scene(world: World) -> None:
        world.crash("provider:a", Award, is_broken=False)
        world.fault("b", FaultKind.ERRORS)
        world.crash("provider:c", lambda mail: isinstance(mail, CallForBids) and bool(world.calls("b")))
        client = await world.ask()

        assert (client.status, client.code, client.attempts) == (500, "internal_error", 1)
        assert client.took_s < 0.2, "it waited for those it may not try"
        assert [permit.provider for permit in world.watch.permits.values()] == ["a", "b"]
        assert (await world.ask()).provider == "a"

    run(THREE, scene)


def test_a_request_that_crashes_two_handlers_bidding_for_its_retry_is_answered_500_and_tried_no_further() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.RATE_LIMIT, retry_after_s=1.0)
        for name in ("b", "c"):
            world.crash(f"provider:{name}", lambda mail: isinstance(mail, CallForBids) and bool(world.calls("a")))
        client = await world.ask()

        assert (client.status, client.code, client.attempts) == (500, "internal_error", 1)
        assert client.took_s < 0.2, "it waited for those it may not try"

    run(THREE, scene)


def test_a_provider_that_crashes_on_all_bids_of_a_request_that_waits_is_one_handler() -> None:
    async def scene(world: World) -> None:
        world.crash("provider:a", CallForBids, 100)
        world.send(max_tokens=300)
        await asyncio.sleep(0.1)
        client = await world.ask()

        assert (client.status, client.provider) == (200, "b")
        assert world.house.system.counters.crashes > 3, "it was asked once only"

    run(loaded([provider("a"), provider("b", limits={"max_concurrency": 1})]), scene)


def test_a_request_that_waits_and_crashes_two_handlers_in_two_rounds_is_answered_500_at_once() -> None:
    async def scene(world: World) -> None:
        for _ in range(3):
            world.send(max_tokens=500)
        await asyncio.sleep(0.1)
        begun = world.now
        world.crash("provider:a", lambda mail: isinstance(mail, CallForBids) and world.now == begun)
        world.crash("provider:c", lambda mail: isinstance(mail, CallForBids) and world.now > begun)
        client = await world.ask()

        assert (client.status, client.code) == (500, "internal_error")
        assert client.took_s == pytest.approx(1.0, abs=0.01), "a line is asked again each second"

    run(loaded([provider(name, limits={"max_concurrency": 1}) for name in "abc"]), scene)


@pytest.mark.parametrize("on", [RouteQuery, Gathered])
@pytest.mark.parametrize("then", [CallForBids, Award])
def test_a_request_that_crashes_the_router_and_one_provider_is_answered_500_and_tried_no_further(on: type, then: type) -> None:
    async def scene(world: World) -> None:
        world.crash("router", on, is_broken=False)
        world.crash("provider:a", then if then is Award else on_second_round(world), is_broken=False)
        client = await world.ask()

        assert (client.status, client.code, client.attempts) == (500, "internal_error", 0)
        assert world.house.system.counters.crashes == 2
        assert len(world.watch.permits) == (then is Award)

    def on_second_round(world: World) -> Callable[[Any], bool]:
        return lambda mail: isinstance(mail, CallForBids) and world.house.system.counters.crashes == 1

    run(THREE, scene)


def test_calls_for_bids_beside_a_call_that_crash_two_handlers_are_the_last_and_a_failure_then_is_answered_500() -> None:
    async def scene(world: World) -> None:
        for _ in range(20):
            await world.ask(stream=True)
        for name in ("b", "c"):
            world.crash(f"provider:{name}", lambda mail: isinstance(mail, CallForBids) and "+" in mail.query_id, 100)
        world.fault("a", FaultKind.HANG)
        client = await world.ask(stream=True)

        assert (client.status, client.code, client.attempts) == (500, "internal_error", 1)
        assert world.house.system.counters.crashes == 2

    run(loaded([provider("a"), provider("b"), provider("c")], strategy="first", hedge={"max_share": 0.5}), scene)


def test_awards_beside_a_call_that_crash_two_handlers_are_the_last_and_the_call_goes_on() -> None:
    async def scene(world: World) -> None:
        for _ in range(20):
            await world.ask(stream=True)
        for name in ("b", "c"):
            world.crash(f"provider:{name}", Award, 100, is_broken=False)
        world.fault("a", FaultKind.SLOW, factor=100.0)
        client = await world.ask(stream=True)

        assert (client.fate, client.provider, client.attempts) == ("answer", "a", 1)
        assert world.house.system.counters.crashes == 2
        assert not any(world.is_out(f"provider:{name}") for name in ("b", "c"))

    run(loaded([provider("a"), provider("b"), provider("c")], strategy="first", hedge={"max_share": 0.5}), scene)


def test_when_a_call_fails_beside_which_awards_crashed_two_handlers_its_request_is_tried_no_further() -> None:
    async def scene(world: World) -> None:
        for _ in range(20):
            await world.ask(stream=True)
        for name in ("b", "c"):
            world.crash(f"provider:{name}", Award, 100, is_broken=False)
        world.fault("a", FaultKind.HANG)
        client = await world.ask(stream=True)

        assert (client.status, client.code, client.attempts) == (500, "internal_error", 1)
        assert world.house.system.counters.crashes == 2

    run(loaded([provider("a"), provider("b"), provider("c")], strategy="first", hedge={"max_share": 0.5}), scene)


@pytest.mark.parametrize("on", [RouteQuery, Gathered])
@pytest.mark.parametrize("is_broken", [True, False])
def test_a_question_that_crashed_the_router_is_put_once_more(on: type, is_broken: bool) -> None:
    async def scene(world: World) -> None:
        world.crash("router", on, is_broken=is_broken)
        client = await world.ask()

        assert (client.status, client.attempts) == (200, 1)
        assert world.house.system.counters.restarts == is_broken

    run(THREE, scene)


@pytest.mark.parametrize("on", [RouteQuery, Gathered])
def test_a_question_that_crashed_the_router_twice_is_answered_500(on: type) -> None:
    async def scene(world: World) -> None:
        world.crash("router", on, times=2, is_broken=False)
        client = await world.ask()

        assert (client.status, client.code) == (500, "internal_error")
        assert world.house.system.counters.crashes == 2
        assert (await world.ask()).status == 200

    run(THREE, scene)


def test_a_router_that_restarts_loses_nobody_who_waits() -> None:
    async def scene(world: World) -> None:
        clients = [world.send(max_tokens=50) for _ in range(5)]
        await asyncio.sleep(0.1)
        world.crash("router", RouteQuery)
        clients.append(world.send())
        await world.all_done()

        assert [client.status for client in clients] == [200] * 6
        assert world.watch.most_out == {"a": 1}

    run(loaded([provider("a", limits={"max_concurrency": 1})]), scene)


def test_a_router_whose_alarm_was_lost_in_a_crash_still_ends_the_wait_of_those_who_wait() -> None:
    async def scene(world: World) -> None:
        world.send(max_tokens=1000)
        await asyncio.sleep(0.1)
        router: Any = world.cell("router").actor
        wait = router._wait

        def half_way(*details: Any) -> None:
            del router._wait
            wait(*details)
            raise RuntimeError("after the alarm was set")

        router._wait = half_way
        client = await world.ask()

        assert (client.status, client.code) == (503, "overloaded")
        assert client.took_s == pytest.approx(2.0, abs=0.01)

    run(loaded([provider("a", limits={"max_concurrency": 1})], queue={"max_wait": "2s"}), scene)


def test_crashes_of_registry_aggregator_and_prober_are_noticed_by_no_client() -> None:
    async def scene(world: World) -> None:
        world.crash("registry", GetSnapshot)
        world.crash("aggregator", CallEnded, times=3)
        world.crash("prober", ProbeTick, times=3)
        clients = [await world.ask() for _ in range(5)]
        world.house.system.tell("registry", GetSnapshot())
        await asyncio.sleep(5.0)
        clients += [await world.ask() for _ in range(5)]

        assert {client.status for client in clients} == {200}
        assert world.house.system.counters.crashes >= 5
        assert world.fatal == []
        answer = await world.house.system.ask("registry", GetSnapshot())
        assert isinstance(answer, Configured)
        assert [spec.id for spec in answer.snapshot.providers] == ["a", "b", "c"]

    run(THREE, scene)


def test_a_provider_beyond_its_restart_limit_is_out_its_ends_are_taken_and_it_is_back_after_five_minutes() -> None:
    async def scene(world: World) -> None:
        stream = world.send(stream=True, max_tokens=400)
        long = world.send(stream=True, max_tokens=10_000)
        await asyncio.sleep(1.0)
        world.crash("provider:a", GetReport, times=6)
        for _ in range(6):
            await world.report("a")
        assert world.is_out("provider:a")
        out_at = world.now

        assert (await world.ask()).provider == "b"
        assert (await stream.wait()).fate == "answer"
        assert {permit.provider: permit.ends for permit in world.watch.permits.values() if permit.outcome} == {"a": 1, "b": 1}

        await asyncio.sleep(out_at + 299.0 - world.now)
        assert (await world.ask()).provider == "b"
        await asyncio.sleep(2.0)
        assert (await world.report("a")).in_flight == 1
        assert (await world.ask()).provider == "a"
        long.leave()
        await long.wait()
        assert (await world.report("a")).in_flight == 0
        assert world.fatal == []

    slow = replace(PLAIN, tokens_per_second=20)
    run(loaded([provider("a", timeouts={"total": "2000s"}), provider("b")], strategy="first"), scene, {"a": slow})


def test_pain_08_a_provider_that_is_out_is_shown_as_that_and_back_at_once_by_a_reset() -> None:
    async def scene(world: World) -> None:
        admin = world.house.admin
        long = world.send(stream=True, max_tokens=300)
        await asyncio.sleep(1.0)
        world.crash("provider:a", GetReport, times=6)
        for _ in range(6):
            await world.report("a")
        assert world.is_out("provider:a")
        shown = (await admin.providers())["providers"]
        assert [(one["status"], one["available"], one["reason"]) for one in shown] == [
            ("out", False, "out"),
            ("unchecked", True, ""),
        ]
        assert (await world.ask()).provider == "b"

        health = await admin.reset("a")

        assert (health["status"], health["circuit"]["state"]) == ("ready", "closed")
        assert (await world.report("a")).in_flight == 1
        assert (await world.ask()).provider == "a"
        assert (await long.wait()).fate == "answer"
        assert (await world.report("a")).in_flight == 0

    run(loaded([provider("a"), provider("b")], strategy="first"), scene)


def test_a_router_beyond_its_limit_ends_the_daemon_and_everybody_gets_an_answer() -> None:
    async def scene(world: World) -> None:
        streaming = world.send(stream=True, max_tokens=100)
        await asyncio.sleep(0.5)
        waiting = [world.send(max_tokens=10) for _ in range(3)]
        await asyncio.sleep(0.1)
        world.crash("router", RouteQuery, times=6)
        clients = [world.send() for _ in range(4)]
        await world.all_done()

        assert world.fatal == ["router failed 6 times in 30 s"]
        assert (streaming.status, streaming.fate) == (200, "answer")
        assert {client.fate for client in [*waiting, *clients]} <= {"error", "answer"}
        assert {client.status for client in clients} <= {500, 503}
        assert (await world.ask()).status == 503

    run(loaded([provider("a", limits={"max_concurrency": 1})]), scene)


def test_after_a_crash_the_provider_takes_no_more_than_it_would_have_without() -> None:
    async def scene(world: World) -> None:
        for _ in range(3):
            assert (await world.ask()).status == 200
        world.crash("provider:a", GetReport)
        await world.report("a")

        client = await world.ask()
        assert (client.status, client.code) == (429, "rate_limit_exceeded")
        assert int(client.headers["retry-after"]) >= 1

    run(
        loaded([provider("a", limits={"requests_per_minute": 6, "burst": 6})], queue={"max_wait": "1s"}),
        scene,
    )


def test_an_open_circuit_stays_open_over_a_crash() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        for _ in range(2):
            await world.ask()
        world.heal("a")
        world.crash("provider:a", GetReport)
        await world.report("a")

        assert (await world.ask()).status == 503
        await asyncio.sleep(30.0)
        assert (await world.ask()).status == 200

    run(loaded([provider("a", circuit={"failures": 2, "open_for": "20s"})], failover={"enabled": False}), scene)


def test_a_client_that_is_gone_when_our_own_error_is_sent_is_a_client_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(courier: Courier, plan: RoutePlan) -> None:
        raise LookupError("a mistake of ours")

    monkeypatch.setattr(Courier, "_follow", fail)

    async def scene(world: World) -> None:
        client = world.send(patience=0)
        await world.all_done()

        assert client.has_left
        assert client.task is not None
        assert client.task.exception() is None
        assert world.house.edge.counters.client_gone == 1

    run(loaded([provider("a")]), scene)
