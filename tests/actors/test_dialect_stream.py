"""Relaying a stream: the commit, the usage, the end."""

import json
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.calls import Usage
from messages.failures import Blame, Failure, Retry, Scope
from runtime.dialects import stream
from runtime.dialects.stream import HELD_BYTES_MAX, StreamReader, UsageMode


def event(*choices: dict[str, Any], **fields: Any) -> bytes:
    return b"data: " + orjson.dumps({"id": "c-1", "model": "m-1", "choices": list(choices), **fields}) + b"\n\n"


def delta(_reason: str | None = None, **fields: Any) -> bytes:
    return event({"index": 0, "delta": fields, "finish_reason": _reason})


COUNTS = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
ROLE = delta(role="assistant", content="", refusal=None)
TEXT = delta(content="Hello")
STOP = delta("stop")
USAGE = event(usage=COUNTS)
DONE = b"data: [DONE]\n\n"


def read(mode: UsageMode, *chunks: bytes) -> tuple[StreamReader, bytes]:
    reader = StreamReader(mode)
    out = b"".join(reader.feed(chunk) for chunk in chunks)
    return reader, out + reader.finish()


@pytest.mark.parametrize("mode", list(UsageMode))
@pytest.mark.parametrize(
    "empty",
    [
        b": ping\n\n",
        b"event: start\n\n",
        b"data:\n\n",
        ROLE,
        delta(),
        delta(content=None, tool_calls=[], function_call=None),
        event({"delta": None, "finish_reason": None}),
        event({"text": "", "finish_reason": None}),
        event(prompt_filter_results=[{}]),
    ],
)
def test_pain_04_an_event_without_content_is_held(mode: UsageMode, empty: bytes) -> None:
    reader = StreamReader(mode)
    assert reader.feed(empty) == b""
    assert not reader.committed
    assert reader.feed(TEXT) == empty + TEXT
    assert reader.committed


@pytest.mark.parametrize("mode", list(UsageMode))
@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        STOP,
        delta(tool_calls=[{"index": 0, "function": {"name": "f"}}]),
        delta(reasoning_content="hm"),
        delta(reasoning="hm"),
        delta(refusal="no"),
        delta(unheard_of={"x": 1}),
        event({"text": "Hi", "finish_reason": None}),
        event({"index": 0}),
        event({"delta": {}}, {"index": 1, "delta": {"content": "second"}}),
        b'data: {"something":"else"}\n\n',
        b"data: 42\n\n",
    ],
)
def test_pain_04_content_and_anything_unknown_commits(mode: UsageMode, content: bytes) -> None:
    reader = StreamReader(mode)
    assert reader.feed(ROLE + content) == ROLE + content
    assert reader.committed
    assert reader.failure is None


def test_more_than_64_kib_without_content_commit() -> None:
    reader = StreamReader(UsageMode.ESTIMATE)
    filler = b": " + b"." * 1022 + b"\n"
    sent = b""
    while not reader.committed:
        assert len(sent) <= HELD_BYTES_MAX
        sent += filler
        out = reader.feed(filler)
    assert out == sent
    assert HELD_BYTES_MAX == 65_536


@pytest.mark.parametrize(
    ("error", "scope", "retry"),
    [
        ({"message": "overloaded", "type": "server_error"}, Scope.PROVIDER, Retry.LATER),
        ({"message": "bad gateway", "code": 502}, Scope.PROVIDER, Retry.LATER),
        ({"message": "slow down", "type": "rate_limit_error"}, Scope.BUCKET, Retry.LATER),
        ({"message": "slow down", "code": 429}, Scope.BUCKET, Retry.LATER),
        ({"message": "pay", "code": "insufficient_quota"}, Scope.BUCKET, Retry.ELSEWHERE),
        ({"message": "key sk-abcdef123456", "code": "invalid_api_key"}, Scope.CREDENTIAL, Retry.ELSEWHERE),
        ({"message": "none such", "code": "model_not_found"}, Scope.MODEL, Retry.ELSEWHERE),
        ({"message": "too long", "type": "invalid_request_error"}, Scope.NONE, Retry.ELSEWHERE),
        ("just words", Scope.PROVIDER, Retry.LATER),
    ],
)
def test_pain_04_an_error_event_before_the_commit_is_a_failure(error: object, scope: Scope, retry: Retry) -> None:
    reader, out = read(UsageMode.INSERTED, ROLE, b"data: " + orjson.dumps({"error": error}) + b"\n\n", TEXT)
    assert out == b""
    assert reader.failure is not None
    assert (reader.failure.blame, reader.failure.scope, reader.failure.retry) == (Blame.UPSTREAM, scope, retry)
    assert "sk-abcdef123456" not in reader.failure.detail


