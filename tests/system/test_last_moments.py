"""A client that leaves just as its answer ends: the edge, the record, the statistics and the trace tell the same of it.

Who was given all of the answer was answered, be it gone in the loop's next turn; who left before was not.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random

import pytest

from messages.decisions import Decision, GetDecision
from messages.stats import GetStats, Stats
from otel import names
from otel.live_spans import AttemptSpan, LiveSpan, ServerSpan
from otel.sampling import Ids, Sampler
from otel.spans import Tracing
from runtime.config.settings import Loaded
from runtime.simulation.faults import FaultKind
from tests.system.house import Client, World, loaded, provider, run
from tests.system.storm import Storm

TURNS = range(5)
"""Of the loop, after which the client leaves: a race is over two after its answer has ended."""
WARM = 4
QUICK_S, USUAL_S = 0.05, 0.1
"""Until a call is overdue; until the first content comes."""


def two(*, hedges: bool) -> Loaded:
    """Provider a comes first; b beside it when half of the time is over in which it answers."""
    hedge = {"enabled": hedges, "after": f"{QUICK_S * 1000:.0f}ms", "max_share": 1}
    return loaded([provider("a"), provider("b")], strategy="first", hedge=hedge, explore={"enabled": False})


@dataclass(frozen=True)
class Way:
    """How an answer comes, and who gives it."""

    name: str
    winner: str
    stream: bool
    max_tokens: int = 10
    hedges: bool = True
    fate: str = "answer"

    def prepare(self, world: World) -> None:
        if self.winner == "b":
            world.fault("a", FaultKind.HANG)
        if self.fate == "frame":
            world.fault(self.winner, FaultKind.CUT)


WAYS = (
    Way("a stream", "a", stream=True, hedges=False),
    Way("an answer in one piece", "a", stream=False, hedges=False),
    Way("a stream that won against its hedge", "a", stream=True),
    Way("an answer in one piece that won against its hedge", "a", stream=False),
    Way("a hedge's stream", "b", stream=True),
    Way("a hedge's answer in one piece", "b", stream=False),
    Way("a stream that broke off", "a", stream=True, hedges=False, fate="frame"),
    Way("a stream that won and broke off", "a", stream=True, fate="frame"),
    Way("a hedge's stream that broke off", "b", stream=True, fate="frame"),
)


def leaves_with_its_answer(world: World, client: Client, turns: int) -> None:
    """``client`` leaves so many turns after the last that it is told; with 0 in the same one, before its courier goes on."""
    end, abort = client.end, client.abort

    def leave() -> None:
        Storm.leave_after_turns(world.loop, client.leave, turns)

    async def ended() -> None:
        await end()
        leave()

    def aborted() -> None:
        abort()
        leave()

    vars(client).update(end=ended, abort=aborted)


def leaves_with_its_first_chunk(world: World, client: Client) -> None:
    write = client.write

    async def wrote(chunk: bytes) -> None:
        await write(chunk)
        client.leave()

    vars(client).update(write=wrote)


def traced(world: World) -> list[LiveSpan]:
    """The spans of all requests from now on, as they end."""
    spans: list[LiveSpan] = []
    chance = Random("traces")
    world.house.edge._house.tracing = Tracing(spans.append, Sampler(1.0, chance), Ids(chance))
    return spans


@dataclass(frozen=True)
class Told:
    """What the house tells of a request, wherever it can be asked."""

    edge: dict[str, int]
    """Requests by status, ``gone`` for clients that left."""
    statistics: dict[str, int]
    """Of the provider whose answer it was: calls by how they ended."""
    record: tuple[str, str]
    """Of that call: outcome, and the code of a failure."""
    call_span: str | None
    """Of that call: its error."""
    request_span: tuple[int, str | None]
    """Status and error."""


async def counts(world: World, way: Way) -> tuple[Counter[str], Counter[str]]:
    """Those of the edge and of the winner's line in the statistics."""
    edge = world.house.edge.counters
    stats = await world.house.system.ask("aggregator", GetStats())
    assert isinstance(stats, Stats)
    lines = [line for line in stats.providers if line.name == way.winner]
    by_end = {name: sum(getattr(line, name) for line in lines) for name in ("successes", "failures", "cancelled")}
    return Counter({str(status): count for status, count in edge.by_status.items()} | {"gone": edge.client_gone}), Counter(
        by_end
    )


async def told_of(world: World, way: Way, how: Callable[[World, Client], None]) -> tuple[Client, Told]:
    """The client that leaves ``how`` it is told, after some that stay, and what is told of it."""
    for _ in range(WARM):
        assert (await world.ask(stream=way.stream)).provider == "a"
    edge_before, statistics_before = await counts(world, way)
    spans = traced(world)
    way.prepare(world)
    client = world.send(stream=way.stream, max_tokens=way.max_tokens)
    how(world, client)
    await client.wait()
    edge, statistics = await counts(world, way)
    found = (await world.house.system.ask("router", GetDecision(client.headers["x-pointsman-decision"]))).decision
    assert isinstance(found, Decision)
    [attempt] = [one for one in found.attempts if one.provider == way.winner]
    told = [(span, {**span.shape.attributes, **span.attributes}) for span in spans]
    [request] = [said for span, said in told if isinstance(span, ServerSpan)]
    [call] = [said for span, said in told if isinstance(span, AttemptSpan) and said[names.PROVIDER_ID] == way.winner]
    return client, Told(
        dict(edge - edge_before),
        dict(statistics - statistics_before),
        (attempt.outcome, attempt.code),
        _text(call.get(names.ERROR_TYPE)),
        (int(str(request[names.HTTP_RESPONSE_STATUS_CODE])), _text(request.get(names.ERROR_TYPE))),
    )


def _text(value: object) -> str | None:
    assert isinstance(value, str | None)
    return value


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("max_tokens", [1, 10], ids=["all at once", "bit by bit"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_who_was_given_all_of_its_answer_was_answered_whenever_it_leaves(way: Way, max_tokens: int, turns: int) -> None:
    way = replace(way, max_tokens=max_tokens)

    async def scene(world: World) -> None:
        client, told = await told_of(world, way, partial(leaves_with_its_answer, turns=turns))

        assert (client.fate, client.provider) == (way.fate, way.winner)
        if way.fate == "answer":
            assert told == Told({"200": 1}, {"successes": 1}, ("success", ""), None, (200, None))
        else:
            assert told == Told({"200": 1}, {"failures": 1}, ("failed", "broken"), "broken", (200, "broken"))

    run(two(hedges=way.hedges), scene)


@pytest.mark.parametrize("way", [way for way in WAYS if way.stream and way.fate == "answer"], ids=lambda way: way.name)
def test_who_leaves_before_it_was_given_all_is_gone(way: Way) -> None:
    async def scene(world: World) -> None:
        client, told = await told_of(world, way, leaves_with_its_first_chunk)

        assert (client.fate, client.provider) == ("left", way.winner)
        assert told == Told({"gone": 1}, {"cancelled": 1}, ("cancelled", ""), "cancelled", (499, None))

    run(two(hedges=way.hedges), scene)
