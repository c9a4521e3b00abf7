"""What a client is told when it gets no answer: CONTRACT's table of errors."""

import pytest

from messages.control import FailoverSpec
from messages.failures import Blame, Failure, Retry, Scope
from messages.routing import LeftOut, NoRoute, RouteError
from runtime.courier import problems
from runtime.courier.problems import Problem
from runtime.courier.retries import Tries

TABLE = {
    RouteError.MODEL_NOT_SUPPORTED: (404, "model_not_found", False),
    RouteError.STRATEGY_NOT_FOUND: (400, "invalid_request", False),
    RouteError.CONTEXT_LENGTH_EXCEEDED: (400, "context_length_exceeded", False),
    RouteError.MAX_COST_EXCEEDED: (400, "max_cost_exceeded", False),
    RouteError.ALL_FILTERED: (403, "rejected", False),
    RouteError.AUTH_FAILED: (401, "provider_auth_failed", False),
    RouteError.RATE_LIMITED: (429, "rate_limit_exceeded", True),
    RouteError.AT_CAPACITY: (503, "overloaded", True),
    RouteError.QUEUE_FULL: (503, "overloaded", True),
    RouteError.OVERLOADED: (503, "overloaded", True),
    RouteError.DRAINING: (503, "overloaded", True),
    RouteError.ALL_UNHEALTHY: (503, "no_provider_available", True),
    RouteError.NO_PROVIDERS_AVAILABLE: (503, "no_provider_available", True),
    RouteError.ALL_TRIED: (502, "upstream_error", False),
    RouteError.TIMEOUT: (504, "deadline_exceeded", False),
    RouteError.SELECTION_FAILED: (500, "internal_error", False),
    RouteError.REJECTED: (403, "rejected", False),
    RouteError.NO_HEDGE: (500, "internal_error", False),
}


def no_route(error: RouteError, retry_after_s: float | None = None) -> Problem:
    return problems.no_route(NoRoute("q", "d", error, "why", (), retry_after_s))


def failed(scope: Scope, retry: Retry = Retry.LATER, retry_after_s: float | None = None) -> Failure:
    return Failure(Blame.UPSTREAM, scope, retry, "http_503", 503, retry_after_s, "HTTP 503: down")


def tries(*failures: Failure) -> Tries:
    found = Tries(FailoverSpec())
    for name, failure in zip("abc", failures, strict=False):
        found.add(name, failure, 100.0)
    return found


@pytest.mark.parametrize("error", list(RouteError))
def test_every_reason_for_no_plan_has_its_row(error: RouteError) -> None:
    status, code, has_retry_after = TABLE[error]
    found = no_route(error)

    assert (found.status, found.code, found.message) == (status, code, "why")
    assert dict(found.headers()) == ({"Retry-After": "1"} if has_retry_after else {"x-should-retry": "false"})
    assert found.param == ("model" if error is RouteError.MODEL_NOT_SUPPORTED else None)


@pytest.mark.parametrize(
    ("reason", "status", "has_retry_after"),
    [
        ("rate_limit_exceeded", 429, True),
        ("maintenance_mode", 503, True),
        ("invalid_request", 400, False),
        ("unauthorized_model", 403, False),
        ("not on a Sunday", 403, False),
    ],
)
def test_D7_a_rules_reason_to_reject_becomes_its_status(reason: str, status: int, has_retry_after: bool) -> None:
    found = problems.no_route(NoRoute("q", "d", RouteError.REJECTED, "why", (), None, reason))

    assert (found.status, found.code, found.message) == (status, "rejected", "why")
    assert ("Retry-After" in dict(found.headers())) == has_retry_after


@pytest.mark.parametrize(("wait_s", "told"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (59.5, "60")])
def test_pain_12_the_time_to_wait_is_told_in_whole_seconds_never_too_short(wait_s: float, told: str) -> None:
    assert dict(no_route(RouteError.RATE_LIMITED, wait_s).headers()) == {"Retry-After": told}


