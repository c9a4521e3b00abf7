"""The adaptive limit alone: how it moves with the three verdicts, and what it finds at a provider with hidden capacity."""

from dataclasses import dataclass
from heapq import heappop, heappush
from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.provider.concurrency import LIMIT_FIRST, LIMIT_MAX, AdaptiveLimit, Sample

KIND = "stream m"
QUICK_S = 0.2


def window(limit: AdaptiveLimit, now: float, first_s: float = QUICK_S, beside: int | None = None, count: int = 0) -> float:
    """A window of calls sent at ``now`` and answered ``first_s`` later, each beside ``beside`` out. Returns when it is over."""
    for _ in range(count or max(10, limit.limit)):
        out = limit.limit if beside is None else beside
        limit.succeeded(Sample(KIND, now, out, limit.is_at_ease(out), first_s), now + first_s)
    return now + first_s + 0.001


def eased(limit: AdaptiveLimit) -> float:
    """Show it the provider at ease; returns the time."""
    now = window(limit, 0.0, beside=1, count=20)
    limit.ended(KIND, 1.0)
    return now


def test_it_begins_at_the_first_limit_and_grows_by_half_until_first_hindered() -> None:
    limit = AdaptiveLimit(0.0)
    assert limit.limit == LIMIT_FIRST
    now = window(limit, eased(limit))

    assert limit.limit == LIMIT_FIRST * 3 // 2

    limit.dropped(now, limit.limit, now)
    before = limit.limit
    for later_s in (100.0, 101.0, 102.0):
        window(limit, now + later_s)
    assert before < limit.limit <= before + 5


def test_it_grows_only_while_it_is_used() -> None:
    limit = AdaptiveLimit(0.0)
    now = eased(limit)

    for _ in range(3):
        now = window(limit, now, beside=LIMIT_FIRST // 2 + 2)

    assert limit.limit == LIMIT_FIRST


def test_it_shrinks_when_first_contents_come_late() -> None:
    limit = AdaptiveLimit(0.0)
    now = eased(limit)
    window(limit, now, first_s=QUICK_S + 2.0)

    assert limit.limit == LIMIT_FIRST * 3 // 4


def test_a_refusal_for_load_takes_a_fifth_once_for_all_calls_that_were_out_together() -> None:
    limit = AdaptiveLimit(0.0)
    for _ in range(LIMIT_FIRST):
        limit.dropped(1.0, LIMIT_FIRST, 2.0)
    assert limit.limit == int(0.8 * LIMIT_FIRST)

    limit.dropped(3.0, LIMIT_FIRST, 4.0)
    assert limit.limit == int(0.64 * LIMIT_FIRST)


def test_a_refusal_while_few_calls_were_out_is_a_rate_that_was_reached_and_changes_nothing() -> None:
    limit = AdaptiveLimit(0.0)
    limit.dropped(1.0, LIMIT_FIRST // 2, 2.0)

    assert limit.limit == LIMIT_FIRST


def test_near_where_a_call_was_refused_lately_it_creeps() -> None:
    limit = AdaptiveLimit(0.0)
    now = eased(limit)
    limit.dropped(now, LIMIT_FIRST, now)
    assert limit.limit == 12
    for _ in range(3):
        now = window(limit, now)

    # Up to nine tenths of where it was refused as ever, by two in each window; from there by a quarter.
    assert limit.limit in (13, 14)


def test_from_time_to_time_it_is_halved_until_ten_calls_have_shown_the_provider_at_ease() -> None:
    # Given a limit that has lived through four windows in which nobody was seen at ease
    limit = AdaptiveLimit(0.0)
    now = eased(limit)
    for _ in range(4):
        full = limit.limit
        now = window(limit, now, first_s=QUICK_S + 0.3)

    # Then it is halved, for ten calls
    assert limit.limit == full // 2
    now = window(limit, now, count=9)
    assert limit.limit == full // 2
    window(limit, now, count=1)
    assert limit.limit == full


def test_what_nobody_can_believe_teaches_nothing() -> None:
    limit = AdaptiveLimit(0.0)
    before = repr(limit)
    for first_s in (float("nan"), float("inf"), -1.0):
        limit.succeeded(Sample(KIND, 0.0, LIMIT_FIRST, False, first_s), 1.0)

    assert repr(limit) == before


EVENTS = st.one_of(
    st.tuples(st.just("succeeded"), st.floats(0.0, 1e5), st.integers(1, 2000)),
    st.tuples(st.just("dropped"), st.floats(0.0, 100.0), st.integers(1, 2000)),
    st.tuples(st.just("ended"), st.floats(allow_nan=True, allow_infinity=True), st.integers(1, 1)),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0.0, 30.0), st.integers(0, 20)), max_size=300))
