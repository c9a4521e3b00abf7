"""The queue between tenants, its end, and what it tells those it sends away."""

import pytest

from messages.policy import CRITICAL, HIGH, LOW, NORMAL
from messages.routing import CapacityFreed, Claimed, Hints, NoBidReason, RequestProfile, RouteError, Withdraw
from tests.actors.router_kit import Desk, bid, chain, full, no, provider

A, B = (provider(name, "m") for name in "ab")


def come(desk: Desk, tenant: str, count: int = 1, priority: int = NORMAL, max_tokens: int | None = 100) -> list[str]:
    """Queries of a tenant that find ``a`` full; their ids."""
    hints = Hints(priority=priority)
    found = []
    for _ in range(count):
        found.append(desk.ask(profile=RequestProfile("m", tenant=tenant, hints=hints, max_tokens=max_tokens)))
        desk.gathered(full("a"))
    return found


def serve(desk: Desk, count: int, each_s: float = 0.0) -> list[str]:
    """Let ``a`` take so many calls, one after another; the tenants in the order of their turns."""
    served = []
    for _ in range(count):
        desk.context.advance(each_s)
        desk.give(CapacityFreed("a", 1))
        query = desk.context.fans[-1].message
        desk.gathered(bid("a"))
        assert chain(desk.plan(query.query_id)) == ["a"]
        served.append(query.profile.tenant)
        desk.give(Claimed(query.query_id, "a", True))
        desk.gathered(full("a"))
    return served


def test_pain_25_the_flood_of_one_tenant_does_not_keep_another_waiting() -> None:
    desk = Desk(A, queue_max_wait_s=60.0)
    come(desk, "flood", 100)
    serve(desk, 10, 0.2)
    come(desk, "quiet", 2)
    assert serve(desk, 5, 0.2).count("quiet") == 2


def test_pain_25_turns_between_tenants_are_weighed_by_tokens() -> None:
    desk = Desk(A, queue_max_wait_s=60.0)
    come(desk, "long", 20, max_tokens=2950)
    come(desk, "short", 60, max_tokens=950)
    served = serve(desk, 40)
    assert served.count("short") == pytest.approx(3 * served.count("long"), abs=3)


def test_who_is_more_urgent_goes_before_other_tenants_too() -> None:
    desk = Desk(A, queue_max_wait_s=60.0)
    come(desk, "a", priority=LOW)
    come(desk, "b")
    come(desk, "c", priority=HIGH)
    come(desk, "d", priority=CRITICAL)
    assert serve(desk, 4) == ["d", "c", "b", "a"]


def test_low_is_not_starved_within_a_tenant_nor_between_them() -> None:
    desk = Desk(A, queue_max_wait_s=60.0)
    low = come(desk, "", priority=LOW)[0]
    other = come(desk, "other", priority=LOW)[0]
    for _ in range(60):
        come(desk, "", 2, priority=NORMAL)
        serve(desk, 1, 0.25)
    assert not desk.is_waiting(low)
    assert not desk.is_waiting(other)


def test_a_critical_request_waits_behind_those_who_came_long_before() -> None:
    desk = Desk(A, queue_max_wait_s=6.0)
    old = come(desk, "")[0]
    desk.context.advance(2.5)
    come(desk, "", priority=CRITICAL)
    serve(desk, 1)
    assert not desk.is_waiting(old)


def test_pain_25_a_full_queue_makes_room_for_others_at_the_cost_of_who_fills_it() -> None:
    desk = Desk(A, queue_max_length=10)
    flood = come(desk, "flood", 10)
    quiet = come(desk, "quiet", 5)
    assert all(desk.is_waiting(query_id) for query_id in quiet)
    # The flood loses those who came last, until both have as many.
    assert [desk.is_waiting(query_id) for query_id in flood] == [True] * 5 + [False] * 5
    assert desk.refusal(flood[-1]).error == RouteError.QUEUE_FULL
    for tenant in ("flood", "quiet"):
        assert desk.refusal(come(desk, tenant)[0]).error == RouteError.QUEUE_FULL
    assert desk.is_waiting(come(desk, "third")[0])


