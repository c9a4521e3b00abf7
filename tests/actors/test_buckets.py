"""The law of buckets: as full as if only what was used had ever been taken, so that no window admits too much."""

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.buckets import REQUESTS, TOKENS, Bucket, Drawn, Late, Rates, Taking
from messages.limits import LimitsSpec


def about(seconds: float) -> Any:
    """Equal but for rounding."""
    return pytest.approx(seconds)


def bucket(size: float = 100.0, rate_per_s: float = 1.0) -> Bucket:
    return Bucket(size, rate_per_s, 0.0, is_full=True)


def rates(requests: float | None = None, tokens: float | None = None, burst: float | None = None) -> Rates:
    return Rates(LimitsSpec(requests, tokens, None, burst), 0.0, is_full=True)


def test_what_was_not_used_comes_back_at_once() -> None:
    one = bucket()
    taking = one.take(90.0, 0.0)
    taking.settle(10.0, 0.0)
    assert one.level == 90.0


def test_what_was_used_beyond_the_estimate_is_charged() -> None:
    one = bucket()
    one.take(90.0, 0.0).settle(100.0, 5.0)
    assert one.level == 5.0
    one.take(5.0, 5.0).settle(30.0, 5.0)
    assert one.level == -25.0


def test_B3_what_was_refilled_meanwhile_does_not_come_back_a_second_time() -> None:
    """A place that nobody used, given back after its bucket is full again, would let two through at once."""
    one = bucket(size=1.0, rate_per_s=0.1)
    unsent = one.take(1.0, 0.0)
    one.take(1.0, 10.0)
    unsent.settle(0.0, 10.0)
    assert not one.has(1.0, 10.0)
    assert one.has(1.0, 20.0)


def test_B3_only_the_part_that_would_have_fitted_meanwhile_comes_back() -> None:
    one = bucket()
    first = one.take(60.0, 0.0)
    one.take(80.0, 50.0)  # finds 90: had the first never been, it would have found 100
    first.settle(0.0, 50.0)
    assert one.level == 20.0


def test_B3_several_that_end_in_any_order_are_given_back_as_if_none_had_been() -> None:
    for order in ((0, 1), (1, 0)):
        one = bucket()
        both = [one.take(50.0, 0.0), one.take(50.0, 0.0)]
        one.take(50.0, 50.0)
        for index in order:
            both[index].settle(0.0, 50.0)
        assert one.level == 50.0, order


def test_a_long_call_keeps_nothing_of_the_refill_from_others() -> None:
    one = bucket(size=10.0, rate_per_s=1.0)
    one.take(10.0, 0.0)
    assert [one.has(10.0, at) for at in (9.0, 10.0)] == [False, True]


def test_a_taking_of_a_limit_that_is_gone_changes_no_limit_that_came_after() -> None:
    both = rates(60.0, 60.0)
    drawn = both.draw(60, 0.0)
    assert drawn is not None
    both.resize(LimitsSpec(), 0.0)
    both.resize(LimitsSpec(requests_per_minute=60.0, tokens_per_minute=60.0), 0.0)
    again = both.draw(60, 0.0)
    drawn.settle(None, 0.0)
    assert again is not None
    assert both.tokens is not None
    assert both.tokens.level == 0.0


def test_B9_what_is_out_is_settled_under_the_limit_that_holds_then() -> None:
    one = bucket()
    taking = one.take(100.0, 0.0)
    one.resize(50.0, 2.0, 0.0)
    taking.settle(70.0, 0.0)
    assert (one.size, one.level_at(0.0), one.level_at(10.0)) == (50.0, 30.0, 50.0)


def test_a_request_and_its_tokens_are_one_and_the_later_limit_is_told() -> None:
    both = rates(60.0, 600.0, 1.0)
    assert both.late(10, 0.0) is None
    both.draw(10, 0.0)
    assert both.late(5, 0.0) == Late(REQUESTS, about(1.0))
    assert both.late(10, 0.5) == Late(REQUESTS, about(1.0))
    both.draw(10, 1.0)
    tokens = both.tokens
    assert tokens is not None
    tokens.lower_to(-20.0, 1.0)
    assert both.late(10, 1.0) == Late(TOKENS, about(4.0))


