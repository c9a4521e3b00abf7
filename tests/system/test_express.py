"""The way of a request on which all goes well has no task; whatever else happens on it goes on in one, from where it is."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from messages.calls import CallEnded, Outcome
from messages.envelope import Envelope
from messages.failures import Blame
from runtime.simulation.faults import FaultKind
from tests.system import house
from tests.system.house import Client, World, loaded, provider, run

PLAIN = loaded([provider("a"), provider("b")], strategy="first", explore={"enabled": False})
SLOW = {name: replace(house.PLAIN, ttfb_ms=400.0) for name in ("a", "b")}


def had_task(client: Client) -> bool:
    assert client.door is not None
    return client.door.task is not None


def test_a_whole_answer_comes_without_a_task() -> None:
    async def scene(world: World) -> None:
        client = await world.ask()
        assert (client.status, client.provider, client.attempts, client.fate) == (200, "a", 1, "answer")
        assert not had_task(client)

    run(PLAIN, scene)


def test_where_a_call_cannot_be_begun_at_once_a_task_makes_it_and_only_once() -> None:
    async def scene(world: World) -> None:
        clients = [await world.ask() for _ in range(6)]
        assert [had_task(client) for client in clients] == [False, False, True] * 2
        assert [client.attempts for client in clients] == [1] * 6
        assert len(world.calls("a")) == 6

    run(PLAIN, scene)


@pytest.mark.parametrize("kind", [FaultKind.ERRORS, FaultKind.OUTAGE, FaultKind.GARBAGE, FaultKind.AUTH])
@pytest.mark.parametrize("stream", [True, False])
def test_a_call_that_fails_is_made_once_and_the_next_provider_answers(kind: FaultKind, stream: bool) -> None:
    async def scene(world: World) -> None:
        world.fault("a", kind)
        client = await world.ask(stream=stream)
        assert (client.status, client.provider, client.attempts) == (200, "b", 2)
        assert had_task(client)
        assert (len(world.calls("a")), len(world.calls("b"))) == (1, 1)

    run(PLAIN, scene)


def test_an_overdue_call_gets_company_and_goes_on() -> None:
    async def scene(world: World) -> None:
        for _ in range(30):
            await world.ask()
        world.fault("a", FaultKind.HANG)
        client = await world.ask()
        assert (client.status, client.provider, client.attempts) == (200, "b", 2)
        assert had_task(client)

    run(PLAIN, scene)


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.399])
def test_whoever_leaves_takes_its_permit_and_its_call_with_it(after_s: float) -> None:
    async def scene(world: World) -> None:
        client = world.send()
        await asyncio.sleep(after_s)
        client.leave()
        await client.wait()
        assert (client.fate, len(world.house.permits)) == ("left", 0)
        assert world.house.edge.counters.client_gone == 1
        assert world.simulation("a").calls == {}

    run(loaded([provider("a"), provider("b")], strategy="first", hedge={"enabled": False}), scene, SLOW)


def test_whoever_leaves_while_it_waits_for_a_place_has_never_called() -> None:
    async def scene(world: World) -> None:
        first = world.send()
        await asyncio.sleep(0.1)
        second = world.send()
        await asyncio.sleep(0.1)
        second.leave()
        await second.wait()
        assert (await first.wait()).fate == "answer"
        assert len(world.calls("a")) == 1

    run(loaded([provider("a", limits={"max_concurrency": 1})], strategy="first"), scene, SLOW)


@pytest.mark.parametrize("after_s", [0.0, 0.1])
def test_at_the_end_of_the_drain_it_is_told_that_the_daemon_ends(after_s: float) -> None:
    async def scene(world: World) -> None:
        client = world.send()
        await asyncio.sleep(after_s)
        await world.house.edge.drain(0.1)
        await client.wait()
        assert (client.status, "is shutting down" in client.text) == (503, True)

    run(loaded([provider("a")], hedge={"enabled": False}), scene, SLOW)


def test_its_deadline_ends_it_wherever_it_is() -> None:
    async def scene(world: World) -> None:
        waits_for_answer = world.send(headers={"x-pointsman-deadline": "200"})
        await asyncio.sleep(0.05)
        waits_for_place = world.send(headers={"x-pointsman-deadline": "200"})
        for client in (waits_for_answer, waits_for_place):
            await client.wait()
            assert (client.status, client.code) == (504, "deadline_exceeded")
            assert client.took_s == pytest.approx(0.2, abs=0.03)

    run(loaded([provider("a", limits={"max_concurrency": 1})], hedge={"enabled": False}), scene, SLOW)


def test_a_mistake_of_ours_on_the_way_is_told_and_nothing_is_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(world: World) -> None:
        def broken(*_: Any) -> Any:
            raise RuntimeError("a mistake")

        monkeypatch.setattr(world.house.budgets, "earn", broken)  # What is called as soon as a permit is granted.
        client = await world.ask()
        assert (client.status, client.code) == (500, "internal_error")
        assert len(world.house.permits) == 0

    run(loaded([provider("a")], strategy="first"), scene)
    assert "a mistake" in caplog.text


def test_a_mistake_of_ours_in_reading_an_answer_is_not_the_providers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(world: World) -> None:
        def broken(*_: Any) -> Any:
            raise RuntimeError("a mistake")

        monkeypatch.setattr("runtime.courier.attempt.read_body", broken)
        client = await world.ask()
        assert (client.status, client.code, client.attempts) == (500, "internal_error", 1)
        (ended,) = ends
        assert (ended.outcome, ended.failure and (ended.failure.blame, ended.failure.code)) == (
            Outcome.FAILED,
            (Blame.US, "internal_error"),
        )

    ends: list[CallEnded] = []

    def note(to: str, envelope: Envelope) -> None:
        if to == "router" and isinstance(envelope.message, CallEnded):
            ends.append(envelope.message)

    run(loaded([provider("a")], strategy="first"), scene, journal=note)
    assert "a mistake" in caplog.text
