"""How the router decides: who is asked, who is ranked, what the plan says."""

from collections import Counter
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.router.actor import METHODS, RouterMail
from messages.calls import CallEnded, Outcome
from messages.control import Configured, Timer
from messages.routing import (
    CallForBids,
    CapacityFreed,
    Claimed,
    Gathered,
    Hints,
    NoBidReason,
    NoRoute,
    RequestProfile,
    RouteError,
    RoutePlan,
    Withdraw,
)
from tests.actors.router_kit import Desk, bid, chain, full, no, provider, snapshot

A, B, C = (provider(name, "m") for name in "abc")


def hinted(**hints: Any) -> RequestProfile:
    return RequestProfile("m", hints=Hints(**hints))


def test_there_is_a_method_for_every_message_the_router_takes_and_for_no_other() -> None:
    assert set(METHODS) == {*get_args(RouterMail), Configured, Timer}


def test_one_call_for_bids_goes_to_all_candidates_on_behalf_of_the_query() -> None:
    desk = Desk(A, B, provider("other", "x"))
    query_id = desk.ask()
    (fan,) = desk.context.fans
    assert desk.asked() == ("a", "b")
    assert fan.message == CallForBids(query_id, RequestProfile("m"), "m")
    assert fan.on_behalf is desk.slot(query_id)
    assert desk.is_waiting(query_id)


def test_the_call_for_bids_names_the_model_after_alias_and_pin() -> None:
    desk = Desk(A, B, aliases={"nick": "a:m"})
    desk.ask("nick")
    assert desk.asked() == ("a",)
    assert desk.context.fans[0].message.model == "m"


def test_D12_a_plan_ranks_all_who_bid_and_names_generation_model_and_strategy() -> None:
    desk = Desk(A, B, C, strategy="first", generation=7)
    plan = desk.decide(bid("b", expected_s=2.0, cost_usd=0.5), bid("a"), full("c"))
    assert isinstance(plan, RoutePlan)
    assert (plan.generation, plan.model, plan.strategy) == (7, "m", "first")
    assert chain(plan) == ["a", "b"]
    assert (plan.choices[1].expected_s, plan.choices[1].cost_usd) == (2.0, 0.5)


def test_the_default_strategy_is_adaptive() -> None:
    desk = Desk(A, B)
    plan = desk.decide(bid("a", expected_s=3.0), bid("b", expected_s=1.0))
    assert (plan.strategy, chain(plan)) == ("adaptive", ["b", "a"])


def test_a_request_may_name_another_strategy() -> None:
    desk = Desk(A, B)
    plan = desk.decide(bid("a", expected_s=3.0), bid("b"), profile=hinted(strategy="first"))
    assert (plan.strategy, chain(plan)) == ("first", ["a", "b"])


@given(st.permutations("abcd"), st.integers())
def test_the_order_in_which_bids_arrive_decides_nothing(arrival: list[str], seed: int) -> None:
    specs = [provider(name, "m") for name in "abcd"]
    for strategy in ("least_connections", "adaptive", "least_latency"):
        one = Desk(*specs, strategy=strategy, seed=str(seed)).decide(*(bid(name) for name in "abcd"))
        other = Desk(*specs, strategy=strategy, seed=str(seed)).decide(*(bid(name) for name in arrival))
        assert one == other


def test_B5_a_fresh_choice_leaves_out_those_tried_and_those_that_refused() -> None:
    desk = Desk(A, B, C)
    desk.ask(tried=("a",), refused=("b",))
    assert desk.asked() == ("c",)


def test_pain_10_a_preference_goes_first_but_is_no_cage() -> None:
    desk = Desk(A, B, C, strategy="first")
    assert chain(desk.decide(bid("a"), bid("b"), bid("c"), profile=hinted(prefer=("c",)))) == ["c", "a", "b"]
    assert chain(desk.decide(bid("a"), bid("b"), full("c"), profile=hinted(prefer=("c",)))) == ["a", "b"]


def test_exclusions_and_tags_filter() -> None:
    desk = Desk(A, provider("b", "m", tags=("eu", "fast")), provider("c", "m", tags=("eu",)))
    desk.ask(profile=hinted(tags=("eu",), exclude=("c",)))
    assert desk.asked() == ("b",)