def test_without_limits_nothing_is_drawn() -> None:
    assert rates().draw(10**9, 0.0) is None


class Book:
    """What was admitted and what became of it, and what a bucket must hold that saw no estimates but only what was used."""

    def __init__(self, size: float, rate_per_s: float) -> None:
        self.size, self.rate_per_s = size, rate_per_s
        self.entries: list[list[float]] = []
        """(time, amount) in order: admissions, with what was used of the estimate, and what was used beyond it."""

    def level(self, now: float) -> float:
        level, at = self.size, 0.0
        for time, amount in [*self.entries, [now, 0.0]]:
            level = min(self.size, level + (time - at) * self.rate_per_s) - amount
            at = time
        return level

    def largest_excess(self) -> float:
        """The most that any window holds beyond rate x window."""
        sums = [0.0, *accumulate(amount for _, amount in self.entries)]
        times = [time for time, _ in self.entries]
        windows = ((first, last) for last in range(len(times)) for first in range(last + 1))
        return max((sums[j + 1] - sums[i] - (times[j] - times[i]) * self.rate_per_s for i, j in windows), default=0.0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "settle"]),
        st.sampled_from([0.0, 0.0, 0.5, 3.0, 20.0, 100.0]),
        st.integers(0, 150),
        st.integers(0, 40),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.sampled_from([0.5, 1.0, 7.0]))
@example([("take", 0.0, 50, 0), ("take", 0.0, 50, 0), ("take", 50.0, 50, 0), ("settle", 0.0, 0, 0), ("settle", 0.0, 0, 0)], 1.0)
def test_B3_B4_a_bucket_is_as_full_as_if_only_what_was_used_had_been_taken_and_no_window_admits_more_than_limit_and_burst(
    steps: list[tuple[str, float, int, int]], rate_per_s: float
) -> None:
    one, book, now = bucket(rate_per_s=rate_per_s), Book(100.0, rate_per_s), 0.0
    out, largest_debt = list[tuple[Taking, list[float]]](), 0.0
    for what, passed_s, amount, which in steps:
        now += passed_s
        if what == "take":
            if not one.has(float(amount), now):
                assert (one.ready_at(float(amount), now) or 0.0) > now
                continue
            entry = [now, float(amount)]
            book.entries.append(entry)
            out.append((one.take(float(amount), now), entry))
            largest_debt = max(largest_debt, amount - one.size)
        elif out:
            taking, entry = out.pop(which % len(out))
            reserved = entry[1]
            taking.settle(float(amount), now)
            entry[1] = min(reserved, float(amount))
            if amount > reserved:
                book.entries.append([now, amount - reserved])
                largest_debt += amount - reserved
        assert one.level_at(now) == pytest.approx(book.level(now), abs=1e-3)
        assert one.flaw() is None
    assert book.largest_excess() <= one.size + largest_debt + 1e-3


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_B3_D1_requests_that_were_sent_never_exceed_limit_and_burst_in_any_window(
    steps: list[tuple[str, float, int, int]],
) -> None:
    """Whatever was reserved and never sent, however late that is known."""
    both, now = rates(60.0, 6000.0, 3.0), 0.0
    out, sent = list[tuple[Drawn, float]](), list[float]()
    for what, passed_s, amount, which in steps:
        now += passed_s
        if what == "take":
            if both.late(amount, now) is None:
                drawn = both.draw(amount, now)
                assert drawn is not None
                out.append((drawn, now))
        elif out:
            drawn, taken_at = out.pop(which % len(out))
            is_sent = amount % 2 == 0
            drawn.settle(amount if is_sent else None, now)
            if is_sent:
                sent.append(taken_at)
    sent = sorted([*sent, *(taken_at for _, taken_at in out)])
    for first, since in enumerate(sent):
        for count, until in enumerate(sent[first:], start=1):
            assert count <= 3.0 + (until - since) + 1e-3