def test_whatever_happens_it_stays_within_its_bounds_and_a_drop_never_raises_it(
    events: list[tuple[tuple[str, float, int], float, int]],
) -> None:
    limit, now = AdaptiveLimit(0.0), 0.0
    for (what, seconds, beside), passed_s, kind in events:
        now += passed_s
        before = limit.limit
        if what == "succeeded":
            sample = Sample(f"k{kind}", max(0.0, now - seconds), beside, limit.is_at_ease(beside), seconds)
            limit.succeeded(sample, now)
        elif what == "dropped":
            limit.dropped(max(0.0, now - seconds), beside, now)
            assert limit.limit <= before
        else:
            limit.ended(f"k{kind}", seconds)
            assert limit.limit == before
        assert limit.flaw() is None
        assert 1 <= limit.limit <= LIMIT_MAX


@given(st.lists(st.floats(0.001, 100.0), max_size=300))
def test_however_slow_the_answers_of_few_calls_the_limit_never_grows_over_twice_what_is_used(times_s: list[float]) -> None:
    limit, now = AdaptiveLimit(0.0), 0.0
    for first_s in times_s:
        now += first_s
        limit.succeeded(Sample(KIND, now - first_s, 2, limit.is_at_ease(2), first_s), now)

    assert limit.limit <= LIMIT_FIRST


@dataclass
class Found:
    """What the limit came to at a provider, over the last third of the time."""

    limits: list[int]
    served: int
    refused: int
    sent: int

    @property
    def mean(self) -> float:
        return sum(self.limits) / len(self.limits)


class Backlog:
    """A provider that serves ``capacity`` calls at once, and callers without end. Times in s, of its own."""

    def __init__(self, capacity: int, first_s: float, rest_s: float, *, refuses: bool, seed: int) -> None:
        self.capacity, self.first_s, self.rest_s, self.refuses = capacity, first_s, rest_s, refuses
        self.rng = Random(seed)
        self.limit = AdaptiveLimit(0.0)
        self.now = 0.0
        self.out = self.serving = self.sent = self.served = self.refused = 0
        self.line: list[tuple[float, int, bool]] = []
        self.events: list[tuple[float, int, str, tuple[float, int, bool]]] = []
        self.pause_until = 0.0

    def later(self, delay_s: float, what: str, call: tuple[float, int, bool]) -> None:
        heappush(self.events, (self.now + delay_s, self.sent * 4 + len(what) % 4, what, call))

    def begin(self, call: tuple[float, int, bool]) -> None:
        self.serving += 1
        first_s = self.first_s * exp(self.rng.gauss(0.0, 0.3))
        self.later(first_s, "content", call)
        self.later(first_s + self.rest_s * exp(self.rng.gauss(0.0, 0.3)), "end", call)

    def send(self) -> None:
        self.out += 1
        self.sent += 1
        call = (self.now, self.out, self.limit.is_at_ease(self.out))
        if self.serving < self.capacity:
            self.begin(call)
        elif self.refuses:
            self.later(0.05, "refused", call)
        else:
            self.line.append(call)

    def happen(self, what: str, call: tuple[float, int, bool]) -> None:
        sent_at, beside, is_at_ease = call
        if what == "content":
            self.limit.succeeded(Sample(KIND, sent_at, beside, is_at_ease, self.now - sent_at), self.now)
            return
        self.out -= 1
        if what == "refused":
            self.refused += 1
            self.limit.dropped(sent_at, beside, self.now)
            self.pause_until = self.now + 0.1
            return
        self.serving -= 1
        self.served += 1
        if is_at_ease:
            self.limit.ended(KIND, self.now - sent_at)
        if self.line:
            self.begin(self.line.pop(0))

    def play(self, for_s: float) -> Found:
        limits: list[int] = []
        while self.now < for_s:
            while self.out < self.limit.limit and self.now >= self.pause_until:
                self.send()
            if not self.events:
                self.now = self.pause_until
                continue
            self.now, _, what, call = heappop(self.events)
            self.happen(what, call)
            if self.now > for_s * 2 / 3:
                limits.append(self.limit.limit)
        return Found(limits, self.served, self.refused, self.sent)


@pytest.mark.parametrize("capacity", [4, 16, 64])
@pytest.mark.parametrize(("first_s", "rest_s"), [(0.5, 2.0), (0.2, 10.0), (2.0, 0.1)])
def test_hidden_capacity_behind_a_line_is_found_within_a_factor_of_two(capacity: int, first_s: float, rest_s: float) -> None:
    found = Backlog(capacity, first_s, rest_s, refuses=False, seed=1).play(100.0 * (first_s + rest_s))

    assert capacity / 1.2 <= found.mean <= 2.0 * capacity
    # And hardly any of it lies idle: what could be served in this time, less the spread of the times.
    assert found.served >= 0.85 * capacity * 100


@pytest.mark.parametrize("capacity", [2, 16, 64])
def test_hidden_capacity_beyond_which_calls_are_refused_is_found_and_few_are_refused(capacity: int) -> None:
    found = Backlog(capacity, 0.5, 2.0, refuses=True, seed=1).play(1000.0)

    assert capacity / 1.4 <= found.mean <= 1.1 * capacity
    assert found.refused <= 0.1 * found.sent
    assert found.served >= 0.8 * capacity * 400
