"""Why there is no plan: one error, one sentence, and when to ask again."""

import pytest

from actors.router.verdict import NAMED_MAX
from messages.policy import TenantSpec
from messages.routing import Hints, NoBid, NoBidReason, NoRoute, RequestProfile, RouteError
from tests.actors.router_kit import Desk, bid, no, provider

R = NoBidReason
E = RouteError
A, B = (provider(name, "m") for name in "ab")


def refused(*answers: NoBid, **fields: object) -> NoRoute:
    desk = Desk(A, B)
    query_id = desk.ask(may_wait=False, **fields)  # type: ignore[arg-type] # fields of RouteQuery
    if desk.context.fans:
        desk.gathered(*answers)
    return desk.refusal(query_id)


def test_A7_an_unknown_model_is_answered_at_once() -> None:
    desk = Desk(A)
    (answer,) = desk.context.replies if desk.ask("typo") and desk.context.replies else (None,)
    assert isinstance(answer, NoRoute)
    assert (answer.error, answer.retry_after_s) == (E.MODEL_NOT_SUPPORTED, None)
    assert "typo" in answer.detail
    assert not desk.context.fans


def test_D4_an_unknown_strategy_is_answered_at_once_and_names_the_known_ones() -> None:
    desk = Desk(A)
    desk.ask(profile=RequestProfile("m", hints=Hints(strategy="fastest")))
    (answer,) = desk.context.replies
    assert answer.error == E.STRATEGY_NOT_FOUND
    assert "adaptive" in answer.detail


@pytest.mark.parametrize(
    ("one", "other", "error"),
    [
        (R.RATE_LIMITED, R.RATE_LIMITED, E.RATE_LIMITED),
        (R.RATE_LIMITED, R.DISABLED, E.RATE_LIMITED),
        (R.RATE_LIMITED, R.AT_CAPACITY, E.AT_CAPACITY),
        (R.RATE_LIMITED, R.CIRCUIT_OPEN, E.ALL_UNHEALTHY),
        (R.AT_CAPACITY, R.AT_CAPACITY, E.AT_CAPACITY),
        (R.AT_CAPACITY, R.CIRCUIT_OPEN, E.AT_CAPACITY),
        (R.OVERLOADED, R.OVERLOADED, E.OVERLOADED),
        (R.AUTH_FAILED, R.AUTH_FAILED, E.AUTH_FAILED),
        (R.AUTH_FAILED, R.DISABLED, E.AUTH_FAILED),
        (R.AUTH_FAILED, R.UNAVAILABLE, E.ALL_UNHEALTHY),
        (R.CIRCUIT_OPEN, R.UNAVAILABLE, E.ALL_UNHEALTHY),
        (R.CIRCUIT_OPEN, R.CRASHED, E.ALL_UNHEALTHY),
        (R.CRASHED, R.CRASHED, E.SELECTION_FAILED),
        (R.DISABLED, R.DRAINING, E.NO_PROVIDERS_AVAILABLE),
        (R.OUT, R.OUT, E.NO_PROVIDERS_AVAILABLE),
        (R.CONTEXT_TOO_LONG, R.CONTEXT_TOO_LONG, E.CONTEXT_LENGTH_EXCEEDED),
        (R.CONTEXT_TOO_LONG, R.MISSING_CAPABILITY, E.ALL_FILTERED),
        (R.CONTEXT_TOO_LONG, R.DISABLED, E.CONTEXT_LENGTH_EXCEEDED),
        (R.CONTEXT_TOO_LONG, R.AT_CAPACITY, E.AT_CAPACITY),
        (R.MISSING_CAPABILITY, R.MISSING_CAPABILITY, E.ALL_FILTERED),
        (R.MODEL_UNAVAILABLE, R.MODEL_UNAVAILABLE, E.MODEL_NOT_SUPPORTED),
        (R.TIMEOUT, R.TIMEOUT, E.TIMEOUT),
        (R.TIMEOUT, R.DISABLED, E.TIMEOUT),
        (R.TIMEOUT, R.RATE_LIMITED, E.RATE_LIMITED),
    ],
)
def test_D4_the_reasons_amount_to_one_error_in_either_order(one: R, other: R, error: E) -> None:
    assert refused(no("a", one), no("b", other)).error == error
    assert refused(no("a", other), no("b", one)).error == error


def test_D4_bids_are_awaited_for_the_decision_timeout_and_no_longer() -> None:
    desk = Desk(A, B, decision_timeout_s=0.02)
    desk.ask()
    assert desk.context.fans[-1].within_s == 0.02


