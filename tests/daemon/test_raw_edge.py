"""The fast lane of the listener: what comes is read the same however it comes, and nothing is answered that was not asked."""

import asyncio
import gzip
import socket
import struct
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.courier import problems
from runtime.http.raw_sink import answer_head
from runtime.ports import EdgeRequest, EdgeSink
from tests.daemon.edge_desk import MAX_BODY, Desk, Peer, Stage, echo, listening, speaking, until

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


@settings(max_examples=300, deadline=None)
@example([(492, 0, b"0\r\n\r\n")], 1)
@given(
    st.lists(st.tuples(st.integers(0, len(STREAM)), st.integers(0, 30), st.binary(max_size=6)), min_size=1, max_size=4),
    st.integers(1, 400),
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


SMUGGLED = {
    "both lengths": LINE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way": LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": LINE + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nGET /",
    "the same length twice": LINE + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": LINE + b"Content-Length: 0, 0\r\n\r\n",
    "a length with a sign": LINE + b"Content-Length: +0\r\n\r\n",
    "a negative length": LINE + b"Content-Length: -1\r\n\r\n",
    "an empty length": LINE + b"Content-Length:\r\n\r\n",
    "a space before the colon": LINE + b"Content-Length : 0\r\n\r\n",
    "another coding": LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": LINE + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in disguise": LINE + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /v1/chat/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare LF after a header": LINE + b"A: b\nContent-Length: 0\r\n\r\n",
    "a bare LF at the end": LINE + b"Content-Length: 0\r\n\n",
    "a bare CR": LINE + b"A: b\rContent-Length: 0\r\n\r\n",
    "a folded header": LINE + b"A: b\r\n Content-Length: 0\r\n\r\n",
    "a zero byte": LINE + b"A: b\0c\r\n\r\n",
    "a chunk size that is none": CHUNKED + b"0x0\r\n\r\n",
    "a chunk size too large": CHUNKED + b"f" * 17 + b"\r\n",
    "a chunk size with a space": CHUNKED + b"0 \r\n\r\n",
    "a chunk size ended by LF": CHUNKED + b"0\n\r\n",
    "a chunk longer than its size": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "a trailer ended by LF": CHUNKED + b"0\r\nA: b\n\r\n",
    "a whole URL": b"POST http://x/v1/chat/completions HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"POST /v1/chat/completions\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_what_could_hide_another_request_is_refused_and_nothing_after_it_is_read(name: str) -> None:
    desk = Desk()
    async with listening(desk) as (_, port), speaking(port) as peer:
        peer.say(SMUGGLED[name] + post(b"hidden") + GET)
        said = await peer.rest()

    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), said
    assert b"connection: close" in head.lower()
    assert body.startswith(b'{"error":{"message":')
    assert body.endswith(b"}}")
    assert (desk.requests, desk.refusals, desk.count) == ([], [400], 0)


@pytest.mark.parametrize(
    "sent",
    [
        LINE + b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"\r\n",
        LINE + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        LINE + b"X: " + b"x" * 70_000,
    ],
)
async def test_headers_without_measure_are_refused(sent: bytes) -> None:
    desk = Desk()
    async with listening(desk) as (_, port), speaking(port) as peer:
        peer.say(sent)
        assert (await peer.rest()).startswith(b"HTTP/1.1 431 ")
    assert (desk.requests, desk.refusals) == ([], [431])


async def test_requests_sent_ahead_are_answered_one_at_a_time_and_in_order() -> None:
    gates = [asyncio.Event(), asyncio.Event(), asyncio.Event()]

    async def gated(request: EdgeRequest, sink: EdgeSink) -> None:
        await gates[int(request.body)].wait()
        await echo(request, sink)

    desk = Desk(gated)
    async with listening(desk) as (_, port), speaking(port) as peer:
        peer.say(post(b"0") + post(b"1") + post(b"2") + GET)
        gates[2].set()
        gates[1].set()
        await until(lambda: desk.count == 1)
        assert desk.bodies == [b"0"]
        gates[0].set()
        assert [(await peer.answer())[1] for _ in range(4)] == [b"0", b"1", b"2", b'{"status":"ok"}']


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


async def test_a_connection_serves_again_and_again_and_what_is_said_once_holds_once() -> None:
    desk = Desk()
    async with listening(desk) as (_, port), speaking(port) as peer:
        for say in (b"a", b"b", b"b", b"a"):
            peer.say(post(b"{}", b"X-Say: %b\r\n" % say))
            head, _ = await peer.answer()
            assert b"x-said: %b\r\n" % say in head
            assert b"connection" not in head.lower()
        peer.say(post(b"{}", b"Connection: close\r\n"))
        assert b"\r\nConnection: close\r\n" in (await peer.answer())[0]
        assert await peer.rest() == b""
    assert desk.requests[0].peer == "127.0.0.1"
    assert desk.requests[0].path == "/v1/chat/completions"


@pytest.mark.parametrize("keeps", [False, True])
async def test_an_http_1_0_client_keeps_its_connection_only_if_it_asks_to(keeps: bool) -> None:
    async with listening(Desk()) as (_, port), speaking(port) as peer:
        peer.say(post(b"hello", b"Connection: keep-alive\r\n" if keeps else b"", version=b"1.0"))
        head, body = await peer.answer()
        assert head.startswith(b"HTTP/1.0 200 ")
        assert (b"Connection: keep-alive" if keeps else b"Connection: close") in head
        assert body == b"hello"
        if keeps:
            peer.say(post(b"again", version=b"1.0"))
            assert (await peer.answer())[1] == b"again"
        assert await peer.rest() == b""


async def test_whatever_else_is_asked_is_answered_on_the_same_connection_and_so_is_all_after_it() -> None:
    desk = Desk()
    explain = post(b'{"a": "%b"}' % (b"x" * 300_000), b"Content-Type: application/json\r\n", b"/admin/explain")
    async with listening(desk) as (_, port), speaking(port) as peer:
        peer.say(post(b"first"))
        assert (await peer.answer())[1] == b"first"
        peer.say(explain[:100])
        await asyncio.sleep(0)
        peer.say(explain[100:])
        assert (await peer.answer())[1] == b'{"bytes":300009}'
        peer.say(GET + post(b"second"))
        assert (await peer.answer())[1] == b'{"status":"ok"}'
        assert (await peer.answer())[1] == b"second"
    assert desk.bodies == [b"first", b"second"]


async def test_a_compressed_body_is_served_like_any_other() -> None:
    desk = Desk()
    async with listening(desk) as (_, port), speaking(port) as peer:
        peer.say(post(gzip.compress(b"plain"), b"Content-Encoding: gzip\r\n"))
        assert (await peer.answer())[1] == b"plain"


async def test_a_connection_that_is_full_tells_its_successor() -> None:
    told: list[str] = []
    stage = Stage(Desk())
    stage.successor.pause_writing = lambda: told.append("paused")  # type: ignore[method-assign] # a note, no more
    stage.connection.pause_writing()
    await stage.feed(GET)
    assert (told, stage.successor.got) == (["paused"], GET)


async def test_a_client_that_asks_first_is_told_to_go_on_or_why_not() -> None:
    desk = Desk()
    async with listening(desk) as (_, port):
        async with speaking(port) as peer:
            peer.say(LINE + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            assert await peer.answer() == (b"HTTP/1.1 100 Continue\r\n\r\n", b"")
            peer.say(b"hello")
            assert (await peer.answer())[1] == b"hello"
        async with speaking(port) as peer:
            peer.say(LINE + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1))
            assert (await peer.rest()).startswith(b"HTTP/1.1 413 ")
        desk.refusal = problems.shutting_down()
        async with speaking(port) as peer:
            peer.say(LINE + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            assert (await peer.rest()).startswith(b"HTTP/1.1 503 ")
    assert (desk.bodies, desk.refusals, desk.count) == ([b"hello"], [413], 0)


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_who_sends_too_much_sees_why_though_it_sends_on(is_chunked: bool) -> None:
    desk, body = Desk(), b"x" * (4 * MAX_BODY)
    async with listening(desk) as (_, port), speaking(port) as peer:
        peer.say(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else post(body))
        assert (await peer.rest()).startswith(b"HTTP/1.1 413 ")
    assert (desk.requests, desk.refusals) == ([], [413])


@pytest.mark.parametrize(
    ("sent", "said"), [(b"", b""), (LINE, b""), (LINE + b"Content-Length: 5\r\n\r\nhel", b"HTTP/1.1 408 ")]
)
async def test_who_stops_in_the_middle_is_waited_for_only_so_long(sent: bytes, said: bytes) -> None:
    desk = Desk()
    async with listening(desk, idle_s=0.1) as (_, port), speaking(port) as peer:
        peer.say(sent)
        begun_at = asyncio.get_running_loop().time()
        assert (await peer.rest()).startswith(said)
        assert asyncio.get_running_loop().time() - begun_at >= 0.1
    assert (desk.refusals, desk.count) == ([408] if said else [], 0)


async def pours(request: EdgeRequest, sink: EdgeSink) -> None:
    await sink.start(200, [], None)
    for number in range(400):
        await sink.write(b"%d" % (number % 10) * 50_000)
    await sink.end()


async def slow_reader(port: int) -> Peer:
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.setblocking(False)
    await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=line, limit=4096)
    return Peer(reader, writer)


async def test_an_answer_waits_for_its_client() -> None:
    desk = Desk(pours)
    async with listening(desk) as (_, port):
        peer = await slow_reader(port)
        peer.say(post(b"{}", b"Connection: close\r\n"))
        await until(lambda: desk.count == 1)
        await peer.reader.readuntil(b"\r\n\r\n")
        assert desk.ends == []
        said = await peer.rest()
        assert desk.ends == ["whole"]
        peer.writer.transport.abort()
    assert said.count(b"c350\r\n") == 400
    assert said.endswith(b"\r\n0\r\n\r\n")


async def test_a_client_that_takes_nothing_is_cut() -> None:
    desk = Desk(pours)
    async with listening(desk, idle_s=0.1) as (_, port):
        peer = await slow_reader(port)
        peer.say(post(b"{}"))
        await until(lambda: desk.ends == ["ClientGone"])
        assert not (await peer.rest()).endswith(b"\r\n0\r\n\r\n")
        peer.writer.transport.abort()


async def hangs(request: EdgeRequest, sink: EdgeSink) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("how", ["ends", "resets", "ends its sending"])
async def test_a_client_that_leaves_ends_its_request(how: str) -> None:
    desk = Desk(hangs)
    async with listening(desk) as (_, port), speaking(port) as peer:
        peer.say(post(b"{}"))
        await until(lambda: desk.count == 1)
        if how == "resets":
            peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "ends its sending":
            peer.writer.write_eof()
        else:
            peer.writer.close()
        await until(lambda: desk.ends == ["CancelledError"])
        await until(lambda: desk.count == 0)


async def test_at_the_end_of_the_daemon_answers_are_the_last_and_the_idle_are_closed() -> None:
    desk = Desk()
    async with listening(desk) as (server, port), speaking(port) as busy, speaking(port) as idle:
        for peer in (busy, idle):
            peer.say(post(b"{}"))
            await peer.answer()
        await server.stop_listening()
        busy.say(post(b"{}"))
        assert b"\r\nConnection: close\r\n" in (await busy.answer())[0]
        assert await busy.rest() == b""
        await server.stop()
        assert await idle.rest() == b""


async def test_who_is_cut_at_the_end_is_told_so() -> None:
    desk = Desk(hangs)
    stage = Stage(desk)
    await stage.feed(LINE + b"Content-Length: 5\r\n\r\n")
    desk.is_cut = True
    (task,) = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
    task.cancel()
    await stage.turn()
    assert stage.wire.sent.startswith(b"HTTP/1.1 503 ")
    assert desk.count == 0


async def test_an_answer_that_is_cut_or_short_never_looks_whole() -> None:
    async def cut(request: EdgeRequest, sink: EdgeSink) -> None:
        await sink.start(200, [], None)
        await sink.write(b"")
        await sink.write(b"half")
        assert sink.has_started
        sink.abort()

    async def short(request: EdgeRequest, sink: EdgeSink) -> None:
        await sink.start(200, [], 100)
        await sink.write(b"half")
        await sink.end()

    async def fails(request: EdgeRequest, sink: EdgeSink) -> None:
        await sink.start(200, [], None)

    for behave, end in ((cut, b"\r\n4\r\nhalf\r\n"), (short, b"\r\n\r\nhalf"), (fails, b"\r\n\r\n")):
        async with listening(Desk(behave)) as (_, port), speaking(port) as peer:
            peer.say(post(b"{}") + post(b"{}"))
            said = await peer.rest()
            assert said.endswith(end)
            assert said.count(b"HTTP/1.1 ") == 1


async def test_an_answer_without_a_body_has_none() -> None:
    async def nothing(request: EdgeRequest, sink: EdgeSink) -> None:
        await sink.start(204, [], 4)
        await sink.write(b"none")
        await sink.end()

    async with listening(Desk(nothing)) as (_, port), speaking(port) as peer:
        peer.say(post(b"{}") + post(b"{}", b"Connection: close\r\n"))
        said = await peer.rest()
    assert said.count(b"HTTP/1.1 204 No Content\r\n") == 2
    assert b"none" not in said
    assert b"ontent-" not in said


def test_nothing_in_a_header_begins_another() -> None:
    head = answer_head(200, [("a", "b\r\nSet-Cookie: x"), ("c\n", "d\0\udcff"), ("e", "\ud800")], "")
    assert head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r") == 7
    assert b"\r\nSet-Cookie" not in head
    assert b"\0" not in head
