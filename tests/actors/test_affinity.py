"""Affinity: conversations stay with whoever has their beginning in its cache, while that is no worse (pains 10 and 24)."""

from typing import Any

import pytest

from actors.router.affinity import HOMES_MAX
from messages.control import AffinitySpec, Configured
from messages.decisions import DecisionFound, GetDecision
from messages.routing import Claimed, Hints, RequestProfile, RoutePlan
from tests.actors.router_kit import Answer, Desk, bid, full, provider, snapshot

TALK = RequestProfile("m", affinity="talk")


def desk(*names: str, **routing: Any) -> Desk:
    return Desk(*(provider(name, "m") for name in names or ("a", "b", "c")), **routing)


def decide(one: Desk, *answers: Answer, **fields: Any) -> Any:
    """A decision whose plan is followed."""
    plan = one.decide(*answers, **fields)
    claim(one, plan)
    return plan


def claim(one: Desk, plan: Any) -> None:
    one.give(Claimed(plan.query_id, winner(plan), True))


def winner(answer: Any) -> str:
    assert isinstance(answer, RoutePlan), answer
    return answer.choices[0].provider


def note_of(one: Desk, plan: RoutePlan) -> str:
    (found,) = one.give(GetDecision(plan.decision_id))
    assert isinstance(found, DecisionFound)
    assert found.decision is not None
    return found.decision.note


@pytest.mark.parametrize("strategy", ["adaptive", "round_robin", "weighted", "random", "least_connections", "thompson"])
def test_pain_24_a_conversation_stays_where_its_beginning_is_cached(strategy: str) -> None:
    one = desk(strategy=strategy)
    bids = [bid(name) for name in "abc"]
    home = winner(decide(one, *bids, profile=TALK))
    for _ in range(20):
        plan = decide(one, *bids, profile=TALK)
        assert winner(plan) == home
        assert {choice.provider for choice in plan.choices} == {"a", "b", "c"}, "the others are its fall-back chain"


def test_pain_24_other_conversations_are_balanced_as_ever() -> None:
    one = desk(strategy="round_robin")
    bids = [bid(name) for name in "abc"]
    winners = [winner(decide(one, *bids, profile=RequestProfile("m", affinity=f"talk-{number}"))) for number in range(30)]
    assert {name: winners.count(name) for name in "abc"} == {"a": 10, "b": 10, "c": 10}


def test_pain_24_a_slow_home_spills_over_and_the_conversation_moves() -> None:
    one = desk()
    assert winner(decide(one, bid("a"), bid("b", expected_s=5.0), bid("c", expected_s=5.0), profile=TALK)) == "a"
    near = decide(one, bid("a", expected_s=1.9), bid("b", expected_s=1.0), bid("c", expected_s=5.0), profile=TALK)
    assert winner(near) == "a"
    assert note_of(one, near) == "stays with a, which has the beginning of this prompt"
    far = decide(one, bid("a", expected_s=2.1), bid("b", expected_s=1.0), bid("c", expected_s=5.0), profile=TALK)
    assert winner(far) == "b"
    assert note_of(one, far) == "a has the beginning of this prompt, but would take 2.10 s"
    assert winner(decide(one, bid("a"), bid("b", expected_s=1.5), bid("c", expected_s=5.0), profile=TALK)) == "b"


def test_pain_10_affinity_is_a_preference_and_never_keeps_a_request_from_others() -> None:
    one = desk()
    assert winner(decide(one, bid("a"), bid("b", expected_s=1.5), full("c"), profile=TALK)) == "a"
    assert winner(decide(one, full("a"), bid("b", expected_s=1.5), full("c"), profile=TALK)) == "b"
    assert winner(decide(one, bid("a"), bid("b", healthy=False), bid("c"), profile=TALK)) in "ac"
    home = winner(decide(one, bid("a"), bid("b"), bid("c"), profile=TALK))
    tried = decide(one, *(bid(name) for name in "abc" if name != home), profile=TALK, tried=(home,))
    assert winner(tried) != home


def test_what_the_request_says_goes_before_its_home() -> None:
    one = desk()
    bids = [bid("a"), bid("b", expected_s=1.5), bid("c", expected_s=1.5)]
    assert winner(decide(one, *bids, profile=TALK)) == "a"
    assert winner(decide(one, *bids, profile=RequestProfile("m", affinity="talk", hints=Hints(prefer=("c",))))) == "c"


@pytest.mark.parametrize("strategy", ["first", "priority", "cost"])
def test_a_strategy_that_is_an_order_stays_one(strategy: str) -> None:
    one = desk(strategy=strategy)
    assert winner(decide(one, full("a"), bid("b", cost_usd=1.0), full("c"), profile=TALK)) == "b"
    assert winner(decide(one, bid("a"), bid("b", cost_usd=1.0), full("c"), profile=TALK)) == "a"


def test_a_home_is_forgotten_when_its_cache_is() -> None:
    one = desk(strategy="round_robin", affinity=AffinitySpec(ttl_s=60.0))
    bids = [bid(name) for name in "abc"]
    assert winner(decide(one, *bids, profile=TALK)) == "a"
    one.context.advance(60.0)
    assert winner(decide(one, *bids, profile=TALK)) == "a"
    one.context.advance(60.1)
    assert winner(decide(one, *bids, profile=TALK)) == "b"


def test_it_can_be_switched_off_at_run_time() -> None:
    one = desk(strategy="round_robin")
    bids = [bid(name) for name in "abc"]
    assert winner(decide(one, *bids, profile=TALK)) == "a"
    off = snapshot(*(provider(name, "m") for name in "abc"), strategy="round_robin", affinity=AffinitySpec(False), generation=2)
    one.give(Configured(off))
    assert [winner(decide(one, *bids, profile=TALK)) for _ in range(3)] == ["b", "c", "a"]


def test_of_more_candidates_than_are_asked_the_home_is_one() -> None:
    names = [f"p{number:02}" for number in range(40)]
    one = desk(*names, fanout=4)
    first = one.ask(profile=TALK)
    one.gathered(*(bid(name) for name in one.asked()))
    home = winner(one.answer(first))
    claim(one, one.answer(first))
    for number in range(20):
        other = one.ask(profile=RequestProfile("m", affinity=f"other-{number}"))
        one.gathered(*(bid(name) for name in one.asked()))
        claim(one, one.answer(other))
        again = one.ask(profile=TALK)
        assert home in one.asked()
        assert len(one.asked()) == 4
        one.gathered(*(bid(name) for name in one.asked()))
        assert winner(one.answer(again)) == home
        claim(one, one.answer(again))


def test_a_dry_run_makes_nobody_a_home() -> None:
    one = desk(strategy="round_robin")
    bids = [bid(name) for name in "abc"]
    one.ask(profile=TALK, query_id="explain-1", may_wait=False)
    one.gathered(*bids)
    assert winner(decide(one, *bids, profile=RequestProfile("m"))) == "a"
    assert winner(decide(one, *bids, profile=TALK)) == "b"


def test_pain_01_homes_are_kept_in_bounded_number() -> None:
    one = desk("a")
    one.invariant_every = 100
    for number in range(HOMES_MAX + 50):
        one.ask(profile=RequestProfile("m", affinity=f"talk-{number}"))
        one.gathered_quickly(bid("a"))
        one.context.slots.clear()
    assert len(one.actor._affinity) == HOMES_MAX
