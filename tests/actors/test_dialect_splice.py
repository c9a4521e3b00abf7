"""Changing the model's name and nothing else."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.dialects.splice import insert_include_usage, replace_model


def replaced(body: bytes, name: str) -> bytes:
    return replace_model(body, orjson.loads(body), name)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a","n":1.50}', b'{"model":"Z","n":1.50}'),
        (b'\t{ "x" : 1.50e+3 ,\r\n "model"\n:\t"a\\"b" }\n', b'\t{ "x" : 1.50e+3 ,\r\n "model"\n:\t"Z" }\n'),
        (b'{"a":{"model":"in"},"model":"a"}', b'{"a":{"model":"in"},"model":"Z"}'),
        (b'{"model":"a","a":[{"model":"in"}]}', b'{"model":"Z","a":[{"model":"in"}]}'),
        (b'{"a":"\\"model\\":\\"in\\"","model":"a"}', b'{"a":"\\"model\\":\\"in\\"","model":"Z"}'),
        (b'{"a":"model","model":"model"}', b'{"a":"model","model":"Z"}'),
        (b'{"x\\"model":"in","model":"a"}', b'{"x\\"model":"in","model":"Z"}'),
        (b'{"\\u006dodel":"a"}', b'{"\\u006dodel":"Z"}'),
        (b'{"mod\\u0065l":"a","b":{"model":"in"}}', b'{"mod\\u0065l":"Z","b":{"model":"in"}}'),
        (b'{"model":"a","model":"b"}', b'{"model":"Z","model":"Z"}'),
        (
            b'{"model":{"model":1},"model":[2,"}"],"model":null,"model":-1.5e3,"model":"b"}',
            b'{"model":"Z","model":"Z","model":"Z","model":"Z","model":"Z"}',
        ),
        (b'{"model":"first","\\u006dodel":"Z"}', b'{"model":"Z","\\u006dodel":"Z"}'),
        ('{"é":"☂","model":"ü"}'.encode(), '{"é":"☂","model":"Z"}'.encode()),
    ],
)
def test_pain_06_only_the_value_of_the_top_level_model_changes(body: bytes, expected: bytes) -> None:
    assert replaced(body, "Z") == expected


def test_an_equal_name_returns_the_very_same_object() -> None:
    for body in (b'{"model":"a","x":1}', b'{"\\u006dodel":"a"}', b'{"model":"a","y":{"model":"a"}}'):
        assert replaced(body, "a") is body


def test_the_new_name_is_escaped() -> None:
    assert orjson.loads(replaced(b'{"model":"a"}', 'q"\\\n☂'))["model"] == 'q"\\\n☂'


def test_a_long_body_is_read_in_linear_time() -> None:
    body = b'{"a":"' + b'\\"model\\"' * 300_000 + b'","model":"a","model":"a"}'
    assert replaced(body, "b").endswith(b'"model":"b","model":"b"}')


def test_a_request_for_usage_is_put_first_and_the_rest_stays() -> None:
    body = b' { "model":"a", "z":1.0 }'
    assert insert_include_usage(body, orjson.loads(body)) == (
        b' {"stream_options":{"include_usage":true}, "model":"a", "z":1.0 }'
    )
    assert orjson.loads(insert_include_usage(b"{}", {})) == {"stream_options": {"include_usage": True}}


def test_stream_options_of_the_client_are_left_alone() -> None:
    body = b'{"model":"a","stream_options":null}'
    assert insert_include_usage(body, orjson.loads(body)) is body


TEXT = st.text(st.sampled_from(list('model"\\:{}[], \n☂é')) | st.characters(codec="utf-8"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT | st.just("model"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.just("model"), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def written(draw: st.DrawFn, value: Any) -> str:
    """``value`` as JSON in one of the ways it can be written."""
    space = draw(st.sampled_from(["", " ", "\n\t", "\r\n"]))
    if isinstance(value, dict):
        pairs = [f"{space}{draw(written(key))}{space}:{space}{draw(written(item))}" for key, item in value.items()]
        return "{" + ",".join(pairs) + space + "}"
    if isinstance(value, list):
        return "[" + space + f"{space},{space}".join(draw(written(item)) for item in value) + "]"
    if isinstance(value, str) and draw(st.booleans()):
        units = value.encode("utf-16-be")
        return '"' + "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)) + '"'
    return orjson.dumps(value).decode()


@given(st.data(), st.dictionaries(TEXT, VALUES, max_size=4), TEXT, TEXT)
def test_any_body_parses_to_the_same_with_the_model_replaced(
    data: st.DataObject, rest: dict[str, Any], old: str, new: str
) -> None:
    items = [*((key, value) for key, value in rest.items() if key != "model"), ("model", old)]
    original = dict(data.draw(st.permutations(items)))
    body = data.draw(written(original)).encode()
    result = replaced(body, new)
    assert orjson.loads(result) == {**original, "model": new}
    if old == new:
        assert result is body
        return
    # Nothing but the value differs: what is before and after it is the same bytes.
    value = orjson.dumps(new)
    assert any(
        body.startswith(result[:at]) and body.endswith(result[at + len(value) :])
        for at in range(len(result))
        if result.startswith(value, at)
    )


@given(st.data(), st.dictionaries(TEXT, VALUES, max_size=4))
def test_asking_for_usage_adds_one_field_to_any_body(data: st.DataObject, rest: dict[str, Any]) -> None:
    body = data.draw(written(rest)).encode()
    result = insert_include_usage(body, rest)
    assert orjson.loads(result) == {"stream_options": {"include_usage": True}, **rest}
