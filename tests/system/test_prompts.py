"""Long prompts in the running house: who reads them quickly gets them, and nobody is hedged for reading (FEATURES D3, E2)."""

import asyncio
from random import Random

from messages.calls import AttemptKind
from messages.decisions import Decision, DecisionFound, GetDecision
from runtime.simulation.behaviour import Behaviour
from tests.system.house import MODEL, Client, World, loaded, provider, run

SIZES = (50, 200, 1000, 4000, 12_000)
STARTER = Behaviour(
    "starter", ttfb_ms=100, sigma=0.1, tokens_per_second=100, prefill_tokens_per_second=4000, capacity=1000, models=(MODEL,)
)
READER = Behaviour(
    "reader", ttfb_ms=800, sigma=0.1, tokens_per_second=100, prefill_tokens_per_second=100_000, capacity=1000, models=(MODEL,)
)
BOTH = {"starter": STARTER, "reader": READER}


async def asked(world: World, prompt_tokens: int, stream: bool = True) -> Client:
    """A request whose prompt is about so long, and like no other."""
    text = f"{len(world.clients)} " + "word " * (4 * prompt_tokens // 5)
    client = await world.ask(stream=stream, max_tokens=10, messages=[{"role": "user", "content": text}])
    assert client.status == 200
    return client


async def practised(world: World, count: int) -> None:
    """Prompts of all sizes in any order."""
    rng = Random("sizes")
    for _ in range(count):
        await asked(world, rng.choice(SIZES), rng.random() < 0.8)


async def decision(world: World, client: Client) -> Decision:
    found = await world.house.system.ask("router", GetDecision(client.headers["x-pointsman-decision"]))
    assert isinstance(found, DecisionFound)
    assert found.decision is not None
    return found.decision


def test_D3_short_prompts_go_to_who_begins_at_once_and_long_ones_to_who_reads_quickly() -> None:
    async def scene(world: World) -> None:
        await practised(world, 300)
        short = [(await asked(world, 100)).provider for _ in range(20)]
        long = [(await asked(world, 12_000)).provider for _ in range(20)]
        assert short.count("starter") >= 19
        assert long.count("reader") >= 19

        found = await decision(world, await asked(world, 12_000))
        read_s = {candidate.provider: candidate.bid.prefill_s for candidate in found.candidates if candidate.bid is not None}
        assert 1.0 < read_s["starter"] < 4.0
        assert read_s["reader"] < 0.3

    run(loaded([provider("starter"), provider("reader")]), scene, BOTH)


def test_a_long_prompt_is_not_hedged_for_reading_and_one_that_is_late_for_its_length_is() -> None:
    async def scene(world: World) -> None:
        kinds: list[list[str]] = []
        for number in range(200):
            client = await asked(world, SIZES[number % 5])
            kinds.append([attempt.kind for attempt in (await decision(world, client)).attempts])
        assert kinds[140:] == [[AttemptKind.FIRST]] * 60

        slow = Behaviour("starter", ttfb_ms=6000, sigma=0, tokens_per_second=100, capacity=1000, models=(MODEL,))
        world.simulation("starter").behaviour = slow
        late = await decision(world, await asked(world, 50))
        assert [attempt.kind for attempt in late.attempts] == [AttemptKind.FIRST, AttemptKind.HEDGE]

    run(loaded([provider("starter"), provider("reader")], strategy="first", explore={"enabled": False}), scene, BOTH)


def test_what_is_in_flight_with_a_long_prompt_makes_its_provider_no_slower_for_others() -> None:
    async def scene(world: World) -> None:
        for number in range(150):
            await asked(world, SIZES[number % 5])
        evidence = world.provider_actor("starter").standing.evidence.of(MODEL)
        usual = evidence.expected_s(10.0, world.now, evidence.scale(100))
        long = world.send(stream=True, messages=[{"role": "user", "content": "word " * 9600}])
        while not long.chunks:
            assert evidence.expected_s(10.0, world.now, evidence.scale(100)) == usual
            await asyncio.sleep(0.1)
        await long.wait()

    run(loaded([provider("starter")]), scene, BOTH)
