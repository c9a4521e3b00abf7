"""Reading a client's request: what is understood, what is refused, what passes through."""

from typing import Any

import orjson
import pytest

from runtime.dialects.request import NAMES_SEEN_MAX, BadRequest, Endpoint, read_request

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x" * 40}]}


def chat(**fields: Any) -> bytes:
    return orjson.dumps({**HELLO, **fields})


def test_a_chat_request_tells_its_model_size_and_needs() -> None:
    request = read_request("chat", chat(user="ada", max_tokens=7))
    assert (request.model, request.stream, request.max_tokens, request.user) == ("m", False, 7, "ada")
    assert request.prompt_tokens == 10
    assert [read_request("completions", orjson.dumps({"model": "m", "prompt": "x" * n})).prompt_tokens for n in (1, 4, 5)] == [
        1,
        1,
        2,
    ]
    assert request.needs == ("chat",)
    assert not request.wants_usage
    assert not request.has_stream_options


def test_the_body_and_unknown_fields_are_kept_as_they_came() -> None:
    body = b' {"zeta" : 1.0e0, "model":"m","messages":[], "x": {"y":[null]}} '
    request = read_request("chat", body)
    assert request.body is body
    assert request.parsed["x"] == {"y": [None]}


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"stream": True}, ("chat", "streaming")),
        ({"tools": [{"type": "function"}]}, ("chat", "tools")),
        ({"functions": [{"name": "f"}]}, ("chat", "tools")),
        ({"tools": []}, ("chat",)),
        ({"response_format": {"type": "json_object"}}, ("chat", "json")),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, ("chat", "json")),
        ({"response_format": {"type": "text"}}, ("chat",)),
        ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]}, ("chat", "vision")),
        (
            {
                "stream": True,
                "tools": [{}],
                "response_format": {"type": "json_object"},
                "messages": [{"content": [{"type": "image_url"}]}],
            },
            ("chat", "json", "streaming", "tools", "vision"),
        ),
    ],
)
def test_needs_follow_from_the_request_and_are_sorted(fields: dict[str, Any], needs: tuple[str, ...]) -> None:
    assert read_request("chat", chat(**fields)).needs == needs


def test_completions_and_embeddings_have_needs_of_their_own() -> None:
    assert read_request("completions", b'{"model":"m","prompt":"hi","stream":true}').needs == ("chat", "streaming")
    assert read_request("embeddings", b'{"model":"m","input":"hi"}').needs == ("embeddings",)


def test_max_completion_tokens_wins_over_max_tokens() -> None:
    assert read_request("chat", chat(max_tokens=5, max_completion_tokens=9)).max_tokens == 9
    assert read_request("chat", chat(max_tokens=5, max_completion_tokens=None)).max_tokens == 5
    assert read_request("completions", b'{"model":"m","prompt":"p","max_tokens":0}').max_tokens == 0


@pytest.mark.parametrize(
    ("endpoint", "fields", "tokens"),
    [
        ("chat", {"messages": [{"content": [{"type": "text", "text": "x" * 8}]}]}, 2),
        ("chat", {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "d" * 4000}}]}]}, 85),
        ("chat", {"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": "d" * 4000}}]}]}, 85),
        ("chat", {"messages": [{"tool_calls": [{"function": {"arguments": "x" * 12}}]}]}, 3),
        ("chat", {"messages": ["odd", {"content": 7}, {"content": ["odd"]}, {"tool_calls": [None, {}]}]}, 0),
        ("completions", {"prompt": "x" * 12}, 3),
        ("completions", {"prompt": ["x" * 12, "y" * 4]}, 4),
        ("completions", {"prompt": [1, 2, 3]}, 3),
        ("embeddings", {"input": [[1, 2, 3], [4]]}, 4),
        ("embeddings", {"input": "é" * 8}, 2),
    ],
)
def test_prompt_tokens_are_estimated_at_four_characters_each(endpoint: Endpoint, fields: dict[str, Any], tokens: int) -> None:
    assert read_request(endpoint, orjson.dumps({"model": "m", **fields})).prompt_tokens == tokens


@pytest.mark.parametrize("text", ["plain", "naïve ☂", "a\tb"])
def test_tools_count_by_their_length_whatever_the_text_is_written_in(text: str) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"q": "x" * 400}}}]
    size = len(orjson.dumps(tools)) // 4
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}
    messages = [{"role": "user", "content": [{"type": "text", "text": text * 50}, picture]}]
    read = read_request("chat", chat(messages=messages, tools=tools))
    assert size <= read.prompt_tokens - 85 - len(text) * 50 // 4 <= size + 60


def test_usage_is_wanted_only_by_a_stream_that_says_so() -> None:
    options = {"include_usage": True}
    assert read_request("chat", chat(stream=True, stream_options=options)).wants_usage
    assert not read_request("chat", chat(stream_options=options)).wants_usage
    bare = read_request("chat", chat(stream=True, stream_options=None))
    assert not bare.wants_usage
    assert bare.has_stream_options


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        ("chat", b"", None),
        ("chat", b"[1,2]", None),
        ("chat", b'"model"', None),
        ("chat", b'{"messages":[]}', "model"),
        ("chat", b'{"model":null,"messages":[]}', "model"),
        ("chat", b'{"model":"","messages":[]}', "model"),
        ("chat", b'{"model":7,"messages":[]}', "model"),
        ("chat", b'{"model":"a\\r\\nx-evil: 1","messages":[]}', "model"),
        ("chat", orjson.dumps({"model": "m" * 257, "messages": []}), "model"),
        ("chat", b'{"model":"m"}', "messages"),
        ("chat", b'{"model":"m","messages":{}}', "messages"),
        ("chat", b'{"model":"m","messages":[],"stream":"yes"}', "stream"),
        ("chat", b'{"model":"m","messages":[],"stream":1}', "stream"),
        ("chat", b'{"model":"m","messages":[],"max_tokens":0}', "max_tokens"),
        ("chat", b'{"model":"m","messages":[],"max_tokens":true}', "max_tokens"),
        ("chat", b'{"model":"m","messages":[],"max_tokens":2.5}', "max_tokens"),
        ("chat", b'{"model":"m","messages":[],"max_completion_tokens":"9"}', "max_completion_tokens"),
        ("chat", b'{"model":"m","messages":[],"temperature":NaN}', None),
        ("chat", b'{"model":"m","messages":[],"temperature":Infinity}', None),
        ("chat", b'{"model":"m","messages":[],"x":"\xff"}', None),
        ("chat", b"[" * 5000, None),
        ("completions", b'{"model":"m"}', "prompt"),
        ("completions", b'{"model":"m","prompt":"x","max_tokens":-1}', "max_tokens"),
        ("embeddings", b'{"model":"m","input":null}', "input"),
    ],
)
def test_what_nobody_could_serve_is_refused_and_names_the_field(endpoint: Endpoint, body: bytes, param: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        read_request(endpoint, body)
    assert caught.value.param == param
    assert caught.value.message


def test_broken_json_is_refused_with_its_position() -> None:
    with pytest.raises(BadRequest, match=r"line 2 column 3 \(char 4\)"):
        read_request("chat", b'{\n  model: "m"}')


def test_names_of_models_are_read_right_however_many_there_are() -> None:
    for number in range(2 * NAMES_SEEN_MAX):
        for _ in range(2):
            assert read_request("chat", chat(model=f"model-{number}")).model == f"model-{number}"
            with pytest.raises(BadRequest, match="control characters"):
                read_request("chat", chat(model=f"model-{number}\n"))
