"""That the laws of every run are looked at by something that would see them broken."""

from dataclasses import replace

import pytest

from messages.calls import AttemptKind, Award, CallEnded, Outcome
from messages.control import FailoverSpec, LimitsSpec, RoutingSpec
from messages.envelope import Envelope
from messages.failures import Blame, Failure, Retry, Scope
from messages.routing import RequestProfile, RouteQuery
from runtime.courier.retries import RetryBudgets
from tests.system.house_books import Books, documented_errors
from tests.system.house_watch import Draw, Terms, over_rate, over_tokens

TEN = LimitsSpec(requests_per_minute=60.0, burst=10.0)
TWO = LimitsSpec(requests_per_minute=30.0, burst=2.0)
FOR_NOW = Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, "http_503", retry_after_s=2.0)
FOR_GOOD = Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.ELSEWHERE, "http_503")


def terms(*since: tuple[float, LimitsSpec]) -> Terms:
    found = Terms()
    for at, limits in since:
        found.change(at, limits)
    return found


def test_a_window_that_admitted_more_than_limit_and_burst_is_seen() -> None:
    held = terms((0.0, TEN))

    assert over_rate([0.0] * 10 + [1.0, 2.0, 3.0], held) == []
    assert over_rate([0.0] * 10 + [1.0, 1.5], held) != []


def test_a_window_in_which_limits_changed_is_measured_by_each_for_its_time() -> None:
    held = terms((0.0, TEN), (60.0, TWO))

    assert over_rate([60.0] * 10 + [62.0], held) == []
    assert over_rate([60.0] * 10 + [61.0], held) != []
    assert over_rate([100.0] * 3, held) != []


def test_no_window_reaches_over_a_time_without_limits_or_the_begin_of_another_actor() -> None:
    held = terms((0.0, TEN))
    held.begin_anew(5.0)
    held.change(5.0, TEN)

    assert over_rate([0.0] * 10 + [5.0] * 10, held) == []
    assert over_rate([6.0] * 11, held) != []


HUNDRED = LimitsSpec(requests_per_minute=60.0, tokens_per_minute=600.0, burst=10.0)
"""Ten tokens a second, and a bucket of a hundred."""


def draws(*calls: tuple[float, int]) -> list[Draw]:
    """Calls by their time and what was reserved for them; nobody knows yet what they use."""
    return [Draw(at, reserved, number, 100.0) for number, (at, reserved) in enumerate(calls)]


@pytest.mark.parametrize(
    ("calls", "is_seen"),
    [
        ([(0.0, 60), (0.0, 40), (1.0, 10)], False),
        ([(0.0, 60), (0.0, 40), (1.0, 15)], True),
        ([(0.0, 500)], False),
        ([(0.0, 50), (0.0, 500)], True),
        ([(0.0, 500), (40.0, 10)], True),
        ([(0.0, 500), (41.5, 10)], False),
    ],
    ids=[
        "what flows in", "more than flows in", "larger than the bucket, which is full", "larger than the bucket, which is not",
        "while it is in debt", "when the debt is paid",
    ],
)  # fmt: skip
def test_a_window_that_admitted_more_tokens_than_limit_and_burst_is_seen(calls: list[tuple[float, int]], is_seen: bool) -> None:
    assert bool(over_tokens(draws(*calls), terms((0.0, HUNDRED)))) == is_seen


@pytest.mark.parametrize(
    ("used", "is_known", "is_seen"),
    [(10, True, False), (10, False, True), (100, True, True), (0, True, False)],
    ids=["less", "less, which nobody knows yet", "as reserved", "nothing"],
)
def test_what_a_call_has_used_counts_from_its_end_on_in_place_of_what_was_reserved(
    used: int, is_known: bool, is_seen: bool
) -> None:
    first, second = draws((0.0, 100), (0.0, 90))
    first.used, first.settled = used, 0.5 if is_known else 1.5

    assert bool(over_tokens([first, second], terms((0.0, HUNDRED)))) == is_seen


def test_two_bursts_in_one_window_are_seen_though_each_was_reserved_from_a_full_bucket() -> None:
    # The first reservation is given back when the bucket has filled up again, and the second was made of that.
    calls = draws((0.0, 100), (10.0, 100), (10.0, 90))
    calls[0].used, calls[0].settled = 10, 1.5

    assert over_tokens(calls, terms((0.0, HUNDRED))) == ["190 tokens between 10.0 and 10.0, at most 100 may be"]