def test_an_error_of_the_old_vllm_kind_is_one_too() -> None:
    reader, _ = read(UsageMode.ESTIMATE, b'data: {"object":"error","message":"out of memory","code":500}\n\n')
    assert reader.failure is not None
    assert reader.failure.detail.endswith("out of memory")


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (b"", "empty"),
        (ROLE, "empty"),
        (ROLE + DONE, "empty"),
        (b"data: {broken\n\n", "not_json"),
        (b"<html>Bad Gateway</html>", "empty"),
        (b'{"id":"x","choices":[{"message":{"content":"hi"}}]}', "not_a_stream"),
        (b'{"error":{"message":"no","code":500}}', "error_event"),
        (b'{"broken', "not_a_stream"),
    ],
)
def test_a_stream_without_content_is_a_failure_at_its_end(stream: bytes, code: str) -> None:
    reader, out = read(UsageMode.ESTIMATE, stream)
    assert out == b""
    assert reader.failure is not None
    assert reader.failure.code == code
    assert not reader.is_complete


def test_a_body_that_broke_off_before_the_commit_is_not_judged() -> None:
    reader = StreamReader(UsageMode.ESTIMATE)
    reader.feed(ROLE)
    assert reader.finish(is_clean=False) == b""
    assert reader.failure is None
    assert not reader.committed


WHOLE = (
    ROLE + TEXT + event({"delta": {"content": "☂"}, "finish_reason": None}, usage=None) + b": ping\n\n" + STOP + USAGE + DONE
)


@pytest.mark.parametrize("mode", [UsageMode.REQUESTED, UsageMode.ESTIMATE])
def test_pain_06_every_byte_is_relayed_wherever_the_chunks_are_cut(mode: UsageMode) -> None:
    for at in range(len(WHOLE)):
        reader, out = read(mode, WHOLE[:at], WHOLE[at:])
        assert out == WHOLE
        assert reader.is_complete
        assert reader.usage(99) == Usage(11, 7, 4, 3)


def test_pain_06_the_usage_chunk_we_asked_for_is_taken_out_and_nothing_else() -> None:
    for at in range(len(WHOLE)):
        reader, out = read(UsageMode.INSERTED, WHOLE[:at], WHOLE[at:])
        assert out == WHOLE.replace(USAGE, b"")
        assert reader.is_complete
        assert reader.usage(99) == Usage(11, 7, 4, 3)


def test_after_the_commit_each_chunk_goes_on_as_it_comes() -> None:
    reader = StreamReader(UsageMode.REQUESTED)
    reader.feed(TEXT)
    for chunk in (TEXT[:10], TEXT[10:], b"data: {\xff", b"}\n\n", TEXT + TEXT[:3]):
        assert reader.feed(chunk) == chunk


@given(st.lists(st.sampled_from([ROLE, TEXT, STOP, USAGE, DONE, b": c\n\n", b"data: 1\r\n\r\n"]), max_size=9), st.data())
def test_any_stream_in_any_cut_is_relayed_whole(events: list[bytes], data: st.DataObject) -> None:
    stream = TEXT + b"".join(events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=9)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    for mode in UsageMode:
        expected = TEXT + b"".join(e for e in events if e != USAGE or mode is not UsageMode.INSERTED)
        assert read(mode, *chunks)[1] == expected


def test_usage_within_a_chunk_that_says_something_is_read_and_stays() -> None:
    last = event({"delta": {}, "finish_reason": "stop"}, usage=COUNTS)
    reader, out = read(UsageMode.INSERTED, TEXT, last, DONE)
    assert out == TEXT + last + DONE
    assert reader.usage(0) == Usage(11, 7, 4, 3)


def test_usage_that_groq_hides_is_found() -> None:
    reader, _ = read(UsageMode.ESTIMATE, TEXT, event({"delta": {}, "finish_reason": "stop"}, x_groq={"usage": COUNTS}))
    assert reader.usage(0).output_tokens == 7


def test_usage_with_nonsense_in_it_is_not_believed() -> None:
    reader, _ = read(UsageMode.REQUESTED, TEXT, event(usage={"prompt_tokens": -1, "completion_tokens": "7"}), DONE)
    assert reader.usage(3) == Usage(3, 2, estimated=True)