def test_B1_weight_zero_is_not_even_asked_by_a_weighted_strategy() -> None:
    desk = Desk(provider("a", "m", weight=0), B)
    desk.ask(profile=hinted(strategy="least_connections"))
    assert desk.asked() == ("b",)
    desk.ask(profile=hinted(strategy="first"))
    assert desk.asked() == ("a", "b")


def test_the_unhealthy_are_a_second_tier_and_never_removed() -> None:
    desk = Desk(A, B, C, strategy="first")
    assert chain(desk.decide(bid("a", healthy=False), bid("b"), bid("c"))) == ["b", "c", "a"]
    assert chain(desk.decide(bid("a", healthy=False), full("b"), full("c"))) == ["a"]


def test_bids_over_the_ceiling_and_of_unknown_price_are_left_out() -> None:
    desk = Desk(A, B, C, strategy="first")
    bids = [bid("a", cost_usd=0.2), bid("b", cost_usd=None), bid("c", cost_usd=0.1)]
    assert chain(desk.decide(*bids, profile=hinted(max_cost_usd=0.1))) == ["c"]


def test_open_plans_count_as_calls_in_flight_so_that_equal_bids_do_not_herd() -> None:
    desk = Desk(A, B, C, strategy="least_connections")
    won = Counter(chain(desk.decide(bid("a"), bid("b"), bid("c")))[0] for _ in range(30))
    assert won == {"a": 10, "b": 10, "c": 10}


@pytest.mark.parametrize(
    "end",
    [
        Claimed("q1", "a", True),
        Claimed("q1", "a", False),
        Withdraw("q1"),
        CallEnded("x", "q1", "a", "m", Outcome.SUCCESS, True, 1.0),
    ],
)
def test_an_open_plan_is_closed_by_whatever_the_courier_says_of_it(end: Any) -> None:
    desk = Desk(A, B, strategy="least_connections")
    desk.decide(bid("a"), bid("b", in_flight=1))
    desk.give(end)
    assert desk.decide(bid("a"), bid("b", in_flight=1)).choices[0].score == 0.0


def test_a_plan_nobody_claims_is_dropped_after_a_while() -> None:
    desk = Desk(A, B, strategy="least_connections")
    desk.decide(bid("a"), bid("b", in_flight=9))
    assert desk.decide(bid("a"), bid("b", in_flight=9)).choices[0].score == 1.0
    while desk.context.timers:
        desk.context.fire(desk.actor)
    assert desk.decide(bid("a"), bid("b", in_flight=9)).choices[0].score == 0.0


def test_room_promised_to_others_comes_last_of_all() -> None:
    desk = Desk(A, B, C, strategy="first")
    bids = [bid("a", room=1), bid("b", healthy=False), bid("c", room=9)]
    assert chain(desk.decide(*bids)) == ["a", "c", "b"]
    assert chain(desk.decide(*bids)) == ["c", "b", "a"]


def test_many_open_plans_stretch_what_adaptive_expects() -> None:
    desk = Desk(A, B)
    bids = [bid("a", expected_s=1.0), bid("b", expected_s=1.5)]
    won = Counter(chain(desk.decide(*bids))[0] for _ in range(40))
    assert won["a"] > won["b"] > 5


def test_D3_round_robin_goes_round_for_each_model_by_itself() -> None:
    desk = Desk(provider("a", "m", "n"), provider("b", "m", "n"), strategy="round_robin")
    both = (bid("a"), bid("b"))
    won = [chain(desk.decide(*both, model=model))[0] for model in ("m", "n", "m", "n", "m")]
    assert won == ["a", "a", "b", "b", "a"]


def test_a_query_that_crashed_two_handlers_is_tried_no_further() -> None:
    desk = Desk(A, B, C)
    crashed = [no(name, NoBidReason.CRASHED) for name in "ab"]
    assert desk.decide(*crashed, bid("c")).error == RouteError.SELECTION_FAILED
    plan = desk.decide(crashed[0], bid("b"), bid("c"))
    assert isinstance(plan, RoutePlan)
    assert plan.crashed == ("a",)


@pytest.mark.parametrize(("before", "fell", "is_odd"), [((), "a", False), (("a",), "a", False), (("b",), "a", True)])
def test_handlers_that_fell_over_a_request_before_count_but_one_that_falls_again_over_its_bid_counts_once(
    before: tuple[str, ...], fell: str, is_odd: bool
) -> None:
    desk = Desk(A, B, C)

    answer = desk.decide(no(fell, NoBidReason.CRASHED), bid("b"), bid("c"), crashed=before)

    assert answer.crashed == tuple(name for name in (fell,) if name not in before)
    error = answer.error if isinstance(answer, NoRoute) else None
    assert error == (RouteError.SELECTION_FAILED if is_odd else None)