def test_a_larger_bucket_of_the_same_moment_is_none_for_the_call_before_it() -> None:
    held = terms((0.0, HUNDRED), (1.0, LimitsSpec(tokens_per_minute=600.0)))
    larger = Draw(1.0, 500, 2, 100.0)

    assert over_tokens([larger], held) == []
    assert over_tokens([*draws((0.9, 5)), larger], held) != []


def test_what_was_used_beyond_the_estimate_is_owed() -> None:
    calls = draws((0.0, 10), (1.0, 10))
    calls[0].used, calls[0].settled = 200, 0.5

    assert over_tokens(calls, terms((0.0, HUNDRED))) != []


def test_who_limits_no_tokens_is_not_watched_for_them() -> None:
    assert over_tokens(draws((0.0, 10_000), (0.0, 10_000)), terms((0.0, TEN))) == []


def told(books: Books, to: str, message: Award | CallEnded | RouteQuery, now: float) -> None:
    books.see(to, Envelope(message, "courier"), now)


def award(number: int, provider: str) -> tuple[str, Award]:
    return f"provider:{provider}", Award(f"q/{number}", "q", "m", 1, False)


def failed(number: int, provider: str, failure: Failure) -> tuple[str, CallEnded]:
    return f"provider:{provider}", CallEnded(f"q/{number}", "q", provider, "m", Outcome.FAILED, False, 1.0, failure=failure)


@pytest.mark.parametrize(("failure", "at", "is_seen"), [(FOR_NOW, 2.9, True), (FOR_NOW, 3.0, False), (FOR_GOOD, 99.0, True)])
def test_pain_11_who_is_asked_again_before_its_time_is_seen(failure: Failure, at: float, is_seen: bool) -> None:
    books = Books()
    told(books, *award(1, "a"), 0.0)
    told(books, *failed(1, "a", failure), 1.0)
    told(books, *award(2, "a"), at)

    assert bool(books.wrongs) == is_seen


def test_pain_11_who_is_asked_although_it_is_in_the_tried_set_is_seen() -> None:
    books = Books()
    told(books, "router", RouteQuery("q", RequestProfile("m"), 9.0, 0.0, ("a",)), 0.0)
    told(books, *award(1, "b"), 0.0)
    assert books.wrongs == []
    told(books, *award(2, "a"), 0.0)
    assert books.wrongs != []


def test_pain_13_calls_beyond_the_attempts_and_repeats_beyond_their_share_are_seen() -> None:
    books = Books()
    for number in range(1, 14):
        told(books, *failed(number, "a", FOR_NOW), 10.0 * number)

    found = books.at_the_end(RoutingSpec(failover=FailoverSpec(max_attempts=12, retry_share=0.5)))
    assert found == ["q made 13 calls, 12 may be", "a was called again 12 times, 10.5 may be"]
    assert books.at_the_end(RoutingSpec(failover=FailoverSpec(max_attempts=13, retry_share=2.0))) == []


def test_who_was_taken_out_and_came_back_has_a_new_budget_for_repeats() -> None:
    books, budgets = Books(), RetryBudgets(0.0)
    books.follow(budgets)
    for number in range(1, 22):
        told(books, *failed(number, "a", FOR_NOW), 10.0 * number)
    budgets.spend("a")
    routing = RoutingSpec(failover=FailoverSpec(max_attempts=99, retry_share=0.0))

    budgets.reconfigure(0.0, {"a"})
    assert books.at_the_end(routing) == ["a was called again 20 times, 10.0 may be"]
    budgets.reconfigure(0.0, {"b"})
    assert books.at_the_end(routing) == []


def test_hedges_beyond_their_share_of_requests_are_seen() -> None:
    books = Books()
    for number in range(30):
        # A request each, but for those that were tried before; the router crashed on it, so that it was asked again.
        for _ in range(2):
            told(books, "router", RouteQuery(f"q{number}", RequestProfile("m"), 9.0, 0.0, ("a",) * (number % 3 == 0)), 0.0)
    to, end = failed(1, "b", FOR_NOW)
    told(books, to, replace(end, kind=AttemptKind.HEDGE), 0.0)
    assert books.at_the_end(RoutingSpec()) == []
    told(books, to, replace(end, query_id="another", kind=AttemptKind.HEDGE), 0.0)
    assert books.at_the_end(RoutingSpec()) == ["2 hedges of 20 requests, a share of 0.05 may be"]


def test_the_errors_that_are_documented_are_found() -> None:
    assert {(503, "overloaded"), (500, "internal_error"), (504, "deadline_exceeded")} <= documented_errors()