@pytest.mark.parametrize("mode", [UsageMode.REQUESTED, UsageMode.INSERTED])
def test_what_says_nothing_but_text_is_not_read_again_after_the_commit(
    mode: UsageMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = StreamReader(mode)
    read_texts: list[bytes] = []

    def loads(text: bytes) -> Any:
        read_texts.append(text)
        return orjson.loads(text)

    monkeypatch.setattr(stream, "orjson", SimpleNamespace(loads=loads, JSONDecodeError=orjson.JSONDecodeError))
    reader.feed(ROLE + TEXT)
    halves = TEXT[:20], TEXT[20:]
    out = b"".join(reader.feed(chunk) for chunk in (TEXT, TEXT * 50, *halves, TEXT + STOP, USAGE, DONE))
    assert out.startswith(TEXT * 52)
    assert read_texts == [STOP[6:].strip(), USAGE[6:].strip()]
    assert reader.usage(0).output_tokens == 7


def test_nor_is_text_that_has_to_be_counted_if_it_stands_where_it_mostly_does(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = StreamReader(UsageMode.ESTIMATE)
    read_texts: list[bytes] = []

    def loads(text: bytes) -> Any:
        read_texts.append(text)
        return orjson.loads(text)

    plain, escaped = delta(content="12345678"), delta(content='1234567"')
    reader.feed(ROLE + plain)
    monkeypatch.setattr(stream, "orjson", SimpleNamespace(loads=loads, JSONDecodeError=orjson.JSONDecodeError))
    out = b"".join(reader.feed(chunk) for chunk in (plain, plain * 2, plain[:20], plain[20:], escaped, STOP, DONE))
    assert out == plain * 4 + escaped + STOP + DONE
    assert read_texts == [escaped[6:].strip(), STOP[6:].strip()]
    assert reader.usage(0).output_tokens == 12


@given(texts=st.lists(st.text() | st.sampled_from(['"', "data: x", '"delta":{"content":"y"}', "\\"]), min_size=1, max_size=6))
def test_text_is_counted_as_it_would_be_if_it_were_read(texts: list[str]) -> None:
    compact = [delta(content=text) for text in texts]
    spaced = [b"data: " + json.dumps(orjson.loads(each[6:])).encode() + b"\n\n" for each in compact]
    by_look, _ = read(UsageMode.ESTIMATE, TEXT, b"".join(compact), *compact, STOP, DONE)
    by_reading, _ = read(UsageMode.ESTIMATE, TEXT, b"".join(spaced), *spaced, STOP, DONE)
    assert by_look.usage(0) == by_reading.usage(0)


def test_without_usage_the_text_is_counted() -> None:
    spoken = [
        delta(content="x" * 10),
        delta(reasoning_content="x" * 10),
        delta(tool_calls=[{"function": {"name": "nm", "arguments": "x" * 10}}]),
        event({"text": "x" * 8}),
    ]
    reader, _ = read(UsageMode.ESTIMATE, *spoken, STOP, DONE)
    assert reader.usage(5) == Usage(5, 10, estimated=True)


def test_without_the_usage_that_was_asked_for_the_bytes_that_went_by_are_measured() -> None:
    reader, _ = read(UsageMode.INSERTED, ROLE, *[delta(role="assistant", content="x" * 40)] * 100)
    assert reader.usage(5).estimated
    assert reader.usage(5).output_tokens == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize("mode", list(UsageMode))
@pytest.mark.parametrize(
    ("stream", "is_clean", "expected"),
    [
        (TEXT + STOP + DONE, True, True),
        (TEXT + DONE, True, True),
        (TEXT + STOP, True, True),
        (TEXT + b'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}\n\n', True, True),
        (TEXT + STOP + b"data: [DONE]", True, True),
        (TEXT + STOP + b"data: [DONE]\n", True, True),
        (TEXT + DONE, False, True),
        (TEXT, True, False),
        (TEXT + STOP, False, False),
        (TEXT + delta(content="[DONE]"), True, False),
        (TEXT + delta(content='"finish_reason":"stop"'), True, False),
        (TEXT + b'data: {"error":{"message":"died"}}\n\n' + DONE, True, False),
    ],
)
def test_pain_04_a_stream_is_complete_only_if_it_came_to_its_end(
    mode: UsageMode, stream: bytes, is_clean: bool, expected: bool
) -> None:
    reader = StreamReader(mode)
    out = b"".join(reader.feed(stream[i : i + 17]) for i in range(0, len(stream), 17)) + reader.finish(is_clean)
    assert out == stream
    assert reader.is_complete is expected


def test_an_error_after_the_commit_is_passed_on_and_seen() -> None:
    error = b'data: {"error":{"message":"died","code":503}}\n\n'
    reader, out = read(UsageMode.INSERTED, TEXT, error)
    assert out == TEXT + error
    assert reader.failure is None
    assert reader.error == Failure(
        Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, "error_event", 200, None, "HTTP 200: died", is_overload=True
    )


def test_what_was_relayed_may_stop_within_an_event() -> None:
    reader = StreamReader(UsageMode.REQUESTED)
    reader.feed(TEXT + TEXT[:9])
    assert reader.is_mid_event
    reader.feed(TEXT[9:])
    assert not reader.is_mid_event


def test_part_of_an_event_that_is_still_held_when_the_body_breaks_is_dropped() -> None:
    reader = StreamReader(UsageMode.INSERTED)
    assert reader.feed(TEXT + TEXT[:9]) == TEXT
    assert not reader.is_mid_event
    assert reader.finish(is_clean=False) == b""


@pytest.mark.parametrize("mode", list(UsageMode))
@pytest.mark.parametrize("start", [b"", TEXT])
def test_an_event_beyond_all_measure_is_relayed_unread(mode: UsageMode, start: bytes) -> None:
    huge = b"data: " + b"x" * 1_500_000 + b"\n\n"
    stream = start + huge + STOP + DONE
    reader, out = read(mode, *[stream[i : i + 50_000] for i in range(0, len(stream), 50_000)])
    assert out == stream
    assert reader.is_complete


def test_a_trace_learns_id_model_and_finish_reasons() -> None:
    reader, _ = read(UsageMode.REQUESTED, ROLE, TEXT, TEXT, delta("tool_calls"), USAGE, DONE)
    assert (reader.response_id, reader.model, reader.finish_reasons) == ("c-1", "m-1", ["tool_calls"])
