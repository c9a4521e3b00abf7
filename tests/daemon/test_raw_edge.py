"""The fast lane of the listener: what comes is read the same however it comes, and nothing is answered that was not asked."""

import asyncio
from functools import partial
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.courier.problems import Problem
from runtime.http.raw_sink import answer_head
from runtime.ports import EdgeRequest, EdgeSink
from tests.daemon.edge_desk import IDLE_S, MAX_BODY, Behaviour, Desk, Stage, echo, hangs, pours

LINE = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n\r\n"


def post(body: bytes, more: bytes = b"", path: bytes = b"/v1/chat/completions", version: bytes = b"1.1") -> bytes:
    return b"POST %b HTTP/%b\r\nHost: 127.0.0.1\r\n%bContent-Length: %d\r\n\r\n%b" % (path, version, more, len(body), body)


STREAM = (
    post(b'{"a": 1}')
    + b"\r\n"
    + post(b'{"a": 1}')
    + CHUNKED
    + b"3;x=y\r\na\r\n\r\n4\r\n\r\n\r\n\r\n2\r\nbc\r\n0\r\nTrailer: t\r\n\r\n"
    + CHUNKED
    + b"0\r\n\r\n"
    + post(b"", b"X-Empty:\r\n", b"/v1/embeddings?v=1")
    + post(b"\r\n\r\nPOST /v1/completions HTTP/1.1\r\n\r\n", path=b"/v1/completions")
)
BODIES = [b'{"a": 1}', b'{"a": 1}', b"a\r\n\r\n\r\n\r\nbc"[:3] + b"\r\n\r\nbc", b"", b"", STREAM[-37:]]
TAIL = GET + b"POST /v1/chat/completions HTTP/1.1\r\n\r\n"


def was_read_right(stage: Stage) -> bool:
    return (stage.desk.bodies, stage.successor.got, stage.desk.refusals, stage.desk.count) == (BODIES, TAIL, [], 0)


async def test_requests_are_the_same_at_whatever_byte_they_are_split() -> None:
    whole = STREAM + TAIL
    for at in range(len(whole) + 1):
        stage = Stage(Desk())
        await stage.feed(whole[:at], whole[at:])
        assert was_read_right(stage), at
    stage = Stage(Desk())
    await stage.feed(*(whole[at : at + 1] for at in range(len(whole))))
    assert was_read_right(stage)
    assert stage.wire.sent.count(b"HTTP/1.1 200 OK\r\n") == len(BODIES)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(STREAM + TAIL)), max_size=12))
async def test_requests_are_the_same_in_whatever_pieces_they_come(cuts: list[int]) -> None:
    whole, places = STREAM + TAIL, [0, *sorted(cuts), len(STREAM + TAIL)]
    stage = Stage(Desk())
    await stage.feed(*(whole[start:end] for start, end in pairwise(places)))
    assert was_read_right(stage)


@settings(max_examples=100, deadline=None)
@example([(492, 0, b"0\r\n\r\n")], 1)
@given(
    st.lists(st.tuples(st.integers(0, len(STREAM)), st.integers(0, 30), st.binary(max_size=6)), min_size=1, max_size=4),
    st.integers(5, 400),
)
async def test_bytes_that_are_spoilt_neither_crash_it_nor_leave_anything_behind(
    spoils: list[tuple[int, int, bytes]], size: int
) -> None:
    data = STREAM
    for at, length, put in spoils:
        data = data[:at] + put + data[at + length :]
    stage = Stage(Desk())

    await stage.feed(*(data[at : at + size] for at in range(0, len(data), size)))

    # A version can be spoilt too: HTTP/1.0 is answered in kind.
    answers = stage.wire.sent.count(b"HTTP/1.1 ") + stage.wire.sent.count(b"HTTP/1.0 ")
    assert answers == len(stage.desk.requests) + len(stage.desk.refusals) + stage.wire.sent.count(b"HTTP/1.1 100 ")
    if stage.desk.refusals:
        # One refusal is the end: nothing that comes after it is read.
        assert len(stage.desk.refusals) == 1
        served = len(stage.desk.requests)
        await stage.feed(post(b"next"))
        assert len(stage.desk.requests) == served
    stage.end()
    await stage.turn()
    assert stage.desk.count == 0


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=300))
async def test_noise_is_refused_or_waited_for(noise: bytes) -> None:
    stage = Stage(Desk())
    await stage.feed(noise)
    assert stage.desk.requests == []
    assert stage.wire.sent == b"" or stage.wire.sent.startswith(b"HTTP/1.1 400 ")
    stage.end()


@pytest.mark.parametrize(
    ("begins", "piece"),
    [
        (b"2;", b"x" * 8_000),
        (b"0\r\n", b"Trailer: of many\r\n" * 400),
        (b"%x\r\n" % MAX_BODY, b"\r\n\r\n" * 2_000),
    ],
    ids=["an extension", "trailers", "blank lines"],
)
async def test_a_chunked_body_has_no_more_around_it_than_it_needs(begins: bytes, piece: bytes) -> None:
    stage = Stage(Desk())
    await stage.feed(CHUNKED + begins)
    for _ in range(12):
        await stage.feed(piece)
    assert stage.desk.refusals == [400]
    assert stage.wire.sent.startswith(b"HTTP/1.1 400 ")
    await stage.feed(post(b"next"))
    assert stage.desk.requests == []


async def test_a_chunked_body_may_come_in_chunks_of_a_byte() -> None:
    stage = Stage(Desk())
    await stage.feed(CHUNKED, *[b"1\r\nx\r\n" * 1_000] * 40, b"0\r\n\r\n")
    assert stage.desk.bodies == [b"x" * 40_000]


