"""Strategies of others are not believed: whatever they return, the router gets a ranking it can use."""

import sys
from collections.abc import Sequence
from math import inf, nan
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.router.strategies.base import Ask, Memory, Ranked, Strategy
from actors.router.strategies.guard import guarded, guarded_index, guarded_learn, guarded_narrow
from actors.router.table import Entry
from messages.routing import Bid
from tests.actors.router_kit import bid
from tests.actors.strategy_desk import ASK, entries, order

BIDS = [bid("a"), bid("b"), bid("c")]
A, B, C = BIDS


def foreign(rank: Any = None, **fields: Any) -> Strategy:
    return Strategy("theirs", rank or (lambda *_: []), is_foreign=True, **fields)


def returning(result: Any) -> Strategy:
    return foreign(lambda bids, ask, memory, rng: result)


def ranked(strategy: Strategy) -> tuple[Ranked, str]:
    return guarded(strategy, list(BIDS), ASK, Memory(), Random(0))


def test_a_good_ranking_goes_through_as_it_is() -> None:
    found, why = ranked(foreign(lambda bids, ask, memory, rng: [(float(-n), bid) for n, bid in enumerate(bids)][::-1]))
    assert (order(found), why) == (["c", "b", "a"], "")
    assert all(type(score) is float for score, _ in found)


def test_it_may_leave_bids_out_and_may_name_providers_in_place_of_bids() -> None:
    found, why = ranked(returning([(1, "b")]))
    assert (found, why) == ([(1.0, B)], "")


def test_an_altered_copy_of_a_bid_comes_back_as_the_bid_that_was_given() -> None:
    found, why = ranked(returning([(0.0, bid("b", in_flight=99, cost_usd=0.0))]))
    assert why == ""
    assert found[0][1] is B


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "the ranking is no list but NoneType"),
        ((), "the ranking is no list but tuple"),
        ([], "the ranking is empty"),
        ([A, B], "a ranking holds pairs (score, bid)"),
        ([(1.0, A, B)], "a ranking holds pairs (score, bid)"),
        ([("1", A)], "a score is no finite number but 1"),
        ([(nan, A)], "a score is no finite number but nan"),
        ([(inf, A)], "a score is no finite number but inf"),
        ([(1j, A)], "a score is no finite number but 1j"),
        ([(1.0, A), (2.0, A)], "'a' is ranked twice or did not bid"),
        ([(1.0, bid("z"))], "'z' is ranked twice or did not bid"),
        ([(1.0, None)], "'None' is ranked twice or did not bid"),
        ([(1.0, [])], "'[]' is ranked twice or did not bid"),
        ([(1.0, A)] * 9, "9 ranked of 3 bids"),
        ([(10**400, A)], "OverflowError: int too large to convert to float"),
    ],
)
def test_rubbish_costs_one_fall_back_to_first_and_is_told_in_one_line(result: Any, reason: str) -> None:
    found, why = ranked(returning(result))
    assert (order(found), why) == (["a", "b", "c"], reason)


def test_a_strategy_that_would_end_the_process_costs_one_fall_back_to_first() -> None:
    def leave(*_: Any) -> Any:
        sys.exit("not my job")

    strategy, why = foreign(leave, narrow=leave, index=leave, learn=leave), "SystemExit: not my job"
    candidates = entries(3)
    assert order(ranked(strategy)[0]) == ["a", "b", "c"]
    assert ranked(strategy)[1] == why
    assert guarded_index(strategy, candidates, "m") == (candidates, why)
    assert guarded_narrow(strategy, candidates, Memory(), Random(0), 2) == (list(candidates[:2]), why)
    assert guarded_learn(strategy, Memory(), []) == why


def test_a_strategy_that_raises_costs_one_fall_back_to_first() -> None:
    def rank(bids: list[Bid], ask: Ask, memory: Memory, rng: Random) -> Ranked:
        bids.clear()
        raise LookupError("no\nsuch\tthing")

    found, why = ranked(foreign(rank))
    assert (order(found), why) == (["a", "b", "c"], "LookupError: no such thing")


def test_an_error_that_cannot_even_be_printed_is_named() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def rank(*_: Any) -> Ranked:
        raise Mute

    assert ranked(foreign(rank))[1] == "Mute"


things = st.none() | st.floats() | st.text(max_size=2) | st.sampled_from(BIDS) | st.just("a")
pairs = st.tuples(things, things) | st.tuples(st.floats(-9.0, 9.0), st.sampled_from([*BIDS, "a", "z"])) | things


@given(st.lists(pairs, max_size=5) | things)
def test_whatever_comes_back_the_router_gets_a_ranking_of_those_who_bid(result: Any) -> None:
    found, why = ranked(returning(result))
    names = order(found)
    assert names
    assert len(set(names)) == len(names)
    assert all(any(given is bid for given in BIDS) for _, bid in found)
    assert all(abs(score) < inf for score, _ in found)
    assert "\n" not in why


def test_a_choice_of_candidates_is_checked_too() -> None:
    found = entries(9)

    def chosen_by(narrow: Any) -> tuple[list[str], str]:
        chosen, why = guarded_narrow(foreign(narrow=narrow), found, Memory(), Random(0), 3)
        return [entry.id for entry in chosen], why

    first = ["p000", "p001", "p002"]
    assert chosen_by(lambda entries, *_: entries[6:8]) == (["p006", "p007"], "")
    assert chosen_by(lambda entries, *_: entries) == (first, "9 candidates were chosen, not 1 to 3")
    assert chosen_by(lambda *_: []) == (first, "0 candidates were chosen, not 1 to 3")
    assert chosen_by(lambda entries, *_: [entries[0]] * 2) == (first, "a candidate was chosen twice or is none")
    assert chosen_by(lambda *_: ["p001"]) == (first, "a candidate was chosen twice or is none")
    assert chosen_by(lambda *_: 1 / 0) == (first, "ZeroDivisionError: division by zero")
    assert len(guarded_narrow(foreign(), found, Memory(), Random(0), 3)[0]) == 3


def test_an_index_must_hold_exactly_the_candidates() -> None:
    found = entries(3)

    def order_by(index: Any) -> tuple[list[str], str]:
        chosen, why = guarded_index(foreign(index=index), found, "m")
        return [entry.id for entry in chosen], why

    def backwards(entries: Sequence[Entry], model: str) -> Sequence[Entry]:
        return entries[::-1]

    assert order_by(None) == (["p000", "p001", "p002"], "")
    assert order_by(backwards) == (["p002", "p001", "p000"], "")
    assert order_by(lambda entries, model: entries[:2])[1] == "the index does not hold exactly the candidates"
    assert order_by(lambda entries, model: (*entries, entries[0]))[1] == "the index does not hold exactly the candidates"
    assert order_by(lambda entries, model: model / 2)[1].startswith("TypeError: ")


def test_learning_that_fails_is_told() -> None:
    memory, plan = Memory(), [(1.0, A), (2.0, B)]

    def learn(memory: Memory, ranked: Ranked) -> None:
        memory.credits[ranked.pop()[1].provider] = 1.0

    assert guarded_learn(foreign(), memory, plan) == ""
    assert guarded_learn(foreign(learn=learn), memory, plan) == ""
    assert (memory.credits, len(plan)) == ({"b": 1.0}, 2)
    assert guarded_learn(foreign(learn=lambda memory, ranked: ranked["x"]), memory, plan).startswith("TypeError: ")
