"""Whatever an answer's body is, it is read as it would be if all of it were made into objects."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from messages.calls import Usage
from messages.failures import Failure
from runtime.dialects.answer import Answer, read_body, unreadable
from runtime.dialects.errors import error_in, failure_of_error
from runtime.dialects.request import Endpoint
from runtime.dialects.usage import choice_characters, estimated_usage, usage_in

TOKENS = 9


def read_whole(endpoint: Endpoint, body: bytes) -> tuple[Usage, str, str, tuple[str, ...]] | Failure:
    """What an answer says, in the plainest words there are for it."""
    try:
        parsed: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        is_empty = not body.strip()
        return unreadable(
            "empty" if is_empty else "not_json", 200, "the body is empty" if is_empty else f"not JSON: {error.msg}"
        )
    if type(parsed) is not dict:
        return unreadable("not_json", 200, "JSON, but no object")
    name = "data" if endpoint == "embeddings" else "choices"
    items = parsed.get(name)
    if type(items) is not list:
        fault = error_in(parsed)
        return failure_of_error(fault, 200) if fault else unreadable(f"no_{name}", 200, f"no {name} in it")
    if name == "choices" and not items:
        return unreadable("no_choices", 200, "no choices in it")
    choices = [item for item in items if type(item) is dict] if name == "choices" else []
    usage = usage_in(parsed) or estimated_usage(TOKENS, sum(map(choice_characters, choices)))
    texts = [text if type(text) is str else "" for text in (parsed.get("id"), parsed.get("model"))]
    reasons = [choice.get("finish_reason") for choice in choices]
    return usage, texts[0], texts[1], tuple([reason for reason in reasons if type(reason) is str][:16])


def seen(read: Answer | Failure) -> tuple[Usage, str, str, tuple[str, ...]] | Failure:
    return read if isinstance(read, Failure) else (read.usage, read.response_id, read.model, read.finish_reasons)


def escaped(text: bytes) -> bytes:
    return b"".join(b"\\u%04x" % byte for byte in text)


NAMES = [
    b"choices", b"data", b"usage", b"error", b"id", b"model", b"x_groq", b"message", b"content", b"text", b"finish_reason",
    b"prompt_tokens", b"completion_tokens", b"total_tokens", b"cached_tokens", b"prompt_tokens_details", b"input_tokens", b"",
]  # fmt: skip
keys = st.sampled_from(
    [b'"%b"' % name for name in NAMES] + [b'"%b"' % escaped(name) for name in NAMES] + [b'"\xc3\xa9"', b'"\xff"']
)
odd = st.sampled_from(
    [
        b"NaN", b"Infinity", b"-", b"-0", b"-1", b"01", b"1.", b".5", b"1e2", b"3.0", b"1e-999", b"true", b"tru", b"null", b"",
        b"18446744073709551616", b"123456789012345678901234567890", b"1000000000000", b"1000000000001", b"-9223372036854775809",
        b'"\\u00e9"', b'"\xc3\xa9"', b'"\xff"', b'"\xed\xa0\x80"', b'"\xf0\x9f\x98\x80"', b'"\\ud83d\\ude00"', b'"\\ud800"',
        b'"\\udc00"', b'"\\x"', b'"\\u12"', b'"\x00"', b'"\x1f"', b'"\x7f"', b'"\n"', b'"\\n\\"\\\\\\/"', b'"', b'"a', b"'a'",
        b'"\\"usage\\":{\\"prompt_tokens\\":1}"', b"{", b"}", b"[", b"]", b"[1,]", b"{,}", b'{"a"}', b'{"a":1,}', b"/**/1",
        b"1 2",
    ]
)  # fmt: skip
numbers = st.integers(0, 10**13).map(lambda number: b"%d" % number)
texts = st.text(max_size=8).map(lambda text: orjson.dumps(text.encode("utf-8", "replace").decode()))
leaves = st.one_of(numbers, texts, odd)


def objects(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    pairs = st.tuples(keys, st.sampled_from([b":", b": ", b"\t:\r\n"]), values).map(b"".join)
    return st.lists(pairs, max_size=6).map(lambda found: b"{" + b",".join(found) + b"}")


def nested(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return objects(inner) | st.lists(inner, max_size=3).map(lambda found: b"[" + b", ".join(found) + b"]")


values = st.recursive(leaves, nested, max_leaves=12)
usages = st.tuples(numbers | odd, numbers | odd, values).map(
    lambda given: b'{"prompt_tokens":%b,"completion_tokens":%b,"total_tokens":%b}' % given
)
answers = st.tuples(st.sampled_from([b"choices", b"data"]), values, usages | values, values).map(
    lambda given: b'{"id":"x","%b":[{"finish_reason":"stop","message":{"content":%b}}],"usage":%b,"model":%b}' % given
)


@given(st.sampled_from(["chat", "completions", "embeddings"]), answers | objects(values) | values)
@example("chat", b'{"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":2.0,"total_tokens":3}}')
@example("chat", b'{"choices":[{}],"usage":{"prompt_tokens":true,"completion_tokens":2,"total_tokens":3}}')
@example("chat", b'{"choices":[{}],"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}')
@example("chat", b'{"choices":7,"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":2}}')
@example("chat", b'{"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":2},"usage":null}')
@example("chat", b'{"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens":5}}')
@example("chat", b'{"choices":[{}],"us\\u0061ge":{"prompt_tokens":1,"completion_tokens":2}}')
@example("chat", b'{"choices":[{"x":"\xff"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}')
@example("chat", b'{"choices":[{"x":"\\ud800"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}')
@example("chat", b'{"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":2}} x')
@example("chat", b'\xef\xbb\xbf{"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":2}}')
@example("chat", b'{"choices":[{"x":%b}],"usage":{"prompt_tokens":1,"completion_tokens":2}}' % (b"[" * 900 + b"]" * 900))
@example("chat", b'{"choices":[{"x":%b}],"usage":{"prompt_tokens":1,"completion_tokens":2}}' % (b"[" * 5000 + b"]" * 5000))
@example("embeddings", b'{"data":[],"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"total_tokens":1}}')
def test_an_answer_is_understood_as_if_all_of_it_were_parsed(endpoint: Endpoint, body: bytes) -> None:
    assert seen(read_body(endpoint, 200, body, TOKENS)) == read_whole(endpoint, body)


good_counts = st.sampled_from([0, 7, 10**12])
counts: st.SearchStrategy[object] = (
    good_counts | good_counts | st.sampled_from([None, True, -1, 7.0, "7", [7], {}, 10**12 + 1, 2**64, 10**30])
)
details = st.fixed_dictionaries({}, optional={"cached_tokens": counts, "reasoning_tokens": counts, "audio_tokens": counts})


@given(
    st.fixed_dictionaries(
        {"prompt_tokens": counts, "completion_tokens": counts},
        optional={
            "total_tokens": counts,
            "prompt_tokens_details": details | counts,
            "completion_tokens_details": details | counts,
            "prompt_cache_hit_tokens": counts,
            "cached_tokens": counts,
            "input_tokens": counts,
        },
    )
)
@example({"prompt_tokens": 7, "completion_tokens": 2, "prompt_cache_hit_tokens": 3, "cached_tokens": 4})
@example({"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": None}, "cached_tokens": 4})
@example({"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 4})
@example({"prompt_tokens": 7, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 1}})
def test_so_are_counts_of_every_kind(usage: dict[str, Any]) -> None:
    body = json.dumps({"choices": [{"text": "12345"}], "usage": usage}).encode()
    assert seen(read_body("chat", 200, body, TOKENS)) == read_whole("chat", body)


@given(st.data(), answers)
def test_so_is_one_that_is_cut_short_or_spoilt(data: st.DataObject, body: bytes) -> None:
    at = data.draw(st.integers(0, len(body) - 1))
    spoilt = (
        body[:at]
        + data.draw(st.sampled_from([b"", b"\xff", b"\x00", b'"', b"\\", b"{", b"}", b",", b"0", b" "]))
        + body[at + 1 :]
    )
    for endpoint in ("chat", "embeddings"):
        for given_body in (spoilt, body[:at]):
            assert seen(read_body(endpoint, 200, given_body, TOKENS)) == read_whole(endpoint, given_body)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"9" * 400])
def test_a_number_that_no_double_holds_is_json_where_nobody_reads_it(number: bytes) -> None:
    body = b'{"id":"x","choices":[{"far":%b}],"usage":{"prompt_tokens":5,"completion_tokens":2}}' % number
    assert seen(read_body("chat", 200, body, TOKENS)) == (Usage(5, 2), "", "", ())