def test_a_time_to_wait_is_not_told_where_waiting_does_not_help() -> None:
    assert dict(no_route(RouteError.AUTH_FAILED, 5.0).headers()) == {"x-should-retry": "false"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (408, "invalid_request_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (502, "server_error"),
        (503, "server_error"),
        (504, "server_error"),
    ],
)
def test_the_type_is_openais_name_for_the_status(status: int, kind: str) -> None:
    assert Problem(status, "code", "message").kind == kind


def test_pain_19_spent_attempts_are_told_one_by_one_with_those_who_were_not_asked() -> None:
    left_out = [LeftOut("c", "circuit_open", "", 103.0), LeftOut("a", "tried"), LeftOut("d", "disabled")]
    found = problems.attempts_spent("m", tries(failed(Scope.PROVIDER), failed(Scope.NONE)), 100.0, left_out, 2)

    assert (found.status, found.code) == (502, "upstream_error")
    assert found.message == (
        "No provider could answer for model 'm' after 2 attempts: a failed: http_503 (status 503), HTTP 503: down; "
        "b failed: http_503 (status 503), HTTP 503: down; c has its circuit open, for 3.0 s yet; d is disabled; and 2 more."
    )
    assert dict(found.headers()) == {"x-should-retry": "false"}


def test_D12_whose_awards_everybody_refused_is_told_who_they_were() -> None:
    found = problems.all_refused("m", [LeftOut("a", "refused"), LeftOut("b", "disabled")])

    assert (found.status, found.code) == (503, "overloaded")
    told = "Every provider that bid for model 'm' was full when it was asked: a had no room left when asked; b is disabled."
    assert found.message == told
    assert problems.all_refused("m").message == "Every provider that bid for model 'm' was full when it was asked."
    assert dict(found.headers()) == {"Retry-After": "1"}


def test_where_every_attempt_met_a_rate_limit_that_is_told_with_the_soonest_end() -> None:
    limited = tries(failed(Scope.BUCKET, retry_after_s=30.0), failed(Scope.BUCKET, retry_after_s=12.5))
    found = problems.attempts_spent("m", limited, 101.0)

    assert (found.status, found.code) == (429, "rate_limit_exceeded")
    assert dict(found.headers()) == {"Retry-After": "12"}


def test_a_rate_limit_nobody_knows_the_end_of_is_told_with_a_second() -> None:
    found = problems.attempts_spent("m", tries(failed(Scope.BUCKET, Retry.ELSEWHERE)), 101.0)

    assert dict(found.headers()) == {"Retry-After": "1"}


def test_where_every_key_was_bad_that_is_told_and_no_retry_is_asked_for() -> None:
    found = problems.attempts_spent("m", tries(failed(Scope.CREDENTIAL), failed(Scope.CREDENTIAL)), 100.0)

    assert (found.status, found.code) == (401, "provider_auth_failed")
    assert dict(found.headers()) == {"x-should-retry": "false"}
    mixed = problems.attempts_spent("m", tries(failed(Scope.CREDENTIAL), failed(Scope.BUCKET)), 100.0)
    assert (mixed.status, mixed.code) == (502, "upstream_error")


def test_a_deadline_tells_what_was_tried_until_then() -> None:
    nothing = problems.deadline_exceeded("m", 0.3, tries())
    left_out = (LeftOut("a", "tried"), LeftOut("b", "at_capacity"), LeftOut("c", "tags", "lacks eu"))
    waited = problems.deadline_exceeded("m", 0.3, tries(failed(Scope.PROVIDER)), left_out)
    something = problems.deadline_exceeded("m", 0.3, tries(failed(Scope.PROVIDER)))

    assert (nothing.status, nothing.code) == (504, "deadline_exceeded")
    assert "within 0.3 s" in nothing.message
    assert "a failed: http_503" in something.message
    told = "a failed: http_503 (status 503), HTTP 503: down; b is at capacity; c does not have the tags asked for (lacks eu)."
    assert waited.message.endswith(told)


def test_our_own_fault_tells_nothing_of_its_inside() -> None:
    found = problems.internal_error()

    assert (found.status, found.code) == (500, "internal_error")
    assert "Traceback" not in found.message


def test_the_end_of_the_daemon_is_told_as_one_to_come_back_from() -> None:
    found = problems.shutting_down()

    assert (found.status, found.code) == (503, "overloaded")
    assert dict(found.headers()) == {"Retry-After": "1"}
