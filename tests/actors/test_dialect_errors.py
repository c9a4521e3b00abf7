"""What statuses, error bodies and headers mean, and our own errors."""

from typing import Any

import orjson
import pytest

from messages.calls import LimitsSeen
from messages.failures import Blame, Retry, Scope
from runtime.dialects.errors import classify, error_body, error_frame, error_type, failure_of_error, redacted
from runtime.dialects.limits import retry_after
from runtime.dialects.told import told

DEFAULT = ("429", "5xx")


def body(**error: Any) -> bytes:
    return orjson.dumps({"error": error})


@pytest.mark.parametrize(
    ("status", "content", "scope", "retry"),
    [
        (401, b"", Scope.CREDENTIAL, Retry.ELSEWHERE),
        (403, body(code="invalid_api_key"), Scope.CREDENTIAL, Retry.ELSEWHERE),
        (403, body(type="permission_error"), Scope.CREDENTIAL, Retry.ELSEWHERE),
        (403, body(type="authentication_error"), Scope.CREDENTIAL, Retry.ELSEWHERE),
        (403, body(code="content_blocked", message="your key is fine"), Scope.MODEL, Retry.ELSEWHERE),
        (403, b"<html>", Scope.MODEL, Retry.ELSEWHERE),
        (400, b'[{"error":{"code":400,"details":[{"reason":"API_KEY_INVALID"}]}}]', Scope.CREDENTIAL, Retry.ELSEWHERE),
        (404, body(code="model_not_found"), Scope.MODEL, Retry.ELSEWHERE),
        (404, b"not found", Scope.MODEL, Retry.ELSEWHERE),
        (400, body(type="invalid_model"), Scope.MODEL, Retry.ELSEWHERE),
        (405, b"", Scope.MODEL, Retry.ELSEWHERE),
        (402, b"", Scope.BUCKET, Retry.ELSEWHERE),
        (429, body(code="insufficient_quota"), Scope.BUCKET, Retry.ELSEWHERE),
        (429, body(code="rate_limit_exceeded"), Scope.BUCKET, Retry.LATER),
        (429, b"", Scope.BUCKET, Retry.LATER),
        (408, b"", Scope.PROVIDER, Retry.LATER),
        (500, b"", Scope.PROVIDER, Retry.LATER),
        (503, body(message="busy"), Scope.PROVIDER, Retry.LATER),
        (529, b"", Scope.PROVIDER, Retry.LATER),
        (302, b"", Scope.PROVIDER, Retry.ELSEWHERE),
        (407, b"", Scope.PROVIDER, Retry.ELSEWHERE),
    ],
)
def test_pain_07_a_status_reaches_as_far_as_it_should(status: int, content: bytes, scope: Scope, retry: Retry) -> None:
    failure = classify(status, (), content, DEFAULT)
    assert (failure.blame, failure.scope, failure.retry, failure.status) == (Blame.UPSTREAM, scope, retry, status)


@pytest.mark.parametrize(
    ("status", "content", "is_overload"),
    [
        (429, b"", True),
        (503, b"", True),
        (529, b"", True),
        (429, body(code="insufficient_quota"), False),
        (402, b"", False),
        (500, b"", False),
        (502, b"", False),
        (408, b"", False),
        (401, b"", False),
        (400, b"", False),
    ],
)
def test_who_has_too_much_to_do_is_told_from_who_failed(status: int, content: bytes, is_overload: bool) -> None:
    assert classify(status, (), content, DEFAULT).is_overload is is_overload


@pytest.mark.parametrize(("code", "is_overload"), [(429, True), (503, True), (529, True), (500, False), (402, False)])
def test_an_error_inside_a_200_says_as_well_that_it_is_too_much(code: int, is_overload: bool) -> None:
    assert failure_of_error({"code": code, "message": "no"}, 200).is_overload is is_overload


@pytest.mark.parametrize("status", [400, 409, 413, 415, 418, 422])
def test_the_clients_own_fault_teaches_nothing_and_goes_nowhere_else(status: int) -> None:
    failure = classify(status, (), body(message="no", type="invalid_request_error"), DEFAULT)
    assert (failure.blame, failure.scope, failure.retry) == (Blame.CLIENT, Scope.NONE, Retry.NEVER)


def test_B6_statuses_and_classes_in_the_list_fail_over() -> None:
    assert classify(418, (), b"", ("418",)).retry is Retry.ELSEWHERE
    assert classify(422, (), b"", ("4xx",)).retry is Retry.ELSEWHERE
    assert classify(503, (), b"", ("503",)).retry is Retry.LATER
    assert classify(502, (), b"", ("429",)).retry is Retry.NEVER
    assert classify(429, (), b"", ("5xx",)).retry is Retry.NEVER
    assert classify(408, (), b"", ()).retry is Retry.LATER


