"""One raw connection, fed byte by byte: what an answer is, where it ends, and what must never be taken for one."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.upstream.failures import BrokenAnswer
from runtime.upstream.raw_connection import BUFFERED_BYTES_HIGH, HEAD_BYTES_MAX, RawConnection
from runtime.upstream.raw_exchange import State

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = HEAD + b"Content-Type: text/plain\r\nContent-Length: 11\r\n\r\n"
HELLO = b"hello world"


class Line(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_reading_paused = False
        self.is_aborted = False
        self.unsent_bytes = 0

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class Shelf:
    """A keeper that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def enter(self, connection: RawConnection) -> None:
        self.told.append("enter")

    def take_out(self, connection: RawConnection) -> None:
        self.told.append("take_out")

    def forget(self, connection: RawConnection) -> None:
        self.told.append("forget")


def connected() -> tuple[RawConnection, Line]:
    loop = asyncio.new_event_loop()
    loop.close()
    # Without a wait the connection never touches its loop.
    connection, line = RawConnection(loop, Shelf()), Line()
    connection.connection_made(line)
    return connection, line


def asked(method: str = "POST") -> tuple[RawConnection, Line]:
    connection, line = connected()
    connection.send(b"POST / HTTP/1.1\r\n\r\n", b"", has_no_body=method == "HEAD")
    return connection, line


def fed(connection: RawConnection, *pieces: bytes) -> bytes:
    """What came of the body. Like a transport's, bytes after the cut are dropped."""
    body = b""
    for piece in pieces:
        if not connection.is_lost:
            connection.data_received(piece)
        body += connection.take()
    return body


def ended(connection: RawConnection, is_clean: bool = True) -> None:
    connection.connection_lost(None if is_clean else ConnectionResetError())


WHOLE: list[tuple[bytes, bytes, bool]] = [
    # (answer, its body, whether the connection can serve again)
    (LENGTH + HELLO, HELLO, True),
    (CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", HELLO, True),
    (CHUNKED + b"b;name=value\r\nhello world\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", HELLO, True),
    (HEAD + b"Connection: close\r\nContent-Length: 11\r\n\r\n" + HELLO, HELLO, False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\n" + HELLO, HELLO, False),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 11\r\n\r\n", b"", True),
    (HEAD + b"Content-Length: 0\r\n\r\n", b"", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH + HELLO, HELLO, True),
]


@pytest.mark.parametrize(("answer", "body", "is_kept"), WHOLE)
def test_an_answer_is_the_same_wherever_its_bytes_are_split(answer: bytes, body: bytes, is_kept: bool) -> None:
    for at in range(len(answer) + 1):
        connection, _ = asked()
        assert fed(connection, *filter(None, (answer[:at], answer[at:]))) == body
        assert connection.state is State.WHOLE
        assert "Link" not in dict(connection.headers)
        assert connection.rest(1.0) is is_kept


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    cuts=st.lists(st.integers(0, 500), max_size=12),
)
def test_chunks_come_out_as_they_went_in_however_the_bytes_are_split(chunks: list[bytes], cuts: list[int]) -> None:
    answer = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    edges = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    connection, _ = asked()
    assert fed(connection, *(answer[a:b] for a, b in pairwise(edges))) == b"".join(chunks)
    assert connection.rest(1.0)


@given(answers=st.lists(st.sampled_from([whole for whole in WHOLE if whole[2]]), min_size=1, max_size=5))
def test_a_connection_serves_again_without_mixing_answers(answers: list[tuple[bytes, bytes, bool]]) -> None:
    connection, line = connected()
    for answer, body, _ in answers:
        connection.send(b"POST / HTTP/1.1\r\n\r\n", b"{}", has_no_body=False)
        assert fed(connection, answer) == body
        assert "Trailer" not in dict(connection.headers)
        assert "Other" not in dict(connection.headers)
        assert connection.rest(1.0)
    assert line.written == [b"POST / HTTP/1.1\r\n\r\n{}"] * len(answers)


