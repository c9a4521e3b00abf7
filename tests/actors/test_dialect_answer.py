"""Answers that are no streams, and the headers that pass."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.calls import Usage
from messages.failures import Blame, Failure, Retry, Scope
from runtime.dialects.answer import PARSED_BYTES_MAX, Answer, encoded, read_answer
from runtime.dialects.headers import BadHeader, base_headers, request_headers
from runtime.dialects.request import Endpoint
from runtime.dialects.told import told
from runtime.dialects.usage import read_usage

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}


def test_an_answer_is_read_and_its_body_kept() -> None:
    choices = [{"message": {"content": "hi"}, "finish_reason": "stop"}, {"finish_reason": "length"}]
    body = orjson.dumps({"id": "x", "model": "m", "choices": choices, "usage": USAGE})
    answer = read_answer("chat", 200, (), body, 99)
    assert isinstance(answer, Answer)
    assert answer.body is body
    assert (answer.response_id, answer.model, answer.finish_reasons) == ("x", "m", ("stop", "length"))
    assert answer.usage == Usage(5, 2, 1)


@pytest.mark.parametrize(
    ("endpoint", "item", "tokens"),
    [
        ("chat", {"message": {"content": "x" * 8, "reasoning_content": "x" * 4}}, 3),
        ("chat", {"message": {"content": None, "tool_calls": [{"function": {"arguments": "x" * 8}}]}}, 2),
        ("completions", {"text": "x" * 8}, 2),
        ("chat", "odd", 0),
    ],
)
def test_usage_is_estimated_where_none_is_given(endpoint: Endpoint, item: object, tokens: int) -> None:
    answer = read_answer(endpoint, 200, (), orjson.dumps({"choices": [item], "usage": None}), 9)
    assert isinstance(answer, Answer)
    assert answer.usage == Usage(9, tokens, estimated=True)


@pytest.mark.parametrize(
    ("endpoint", "body", "code"),
    [
        ("chat", b"", "empty"),
        ("chat", b" \n", "empty"),
        ("chat", b"<html>", "not_json"),
        ("chat", b'{"choices":[', "not_json"),
        ("chat", b"[]", "not_json"),
        ("chat", b"null", "not_json"),
        ("chat", b"{}", "no_choices"),
        ("chat", b'{"choices":[]}', "no_choices"),
        ("completions", b'{"choices":null}', "no_choices"),
        ("embeddings", b'{"choices":[]}', "no_data"),
        ("embeddings", b"[" + b"1," * PARSED_BYTES_MAX, "not_json"),
        ("embeddings", b"{" + b"1," * PARSED_BYTES_MAX, "not_json"),
        ("embeddings", b'{"x":"' + b"1" * PARSED_BYTES_MAX + b'"}', "no_data"),
    ],
)
def test_a_200_that_is_no_answer_is_the_providers_failure(endpoint: Endpoint, body: bytes, code: str) -> None:
    failure = read_answer(endpoint, 200, (), body, 1)
    assert isinstance(failure, Failure)
    assert (failure.blame, failure.scope, failure.retry) == (Blame.UPSTREAM, Scope.PROVIDER, Retry.ELSEWHERE)
    assert (failure.code, failure.status) == (code, 200)


def test_a_200_with_an_error_in_it_is_a_failure() -> None:
    failure = read_answer("chat", 200, (), b'{"error":{"message":"slow down","code":429}}', 1)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.scope, failure.retry) == ("error_event", Scope.BUCKET, Retry.LATER)


def test_an_error_that_is_null_is_none() -> None:
    assert isinstance(read_answer("chat", 200, (), b'{"error":null,"choices":[{}]}', 1), Answer)


def test_a_long_list_of_embeddings_is_only_looked_at() -> None:
    vector = b'{"object":"embedding","index":0,"embedding":[' + b"0.125," * 200_000 + b"1]}"
    body = b'{"object":"list","data":[' + vector + b'],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}'
    answer = read_answer("embeddings", 200, (), body, 1)
    assert isinstance(answer, Answer)
    assert (answer.usage, answer.model) == (Usage(8, 0), "e")


def test_embeddings_of_usual_length_are_read() -> None:
    answer = read_answer("embeddings", 200, (), b'{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}', 1)
    assert isinstance(answer, Answer)
    assert answer.usage == Usage(8, 0)


def test_a_compressed_answer_is_a_failure_for_we_asked_for_none() -> None:
    headers = [("Content-Encoding", "gzip")]
    failure = read_answer("chat", 200, headers, b"\x1f\x8b", 1)
    assert isinstance(failure, Failure)
    assert failure.code == "content_encoding"
    assert told(headers).is_encoded
    assert encoded(200) == failure
    assert not told([("content-encoding", "identity")]).is_encoded


def test_the_clients_own_headers_stay_here_but_for_a_few() -> None:
    client = [
        ("Authorization", "Bearer client"),
        ("Cookie", "a=b"),
        ("Host", "gateway"),
        ("Content-Length", "1"),
        ("Connection", "X-Hop, keep-alive"),
        ("X-Hop", "1"),
        ("Transfer-Encoding", "chunked"),
        ("X-Pointsman-Tenant", "acme"),
        ("Traceparent", "00-1"),
        ("Baggage", "a=b"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("OpenAI-Organization", "theirs"),
        ("User-Agent", "OpenAI/Python"),
        ("OpenAI-Beta", "assistants=v2"),
        ("Idempotency-Key", "k"),
        ("X-Client-Request-Id", "r"),
    ]
    assert request_headers(base_headers("sk-ours"), client, is_stream=True) == (
        ("Content-Type", "application/json"),
        ("User-Agent", "pointsman"),
        ("Accept-Encoding", "identity"),
        ("Authorization", "Bearer sk-ours"),
        ("Accept", "text/event-stream"),
        ("openai-beta", "assistants=v2"),
        ("idempotency-key", "k"),
        ("x-client-request-id", "r"),
    )


def test_a_providers_configured_headers_win_but_never_break_the_message() -> None:
    configured = [
        ("OpenAI-Organization", "ours"),
        ("authorization", "Basic x"),
        ("OpenAI-Beta", "mine"),
        ("Content-Length", "9"),
    ]
    headers = request_headers(base_headers("", configured), [("openai-beta", "theirs")])
    assert dict(headers) == {
        "Content-Type": "application/json",
        "User-Agent": "pointsman",
        "Accept-Encoding": "identity",
        "OpenAI-Organization": "ours",
        "authorization": "Basic x",
        "OpenAI-Beta": "mine",
        "Accept": "application/json",
    }


def test_pain_18_our_trace_context_goes_along_only_if_it_is_given() -> None:
    headers = request_headers(base_headers("k"), [("traceparent", "theirs")], trace=[("traceparent", "ours")])
    assert [value for name, value in headers if name == "traceparent"] == ["ours"]


@pytest.mark.parametrize("evil", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\x00b", "a" * 9000])
def test_a_value_that_would_end_its_header_is_refused_untold(evil: str) -> None:
    with pytest.raises(BadHeader) as caught:
        base_headers(evil)
    assert evil not in str(caught.value)
    with pytest.raises(BadHeader):
        base_headers("k", [("x", evil)])
    with pytest.raises(BadHeader):
        request_headers(base_headers("k"), [("openai-beta", evil)])
    with pytest.raises(BadHeader):
        base_headers("k", [("bad name", "x")])


def test_of_the_upstreams_headers_the_client_gets_a_few() -> None:
    upstream = [
        ("Content-Type", "text/event-stream"),
        ("X-Request-Id", "up-1"),
        ("OpenAI-Processing-Ms", "12"),
        ("OpenAI-Version", "2020-10-01\r\nx: y"),
        ("OpenAI-Organization", "ours"),
        ("Set-Cookie", "a=b"),
        ("Content-Length", "3"),
        ("Content-Encoding", "identity"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Server", "x"),
        ("Date", "x"),
        ("X-RateLimit-Remaining-Requests", "1"),
        ("Retry-After", "1"),
        ("X-Should-Retry", "true"),
    ]
    assert told(upstream).passing == [
        ("content-type", "text/event-stream"),
        ("x-pointsman-upstream-request-id", "up-1"),
        ("openai-processing-ms", "12"),
    ]


COUNTS = st.integers(-1, 3) | st.sampled_from([10**12, 10**12 + 1, True, 1.5, "1", None])
NAMES = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "prompt_cache_hit_tokens",
)


@given(
    st.dictionaries(st.sampled_from(NAMES), COUNTS),
    st.none() | st.dictionaries(st.just("cached_tokens"), COUNTS),
    st.none() | st.dictionaries(st.just("reasoning_tokens"), COUNTS),
)
def test_of_each_count_the_first_that_is_one_is_read(
    counts: dict[str, object], cached: dict[str, object] | None, reasoning: dict[str, object] | None
) -> None:
    def first(told: dict[str, object], *names: str) -> int | None:
        found = [value for name in names if type(value := told.get(name)) is int and 0 <= value <= 10**12]
        return found[0] if found else None

    usage = dict(counts)
    if cached is not None:
        usage["prompt_tokens_details"] = cached
    if reasoning is not None:
        usage["completion_tokens_details"] = reasoning
    read, written = first(counts, "prompt_tokens", "input_tokens"), first(counts, "completion_tokens", "output_tokens")
    again = first(cached or {}, "cached_tokens")
    again = first(counts, "prompt_cache_hit_tokens", "cached_tokens") if again is None else again
    thought = first(reasoning or {}, "reasoning_tokens")
    expected = Usage(read or 0, written or 0, again or 0, thought or 0) if read is not None or written is not None else None
    assert read_usage(usage) == expected


def test_of_what_traces_tell_of_an_answer_what_is_no_text_is_nothing() -> None:
    reasons = [{"finish_reason": one} for one in ["stop", 1, None, *["length"] * 20]]
    answer = read_answer("chat", 200, (), orjson.dumps({"id": 1, "model": None, "choices": ["odd", *reasons]}), 1)
    assert isinstance(answer, Answer)
    assert (answer.response_id, answer.model) == ("", "")
    assert answer.finish_reasons == ("stop", *["length"] * 15)
