"""Cutting a stream of bytes into events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.dialects.sse import EventTooLarge, SseSplitter, event_data


def split(*chunks: bytes) -> list[bytes]:
    splitter = SseSplitter()
    return [event for chunk in chunks for event in splitter.feed(chunk)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_ends_with_a_blank_line_of_any_kind(end: bytes) -> None:
    first, second = b"event: x" + end + b"data: 1" + end + end, b"data: 2" + end + end
    assert split(first + second + b"data: 3" + end) == [first, second]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_cut_does_not_depend_on_where_the_chunks_are_cut(end: bytes) -> None:
    stream = end.join([": hi", "data: é☂", "", "data: 2", "data: b", "", "data: [DONE]", "", "x"][i].encode() for i in range(9))
    whole = split(stream)
    assert len(whole) == 3
    for at in range(len(stream) + 1):
        assert split(stream[:at], stream[at:]) == whole
    assert split(*(stream[i : i + 1] for i in range(len(stream)))) == whole


def test_the_line_feed_of_a_late_carriage_return_stays_with_its_event() -> None:
    assert split(b"data: 1\r\n\r", b"\ndata: 2\r\n\r\n") == [b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"]


PIECES = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b": c", "☂".encode(), b"\xff"]), max_size=30)


@given(PIECES, st.lists(st.integers(1, 7), max_size=40))
def test_events_and_pending_are_the_input_byte_for_byte(pieces: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(pieces)
    splitter = SseSplitter()
    events: list[bytes] = []
    at = 0
    for size in [*sizes, len(stream)]:
        events += splitter.feed(stream[at : at + size])
        at += size
    assert b"".join(events) + splitter.pending == stream
    assert splitter.has_pending == bool(splitter.pending)
    assert events == split(stream)


def test_an_endless_event_is_refused() -> None:
    splitter = SseSplitter(limit_bytes=10)
    assert splitter.feed(b"data: 1\n\ndata: 1\n\n") == [b"data: 1\n\n"] * 2
    splitter.feed(b"0123456789")
    with pytest.raises(EventTooLarge):
        splitter.feed(b"x")
    assert splitter.pending == b"0123456789x"


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x\r\n\r\n", b"x"),
        (b"data:  x\n\n", b" x"),
        (b"id: 1\ndata: a\ndata:b\n\n", b"a\nb"),
        (b"data\n\n", b""),
        (b"data:\n\n", b""),
        (b": comment\n\n", None),
        (b"event: ping\rretry: 3\r\r", None),
        (b"database: x\n\n", None),
        (b"\xef\xbb\xbfdata: x\n\n", b"x"),
        (b"data: unfinished", b"unfinished"),
    ],
)
def test_the_data_of_an_event_is_its_data_lines(event: bytes, data: bytes | None) -> None:
    assert event_data(event) == data
