"""Circuit, health and paid probes in the running house, by constants of the file (FEATURES C4, D5, D6; pains 8, 20)."""

import asyncio
from typing import Any

import pytest

from messages.health import CircuitState, GetHealth, HealthReport, Status
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, World, provider, run
from tests.system.test_reload import BRISK, file_of, loaded_of

NO_RETRY: dict[str, Any] = {"failover": {"enabled": False}, "queue": {"max_wait": "0s"}}
DAY_S = 86_400
INPUT_PRICE, OUTPUT_PRICE = 1000.0, 1000.0
ESTIMATE_USD = (64 * INPUT_PRICE + 16 * OUTPUT_PRICE) / 1e6


async def health_of(world: World, name: str = "a") -> HealthReport:
    report = await world.house.system.ask(f"provider:{name}", GetHealth())
    assert isinstance(report, HealthReport)
    return report


def test_C4_D6_a_circuit_opens_by_failure_rate_over_its_window_from_a_minimum_of_calls() -> None:
    circuit = {"failures": 1000, "failure_rate": 0.5, "window": "20s", "minimum_calls": 10, "open_for": "7s"}

    async def scene(world: World) -> None:
        # Two of three fail, never four in a row: below the minimum of calls that opens nothing.
        for number in range(9):
            world.fault("a", FaultKind.ERRORS) if number % 3 else world.heal("a")
            await world.ask()
            assert (await world.report("a")).circuit is CircuitState.CLOSED
        # What is older than the window is not among them.
        await asyncio.sleep(25.0)
        for number in range(12):
            world.fault("a", FaultKind.ERRORS) if number % 3 else world.heal("a")
            await world.ask()
            if number < 9:
                assert (await world.report("a")).circuit is CircuitState.CLOSED
        report = await health_of(world)
        assert (report.circuit.state, report.circuit.wait_s) == (CircuitState.OPEN, 7.0)

    run(loaded_of(file_of(provider("a", circuit=circuit), **NO_RETRY)), scene)


@pytest.mark.parametrize("slots", [1, 3])
def test_C4_D6_half_open_has_exactly_so_many_trials_out_whoever_asks(slots: int) -> None:
    circuit = {"failures": 1, "open_for": "5s", "half_open_calls": slots}

    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        await world.ask()
        world.heal("a")
        await asyncio.sleep(5.0)
        before = len(world.calls("a"))

        clients = [world.send() for _ in range(20)]
        await asyncio.sleep(0.01)

        assert len(world.calls("a")) - before == slots
        assert (await health_of(world)).circuit.trials == slots
        await world.all_done()
        assert sorted(client.status for client in clients) == [200] * slots + [503] * (20 - slots)
        assert (await health_of(world)).circuit.state is CircuitState.CLOSED

    run(loaded_of(file_of(provider("a", circuit=circuit), **NO_RETRY)), scene, {"a": BRISK})


def test_D6_the_wait_grows_to_open_max_of_the_file() -> None:
    circuit = {"failures": 1, "open_for": "2s", "open_max": "5s"}

    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        waits = []
        for _ in range(4):
            await world.ask()
            wait_s = (await health_of(world)).circuit.wait_s
            waits.append(wait_s)
            await asyncio.sleep(wait_s or 0.0)
        assert waits == [2.0, 4.0, 5.0, 5.0]

    run(loaded_of(file_of(provider("a", circuit=circuit), **NO_RETRY)), scene)


def test_D5_the_constants_of_the_file_make_the_score() -> None:
    constants = {
        "weights": {"success": 1, "errors": 0, "latency": 0},
        "ewma_alpha": 1,
        "failures": 2,
        "failures_factor": 0.1,
        "window": "1000s",
        "min_score": 0.4,
    }

    async def scene(world: World) -> None:
        await world.ask()
        world.fault("a", FaultKind.ERRORS)
        await world.ask()
        once = await health_of(world)
        assert once.score == pytest.approx(0.5, abs=0.01)
        assert once.is_healthy
        await world.ask()
        twice = await health_of(world)
        assert twice.score == pytest.approx(0.1 / 3, abs=0.01)
        assert not twice.is_healthy

    run(loaded_of(file_of(provider("a"), **NO_RETRY) | {"health": constants}), scene)


def test_pain_20_a_day_of_silence_costs_no_more_than_the_cap_and_the_next_day_as_much_again() -> None:
    cap = 10.5 * ESTIMATE_USD
    model = {"name": MODEL, "input_price": INPUT_PRICE, "output_price": OUTPUT_PRICE}
    probe = {"kind": "chat", "interval": "5m", "max_spend_per_day": cap}

    async def scene(world: World) -> None:
        begun_s = world.house.system.clock.wall() % DAY_S
        await asyncio.sleep(DAY_S - begun_s - 1.0)
        first = (await health_of(world)).probes_usd
        assert cap - ESTIMATE_USD <= first <= cap
        # The free endpoint was asked all along, and the provider is known to be well.
        assert len(world.probes("a")) > 90
        assert (await world.report("a")).status is Status.READY

        # Time enough for all that may be paid.
        await asyncio.sleep(4 * 3600)
        assert cap - ESTIMATE_USD <= (await health_of(world)).probes_usd - first <= cap

    run(loaded_of(file_of(provider("a", models=[model], probe=probe), **NO_RETRY)), scene)


def test_pain_20_traffic_tells_what_a_probe_would_so_none_is_paid() -> None:
    model = {"name": MODEL, "input_price": INPUT_PRICE, "output_price": OUTPUT_PRICE}
    probe = {"kind": "chat", "interval": "30s", "max_spend_per_day": 1000}

    async def scene(world: World) -> None:
        await asyncio.sleep(2.0)
        spent = (await health_of(world)).probes_usd
        for _ in range(60):
            await world.ask()
            await asyncio.sleep(10.0)
        assert (await health_of(world)).probes_usd == spent

    run(loaded_of(file_of(provider("a", models=[model], probe=probe), **NO_RETRY)), scene)