async def test_of_what_is_sent_ahead_only_so_much_is_read() -> None:
    gate = asyncio.Event()

    async def gated(request: EdgeRequest, sink: EdgeSink) -> None:
        await gate.wait()
        await echo(request, sink)

    stage = Stage(Desk(gated))
    await stage.feed(post(b"0"), post(b"x" * 60_000))
    assert not stage.wire.is_paused
    await stage.feed(post(b"y" * 10_000))
    assert stage.wire.is_paused
    gate.set()
    await stage.turn()
    await stage.turn()
    assert not stage.wire.is_paused
    assert [len(body) for body in stage.desk.bodies] == [1, 60_000, 10_000]


async def test_a_connection_that_is_full_tells_its_successor() -> None:
    told: list[str] = []
    stage = Stage(Desk())
    stage.successor.pause_writing = lambda: told.append("paused")  # type: ignore[method-assign] # a note, no more
    stage.connection.pause_writing()
    await stage.feed(GET)
    assert (told, stage.successor.got) == (["paused"], GET)


async def test_a_client_that_takes_little_but_takes_is_not_given_up() -> None:
    stage = Stage(Desk(pours))
    stage.wire.unsent_bytes = 50_000
    stage.connection.pause_writing()
    await stage.feed(post(b"{}"))
    for _ in range(5):
        stage.wire.unsent_bytes -= 1
        stage.connection.expire()
        assert not stage.wire.is_over
    stage.connection.expire()
    await stage.turn()
    assert (stage.wire.is_over, stage.desk.ends) == (True, ["ClientGone"])


async def test_nobodys_time_is_up_too_early_by_a_clock_that_has_whole_milliseconds_only() -> None:
    stage = Stage(Desk(pours))
    connection, lane = stage.connection, stage.lane
    for idle_ms in (1, 400, 60_000):
        for begun_ms in range(6_188_000, 6_189_000, 7):
            connection.deadline = begun_ms / 1000 + idle_ms / 1000
            lane.time = partial(float, (begun_ms + idle_ms) / 1000)
            lane._sweep()
            assert not stage.wire.is_over
    lane.time = partial(float, connection.deadline + 0.001)
    lane._sweep()
    assert stage.wire.is_over


async def breaks_off(request: EdgeRequest, sink: EdgeSink) -> None:
    await sink.start(200, [])
    sink.abort()


@pytest.mark.parametrize(
    ("behave", "sent"),
    [
        (echo, post(b"{}", b"Connection: close\r\n")),
        (echo, post(b"{}").replace(b"Host", b"Host ")),
        (breaks_off, post(b"{}")),
    ],
    ids=["the last answer", "a refusal", "an answer broken off"],
)
async def test_who_does_not_take_the_last_words_is_waited_for_only_so_long(behave: Behaviour, sent: bytes) -> None:
    stage = Stage(Desk(behave))
    stage.wire.unsent_bytes = 1000
    await stage.feed(sent)
    assert stage.wire.sent.startswith(b"HTTP/1.1 ")
    assert stage.connection.deadline <= asyncio.get_running_loop().time() + IDLE_S
    stage.wire.unsent_bytes = 999
    stage.connection.expire()
    assert not stage.wire.is_cut
    assert stage.connection.deadline <= asyncio.get_running_loop().time() + IDLE_S
    stage.connection.expire()
    assert stage.wire.is_cut


async def test_who_is_cut_at_the_end_is_told_so() -> None:
    desk = Desk(hangs)
    stage = Stage(desk)
    await stage.feed(LINE + b"Content-Length: 5\r\n\r\n")
    desk.is_cut = True
    stage.connection.cancel()
    await stage.turn()
    assert stage.wire.sent.startswith(b"HTTP/1.1 503 ")
    assert (desk.ends, desk.count) == (["cut"], 0)


@pytest.mark.parametrize("is_refused_first", [True, False], ids=["refused, then the end", "the end, then refused"])
async def test_who_is_refused_before_the_body_is_here_may_still_send_it_while_the_daemon_ends(is_refused_first: bool) -> None:
    # A connection that is closed while a body is on its way takes the answer back that the client has not read yet.
    desk = Desk()
    desk.refusal = Problem(503, "shutting_down", "Pointsman is shutting down.")
    stage = Stage(desk)
    if is_refused_first:
        await stage.feed(LINE + b"Content-Length: 5\r\n\r\n")
        stage.lane.close_idle()
    else:
        cast(asyncio.Protocol, stage.wire.protocol).data_received(LINE + b"Content-Length: 5\r\n\r\n")
        stage.lane.close_idle()
        await stage.turn()
    assert stage.wire.sent.startswith(b"HTTP/1.1 503 ")
    assert not stage.wire.is_over
    await stage.feed(b"12345")
    assert not stage.wire.is_over


async def test_who_asks_nothing_is_closed_when_the_daemon_ends() -> None:
    stage = Stage(Desk())
    stage.lane.close_idle()
    assert stage.wire.is_over


@pytest.mark.parametrize("bad", ["\r\n", "\n", "\r", "\0"])
def test_what_would_end_a_header_is_a_space_in_it(bad: str) -> None:
    for header in ((f"a{bad}b", "c"), ("a b", f"c{bad}")):
        head = answer_head(200, [header], "")
        assert head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r") == 5
        assert b"\0" not in head
        assert b"\r\na " in head


def test_nothing_in_a_header_begins_another() -> None:
    head = answer_head(200, [("a", "b\r\nSet-Cookie: x"), ("c\n", "d\0\udcff"), ("e", "\ud800")], "")
    assert head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r") == 7
    assert b"\r\nSet-Cookie" not in head
    assert b"\0" not in head