@settings(max_examples=300, deadline=None)
@given(noise=st.binary(max_size=200), prefix=st.sampled_from([b"", b"HTTP/1.1 ", HEAD, LENGTH, CHUNKED, LENGTH + HELLO]))
def test_no_bytes_bring_it_down_and_no_broken_answer_leaves_a_connection_behind(noise: bytes, prefix: bytes) -> None:
    connection, line = asked()
    fed(connection, *filter(None, (prefix, noise)))
    if connection.state is State.BROKEN:
        assert isinstance(connection.error, BrokenAnswer)
        assert line.is_aborted
    if connection.rest(1.0):
        assert not line.is_aborted
    ended(connection)
    assert connection.state is not State.HEAD
    assert connection.is_lost


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\n\r\n", LENGTH + HELLO, b"\x00"])
@pytest.mark.parametrize("is_together", [True, False])
def test_bytes_after_a_whole_answer_leave_it_whole_and_spoil_the_connection(extra: bytes, is_together: bool) -> None:
    connection, line = asked()
    assert fed(connection, *([LENGTH + HELLO + extra] if is_together else [LENGTH + HELLO, extra])) == HELLO
    assert connection.state is State.WHOLE
    assert not connection.rest(1.0)
    assert line.is_aborted


@pytest.mark.parametrize("end", [lambda c: c.data_received(b"HTTP/1.1 200 OK\r\n\r\n"), lambda c: c.eof_received(), ended])
def test_a_connection_that_is_spoken_to_or_ended_while_it_rests_leaves_at_once(end: Callable[[RawConnection], None]) -> None:
    shelf, line = Shelf(), Line()
    loop = asyncio.new_event_loop()
    loop.close()
    connection = RawConnection(loop, shelf)
    connection.connection_made(line)
    end(connection)
    assert shelf.told[:2] == ["enter", "take_out"]
    assert not connection.is_ready


def test_a_connection_that_ended_before_its_first_request_is_broken_and_nothing_is_sent() -> None:
    connection, line = connected()
    ended(connection)
    connection.send(b"POST / HTTP/1.1\r\n\r\n", b"", has_no_body=False)
    assert connection.state is State.BROKEN
    assert isinstance(connection.error, BrokenAnswer)
    assert line.written == []


def test_an_answer_without_length_ends_with_the_connection() -> None:
    connection, _ = asked()
    assert fed(connection, HEAD + b"\r\nhello", b" world") == HELLO
    assert not connection.rest(1.0)
    ended(connection)
    assert connection.state is State.WHOLE
    assert not connection.rest(1.0)


@pytest.mark.parametrize(
    ("answer", "is_clean"),
    [
        (LENGTH + b"hello", True),
        (CHUNKED + b"5\r\nhello\r\n", True),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", True),
        (HEAD + b"\r\nhello", False),
    ],
)
def test_an_answer_that_ends_short_is_broken(answer: bytes, is_clean: bool) -> None:
    connection, _ = asked()
    assert fed(connection, answer) == b"hello"
    ended(connection, is_clean)
    assert connection.state is State.BROKEN
    assert "short" in str(connection.error)


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Content-Length: +5\r\n\r\nhello",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\nhello",
        HEAD + b"Bad Name: x\r\nContent-Length: 5\r\n\r\nhello",
        CHUNKED + b"-1\r\nhello",
        CHUNKED + b"ffffffffffffffffff\r\nhello",
        CHUNKED + b"5\r\nhelloXX",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + LENGTH + HELLO,
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_no_answer(answer: bytes) -> None:
    for pieces in ([answer], [answer[at : at + 1] for at in range(len(answer))]):
        connection, line = asked()
        fed(connection, *pieces)
        assert connection.state is State.BROKEN
        assert isinstance(connection.error, BrokenAnswer)
        assert line.is_aborted


def test_the_answer_to_head_ends_with_its_headers_and_the_next_one_is_understood() -> None:
    connection, _ = asked("HEAD")
    assert fed(connection, LENGTH) == b""
    assert connection.state is State.WHOLE
    assert connection.rest(1.0)
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", has_no_body=False)
    assert fed(connection, LENGTH + HELLO) == HELLO


