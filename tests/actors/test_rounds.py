"""Rounds under way: a key leads home its own round and no other."""

from actors.router.plans import STALE_S
from messages.control import Timer
from messages.routing import Gathered, NoRoute, RouteError
from tests.actors.router_kit import Desk, bid, provider

A, B = (provider(name, "m") for name in "ab")


def test_no_two_rounds_that_are_out_have_one_key_and_one_that_came_home_is_given_out_again() -> None:
    desk = Desk(A, B)
    queries = [desk.ask() for _ in range(3)]
    keys = [fan.key for fan in desk.context.fans]
    assert len({*keys}) == 3
    desk.gathered(bid("a"), bid("b"), fan=1)
    fourth = desk.ask()
    assert desk.context.fans[-1].key == keys[1]
    desk.ask()
    assert desk.context.fans[-1].key not in keys
    desk.gathered(bid("a"), bid("b"), fan=3)
    assert desk.plan(fourth).query_id == fourth
    assert desk.plan(queries[1]).query_id == queries[1]
    assert [desk.is_waiting(query) for query in queries] == [True, False, True]


def test_answers_that_come_home_twice_or_under_no_key_are_nobodys() -> None:
    desk = Desk(A, B)
    first = desk.ask()
    desk.gathered(bid("a"), bid("b"))
    plan = desk.plan(first)
    desk.gathered(bid("b"))
    desk.give(Gathered("no key", (bid("b"),)))
    assert desk.plan(first) == plan


def test_the_key_of_a_round_that_was_lost_is_not_given_out_again() -> None:
    desk = Desk(A, B)
    lost = desk.ask()
    desk.context.advance(2.0 * STALE_S)
    desk.give(Timer("wake"))
    answer = desk.answer(lost)
    assert isinstance(answer, NoRoute)
    assert answer.error is RouteError.SELECTION_FAILED
    later = desk.ask()
    assert desk.context.fans[-1].key != desk.context.fans[0].key
    desk.gathered(bid("a"), bid("b"), fan=0)
    assert desk.is_waiting(later)
    desk.gathered(bid("a"), bid("b"))
    assert desk.plan(later).query_id == later
