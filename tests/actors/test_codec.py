"""The codec and the frontier: every message crosses and comes back the same; no bytes do harm."""

from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages.base import TAGS, Message
from messages.calls import Award, CallEnded, Outcome
from messages.codec import MAX_BYTES, MAX_DEPTH, BadBytes, CodecError, UnknownTag, pack
from messages.control import Drain, RoutingSpec, Timer
from messages.envelope import Envelope, TraceContext
from messages.routing import Gathered
from runtime.system.frontier import decode, decode_envelope, encode, encode_envelope
from tests.actors.golden_tags import GOLDEN_TAGS
from tests.actors.strategies import any_message, of_class

AWARD = {"$": "calls.award", "permit_id": "p", "query_id": "q", "model": "m", "tokens": 7, "stream": False}


def award_bytes(**changes: Any) -> bytes:
    packed: bytes = msgpack.packb(AWARD | changes)
    return packed


@pytest.mark.parametrize("tag", sorted(TAGS))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_message_comes_back_as_it_went(tag: str, data: st.DataObject) -> None:
    message = data.draw(of_class(TAGS[tag]))

    back = decode(encode(message))

    assert back == message
    assert type(back) is TAGS[tag]


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    message=any_message(),
    sender=st.text(max_size=10),
    deadline=st.none() | st.floats(allow_nan=False),
    trace=st.none() | of_class(TraceContext),
)
def test_an_envelope_comes_back_without_its_reply_port(
    message: Message, sender: str, deadline: float | None, trace: TraceContext | None
) -> None:
    class Port:
        def answer(self, actor: str, reply: Any) -> None:
            raise AssertionError("nobody answers here")

    sent = Envelope(message, sender, deadline, trace, reply_to=Port(), posted_at=3.0)

    assert decode_envelope(encode_envelope(sent)) == Envelope(message, sender, deadline, trace)


def test_a_message_alone_is_no_envelope() -> None:
    with pytest.raises(BadBytes, match="not an envelope"):
        decode_envelope(encode(Drain()))


def test_tags_stay_as_they_were_released() -> None:
    # A tag names one class for ever: recordings hold it. A new message adds its line to golden_tags.py; none goes.
    assert {tag: cls.__name__ for tag, cls in TAGS.items()} == GOLDEN_TAGS


def test_an_unknown_tag_is_a_typed_error() -> None:
    with pytest.raises(UnknownTag, match=r"calls\.bribe"):
        decode(award_bytes(**{"$": "calls.bribe"}))


def test_an_unknown_tag_deep_inside_is_a_typed_error_too() -> None:
    inside = {"$": "routing.gathered", "key": "k", "answers": [{"$": "nobody.knows"}]}
    with pytest.raises(UnknownTag, match=r"nobody\.knows"):
        decode(msgpack.packb(inside))


@pytest.mark.parametrize("tag", [None, 7, ["calls.award"]])
def test_a_tag_that_is_no_text_is_unknown(tag: Any) -> None:
    with pytest.raises(UnknownTag):
        decode(award_bytes(**{"$": tag}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x80",
        msgpack.packb([1, 2]),
        msgpack.packb("calls.award"),
        msgpack.packb({"permit_id": "p"}),
        award_bytes() + b"\x00",
        award_bytes()[:-1],
        b"\x91" * 600 + b"\x00",
        b"\x91" * 5000 + b"\x00",
    ],
    ids=["empty", "never-used byte", "empty map", "array", "text", "no tag", "more after", "cut", "deep", "abyss"],
)
def test_bytes_that_are_no_message_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(BadBytes):
        decode(data)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "colour"),
        ({"tokens": "7"}, "tokens"),
        ({"tokens": 7.0}, "tokens"),
        ({"tokens": True}, "tokens"),
        ({"stream": 1}, "stream"),
        ({"model": None}, "model"),
        ({"model": ["m"]}, "model"),
        ({"model": {"$": "control.drain"}}, "model"),
        ({"model": b"\x00m"}, "bytes"),
        ({"model": msgpack.ExtType(4, b"m")}, "ExtType"),
        ({"model": msgpack.Timestamp(1)}, "Timestamp"),
    ],
)
def test_a_field_that_does_not_fit_is_a_typed_error_that_names_it(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadBytes, match=said):
        decode(award_bytes(**changes))