def test_a_query_that_waits_is_tried_no_further_when_its_rounds_together_crashed_two_handlers() -> None:
    desk = Desk(A, B, C)
    query = desk.ask()
    desk.gathered(no("a", NoBidReason.CRASHED), full("b"), full("c"))
    assert desk.is_waiting(query)

    for answers in ((no("a", NoBidReason.CRASHED), full("b"), full("c")), (full("a"), no("b", NoBidReason.CRASHED), bid("c"))):
        desk.give(CapacityFreed("c", 1))
        desk.gathered(*answers)
        assert desk.is_waiting(query) == (answers[0].reason == NoBidReason.CRASHED)

    refusal = desk.refusal(query)
    assert (refusal.error, refusal.crashed) == (RouteError.SELECTION_FAILED, ("a", "b"))


MANY = [provider(f"p{n:02}", "m") for n in range(40)]


@pytest.mark.parametrize("strategy", ["adaptive", "least_connections", "least_latency"])
def test_many_candidates_are_sampled_with_the_last_winner_among_them(strategy: str) -> None:
    desk = Desk(*MANY, strategy=strategy)
    seen: set[str] = set()
    last = ""
    for _ in range(60):
        desk.context.advance(1.0)
        query_id = desk.ask()
        asked = desk.asked()
        assert len(asked) == 16
        assert list(asked) == sorted(asked)
        assert not last or last in asked
        seen.update(asked)
        desk.gathered(*(bid(name, expected_s=1.0 + int(name[1:])) for name in asked))
        last = chain(desk.plan(query_id))[0]
        desk.give(Claimed(query_id, last, True))
    assert len(seen) == 40


@pytest.mark.parametrize(
    "strategy", ["adaptive", "least_latency", "success_latency_ratio", "optimize_latency", "optimize_reliability"]
)
def test_three_quarters_of_a_sample_are_the_best_of_the_last_and_a_quarter_is_drawn(strategy: str) -> None:
    desk = Desk(*MANY, strategy=strategy)
    best: set[str] = set()
    drawn: set[str] = set()
    for _ in range(60):
        desk.context.advance(1.0)
        query_id = desk.ask()
        asked = desk.asked()
        assert len(asked) == 16
        assert best <= set(asked)
        drawn |= set(asked) - best
        # The higher the number, the worse in every respect.
        desk.gathered(
            *(
                bid(
                    name,
                    expected_s=n,
                    latency_p50_s=n,
                    latency_ewma_s=n,
                    samples=10,
                    successes=100.0,
                    failures=n / 10,
                )
                for name, n in ((name, 1.0 + float(name[1:])) for name in asked)
            )
        )
        best = set(sorted(asked)[:12])
        desk.give(Claimed(query_id, chain(desk.plan(query_id))[0], True))
    assert best == {f"p{n:02}" for n in range(12)}
    assert len(drawn) > 30


@pytest.mark.parametrize("strategy", ["adaptive", "random", "weighted_random", "cost"])
@pytest.mark.parametrize("is_claimed", [True, False])
def test_decisions_of_one_moment_ask_the_same_but_for_one_each_while_the_last_winner_has_not_heard(
    strategy: str, is_claimed: bool
) -> None:
    desk = Desk(*MANY, strategy=strategy)
    samples: list[set[str]] = []
    for _ in range(41):
        query_id = desk.ask()
        samples.append(set(desk.asked()))
        desk.gathered(*(bid(name) for name in desk.asked()))
        if is_claimed:
            desk.give(Claimed(query_id, chain(desk.plan(query_id))[0], True))
    new = [len(after - before) for before, after in pairwise(samples)]
    # By weight one is drawn beside the others.
    assert max(new) == (0 if is_claimed else 2 if strategy == "weighted_random" else 1)
    assert (sum(new) > 20) is not is_claimed


@pytest.mark.parametrize("strategy", ["adaptive", "least_requests", "least_connections", "optimize_latency"])
def test_B1_a_hundred_queries_of_one_moment_find_nearly_a_hundred_idle_ones_of_five_hundred(strategy: str) -> None:
    desk = Desk(*(provider(f"p{n:03}", "m") for n in range(500)), strategy=strategy)
    won: Counter[str] = Counter()
    for _ in range(100):
        query_id = desk.ask()
        desk.gathered(*(bid(name) for name in desk.asked()))
        won[chain(desk.plan(query_id))[0]] += 1
    assert len(won) > 90
    assert max(won.values()) <= 2


