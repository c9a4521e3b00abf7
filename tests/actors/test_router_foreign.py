"""A strategy of others within the router: whichever of its parts fails, the request is planned, told and counted."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from actors.router.actor import RouterActor
from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Ask, Memory, Ranked, Strategy
from actors.router.table import Entry
from messages.decisions import GetRouterStats, StrategyFailed
from messages.policy import ChainStep, PoolSpec
from messages.routing import Bid
from tests.actors.router_kit import Desk, bid, chain, provider, snapshot

MANY = tuple(provider(f"p{number:02}", "m") for number in range(40))


def last_first(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
    return [(float(place), bid) for place, bid in enumerate(reversed(bids))]


def in_order(entries: Sequence[Entry], model: str) -> Sequence[Entry]:
    return list(entries)


def the_first(entries: Sequence[Entry], memory: Memory, rng: Random, count: int) -> list[Entry]:
    return list(entries[:count])


def raising(*_: Any) -> Any:
    raise ValueError("no idea")


def noted(memory: Memory, ranked: Ranked) -> None:
    memory.mark += 1


def with_part(part: str, function: Any) -> Strategy:
    broken: dict[str, Any] = {part: function}
    return replace(THEIRS, **broken)


THEIRS = Strategy("theirs", last_first, the_first, keeps_winner=False, index=in_order, learn=noted, is_foreign=True)


def desk_with(strategy: Strategy, **config: Any) -> Desk:
    desk = Desk(*MANY)
    desk.actor = RouterActor(snapshot(*MANY, strategy="theirs", **config), strategies={**STRATEGIES, "theirs": strategy})
    return desk


def decide(desk: Desk) -> Any:
    query_id = desk.ask()
    desk.gathered(*(bid(name) for name in desk.asked()))
    return desk.answer(query_id)


def test_A5_a_whole_strategy_of_others_chooses_whom_to_ask_and_who_wins() -> None:
    desk = desk_with(THEIRS)

    assert chain(decide(desk))[:2] == ["p15", "p14"]
    assert desk.asked() == tuple(spec.id for spec in MANY[:16])
    assert desk.context.take_told() == []


@pytest.mark.parametrize(
    ("part", "wanted"),
    [("rank", ["p00", "p01"]), ("index", ["p15", "p14"]), ("narrow", ["p15", "p14"]), ("learn", ["p15", "p14"])],
)
def test_A5_whatever_part_of_it_raises_costs_a_fall_back_and_never_the_request(part: str, wanted: list[str]) -> None:
    desk = desk_with(with_part(part, raising))

    assert chain(decide(desk))[:2] == wanted
    assert desk.context.take_told() == [("faults", StrategyFailed("theirs", "ValueError: no idea"))]
    assert chain(decide(desk))[:1] == wanted[:1]
    (stats,) = desk.give(GetRouterStats())
    # A static order is made once for each configuration, so it fails once.
    assert stats.strategy_errors == (1 if part == "index" else 2)


@pytest.mark.parametrize("part", ["rank", "learn"])
def test_A5_so_it_does_within_a_failover_chain(part: str) -> None:
    steps = (ChainStep(("p01", "p02", "p03")), ChainStep())
    desk = desk_with(with_part(part, raising), pools=[PoolSpec("m", chain=steps)])

    assert chain(decide(desk))[:3] == (["p01", "p02", "p03"] if part == "rank" else ["p03", "p02", "p01"])
    assert desk.context.take_told() == [("faults", StrategyFailed("theirs", "ValueError: no idea"))]