def test_pain_23_no_key_gets_into_the_detail() -> None:
    quoted = body(message="Incorrect API key provided: sk-proj-abcd****wxyz. See https://x.", code="invalid_api_key")
    for status in (400, 401, 403, 404, 422, 500):
        assert "sk-proj" not in classify(status, (), quoted, DEFAULT).detail
    assert redacted("Bearer abc.def and gsk_12345678 AIzaSyABCDEFGH ok\r\nx") == "*** and *** *** ok  x"
    assert len(redacted("x" * 10_000)) == 300


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"{", b"null", b"[]", b'{"error":7}', b'{"error":{"code":[1],"message":{}}}', b'{"detail":[]}', b"[" * 9999],
)
def test_a_garbled_error_body_is_still_classified(content: bytes) -> None:
    for status in (400, 403, 404, 429, 500):
        assert classify(status, (), content, DEFAULT).status == status


def test_an_error_that_is_a_bare_string_or_a_detail_is_told() -> None:
    assert classify(500, (), b'{"error":"boom"}', DEFAULT).detail == "HTTP 500: boom"
    assert classify(500, (), b'{"detail":"boom"}', DEFAULT).detail == "HTTP 500: boom"


def test_pain_12_the_wait_is_taken_over() -> None:
    assert classify(429, [("Retry-After", "7")], b"", DEFAULT).retry_after_s == 7
    assert classify(503, [("retry-after-ms", "250")], b"", DEFAULT).retry_after_s == 0.25


WALL_S = 1445412480.0
"""21 October 2015 07:28:00 UTC."""


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("Retry-After", "7")], 7.0),
        ([("RETRY-AFTER", " 1.5 ")], 1.5),
        ([("retry-after", "9"), ("retry-after-ms", "1500")], 1.5),
        ([("retry-after", "9"), ("retry-after-ms", "soon")], 9.0),
        ([("retry-after", "99999999")], 3600.0),
        ([("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")], 30.0),
        ([("retry-after", "Wed, 21 Oct 2015 07:00:00 GMT")], 0.0),
        ([("retry-after", "Wed, 21 Oct 2035 07:00:00 GMT")], 3600.0),
        ([("date", "Wed, 21 Oct 2015 08:00:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 08:00:05 GMT")], 5.0),
        ([("retry-after", "-5")], None),
        ([("retry-after", "nan")], None),
        ([("retry-after", "1e9")], None),
        ([("retry-after", "")], None),
        ([("retry-after", "tomorrow, perhaps")], None),
        ([("retry-after", "9" * 5000)], None),
        ([("x", "1")], None),
    ],
)
def test_pain_12_retry_after_is_read_in_all_its_forms(headers: list[tuple[str, str]], expected: float | None) -> None:
    assert retry_after(headers, WALL_S) == expected


def test_a_date_without_a_clock_says_nothing() -> None:
    assert retry_after([("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")], None) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("6m0s", 360.0), ("12ms", 0.012), ("0.5", 0.5), ("1h2m3.5s", 3723.5), ("20ms", 0.02), ("0s", 0.0)],
)
def test_resets_are_read_in_all_their_forms(text: str, seconds: float) -> None:
    seen = told([("X-RateLimit-Reset-Tokens", text)]).limits()
    assert seen is not None
    assert seen.reset_tokens_s == pytest.approx(seconds)


def test_limits_are_read_as_far_as_they_make_sense() -> None:
    headers = [
        ("x-ratelimit-remaining-requests", "59"),
        ("x-ratelimit-remaining-tokens", "lots"),
        ("x-ratelimit-reset-requests", "1700000000"),
        ("x-ratelimit-reset-tokens", "6m and a bit"),
        ("x-ratelimit-limit-requests", "60"),
    ]
    assert told(headers).limits() == LimitsSeen(remaining_requests=59)
    assert told([("x-ratelimit-limit-requests", "60")]).limits() is None
    assert told([("content-type", "x")]).limits() is None


def test_our_errors_have_openais_shape() -> None:
    wanted = {"error": {"message": 'a "b"', "type": "server_error", "code": "upstream_error", "param": None}}
    assert orjson.loads(error_body('a "b"', "server_error", "upstream_error")) == wanted
    frame = error_frame('a "b"', "server_error", "upstream_error")
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert b"\n" not in frame[:-2]
    assert orjson.loads(frame[6:]) == wanted


def test_kinds_of_errors_are_named_as_openai_names_them() -> None:
    names = {status: error_type(status) for status in (400, 401, 403, 404, 413, 429, 500, 502, 503, 504)}
    assert names == {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "invalid_request_error",
        413: "invalid_request_error",
        429: "rate_limit_error",
        500: "server_error",
        502: "server_error",
        503: "server_error",
        504: "server_error",
    }
