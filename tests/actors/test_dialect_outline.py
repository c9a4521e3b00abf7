"""Large bodies: what is read of them is the same whether long strings are looked at or left out."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.dialects.affinity import affinity_of
from runtime.dialects.outline import KEPT_CHARACTERS, LARGE_BYTES, QUOTES_MAX, outlined
from runtime.dialects.request import BadRequest, Endpoint, read_request
from runtime.dialects.splice import insert_include_usage, replace_model

LONG = 2 * LARGE_BYTES
QUOTED = b'"pad":[' + b",".join([b'""'] * QUOTES_MAX) + b"],"
"""So many quotes that nobody looks for long strings any more ..."""
SPACES = b'"pad":[' + b" " * (len(QUOTED) - len(b'"pad":[],')) + b"],"
"""... and as many bytes that say as little."""


def body_of(fields: dict[str, Any], pad: bytes = b"") -> bytes:
    return b"{" + pad + orjson.dumps(fields)[1:]


def chat(content: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "model": "m", **fields}


def facts(endpoint: Endpoint, body: bytes) -> tuple[Any, ...]:
    """All that is made of a request, its own bytes apart."""
    read = read_request(endpoint, body)
    understood = (read.model, read.stream, read.max_tokens, read.prompt_tokens, read.needs, read.user, read.wants_usage)
    return *understood, read.has_stream_options, affinity_of(endpoint, read.parsed, read.prompt_tokens)


def changed(endpoint: Endpoint, body: bytes, name: str) -> bytes:
    read = read_request(endpoint, body)
    return insert_include_usage(replace_model(body, read.parsed, name, read.outline), read.parsed)


def test_a_long_plain_string_is_left_out_but_for_its_beginning() -> None:
    body = body_of(chat("x" * 1_000_000))
    outline = outlined(body)
    assert outline is not None
    assert len(outline.text) < KEPT_CHARACTERS + 100
    content = orjson.loads(outline.text)["messages"][0]["content"]
    assert content.startswith("x" * KEPT_CHARACTERS)
    assert (outline.characters(content), outline.is_cut(content)) == (1_000_000, True)
    assert (outline.characters("x" * 40), outline.is_cut("x" * 40)) == (40, False)
    assert read_request("chat", body).outline is not None


@pytest.mark.parametrize(
    "body",
    [
        body_of(chat("x" * 1000)),
        body_of(chat("line\n" * LONG)),
        body_of({"model": "m", "input": [7] * LONG}),
        body_of(chat("x" * LONG), QUOTED),
        b'{"model":"m","x":"' + b"\xff" * LONG + b'"}',
        b'{"model":"m",' + b" " * LONG + b'"messages":[]}',
    ],
    ids=["short", "escapes", "no string", "many quotes", "no UTF-8", "space"],
)
def test_where_nothing_can_be_left_out_there_is_no_outline(body: bytes) -> None:
    assert outlined(body) is None


@pytest.mark.parametrize("text", ["x" * LONG, "☂" * LONG, "é" + "x" * LONG, "x" * (KEPT_CHARACTERS * 4 - 1) + "é" * LONG])
def test_characters_are_counted_whatever_they_are_written_in(text: str) -> None:
    assert read_request("chat", body_of(chat(text))).prompt_tokens == -(-len(text) // 4)
    assert read_request("completions", body_of({"model": "m", "prompt": [text, "ab"]})).prompt_tokens == -(
        -(len(text) + 2) // 4
    )


def test_the_cut_falls_between_characters() -> None:
    for before in range(4):
        outline = outlined(body_of(chat("x" * before + "☂" * LONG)))
        assert outline is not None
        assert set(orjson.loads(outline.text)["messages"][0]["content"][before:-2]) == {"☂"}


def test_what_stands_between_strings_is_never_left_out() -> None:
    for text in (b"", b"\\\\", b'\\"', b'\\\\\\"'):
        body = b'{"a":"%b","n":[%b7],"b":"%b","c":"%b"}' % (text, b"7," * LONG, text, b"x" * LONG)
        outline = outlined(body)
        assert outline is not None
        assert orjson.loads(outline.text)["n"] == [7] * (LONG + 1)


def test_places_in_the_outline_are_places_in_the_body() -> None:
    body = body_of({"a": "x" * LONG, "b": "y" * LONG, "c": ""})
    outline = outlined(body)
    assert outline is not None
    for sought in (b'"a"', b'","b"', b'","c"', b"}"):
        assert outline.place(outline.text.index(sought)) == body.index(sought)


def test_strings_that_begin_alike_are_told_from_each_other() -> None:
    texts = ["x" * LONG, "x" * (LONG + 4_000), "x" * (LONG + 40)]
    messages = [{"role": "user", "content": text} for text in texts]
    assert read_request("chat", body_of({"model": "m", "messages": messages})).prompt_tokens == sum(map(len, texts)) // 4


def test_a_picture_is_no_text_however_large_and_tools_are_what_is_left() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * LONG}}
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    body = body_of(chat([{"type": "text", "text": "What is this?"}, picture], tools=tools))
    read = read_request("chat", body)
    assert read.outline is not None
    assert read.needs == ("chat", "tools", "vision")
    assert read.prompt_tokens < 85 + 100


def test_a_long_name_of_the_user_is_known_whole() -> None:
    name = "u" * LONG
    assert read_request("chat", body_of(chat("Hello", user=name))).user == name


@pytest.mark.parametrize("broken", [b'{"model":"m","x":"%b",}', b'{"model":"m","x":"%b"', b'{"x":"%b","n":NaN}'])
def test_a_mistake_is_told_with_its_place_in_the_body(broken: bytes) -> None:
    body = broken % (b"x" * LONG)
    with pytest.raises(orjson.JSONDecodeError) as found:
        orjson.loads(body)
    with pytest.raises(BadRequest) as caught:
        read_request("chat", body)
    assert f"(char {found.value.pos})" in caught.value.message
    assert found.value.pos > LONG


def test_the_models_name_is_found_behind_what_was_left_out_and_before_it() -> None:
    around = (b'{"a":"%b","model":"m","b":"%b"}', b'{"model":"m","a":"%b","b":"%b"}', b'{"a":"%b","b":"%b","model":"m"}')
    for frame in around:
        body = frame % (b"x" * LONG, b"y" * (LONG + 7))
        read = read_request("embeddings", body[:-1] + b',"input":"i"}')
        assert read.outline is not None
        assert replace_model(read.body, read.parsed, "m", read.outline) is read.body
        assert replace_model(read.body, read.parsed, "other", read.outline) == read.body.replace(b'"m"', b'"other"')


def test_two_names_of_the_model_are_both_replaced() -> None:
    body = b'{"model":"a","messages":[],"x":"%b","model":"b"}' % (b"x" * LONG)
    read = read_request("chat", body)
    assert replace_model(body, read.parsed, "Z", read.outline) == body.replace(b'"a"', b'"Z"').replace(b'"b"', b'"Z"')


RUN = st.builds(lambda character, count: character * count, st.sampled_from(["x", "é", "☂", "𝄞"]), st.integers(60_000, 140_000))
TEXT = st.text(max_size=20) | st.sampled_from(['"model"', "\\", 'a\\"b', "~0", "\\u006d"]) | RUN
MIXED = st.builds("".join, st.lists(TEXT, max_size=3))
PART = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": MIXED}),
    st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": MIXED})}),
)
CALLS = st.lists(st.fixed_dictionaries({"function": st.fixed_dictionaries({"arguments": MIXED})}), max_size=2)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system"]), "content": MIXED | st.lists(PART, max_size=2)}, optional={"tool_calls": CALLS}
)
FIELDS = st.fixed_dictionaries(
    {"model": st.sampled_from(["m", "é", "a/b"]), "messages": st.lists(MESSAGE, max_size=3), "prompt": MIXED, "input": MIXED},
    optional={
        "tools": st.lists(st.fixed_dictionaries({"name": MIXED}), max_size=2),
        "user": MIXED,
        "stream": st.booleans(),
        "prompt_cache_key": MIXED,
        "metadata": st.fixed_dictionaries({"model": MIXED}),
    },
)


@given(FIELDS, st.sampled_from(["chat", "completions", "embeddings"]), st.sampled_from(["m", 'n"é']))
@settings(max_examples=60)
def test_pain_06_the_same_is_read_and_sent_as_if_nothing_was_left_out(
    fields: dict[str, Any], endpoint: Endpoint, name: str
) -> None:
    plain, full = body_of(fields, SPACES), body_of(fields, QUOTED)
    assert len(plain) == len(full)
    assert outlined(full) is None
    assert facts(endpoint, plain) == facts(endpoint, full)
    assert changed(endpoint, plain, name) == changed(endpoint, full, name).replace(QUOTED, SPACES)
