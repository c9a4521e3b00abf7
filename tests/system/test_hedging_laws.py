"""Races of calls for one request, whatever becomes of each: hypothesis makes up who is slow, broken or gone, and when.

What must hold is what must hold after every storm: one answer for each client, one end for each permit, nobody asked twice
who must not be, and counts that are those of the clients.
"""

import asyncio
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.simulation.faults import FaultKind
from tests.system.house import PLAIN, World, loaded, provider, run
from tests.system.storm import Aftermath, Storm

NAMES = "abcd"
QUICK_S = 0.05
"""Of a hedge; providers take twice as long for their first content."""


@dataclass(frozen=True)
class Send:
    stream: bool
    max_tokens: int
    leaves_after: int | float | None
    """Turns of the loop if whole, seconds if not; None: it stays."""


@dataclass(frozen=True)
class Break:
    name: str
    fault: FaultKind | None
    """None: it is well again."""
    share: float


@dataclass(frozen=True)
class Wait:
    for_s: float


moments = st.sampled_from((0.0, 0.05, 0.1, 0.101, 0.15, 0.2, 0.25, 1.0))
sends = st.builds(Send, st.booleans(), st.sampled_from((1, 10, 100)), st.one_of(st.none(), st.integers(0, 4), moments))
faults = st.sampled_from((None, *FaultKind, FaultKind.HANG, FaultKind.SLOW))
breaks = st.builds(Break, st.sampled_from(NAMES), faults, st.sampled_from((0.5, 1.0)))
steps = st.lists(st.one_of(sends, sends, breaks, st.builds(Wait, moments)), min_size=4, max_size=30)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from((1, 2, 3, 5)), st.booleans())
def test_whatever_becomes_of_the_calls_of_a_race_each_client_has_one_answer_and_each_call_one_end(
    sequence: list[Send | Break | Wait], max_attempts: int, is_drained: bool
) -> None:
    config = loaded(
        [provider(name, timeouts={"first_byte": "1s", "idle": "1s", "total": "3s"}) for name in NAMES],
        strategy="least_latency",
        deadline="5s",
        hedge={"after": f"{int(QUICK_S * 1000)}ms", "max_share": 1},
        explore={"max_share": 1, "idle": "100ms"},
        failover={"max_attempts": max_attempts},
    )

    async def scene(world: World) -> Aftermath:
        for _ in range(10):
            await world.ask()
        for step in sequence:
            await take(step, world)
        if not is_drained:
            await world.all_done()
        await world.house.edge.drain(0.0)
        await world.house.edge.settled(5.0)
        await asyncio.sleep(70.0)
        return await Aftermath.of(world)

    aftermath = run(config, scene, {name: replace(PLAIN, ttfb_ms=100 + 20 * place) for place, name in enumerate(NAMES)})
    assert aftermath.wrongs() == []


async def take(step: Send | Break | Wait, world: World) -> None:
    match step:
        case Send(stream, max_tokens, leaves_after):
            client = world.send(stream=stream, max_tokens=max_tokens)
            client.deadline_s = 5.0
            if isinstance(leaves_after, float):
                world.loop.call_later(leaves_after, client.leave)
            elif leaves_after is not None:
                Storm.leave_after_turns(world.loop, client.leave, leaves_after)
        case Break(name, fault, share):
            world.heal(name)
            if fault is not None:
                world.fault(name, fault, p=share, retry_after_s=0.5)
        case Wait(for_s):
            await asyncio.sleep(for_s)
