"""What providers say of their limits: believed at once, waited for, and never taken for a failure of health (FEATURES C4)."""

import asyncio
from dataclasses import replace

import pytest

from messages.health import ProviderReport, Status
from runtime.simulation.faults import FaultKind
from tests.system.house import PLAIN, World, loaded, provider, run

NARROW = replace(PLAIN, requests_per_minute=60, burst_s=3.0)
"""It takes three at once and then one a second, says so in its headers, and answers 429 beyond."""


def is_sound(report: ProviderReport) -> bool:
    return (report.circuit, report.health, report.status) == ("closed", 1.0, Status.READY)


def test_pain_09_a_429_leads_to_the_next_provider_and_costs_the_first_nothing_but_its_wait() -> None:
    async def scene(world: World) -> None:
        assert (await world.ask()).provider == "a"
        world.fault("a", FaultKind.RATE_LIMIT, retry_after_s=7.0)
        asked_at = world.now
        client = await world.ask()
        assert (client.status, client.provider, client.attempts) == (200, "b", 2)
        world.heal("a")
        for _ in range(20):
            assert (await world.ask()).attempts == 1
        assert is_sound(await world.report("a"))
        assert world.calls("a")[2:] == []
        await asyncio.sleep(asked_at + 7.1 - world.now)
        assert (await world.ask()).provider == "a"

    run(loaded([provider("a", circuit={"failures": 1}), provider("b")], strategy="first"), scene)


def test_C4_pain_12_a_single_provider_that_asks_for_a_wait_is_waited_for_and_not_called_before() -> None:
    async def scene(world: World) -> None:
        assert (await world.ask()).status == 200
        world.fault("a", FaultKind.RATE_LIMIT, retry_after_s=1.0, for_s=0.5)
        client = await world.ask()
        assert (client.status, client.attempts) == (200, 2)
        _, refused, again = world.calls("a")
        assert again - refused == pytest.approx(1.0, abs=0.05)
        assert is_sound(await world.report("a"))

    run(loaded([provider("a", circuit={"failures": 1})]), scene)


def test_C4_D1_who_says_that_nothing_is_left_is_left_alone_before_it_has_to_refuse() -> None:
    async def scene(world: World) -> None:
        for _ in range(30):
            client = await world.ask()
            assert (client.status, client.attempts) == (200, 1)
        assert 3 <= len(world.calls("a")) < 30
        assert is_sound(await world.report("a"))

    run(loaded([provider("a"), provider("b")], strategy="first"), scene, {"a": NARROW})


def test_pain_28_a_limit_of_our_own_counts_for_nobody_as_a_failure() -> None:
    async def scene(world: World) -> None:
        clients = [world.send() for _ in range(40)]
        await world.all_done()
        assert [client.attempts for client in clients] == [1] * 40
        report = await world.report("a")
        assert (report.requests, report.successes, report.failures) == (2, 2, 0)
        assert is_sound(report)

    limits = {"requests_per_minute": 1, "burst": 2}
    run(loaded([provider("a", limits=limits), provider("b")], strategy="first"), scene)