def test_A3_a_model_whose_only_provider_does_not_accept_our_key_says_so() -> None:
    desk = Desk(A)
    answer = desk.decide(no("a", R.AUTH_FAILED, detail="401 invalid key"))
    assert answer.error == E.AUTH_FAILED
    assert answer.detail == "nobody can take 'm' now: a does not accept our key (401 invalid key)"


def test_pain_11_when_all_were_tried_nobody_is_asked_again() -> None:
    assert refused(tried=("a", "b")).error == E.ALL_TRIED


def test_what_is_left_beside_the_tried_tells_if_it_can_still_change() -> None:
    assert refused(no("b", R.DISABLED), tried=("a",)).error == E.ALL_TRIED
    assert refused(no("b", R.AT_CAPACITY), tried=("a",)).error == E.AT_CAPACITY


def test_D4_filters_that_leave_nobody_are_all_filtered() -> None:
    profile = RequestProfile("m", hints=Hints(tags=("eu",)))
    answer = refused(profile=profile)
    assert answer.error == E.ALL_FILTERED
    assert [left.detail for left in answer.left_out] == ["lacks eu", "lacks eu"]
    assert refused(profile=RequestProfile("m", hints=Hints(exclude=("a", "b")))).error == E.ALL_FILTERED


def test_D4_all_bids_over_the_ceiling_are_their_own_error() -> None:
    desk = Desk(A, B)
    profile = RequestProfile("m", hints=Hints(max_cost_usd=0.1))
    answer = desk.decide(bid("a", cost_usd=0.2), bid("b", cost_usd=None), profile=profile)
    assert answer.error == E.MAX_COST_EXCEEDED
    assert [left.reason for left in answer.left_out] == ["max_cost", "max_cost"]


def test_pain_12_a_rate_limit_says_when_the_first_of_them_ends() -> None:
    now = 1000.0
    answer = refused(no("a", R.RATE_LIMITED, now + 9.0), no("b", R.RATE_LIMITED, now + 4.0))
    assert answer.retry_after_s == pytest.approx(4.0)
    assert "b is at its rate limit, for 4.0 s yet" in answer.detail


def test_when_a_bad_key_may_be_tried_again_is_no_promise() -> None:
    assert refused(no("a", R.RATE_LIMITED, 1009.0), no("b", R.AUTH_FAILED, 1001.0)).retry_after_s == pytest.approx(9.0)


@pytest.mark.parametrize("reason", [R.AT_CAPACITY, R.RATE_LIMITED, R.CIRCUIT_OPEN, R.UNAVAILABLE, R.DISABLED, R.OVERLOADED])
def test_pain_12_every_error_that_passes_says_when_to_come_back(reason: R) -> None:
    answer = refused(no("a", reason), no("b", reason))
    assert answer.retry_after_s is not None
    assert answer.retry_after_s > 0


def test_pain_12_where_nobody_knows_a_time_full_providers_are_worth_a_second_and_those_that_are_down_ten() -> None:
    assert refused(no("a", R.AT_CAPACITY), no("b", R.AT_CAPACITY)).retry_after_s == 1.0
    assert refused(no("a", R.UNAVAILABLE), no("b", R.DISABLED)).retry_after_s == 10.0


@pytest.mark.parametrize("reason", [R.AUTH_FAILED, R.CONTEXT_TOO_LONG, R.MISSING_CAPABILITY, R.MODEL_UNAVAILABLE])
def test_an_error_that_stays_promises_nothing(reason: R) -> None:
    assert refused(no("a", reason), no("b", reason)).retry_after_s is None


def test_pain_28_the_answer_names_everybody_left_out_in_the_order_of_definition() -> None:
    answer = refused(no("b", R.CIRCUIT_OPEN), no("a", R.DISABLED))
    assert [(left.provider, left.reason) for left in answer.left_out] == [("a", "disabled"), ("b", "circuit_open")]


def test_B1_only_providers_of_weight_zero_is_nobody_available() -> None:
    desk = Desk(provider("a", "m", weight=0), strategy="least_connections")
    assert desk.refusal(desk.ask()).error == E.NO_PROVIDERS_AVAILABLE


def test_D12_the_sentence_names_so_many_and_counts_the_others() -> None:
    desk = Desk(*(provider(f"p{number:03}", "m") for number in range(100)), tenants=[TenantSpec("acme", allowed_providers=())])
    answer = desk.refusal(desk.ask(profile=RequestProfile("m", tenant="acme")))

    told = answer.detail.split("; ")
    assert len(told) == NAMED_MAX + 1
    assert told[-2:] == [f"p{NAMED_MAX - 1:03} is not allowed to the tenant (tenant acme)", f"and {100 - NAMED_MAX} more"]
    assert len(answer.left_out) == 100
