"""Ways back: whatever broke, and however long, traffic returns, and not before its time."""

import asyncio
from typing import Any

import pytest

from messages.health import CircuitState, Status
from runtime.simulation.faults import FaultKind
from tests.system.house import World, loaded, provider, run

PROBED: dict[str, Any] = {"probe": {"kind": "models", "interval": "10s"}}
CIRCUIT: dict[str, Any] = {"failures": 3, "open_for": "5s", "half_open_calls": 2}
NO_WAIT: dict[str, Any] = {"queue": {"max_wait": "0s"}, "failover": {"enabled": False}}


def alone(**entry: Any) -> Any:
    return loaded([provider("a", **({"circuit": CIRCUIT} | entry))], **NO_WAIT)


async def until(world: World, at_s: float) -> None:
    await asyncio.sleep(max(0.0, at_s - world.now))


async def open_circuit(world: World, kind: FaultKind = FaultKind.OUTAGE) -> float:
    """Fail as often as it takes; returns when it opened."""
    world.fault("a", kind)
    for _ in range(CIRCUIT["failures"]):
        await world.ask()
    assert (await world.report("a")).circuit is CircuitState.OPEN
    return world.now


def test_D6_a_circuit_opens_after_so_many_failures_and_sees_no_award_before_its_time() -> None:
    async def scene(world: World) -> None:
        opened = await open_circuit(world)
        calls = len(world.calls("a"))
        while world.now < opened + 4.8:
            client = await world.ask()
            assert (client.status, client.code) == (503, "no_provider_available")
            assert 1 <= int(client.headers["retry-after"]) <= 5
            await asyncio.sleep(0.1)

        assert len(world.calls("a")) == calls == 3

    run(alone(), scene)


def test_D6_half_open_lets_so_many_trials_out_and_closes_at_the_first_good_one() -> None:
    async def scene(world: World) -> None:
        opened = await open_circuit(world)
        world.heal("a")
        await until(world, opened + 5.0)
        clients = [world.send() for _ in range(10)]
        await asyncio.sleep(0.05)
        assert len(world.calls("a")) == 3 + 2
        assert (await world.report("a")).circuit is CircuitState.HALF_OPEN
        await world.all_done()

        assert sorted(client.status for client in clients) == [200] * 2 + [503] * 8
        assert (await world.report("a")).circuit is CircuitState.CLOSED
        assert (await world.ask()).status == 200

    run(alone(), scene)


def test_D6_a_stream_closes_the_circuit_at_its_first_content() -> None:
    async def scene(world: World) -> None:
        opened = await open_circuit(world)
        world.heal("a")
        await until(world, opened + 5.0)
        world.send(stream=True, max_tokens=1000)
        await asyncio.sleep(0.15)
        assert (await world.report("a")).circuit is CircuitState.CLOSED

    run(alone(), scene)


def test_a_failed_trial_doubles_the_wait() -> None:
    async def scene(world: World) -> None:
        at = await open_circuit(world)
        for wait_s in (5.0, 10.0, 20.0, 40.0):
            await until(world, at + wait_s - 0.01)
            calls = len(world.calls("a"))
            assert (await world.ask()).code == "no_provider_available"
            await until(world, at + wait_s)
            assert (await world.ask()).code == "upstream_error"
            assert len(world.calls("a")) == calls + 1
            at = world.now

    run(alone(), scene)


def test_a_trial_whose_client_leaves_gives_its_slot_back() -> None:
    async def scene(world: World) -> None:
        opened = await open_circuit(world)
        world.heal("a")
        await until(world, opened + 5.0)
        for _ in range(10):
            client = world.send()
            await asyncio.sleep(0.02)
            client.leave()
            await client.wait()
        assert (await world.report("a")).circuit is CircuitState.HALF_OPEN
        assert (await world.ask()).status == 200
        assert (await world.report("a")).circuit is CircuitState.CLOSED

    run(alone(), scene)


def test_a_good_probe_admits_trials_and_does_not_close_the_circuit() -> None:
    async def scene(world: World) -> None:
        opened = await open_circuit(world)
        world.heal("a")
        await until(world, opened + 4.9)
        assert world.probes("a") == [pytest.approx(0.0)]
        await until(world, opened + 7.0)
        assert len(world.probes("a")) == 2
        assert world.probes("a")[1] >= opened + 5.0
        assert (await world.report("a")).circuit is CircuitState.HALF_OPEN

        await asyncio.sleep(60.0)
        assert (await world.report("a")).circuit is CircuitState.HALF_OPEN
        assert (await world.ask()).status == 200
        assert (await world.report("a")).circuit is CircuitState.CLOSED

    run(alone(**PROBED), scene)


def test_failing_probes_double_the_wait_to_ten_minutes() -> None:
    async def scene(world: World) -> None:
        opened = await open_circuit(world)
        await asyncio.sleep(4000.0)
        found = [at for at in world.probes("a") if at > opened]
        waits = [later - earlier for earlier, later in zip([opened, *found], found, strict=False)]

        assert waits[:7] == [pytest.approx(5.0 * 2**number, abs=2.0) for number in range(7)]
        assert waits[7] == pytest.approx(600.0, abs=2.0)
        assert max(waits) <= 602.0

    run(alone(**PROBED), scene)


