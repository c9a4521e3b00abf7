"""``max_concurrency: auto`` in the provider actor: what its calls tell the limit, and what the limit tells the router."""

from dataclasses import replace

from actors.provider.concurrency import LIMIT_FIRST
from messages.calls import CallEnded, ContentStarted, Granted, Outcome, RefusalReason, Refused
from messages.control import LimitsSpec
from messages.failures import Blame, Failure, Retry, Scope
from messages.routing import NoBid, NoBidReason
from tests.actors.test_provider import World

AUTO = LimitsSpec(adaptive=True)
DROPS = {
    "429": Failure(Blame.UPSTREAM, Scope.BUCKET, Retry.LATER, "http_429", 429, is_overload=True),
    "503": Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, "http_503", 503, is_overload=True),
    "first byte": Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.ELSEWHERE, "first_byte_timeout"),
}
TELL_NOTHING = {
    "the client's error": Failure(Blame.CLIENT, Scope.NONE, Retry.NEVER, "http_400", 400),
    "a bad key": Failure(Blame.UPSTREAM, Scope.CREDENTIAL, Retry.ELSEWHERE, "http_401", 401),
    "another failure of its own": Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, "http_500", 500),
    "no money": Failure(Blame.UPSTREAM, Scope.BUCKET, Retry.ELSEWHERE, "insufficient_quota", 429),
    "a broken connection": Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, "broken"),
    "the deadline": Failure(Blame.CLIENT, Scope.NONE, Retry.NEVER, "deadline"),
}


def full(world: World) -> list[str]:
    """Awards until no more are granted; returns the permits."""
    out: list[str] = []
    while isinstance(world.award(permit_id := f"{world.context.time}/{len(out)}", stream=True), Granted):
        out.append(permit_id)
    return out


def test_as_many_calls_as_the_limit_are_granted_and_the_report_says_how_many() -> None:
    world = World(limits=AUTO)

    assert len(full(world)) == LIMIT_FIRST
    assert world.report().concurrency_limit == LIMIT_FIRST
    answer = world.award("one too many")
    assert isinstance(answer, Refused)
    assert answer.reason is RefusalReason.AT_CAPACITY
    assert world.bid() == NoBid("a", NoBidReason.AT_CAPACITY, None, f"it takes {LIMIT_FIRST} at once now")


def test_without_auto_the_report_shows_the_limit_as_configured_or_none() -> None:
    assert World(limits=LimitsSpec(max_concurrency=7)).report().concurrency_limit == 7
    assert World().report().concurrency_limit is None


def test_a_refusal_for_load_lowers_the_limit() -> None:
    for name, failure in DROPS.items():
        world = World(limits=AUTO)
        out = full(world)
        world.end(out[-1], Outcome.FAILED, failure=failure, stream=True)
        assert world.report().concurrency_limit == 12, name


def test_what_measures_nothing_changes_nothing() -> None:
    for name, failure in TELL_NOTHING.items():
        world = World(limits=AUTO)
        world.end(full(world)[-1], Outcome.FAILED, failure=failure, stream=True)
        assert world.report().concurrency_limit == LIMIT_FIRST, name
    # A stream that has begun and is not done in time is long, and may be served as well as any.
    world, late = World(limits=AUTO), Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.NEVER, "total_timeout", 200)
    world.end(full(world)[-1], Outcome.FAILED, failure=late, stream=True, after_content=True)
    assert world.report().concurrency_limit == LIMIT_FIRST
    for outcome in (Outcome.CANCELLED, Outcome.LOST_HEDGE, Outcome.NOT_SENT, Outcome.DRAINED):
        world = World(limits=AUTO)
        world.end(full(world)[-1], outcome, stream=True, duration_s=100.0)
        assert world.report().concurrency_limit == LIMIT_FIRST, outcome


def test_when_the_limit_grows_the_router_is_told_that_there_is_room() -> None:
    # Given a provider whose every place is taken, seen at ease when half of them were
    world = World(limits=AUTO)
    for _ in range(3):
        out = full(world)
        world.context.time += 0.2
        world.context.take_told()
        for permit_id in out:
            world.give(ContentStarted(permit_id, 0.2))

        # When all are answered as quickly as ever, then the limit has grown and the router knows
        if (world.report().concurrency_limit or 0) > LIMIT_FIRST:
            assert world.freed()
            return
        for permit_id in out:
            world.give(CallEnded(permit_id, "q", "a", "m", Outcome.SUCCESS, True, 0.4, 0.2))
    raise AssertionError("the limit never grew")


def test_a_lowered_limit_drains_down_and_only_then_there_is_room() -> None:
    world = World(limits=AUTO)
    out = full(world)
    world.end(out.pop(), Outcome.FAILED, failure=DROPS["503"], stream=True)
    world.context.take_told()
    freed = []
    while out:
        world.end(out.pop(), Outcome.CANCELLED)
        freed.append((len(out), bool(world.freed())))

    assert all(is_told == (left < 12) for left, is_told in freed)


def test_a_new_endpoint_begins_anew_and_a_number_replaces_what_was_found() -> None:
    world = World(limits=AUTO)
    out = full(world)
    world.end(out.pop(), Outcome.FAILED, failure=DROPS["503"], stream=True)
    assert world.report().concurrency_limit == 12

    world.reconfigure(2, limits=replace(AUTO, requests_per_minute=6000.0))
    assert world.report().concurrency_limit == 12
    world.reconfigure(3, endpoint="http://elsewhere", limits=AUTO)
    assert world.report().concurrency_limit == LIMIT_FIRST
    world.reconfigure(4, endpoint="http://elsewhere", limits=LimitsSpec(max_concurrency=3))
    assert world.report().concurrency_limit == 3
    world.reconfigure(5, endpoint="http://elsewhere", limits=AUTO)
    assert world.report().concurrency_limit == LIMIT_FIRST


def test_after_a_crash_it_begins_no_higher_than_what_was_found() -> None:
    world = World(limits=AUTO)
    world.end(full(world)[-1], Outcome.FAILED, failure=DROPS["503"], stream=True)
    world.crash()

    assert world.report().concurrency_limit == 12