def endless(line: bytes) -> list[bytes]:
    return [line * 100] * (HEAD_BYTES_MAX // len(line) // 100 + 2)


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD, *endless(b"X-Header: more of the same\r\n")],
        [HEAD + b"X-Header: ", *endless(b"more of the same ")],
        [HEAD + b"".join(endless(b"X-Header: more of the same\r\n")) + b"Content-Length: 0\r\n\r\n"],
        endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
        [CHUNKED + b"0\r\n", *endless(b"X-Trailer: more of the same\r\n")],
        [CHUNKED + b"5;extension=", *endless(b"more")],
    ],
)
def test_headers_trailers_and_extensions_have_an_end(pieces: list[bytes]) -> None:
    connection, line = asked()
    fed(connection, *pieces)
    assert connection.state in (State.BROKEN, State.WHOLE)
    assert line.is_aborted
    assert not connection.rest(1.0)


def test_a_long_stream_may_come_in_small_pieces() -> None:
    connection, _ = asked()
    fed(connection, CHUNKED)
    for _ in range(HEAD_BYTES_MAX // 4):
        # The size alone, the content, and its end: a read each.
        assert fed(connection, b"5\r\n", b"hello", b"\r\n") == b"hello"
    fed(connection, b"0\r\n", b"\r\n")
    assert connection.rest(1.0)


def test_nearly_endless_headers_are_still_taken() -> None:
    connection, _ = asked()
    fed(connection, HEAD + b"X: y\r\n" * 6000 + b"Content-Length: 0\r\n\r\n")
    assert connection.state is State.WHOLE
    assert len(connection.headers) == 6001


def test_the_socket_is_not_read_while_nobody_takes_what_came() -> None:
    connection, line = asked()
    connection.data_received(CHUNKED)
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    fed_bytes = 0
    while not line.is_reading_paused:
        connection.data_received(chunk)
        fed_bytes += 0x8000
        assert fed_bytes <= BUFFERED_BYTES_HIGH + 0x8000
    assert len(connection.take()) == fed_bytes
    assert not line.is_reading_paused


def test_chunks_that_come_together_are_given_out_together() -> None:
    connection, _ = asked()
    connection.data_received(CHUNKED + b"1\r\na\r\n" * 100)
    connection.data_received(b"1\r\nb\r\n" * 100)
    assert connection.take() == b"a" * 100 + b"b" * 100
    assert connection.take() == b""


def test_a_large_request_goes_out_in_pieces_as_it_is_taken() -> None:
    connection, line = connected()
    body = bytes(range(256)) * 8192
    connection.send(b"head", body, has_no_body=False)
    assert b"".join(line.written) == b"head" + body
    connection, line = connected()
    connection.pause_writing()
    connection.send(b"head", body, has_no_body=False)
    assert line.written == [b"head"]
    connection.resume_writing()
    assert b"".join(line.written) == b"head" + body


def test_an_answer_before_the_request_was_taken_counts_and_its_connection_does_not_serve_again() -> None:
    connection, _ = connected()
    connection.pause_writing()
    connection.send(b"head", bytes(100_000), has_no_body=False)
    assert fed(connection, LENGTH + HELLO) == HELLO
    assert not connection.rest(1.0)
    connection, line = asked()
    line.unsent_bytes = 1
    assert fed(connection, LENGTH + HELLO) == HELLO
    assert not connection.rest(1.0)


def test_header_values_are_without_white_space_at_their_ends_and_latin_1() -> None:
    connection, _ = asked()
    fed(connection, HEAD + b"X-A:  caf\xe9 \t\r\nEmpty:\r\nContent-Length: 0\r\n\r\n")
    assert connection.headers == [("X-A", "café"), ("Empty", ""), ("Content-Length", "0")]


EARLY = b"\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-A: not this\r\n\r\n"
SAID = HEAD + b"X-A: b\r\nx-a:c\r\nContent-Length: 11\r\n\r\n" + HELLO


@given(early=st.sampled_from([b"", b"\n\r\n", EARLY]), cuts=st.sets(st.integers(1, len(EARLY + SAID)), max_size=6))
def test_headers_are_those_of_the_answer_itself_however_it_is_cut(early: bytes, cuts: set[int]) -> None:
    connection, _ = connected()
    for _ in range(2):
        connection.send(b"POST / HTTP/1.1\r\n\r\n", b"", has_no_body=False)
        answer = early + SAID
        places = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
        assert fed(connection, *[answer[start:end] for start, end in pairwise(places)]) == HELLO
        assert connection.headers == [("X-A", "b"), ("x-a", "c"), ("Content-Length", "11")]
        assert connection.rest(1.0)
