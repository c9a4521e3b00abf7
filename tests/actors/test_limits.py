"""Requests and tokens per minute and calls at once, taken together or not at all (FEATURES B3, D1)."""

from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.buckets import Drawn
from actors.provider.limits import BLOCK_S_MAX, Hindrance, Hold, Limits
from messages.calls import LimitsSeen
from messages.control import LimitsSpec


def about(seconds: float) -> Any:
    """Equal but for rounding."""
    return pytest.approx(seconds)


def limits(**spec: Any) -> Limits:
    return Limits(LimitsSpec(**spec), 0.0, is_full=True)


def reserve(of: Limits, tokens: int, now: float) -> Hold | None:
    """As the actor does: look, then take. None: taken."""
    hold = of.hold(tokens, now)
    if hold is None:
        of.take(tokens, now)
    return hold


def test_without_limits_everything_is_taken() -> None:
    free = limits()
    assert all(reserve(free, 10**9, 0.0) is None for _ in range(1000))
    assert free.room is None


def test_B3_calls_at_once_are_limited_and_an_end_makes_room() -> None:
    two = limits(max_concurrency=2)
    assert [reserve(two, 1, 0.0) for _ in range(2)] == [None, None]
    hold = reserve(two, 1, 0.0)
    assert hold is not None
    assert (hold.why, hold.retry_at) == (Hindrance.CAPACITY, None)
    assert hold.detail == "our limit max_concurrency"
    two.release()
    assert two.room == 1
    assert reserve(two, 1, 0.0) is None


def test_a_minute_of_requests_can_go_at_once_then_they_come_as_the_bucket_refills() -> None:
    sixty = limits(requests_per_minute=60)
    assert all(reserve(sixty, 1, 0.0) is None for _ in range(60))
    hold = reserve(sixty, 1, 0.0)
    assert hold is not None
    assert hold.retry_at == about(1.0)
    assert reserve(sixty, 1, 0.99) is not None
    assert reserve(sixty, 1, hold.retry_at or 0.0) is None


def test_a_burst_bounds_both_buckets_in_proportion() -> None:
    bucket = limits(requests_per_minute=60, tokens_per_minute=6000, burst=6)
    assert bucket.requests is not None
    assert bucket.tokens is not None
    assert (bucket.requests.size, bucket.tokens.size) == (6, 600)


def test_a_reservation_takes_all_or_nothing() -> None:
    both = limits(requests_per_minute=60, tokens_per_minute=1000)
    assert reserve(both, 900, 0.0) is None
    assert reserve(both, 900, 0.0) is not None
    assert both.requests is not None
    assert both.requests.level == 59
    assert both.in_flight == 1


def test_a_request_larger_than_the_bucket_is_taken_when_it_is_full_and_leaves_a_debt() -> None:
    small = limits(tokens_per_minute=600)
    assert reserve(small, 1200, 0.0) is None
    hold = small.hold(1, 0.0)
    assert hold is not None
    assert hold.retry_at == pytest.approx(60.1)
    assert small.hold(1200, 119.0) is not None
    assert small.hold(1200, 120.0) is None


def test_a_retry_after_blocks_until_then_and_ten_minutes_at_most() -> None:
    free = limits()
    free.block(7.0, 100.0)
    hold = free.hold(1, 106.9)
    assert hold is not None
    assert hold == Hold(Hindrance.RATE, 107.0, "it said so itself")
    assert free.hold(1, 107.0) is None
    free.block(1e9, 100.0)
    assert (BLOCK_S_MAX, free.blocked_until) == (600.0, 700.0)
    assert free.hold(1, 700.0) is None


def test_of_two_waits_that_a_provider_names_the_later_end_counts() -> None:
    free = limits()
    free.block(7.0, 100.0)
    free.block(1.0, 102.0)
    assert free.blocked_until == 107.0
    free.see(LimitsSeen(remaining_requests=0, reset_requests_s=0.5), 103.0)
    assert free.blocked_until == 107.0


def test_refusals_that_name_no_wait_back_off_until_a_call_is_answered() -> None:
    free, waits = limits(), []
    for _ in range(7):
        now = free.blocked_until
        free.block(None, now)
        waits.append(free.blocked_until - now)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    free.answered()
    now = free.blocked_until
    free.block(inf, now)
    assert free.blocked_until - now == 1.0


def test_what_the_provider_says_is_left_lowers_a_bucket_and_never_raises_it() -> None:
    bucket = limits(requests_per_minute=60)
    assert bucket.requests is not None
    bucket.see(LimitsSeen(remaining_requests=10), 0.0)
    assert bucket.requests.level == 10
    bucket.see(LimitsSeen(remaining_requests=1000), 0.0)
    assert bucket.requests.level == 10


def test_what_was_left_when_a_call_was_taken_is_compared_with_what_was_left_here_then() -> None:
    """A call takes its time: what both buckets have refilled since is not lost, and what was taken since is not had twice."""
    bucket = limits(requests_per_minute=60)
    requests = bucket.requests
    assert requests is not None
    first, second, *_ = [bucket.take(0, 0.0) for _ in range(20)]
    assert requests.level == 40
    bucket.see(LimitsSeen(remaining_requests=29), 5.0, first)  # Thirty were there, and sixty here, before the first.
    assert requests.level_at(5.0) == 30 - 20 + 5
    bucket.see(LimitsSeen(remaining_requests=28), 6.0, second)  # That is known by now.
    assert requests.level_at(6.0) == 30 - 20 + 6