def test_who_led_and_does_not_bid_is_not_asked_again_in_the_next_decision() -> None:
    desk = Desk(*MANY, strategy="adaptive")
    for _ in range(3):
        query_id = desk.ask()
        desk.gathered(*(bid(name, expected_s=1.0 + int(name[1:])) for name in desk.asked()))
        desk.give(Claimed(query_id, chain(desk.plan(query_id))[0], True))
    before = desk.asked()
    best, others = before[0], before[1:]
    query_id = desk.ask()
    assert desk.asked() == before
    desk.gathered(full(best), *(bid(name, expected_s=1.0 + int(name[1:])) for name in others))
    desk.give(Claimed(query_id, chain(desk.plan(query_id))[0], True))
    desk.ask()
    assert best not in desk.asked()
    assert len(desk.asked()) >= 15


def test_first_narrows_by_order_and_the_chain_has_a_limit() -> None:
    desk = Desk(*MANY, strategy="first")
    query_id = desk.ask()
    assert desk.asked() == tuple(f"p{n:02}" for n in range(16))
    desk.gathered(*(bid(name) for name in desk.asked()))
    assert chain(desk.plan(query_id)) == [f"p{n:02}" for n in range(8)]


def test_round_robin_over_many_reaches_all() -> None:
    desk = Desk(*MANY, strategy="round_robin")
    won = []
    for _ in range(80):
        query_id = desk.ask()
        desk.gathered(*(bid(name) for name in desk.asked()))
        won.append(chain(desk.plan(query_id))[0])
    assert set(Counter(won).values()) == {2}


def test_if_a_sample_yields_no_bid_the_next_one_is_asked_before_anything_else() -> None:
    desk = Desk(*MANY, strategy="first")
    query_id = desk.ask()
    for _ in range(2):
        desk.gathered(*(full(name) for name in desk.asked()))
        assert desk.is_waiting(query_id)
    assert desk.asked() == tuple(f"p{n:02}" for n in range(32, 40))
    desk.gathered(*(bid(name) for name in desk.asked()))
    assert chain(desk.plan(query_id))[0] == "p32"


def test_a_new_generation_is_used_by_the_next_query_and_named_in_its_plan() -> None:
    desk = Desk(A, strategy="first")
    desk.give(Configured(snapshot(A, B, generation=2, strategy="least_connections")))
    plan = desk.decide(bid("a", in_flight=1), bid("b"))
    assert (plan.generation, plan.strategy, chain(plan)) == (2, "least_connections", ["b", "a"])


def test_an_older_generation_is_ignored() -> None:
    desk = Desk(A, generation=3)
    desk.give(Configured(snapshot(B, generation=2)))
    desk.ask()
    assert desk.asked() == ("a",)


def test_answers_to_nobody_are_ignored() -> None:
    desk = Desk(A)
    desk.give(Gathered("999", (bid("a"),)))
    desk.decide(bid("a"))
    desk.gathered(bid("a"))
    assert len(desk.context.slots[0].answers) == 1


def test_a_query_asked_twice_is_answered_twice_and_the_first_is_no_plan() -> None:
    desk = Desk(A)
    desk.ask(query_id="twin")
    desk.ask(query_id="twin")
    desk.gathered(bid("a"), fan=0)
    desk.gathered(bid("a"), fan=1)
    first, second = (slot.answers for slot in desk.context.slots)
    assert isinstance(first[0], NoRoute)
    assert isinstance(second[0], RoutePlan)
    assert len(first) == len(second) == 1


def test_a_round_that_never_comes_home_is_answered_and_forgotten() -> None:
    desk = Desk(A)
    query_id = desk.ask()
    desk.context.fire(desk.actor)
    assert desk.refusal(query_id).error == RouteError.SELECTION_FAILED
    assert not desk.context.timers


def test_the_same_seed_makes_the_same_decisions() -> None:
    def run() -> list[Any]:
        desk = Desk(*MANY, seed="42")
        return [desk.decide(*(bid(f"p{n:02}") for n in range(40))) for _ in range(20)]

    assert run() == run()