def test_a_value_no_enum_has_is_a_typed_error() -> None:
    good = msgpack.unpackb(encode(CallEnded("p", "q", "a", "m", Outcome.SUCCESS, False, 1.0)))
    with pytest.raises(BadBytes, match="outcome"):
        decode(msgpack.packb(good | {"outcome": "splendid"}))


def test_another_message_in_a_fields_place_is_a_typed_error() -> None:
    good = msgpack.unpackb(encode(CallEnded("p", "q", "a", "m", Outcome.SUCCESS, False, 1.0)))
    with pytest.raises(BadBytes, match="usage"):
        decode(msgpack.packb(good | {"usage": {"$": "control.drain"}}))


def test_a_missing_field_is_an_error_unless_it_has_a_default() -> None:
    without_model = {name: value for name, value in AWARD.items() if name != "model"}

    assert decode(msgpack.packb(AWARD)) == Award("p", "q", "m", 7, False, max_tokens=None)
    with pytest.raises(BadBytes, match="model"):
        decode(msgpack.packb(without_model))


def test_a_record_without_a_nested_part_takes_the_parts_default() -> None:
    packed = msgpack.unpackb(encode(RoutingSpec(fanout=3)))
    del packed["failover"]

    assert decode(msgpack.packb(packed)) == RoutingSpec(fanout=3)


def test_an_integer_may_stand_where_a_float_is_due() -> None:
    packed = msgpack.unpackb(encode(RoutingSpec()))

    back = decode(msgpack.packb(packed | {"deadline_s": 60}))

    assert isinstance(back, RoutingSpec)
    assert back.deadline_s == 60.0
    assert type(back.deadline_s) is float


def test_too_many_bytes_are_refused_before_they_are_read() -> None:
    with pytest.raises(BadBytes, match="more than"):
        decode(b"\x00" * (MAX_BYTES + 1))


def test_what_nests_too_deep_is_refused() -> None:
    answers: Any = ()
    for _ in range(MAX_DEPTH):
        answers = (answers,)
    with pytest.raises(BadBytes, match="deeper"):
        decode(encode(Gathered("k", answers)))


KINDS_THAT_CANNOT = ("mapping", "set", "bytes", "integer beyond 64 bits", "lone surrogate", "object")


@pytest.mark.parametrize("odd", [{"a": 1}, {1}, b"bytes", 2**64, "\ud800", object()], ids=KINDS_THAT_CANNOT)
def test_what_cannot_travel_is_refused_at_the_sender(odd: Any) -> None:
    with pytest.raises(TypeError):
        pack(Timer(odd))


@settings(max_examples=300)
@given(data=st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_codec_errors(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(message=any_message(), data=st.data())
def test_a_mutilated_message_is_another_message_or_a_codec_error(message: Message, data: st.DataObject) -> None:
    packed = bytearray(encode(message))
    at = data.draw(st.integers(0, len(packed) - 1))
    if data.draw(st.booleans()):
        packed[at] = data.draw(st.integers(0, 255))
    else:
        del packed[at:]

    try:
        back = decode(bytes(packed))
    except CodecError:
        return
    assert decode(encode(back)) == back or "nan" in repr(back)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["$", "key", "answers"]), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(tag=st.sampled_from(sorted(TAGS)), data=st.data())
def test_a_true_tag_with_any_fields_is_a_message_or_a_codec_error(tag: str, data: st.DataObject) -> None:
    names = st.sampled_from(TAGS[tag].__match_args__ or ("none",))
    fields = data.draw(st.dictionaries(names, JUNK, max_size=4))

    try:
        back = decode(msgpack.packb(fields | {"$": tag}))
    except CodecError:
        return
    assert type(back) is TAGS[tag]
