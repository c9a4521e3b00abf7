"""Strategies on a desk: bids by hand, whole runs of plans, and candidates beyond the fan-out."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Ask, Memory, Ranked
from actors.router.table import Entry, RoutingTable
from messages.routing import Bid, RequestProfile
from tests.actors.router_kit import bid, provider, snapshot

ASK = Ask(RequestProfile("m", stream=True), 100.0)
EVERY = sorted(STRATEGIES)


def rank(strategy: str, bids: Sequence[Bid], memory: Memory | None = None, rng: Random | None = None) -> Ranked:
    return STRATEGIES[strategy].rank(list(bids), ASK, memory or Memory(), rng or Random("seed"))


def order(ranked: Ranked) -> list[str]:
    return [bid.provider for _, bid in ranked]


def winner(strategy: str, *bids: Bid, rng: Random | None = None) -> str:
    return order(rank(strategy, bids, rng=rng))[0]


def scores(strategy: str, *bids: Bid) -> dict[str, float]:
    return {bid.provider: score for score, bid in rank(strategy, bids)}


def plan(strategy: str, bids: Sequence[Bid], memory: Memory, rng: Random, prefer: str = "") -> str:
    """One plan for real: rank, prefer somebody, learn, note. Returns the winner."""
    ranked = rank(strategy, bids, memory, rng)
    ranked.sort(key=lambda pair: bool(prefer) and pair[1].provider != prefer)
    learn = STRATEGIES[strategy].learn
    if learn is not None:
        learn(memory, ranked)
    memory.note(ranked[0][1].provider)
    return memory.winner


def won(strategy: str, turns: int, *bids: Bid, seed: str = "seed") -> list[str]:
    """The winners of so many plans over the same bids."""
    memory, rng = Memory(), Random(seed)
    return [plan(strategy, bids, memory, rng) for _ in range(turns)]


def entries(count: int, fields: Callable[[int], dict[str, Any]] = lambda place: {}) -> tuple[Entry, ...]:
    """Candidates p000, p001, ... of one model, in the order of definition."""
    specs = [provider(f"p{place:03}", "m", **fields(place)) for place in range(count)]
    route = RoutingTable.build(snapshot(*specs)).find("m")
    assert route is not None
    return route.entries


def narrowed(strategy: str, found: Sequence[Entry], memory: Memory, rng: Random, count: int) -> list[Entry]:
    """Whom it asks first of ``found``, which stand in the order of definition."""
    chosen = STRATEGIES[strategy]
    order = found if chosen.index is None else chosen.index(found, "m")
    return chosen.narrow(order, memory, rng, count)


def won_beyond(strategy: str, turns: int, found: Sequence[Entry], fanout: int, pause_s: float = 1.0) -> Counter[str]:
    """How often each wins where only ``fanout`` are asked and all of those bid, with their weights and idle.

    One decision comes ``pause_s`` after the other; at one moment, while nobody knows yet of having won.
    """
    memory, rng = Memory(), Random("beyond")
    chosen = STRATEGIES[strategy]
    index = found if chosen.index is None else chosen.index(found, "m")
    counted: Counter[str] = Counter()
    bids = {entry.id: bid(entry.id, weight=entry.spec.weight) for entry in found}
    for turn in range(turns):
        memory.freshen((turn + 1) * pause_s, not pause_s)
        asked = sorted(chosen.narrow(index, memory, rng, fanout), key=lambda entry: entry.id)
        counted[plan(strategy, [bids[entry.id] for entry in asked], memory, rng)] += 1
    return counted


def some_bids() -> st.SearchStrategy[list[Bid]]:
    seconds = st.floats(0.0, 100.0)
    one: dict[str, Any] = {
        "in_flight": st.integers(0, 50),
        "weight": st.integers(1, 1000),
        "priority": st.integers(-3, 3),
        "samples": st.integers(0, 30),
        "latency_p50_s": seconds,
        "latency_p95_s": seconds,
        "latency_ewma_s": seconds,
        "latency_peak_s": seconds,
        "expected_s": seconds,
        "cost_usd": st.none() | st.floats(0.0, 1.0),
        "tokens": st.integers(0, 100_000),
        "failure_p": st.floats(0.0, 1.0),
        "failure_loss_s": seconds,
        "cut_p": st.floats(0.0, 1.0),
        "health": st.floats(0.0, 1.0),
        "exploring": st.integers(0, 4),
        "successes": st.floats(0.0, 1000.0),
        "failures": st.floats(0.0, 1000.0),
        "surplus": st.integers(0, 6),
    }
    fields = st.lists(st.fixed_dictionaries(one), min_size=1, max_size=20)
    return fields.map(lambda rows: [bid(f"p{number:02}", **row) for number, row in enumerate(rows)])