def test_nothing_left_blocks_for_a_moment_where_we_have_no_bucket() -> None:
    free = limits()
    free.see(LimitsSeen(remaining_tokens=0, reset_tokens_s=0.5), 0.0)
    assert free.hold(1, 0.4) is not None
    assert free.hold(1, 0.5) is None
    free.see(LimitsSeen(remaining_requests=0, reset_requests_s=3600.0), 1.0)
    assert free.hold(1, 3.0) is None


def test_B9_new_limits_keep_what_is_out_and_what_is_in_the_bucket() -> None:
    bucket = limits(requests_per_minute=60, max_concurrency=5)
    for _ in range(4):
        reserve(bucket, 1, 0.0)
    bucket.reconfigure(LimitsSpec(requests_per_minute=6000, max_concurrency=2), 0.0)
    assert bucket.requests is not None
    assert (bucket.requests.level, bucket.in_flight, bucket.room) == (56, 4, 0)
    bucket.reconfigure(LimitsSpec(requests_per_minute=10), 0.0)
    assert bucket.requests is not None
    assert bucket.requests.level == 10


def test_pain_28_a_refusal_tells_which_limit_lasts_longest_and_who_set_it() -> None:
    both = limits(requests_per_minute=60, tokens_per_minute=600, burst=1)
    assert reserve(both, 5, 0.0) is None
    assert both.hold(1, 0.0) == Hold(Hindrance.RATE, about(1.0), "our limit requests_per_minute")
    both.block(0.5, 0.0)
    assert both.hold(1, 0.0) == Hold(Hindrance.RATE, about(1.0), "our limit requests_per_minute")
    both.block(7.0, 0.0)
    assert both.hold(1, 0.0) == Hold(Hindrance.RATE, 7.0, "it said so itself")


def test_after_a_restart_the_buckets_refill_from_nothing_or_from_the_debt_there_was() -> None:
    before = limits(requests_per_minute=60, tokens_per_minute=600)
    assert reserve(before, 900, 100.0) is None
    after = limits(requests_per_minute=60, tokens_per_minute=600)
    after.empty_after(before, 100.0)
    assert after.requests is not None
    assert after.tokens is not None
    assert (after.requests.level, after.tokens.level) == (0.0, -300.0)
    assert after.hold(1, 129.0) is not None
    assert after.hold(1, 130.5) is None


def test_what_was_taken_before_a_restart_comes_back_to_nobody_but_is_charged_for() -> None:
    after = limits(requests_per_minute=60, tokens_per_minute=600)
    after.empty_after(limits(), 0.0)
    unused, overdrawn = after.restore(500), after.restore(100)
    assert after.in_flight == 2
    assert unused is not None
    assert overdrawn is not None
    assert after.tokens is not None
    unused.settle(None, 0.0)
    assert after.tokens.level == 0.0
    overdrawn.settle(150, 0.0)
    assert after.tokens.level == -50.0


STEPS = st.lists(
    st.tuples(
        st.floats(0.0, 20.0),
        st.sampled_from(["reserve", "reserve", "end", "end unsent", "see"]),
        st.integers(0, 3000),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.floats(1.0, 600.0), st.floats(10.0, 6000.0), st.one_of(st.none(), st.floats(1.0, 100.0)))
def test_B3_D1_no_window_sends_more_than_limit_and_burst_whatever_the_order(
    steps: list[tuple[float, str, int]], per_minute: float, tokens_per_minute: float, burst: float | None
) -> None:
    both = Limits(LimitsSpec(per_minute, tokens_per_minute, None, burst), 0.0, is_full=True)
    now, out, sent = 0.0, list[tuple[float, Drawn]](), list[float]()
    for passed_s, what, amount in steps:
        now += passed_s
        if what == "reserve":
            hold = both.hold(amount, now)
            if hold is None:
                drawn = both.take(amount, now)
                assert drawn is not None
                out.append((now, drawn))
            else:
                assert hold.retry_at is not None
                assert hold.retry_at > now
        elif what == "see":
            told_of = out[amount % len(out)][1] if out and amount % 2 else None
            both.see(LimitsSeen(amount, 1.0, amount, 1.0), now, told_of)
        elif out:
            taken_at, drawn = out.pop(amount % len(out))
            both.release()
            drawn.settle(amount if what == "end" else None, now)
            if what == "end":
                sent.append(taken_at)
        assert both.flaw() is None
        assert both.in_flight == len(out)
    sent = sorted([*sent, *(taken_at for taken_at, _ in out)])
    size = per_minute if burst is None else burst
    for first, since in enumerate(sent):
        for count, until in enumerate(sent[first:], start=1):
            assert count <= size + (until - since) * per_minute / 60.0 + 1e-3 + 1e-4 * size