def test_pain_25_in_a_full_queue_of_an_odd_length_two_tenants_do_not_crowd_each_other_out_in_turns() -> None:
    desk = Desk(A, queue_max_length=3)
    flood, quiet = come(desk, "flood", 3), come(desk, "quiet", 2)
    assert [desk.is_waiting(query_id) for query_id in (*flood, *quiet)] == [True, True, False, True, False]
    for tenant in ("quiet", "flood"):
        assert desk.refusal(come(desk, tenant)[0]).error == RouteError.QUEUE_FULL


def test_nobody_is_crowded_out_in_the_middle_of_a_turn() -> None:
    desk = Desk(A, queue_max_length=2)
    first, second = come(desk, "flood", 2)
    desk.give(CapacityFreed("a", 2))
    newcomer = desk.ask(profile=RequestProfile("m", tenant="quiet"))
    desk.gathered(full("a"))
    assert desk.refusal(newcomer).error == RouteError.QUEUE_FULL
    desk.gathered(bid("a", room=2), fan=-2)
    desk.gathered(bid("a", room=2), fan=-3)
    assert chain(desk.plan(first)) == chain(desk.plan(second)) == ["a"]


def test_pain_12_retry_after_is_ones_place_at_the_pace_of_the_queue() -> None:
    desk = Desk(A, queue_max_wait_s=1000.0, queue_max_length=40)
    come(desk, "", 60)
    serve(desk, 20, 0.5)
    come(desk, "", 20)
    # 40 wait, one goes in half a second.
    refused = desk.refusal(come(desk, "")[0])
    assert refused.error == RouteError.QUEUE_FULL
    assert refused.retry_after_s == pytest.approx(20.5, rel=0.1)


def test_pain_12_retry_after_of_a_quiet_tenant_is_short_in_the_flood_of_another() -> None:
    desk = Desk(A, queue_max_wait_s=1000.0, queue_max_length=40)
    come(desk, "flood", 60)
    serve(desk, 20, 0.5)
    come(desk, "flood", 20)
    # Its deadline is nearer than its turn.
    query_id = desk.ask(profile=RequestProfile("m", tenant="quiet", max_tokens=100), deadline=desk.context.now() + 0.4)
    desk.gathered(full("a"))
    while desk.is_waiting(query_id):
        desk.context.fire(desk.actor)
    assert desk.refusal(query_id).error == RouteError.AT_CAPACITY
    assert desk.refusal(query_id).retry_after_s == pytest.approx(1.0, rel=0.1)


def test_pain_12_retry_after_counts_those_who_leave_by_another_provider() -> None:
    desk = Desk(A, B, queue_max_wait_s=1000.0, queue_max_length=20)
    for _ in range(40):
        desk.ask(profile=RequestProfile("m", max_tokens=100))
        desk.gathered(full("a"), full("b"))
        if len(desk.actor._queue.waiting) < 20:
            continue
        desk.context.advance(0.5)
        name = "ab"[len(desk.context.fans) % 2]
        desk.give(CapacityFreed(name, 1))
        query_id = desk.context.fans[-1].message.query_id
        desk.gathered(*(bid(who) if who == name else full(who) for who in "ab"))
        desk.give(Claimed(query_id, name, True))
        desk.gathered(full("a"), full("b"))
    desk.ask(profile=RequestProfile("m", max_tokens=100))
    desk.gathered(full("a"), full("b"))
    query_id = desk.ask(profile=RequestProfile("m", max_tokens=100))
    desk.gathered(full("a"), full("b"))
    # 20 wait; each of the two frees a place in a second, so one goes in half a second.
    assert desk.refusal(query_id).retry_after_s == pytest.approx(10.5, rel=0.1)


def test_pain_12_retry_after_is_never_before_the_refusal_ends_that_the_queue_waits_for() -> None:
    desk = Desk(A, queue_max_wait_s=1000.0, queue_max_length=1)
    limited = no("a", NoBidReason.RATE_LIMITED, 1030.0)
    for _ in range(2):
        query_id = desk.ask()
        desk.gathered(limited)
        desk.context.advance(1.0)
    assert desk.refusal(query_id).retry_after_s == pytest.approx(29.0)


def test_tenants_leave_nothing_behind() -> None:
    desk = Desk(A)
    ids = [come(desk, f"t{number}")[0] for number in range(50)]
    for query_id in ids:
        desk.give(Withdraw(query_id))
    queue = desk.actor._queue
    assert not any((queue.waiting, queue.lines, queue._tenants))
    assert len(queue._drains) == 1