@pytest.mark.parametrize("probe", [PROBED, {"probe": {"kind": "off"}}], ids=["probed", "unprobed"])
def test_pain_08_after_an_outage_of_an_hour_traffic_returns_within_ten_minutes_and_a_trial(probe: dict[str, Any]) -> None:
    async def scene(world: World) -> None:
        await open_circuit(world)
        for _ in range(720):
            await asyncio.sleep(5.0)
            await world.ask()
        world.heal("a")
        healed = world.now
        while (await world.ask()).status != 200:
            await asyncio.sleep(1.0)
            assert world.now < healed + 625.0
        assert [(await world.ask()).status for _ in range(20)] == [200] * 20
        report = await world.report("a")
        assert (report.circuit, report.status) == (CircuitState.CLOSED, Status.READY)

    run(alone(**probe), scene)


def test_an_outage_of_an_hour_costs_the_provider_few_calls() -> None:
    async def scene(world: World) -> None:
        await open_circuit(world)
        for _ in range(3600):
            await asyncio.sleep(1.0)
            await world.ask()
        assert len(world.calls("a")) < 30

    run(alone(**PROBED), scene)


def test_A3_a_refused_key_takes_no_more_calls_until_a_good_probe_and_a_trial() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.AUTH)
        assert (await world.ask()).code == "provider_auth_failed"
        assert (await world.report("a")).status is Status.AUTH_FAILED
        for _ in range(20):
            client = await world.ask()
            assert (client.status, client.code) == (401, "provider_auth_failed")
            await asyncio.sleep(0.2)
        assert len(world.calls("a")) == 1

        world.heal("a")
        await asyncio.sleep(4.0)
        assert (await world.ask()).status == 200
        assert (await world.report("a")).status is Status.READY

    run(alone(**PROBED), scene)


def test_pain_07_a_refused_key_at_one_provider_takes_nobody_elses_calls() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.AUTH)
        clients = [await world.ask() for _ in range(10)]
        assert {client.status for client in clients} == {200}
        assert [client.attempts for client in clients] == [2] + [1] * 9

    run(loaded([provider("a"), provider("b")], strategy="first"), scene)


def test_pain_20_an_unchecked_provider_is_probed_at_the_start_and_takes_traffic_meanwhile() -> None:
    async def scene(world: World) -> None:
        assert (await world.report("a")).status is Status.UNCHECKED
        client = world.send()
        await asyncio.sleep(1.0)
        assert world.probes("a") == [pytest.approx(0.0)]
        assert (await client.wait()).status == 200
        assert (await world.report("a")).status is Status.READY

    run(alone(**PROBED), scene)


def test_pain_20_a_busy_provider_is_not_probed_and_a_silent_one_is() -> None:
    async def scene(world: World) -> None:
        for _ in range(30):
            await world.ask(headers={"x-pointsman-exclude": "b"})
            await asyncio.sleep(2.0)

        assert len(world.probes("a")) == 1
        assert len(world.probes("b")) == pytest.approx(60 / 10, abs=1)

    entries = [provider(name, **PROBED) for name in "ab"]
    run(loaded(entries, strategy="first"), scene)


@pytest.mark.parametrize("interval_s", [5, 20, 60])
def test_C3_who_is_not_heard_is_checked_as_often_as_configured(interval_s: int) -> None:
    async def scene(world: World) -> None:
        await asyncio.sleep(597.0)

        assert len(world.probes("a")) == pytest.approx(600 / interval_s, rel=0.2, abs=1)

    run(alone(probe={"kind": "models", "interval": f"{interval_s}s"}), scene)


def test_probes_that_are_off_are_off() -> None:
    async def scene(world: World) -> None:
        await open_circuit(world)
        await asyncio.sleep(300.0)
        assert world.probes("a") == []

    run(alone(), scene)


def test_a_provider_whose_probes_hang_is_open_to_trials_after_its_wait_twice_over() -> None:
    async def scene(world: World) -> None:
        opened = await open_circuit(world, FaultKind.ERRORS)
        world.heal("a")
        world.crash("prober", lambda message: True, times=10_000)
        await until(world, opened + 10.0)
        assert (await world.ask()).status == 200

    run(alone(**PROBED), scene)


def test_an_unhealthy_provider_is_second_tier_and_comes_back_by_itself() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS, p=0.6)
        for _ in range(40):
            await world.ask()
        before = len(world.calls("a"))
        for _ in range(20):
            await world.ask()
        assert len(world.calls("a")) == before
        assert (await world.report("a")).health < 0.7

        world.heal("a")
        for _ in range(400):
            await asyncio.sleep(2.0)
            await world.ask()
        assert len(world.calls("a")) > before
        assert (await world.report("a")).health >= 0.7

    entry = provider("a", circuit={"failures": 1000})
    run(loaded([entry, provider("b")], strategy="first"), scene)


def test_D6_if_every_candidate_is_unhealthy_one_is_tried_rather_than_none() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS, p=0.9)
        for _ in range(40):
            await world.ask()
        world.heal("a")
        assert (await world.report("a")).health < 0.7
        assert (await world.ask()).status == 200

    run(loaded([provider("a", circuit={"failures": 1000})], **NO_WAIT), scene)
