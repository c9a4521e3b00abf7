"""Exploration in the running house: who is out of use is found again soon, by few calls that nobody depends on."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from messages.calls import AttemptKind, CallEnded
from messages.decisions import Decision, GetDecision
from messages.envelope import Envelope
from messages.stats import GetStats, Stats
from runtime.config.settings import Loaded
from runtime.simulation.faults import FaultKind
from tests.system.house import PLAIN, Client, World, loaded, provider, run

QUICK = replace(PLAIN, ttfb_ms=100)
SLOW = replace(PLAIN, ttfb_ms=400)
BEHAVIOURS = {"a": QUICK, "b": SLOW}
CIRCUIT = {"failures": 5, "open_for": "1h"}
"""Without exploration nobody would be back during a test."""


def two(**routing: Any) -> Loaded:
    """Provider a is quick, b slow; both have circuits that stay open for an hour."""
    return loaded(
        [provider(name, circuit=CIRCUIT) for name in "ab"], **({"strategy": "adaptive", "hedge": {"enabled": False}} | routing)
    )


class Kinds:
    """How many calls of each kind ended at each provider."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, AttemptKind], int] = {}

    def __call__(self, to: str, envelope: Envelope) -> None:
        end = envelope.message
        if isinstance(end, CallEnded) and to.startswith("provider:"):
            key = end.provider, end.kind
            self.counts[key] = self.counts.get(key, 0) + 1


async def traffic(world: World, seconds: float, every_s: float = 0.1) -> list[Client]:
    """Requests at a steady rate, waited for."""
    clients: list[Client] = []
    until = world.now + seconds
    while world.now < until:
        clients.append(world.send(stream=len(clients) % 2 == 0))
        await asyncio.sleep(every_s)
    for client in clients:
        await client.wait()
    return clients


async def back_after(world: World, name: str) -> float:
    """Seconds until a provider answers clients again."""
    since = world.now
    for _ in range(300):
        if (await traffic(world, 0.1))[0].provider == name:
            return world.now - since
    raise AssertionError(f"{name} is not back after 30 s")


@pytest.mark.parametrize("away_s", [5.0, 25.0, 100.0])
def test_pain_07_a_provider_that_refused_is_back_within_a_tenth_of_the_time_it_was_away(away_s: float) -> None:
    kinds = Kinds()

    async def scene(world: World) -> None:
        await traffic(world, 10.0)
        world.fault("a", FaultKind.OUTAGE)
        clients = await traffic(world, away_s)
        assert (await world.report("a")).circuit == "open"
        assert {client.status for client in clients} == {200}
        assert max(client.took_s for client in clients) < 1.2, "a lead costs next to nothing"

        world.heal("a")
        assert await back_after(world, "a") < 1.0 + 0.1 * away_s
        assert (await world.report("a")).circuit == "closed"
        assert kinds.counts["a", AttemptKind.EXPLORE] <= 4 * 5.0 + 25 * 3.2, "probes grow rarer as time goes by"

    run(two(), scene, BEHAVIOURS, journal=kinds)


def test_a_provider_that_fails_slowly_is_found_again_by_copies_and_no_client_waits_for_them() -> None:
    kinds = Kinds()

    async def scene(world: World) -> None:
        await traffic(world, 20.0)
        world.fault("a", FaultKind.HANG)
        await traffic(world, 40.0)
        assert (await world.report("a")).circuit == "open"
        seen = len(world.calls("a"))
        clients = await traffic(world, 20.0)
        assert len(world.calls("a")) > seen
        assert max(client.took_s for client in clients) < 1.0

        world.heal("a")
        assert await back_after(world, "a") < 10.0

    times = {"timeouts": {"first_byte": "1s", "total": "1s"}}
    config = loaded([provider(name, circuit=CIRCUIT, **times) for name in "ab"], strategy="adaptive", hedge={"enabled": False})
    run(config, scene, BEHAVIOURS, journal=kinds)


def test_a_provider_that_was_slow_is_found_again() -> None:
    async def scene(world: World) -> None:
        await traffic(world, 10.0)
        world.fault("a", FaultKind.SLOW, factor=10.0)
        await traffic(world, 30.0)
        assert (await traffic(world, 0.1))[0].provider == "b"
        world.heal("a")
        assert await back_after(world, "a") < 8.0

    run(two(), scene, BEHAVIOURS)


def test_copies_stay_within_their_share_and_are_seen_in_record_and_statistics() -> None:
    kinds = Kinds()

    async def scene(world: World) -> None:
        clients = await traffic(world, 120.0)
        copies = sum(count for (_, kind), count in kinds.counts.items() if kind is AttemptKind.EXPLORE)
        assert 2 <= copies <= 0.03 * len(clients), "b is unheard, and asked every ten seconds"

        stats = await world.house.system.ask("aggregator", GetStats())
        assert isinstance(stats, Stats)
        assert sum(line.explores for line in stats.providers) == copies
        found = []
        for client in clients[-200:]:
            answer = await world.house.system.ask("router", GetDecision(client.headers["x-pointsman-decision"]))
            assert isinstance(answer.decision, Decision)
            if answer.decision.explored:
                found.append((answer.decision.explored, [one.kind for one in answer.decision.attempts]))
        assert ("b", ["explore", "first"]) in found or ("b", ["first", "explore"]) in found

    run(two(), scene, BEHAVIOURS, journal=kinds)


@pytest.mark.parametrize("explore", [{"enabled": False}, {"max_share": 0}])
def test_switched_off_an_open_circuit_sees_nothing_before_its_time(explore: dict[str, Any]) -> None:
    kinds = Kinds()

    async def scene(world: World) -> None:
        await traffic(world, 10.0)
        world.fault("a", FaultKind.HANG)
        await traffic(world, 30.0)
        seen = len(world.calls("a"))
        assert (await world.report("a")).circuit == "open"
        await traffic(world, 30.0)

        assert len(world.calls("a")) == seen
        assert not [key for key in kinds.counts if key[1] is AttemptKind.EXPLORE]

    times = {"timeouts": {"first_byte": "1s", "total": "1s"}}
    config = loaded(
        [provider(name, circuit=CIRCUIT, **times) for name in "ab"],
        strategy="adaptive",
        hedge={"enabled": False},
        explore=explore,
    )
    run(config, scene, BEHAVIOURS, journal=kinds)


@pytest.mark.parametrize(("max_attempts", "is_copied"), [(2, False), (3, True)])
def test_a_copy_takes_no_attempt_that_a_failed_first_call_may_need(max_attempts: int, is_copied: bool) -> None:
    kinds = Kinds()

    async def scene(world: World) -> None:
        await traffic(world, 60.0)
        copies = sum(count for (_, kind), count in kinds.counts.items() if kind is AttemptKind.EXPLORE)

        assert (copies > 0) is is_copied

    run(two(failover={"max_attempts": max_attempts}), scene, BEHAVIOURS, journal=kinds)


def test_a_strategy_that_does_not_choose_by_measurements_explores_nobody() -> None:
    kinds = Kinds()

    async def scene(world: World) -> None:
        await traffic(world, 60.0)
        assert not world.calls("b")

    run(two(strategy="first"), scene, BEHAVIOURS, journal=kinds)


def test_a_bad_key_is_not_explored() -> None:
    kinds = Kinds()

    async def scene(world: World) -> None:
        await traffic(world, 10.0)
        world.fault("a", FaultKind.AUTH)
        await traffic(world, 60.0)

        assert ("a", AttemptKind.EXPLORE) not in kinds.counts

    run(two(), scene, BEHAVIOURS, journal=kinds)
