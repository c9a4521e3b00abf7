"""Conversations in the running house: how many of their turns find their past in a cache (pain 24)."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from runtime.simulation.faults import FaultKind
from tests.system.house import World, loaded, provider, run

TALKS, TURNS = 20, 8
PAST = "What we know of points and signals. " * 150
"""Some 1350 tokens."""


async def talk(world: World, number: int, homes: list[list[str]], failing_from: int = TURNS) -> None:
    """A conversation: each turn sends all of those before it. ``failing_from``: the turn before which its provider fails."""
    rng = Random(f"talk/{number}")
    messages: list[Mapping[str, str]] = [{"role": "system", "content": PAST}]
    for turn in range(TURNS):
        if turn == failing_from:
            world.fault(homes[number][-1], FaultKind.OUTAGE)
        messages.append({"role": "user", "content": f"Talk {number}, question {turn}?"})
        client = await world.ask(messages=messages)
        assert client.status == 200
        homes[number].append(client.provider)
        messages.append({"role": "assistant", "content": f"Answer {turn}."})
        await asyncio.sleep(rng.uniform(0.5, 3.0))


def share_at_home(homes: list[list[str]]) -> float:
    """Of the turns after the first, those that went where the one before had gone."""
    pairs = [(before, after) for home in homes for before, after in pairwise(home)]
    return sum(before == after for before, after in pairs) / len(pairs)


async def all_talks(world: World) -> list[list[str]]:
    homes: list[list[str]] = [[] for _ in range(TALKS)]
    await asyncio.gather(*(talk(world, number, homes) for number in range(TALKS)))
    return homes


@pytest.mark.parametrize("strategy", ["adaptive", "round_robin", "weighted"])
def test_pain_24_balancing_leaves_conversations_with_the_cache_that_has_their_past(strategy: str) -> None:
    def played(**affinity: Any) -> list[list[str]]:
        config = loaded([provider(name) for name in "abc"], strategy=strategy, affinity=affinity)
        return run(config, all_talks)

    scattered, homes = played(enabled=False), played()
    assert share_at_home(scattered) < 0.5
    assert share_at_home(homes) > 0.9
    # Conversations are balanced, if not their turns.
    assert {home[0] for home in homes} == {"a", "b", "c"}


def test_pain_10_a_conversation_leaves_a_provider_that_fails_and_settles_elsewhere() -> None:
    async def scene(world: World) -> list[list[str]]:
        homes: list[list[str]] = [[]]
        await talk(world, 0, homes, failing_from=3)
        return homes

    (homes,) = run(loaded([provider(name) for name in "abc"], strategy="round_robin"), scene)
    first, last = homes[0], homes[-1]
    assert first != last
    assert homes == [first] * homes.count(first) + [last] * homes.count(last), "no request failed, and it moved once"


@pytest.mark.parametrize("strategy", ["round_robin", "weighted", "least_connections"])
def test_pain_10_a_request_that_its_home_fails_goes_elsewhere_also_where_the_home_may_compete_again(strategy: str) -> None:
    async def scene(world: World) -> None:
        messages = [{"role": "system", "content": PAST}, {"role": "user", "content": "How long is a siding?"}]
        home = (await world.ask(messages=messages)).provider
        world.fault(home, FaultKind.ERRORS)
        client = await world.ask(messages=messages)

        assert client.status == 200
        assert client.provider != home
        assert (await world.ask(messages=messages)).provider == client.provider, "its home from then on"

    run(loaded([provider(name) for name in "abc"], strategy=strategy, failover={"with_replacement": True}), scene)
