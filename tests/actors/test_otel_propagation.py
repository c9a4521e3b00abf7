"""W3C headers: what is valid is read and passed on, what is not is as if it had not come."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import TraceState

from messages.envelope import TraceContext
from otel.propagation import (
    BAGGAGE_LENGTH_MAX,
    BAGGAGE_MEMBERS_MAX,
    TRACESTATE_LENGTH_MAX,
    IncomingTrace,
    format_traceparent,
    outgoing_headers,
    parse_baggage,
    parse_traceparent,
    parse_tracestate,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


def hex_id(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


@given(hex_id(32), hex_id(16), st.integers(0, 255))
def test_every_valid_traceparent_is_read_and_only_its_lowest_flag_counts(trace_id: str, span_id: str, flags: int) -> None:
    found = parse_traceparent(f"00-{trace_id}-{span_id}-{flags:02x}")
    assert found == IncomingTrace(trace_id, span_id, sampled=flags % 2 == 1)


@given(hex_id(32), hex_id(16))
def test_what_we_format_is_read_again(trace_id: str, span_id: str) -> None:
    found = parse_traceparent(format_traceparent(TraceContext(trace_id, span_id)))
    assert found == IncomingTrace(trace_id, span_id, sampled=True)


@given(st.text(max_size=80))
def test_any_other_text_is_no_traceparent_and_raises_nothing(text: str) -> None:
    assert parse_traceparent(text) is None


@given(st.integers(0, len(VALID) - 1), st.characters())
def test_one_changed_character_gives_a_valid_position_or_none(place: int, character: str) -> None:
    found = parse_traceparent(VALID[:place] + character + VALID[place + 1 :])
    assert found is None or (len(found.trace_id) == 32 and len(found.span_id) == 16 and found.trace_id.isascii())


@pytest.mark.parametrize(
    "value",
    [
        "",
        VALID.upper(),
        VALID + "-00",
        VALID + "\n",
        " " + VALID,
        VALID[:-1],
        f"ff-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-zz",
        f"00_{TRACE}_{SPAN}_01",
        f"01-{TRACE}-{SPAN}-01more",
    ],
)
def test_an_invalid_traceparent_is_as_if_it_had_not_come(value: str) -> None:
    assert parse_traceparent(value) is None


@pytest.mark.parametrize("value", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-will-be"])
def test_a_later_version_is_read_by_its_first_four_fields(value: str) -> None:
    assert parse_traceparent(value) == IncomingTrace(TRACE, SPAN, sampled=True)


def test_the_tracestate_is_taken_with_a_valid_traceparent_only() -> None:
    assert parse_traceparent(VALID, "vendor=1") == IncomingTrace(TRACE, SPAN, True, "vendor=1")
    assert parse_traceparent("nonsense", "vendor=1") is None


KEYS = st.from_regex(r"[a-z][_0-9a-z\-*/]{0,20}(@[a-z]{1,5})?", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=",="), min_size=1, max_size=200)
MEMBERS = st.dictionaries(KEYS, VALUES, max_size=32).map(lambda pairs: [f"{k}={v}" for k, v in pairs.items()])


@given(MEMBERS)
def test_a_valid_tracestate_keeps_whole_members_in_order_within_its_bound(members: list[str]) -> None:
    kept = parse_tracestate(" , ".join(members))
    assert len(kept) <= TRACESTATE_LENGTH_MAX
    remaining = iter(members)
    assert all(member in remaining for member in kept.split(",") if member)
    if len(",".join(members)) <= TRACESTATE_LENGTH_MAX:
        assert kept == ",".join(members)


@given(st.one_of(st.text(max_size=60), MEMBERS.map(",".join)))
def test_the_sdk_takes_every_tracestate_we_pass_on_without_a_word(value: str) -> None:
    kept = parse_tracestate(value)
    assert TraceState.from_header([kept]).to_header() == kept


def test_the_sdk_is_never_given_a_tracestate_it_would_complain_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for bad in ("UPPER=1", "a=1,a=2", "a", "=b", "a=\x7f", "a=b=c", ",".join(f"k{n}=1" for n in range(33)), "a=1\r\nx: y"):
            assert parse_tracestate(bad) == ""
    assert not caplog.records


def test_long_members_of_a_tracestate_go_first_and_then_the_last() -> None:
    long = "long=" + "x" * 200
    short = [f"k{n}={'v' * 90}" for n in range(6)]
    assert parse_tracestate(",".join([long, *short])) == ",".join(short[:5])


@given(st.text())
def test_baggage_is_passed_on_bounded_and_printable(value: str) -> None:
    kept = parse_baggage(value)
    assert len(kept) <= BAGGAGE_LENGTH_MAX
    assert all(" " <= character <= "~" or character == "\t" for character in kept)
    assert parse_baggage(kept) == kept


def test_valid_baggage_members_survive_as_they_are_and_others_do_not() -> None:
    assert parse_baggage("a=1;ttl=3, b=%20x ,broken,c=2\r\nx: y,d=4") == "a=1;ttl=3,b=%20x,d=4"


def test_baggage_has_bounds_in_members_and_in_characters() -> None:
    assert parse_baggage(",".join(f"k{n}=v" for n in range(100))).count(",") == BAGGAGE_MEMBERS_MAX - 1
    assert parse_baggage(f"a=1,b={'x' * BAGGAGE_LENGTH_MAX},c=3") == "a=1"


def test_pain_18_a_trusted_provider_gets_our_own_position_and_an_unsampled_request_sends_none() -> None:
    context = TraceContext(TRACE, SPAN, "vendor=1")
    assert outgoing_headers(context, "a=1") == [("traceparent", VALID), ("tracestate", "vendor=1"), ("baggage", "a=1")]
    assert outgoing_headers(None, "") == []
