"""The listener over real sockets, on both lanes and both loops: order, limits, patience, slow clients, and the end."""

import asyncio
import gzip
import socket
import ssl
import struct
from pathlib import Path

import pytest

from runtime.courier import problems
from runtime.http import patience
from runtime.ports import EdgeRequest, EdgeSink
from tests.daemon.edge_desk import MAX_BODY, Desk, Peer, echo, hangs, listening, pours, speaking, until
from tests.daemon.test_lanes import CHUNKED, GET, LINE, REFUSED, post
from tests.daemon.upstream_tls import client_side, files
from tests.lines import LANES, LaneName


@pytest.fixture(params=LANES)
def side(request: pytest.FixtureRequest) -> LaneName:
    found: LaneName = request.param
    return found


@pytest.mark.parametrize("name", ["both lengths", "a bare LF after a header", "a chunk size with a sign", "a whole URL"])
async def test_what_could_hide_another_request_is_refused_and_nothing_after_it_is_read(name: str, side: LaneName) -> None:
    desk = Desk()
    async with listening(desk, lane=side) as (_, port), speaking(port) as peer:
        peer.say(REFUSED[name] + post(b"hidden") + GET)
        said = await peer.rest()

    head, _, body = said.partition(b"\r\n\r\n")
    # aiohttp does not know whom it speaks to, and so answers the oldest client there is: the last answer without a word.
    assert head.startswith(b"HTTP/1.1 400 " if side == "raw" else (b"HTTP/1.0 400 ", b"HTTP/1.1 400 ")), said
    assert b"connection: close" in head.lower() or head.startswith(b"HTTP/1.0")
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
async def test_headers_without_measure_are_refused(sent: bytes, side: LaneName) -> None:
    desk = Desk()
    async with listening(desk, lane=side) as (_, port), speaking(port) as peer:
        peer.say(sent)
        assert (await peer.rest())[8:].startswith(b" 431 ")
    assert (desk.requests, desk.refusals) == ([], [431])


async def test_requests_sent_ahead_are_answered_one_at_a_time_and_in_order(side: LaneName) -> None:
    gates = [asyncio.Event(), asyncio.Event(), asyncio.Event()]

    async def gated(request: EdgeRequest, sink: EdgeSink) -> None:
        await gates[int(request.body)].wait()
        await echo(request, sink)

    desk = Desk(gated)
    async with listening(desk, lane=side) as (_, port), speaking(port) as peer:
        peer.say(post(b"0") + post(b"1") + post(b"2") + GET)
        gates[2].set()
        gates[1].set()
        await until(lambda: desk.count == 1)
        assert desk.bodies == [b"0"]
        gates[0].set()
        assert [(await peer.answer())[1] for _ in range(4)] == [b"0", b"1", b"2", b'{"status":"ok"}']


async def test_a_connection_serves_again_and_again_and_what_is_said_once_holds_once(side: LaneName) -> None:
    desk = Desk()
    async with listening(desk, lane=side) as (_, port), speaking(port) as peer:
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
async def test_an_http_1_0_client_keeps_its_connection_only_if_it_asks_to(keeps: bool, side: LaneName) -> None:
    async with listening(Desk(), lane=side) as (_, port), speaking(port) as peer:
        peer.say(post(b"hello", b"Connection: keep-alive\r\n" if keeps else b"", version=b"1.0"))
        head, body = await peer.answer()
        assert head.startswith(b"HTTP/1.0 200 ")
        assert (b"Connection: keep-alive" in head) is keeps
        assert body == b"hello"
        if keeps:
            peer.say(post(b"again", version=b"1.0"))
            assert (await peer.answer())[1] == b"again"
        assert await peer.rest() == b""


async def test_whatever_else_is_asked_is_answered_on_the_same_connection_and_so_is_all_after_it(side: LaneName) -> None:
    desk = Desk()
    explain = post(b'{"a": "%b"}' % (b"x" * 300_000), b"Content-Type: application/json\r\n", b"/admin/explain")
    async with listening(desk, lane=side) as (_, port), speaking(port) as peer:
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


async def test_a_compressed_body_is_served_like_any_other(side: LaneName) -> None:
    desk = Desk()
    async with listening(desk, lane=side) as (_, port), speaking(port) as peer:
        peer.say(post(gzip.compress(b"plain"), b"Content-Encoding: gzip\r\n"))
        assert (await peer.answer())[1] == b"plain"


async def test_a_client_that_asks_first_is_told_to_go_on_or_why_not(side: LaneName) -> None:
    desk = Desk()
    async with listening(desk, lane=side) as (_, port):
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
async def test_who_sends_too_much_sees_why_though_it_sends_on(is_chunked: bool, side: LaneName) -> None:
    desk, body = Desk(), b"x" * (4 * MAX_BODY)
    async with listening(desk, lane=side) as (_, port), speaking(port) as peer:
        peer.say(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else post(body))
        assert (await peer.rest()).startswith(b"HTTP/1.1 413 ")
    assert (desk.requests, desk.refusals) == ([], [413])


@pytest.mark.parametrize(
    ("sent", "said"), [(b"", b""), (LINE, b""), (LINE + b"Content-Length: 5\r\n\r\nhel", b"HTTP/1.1 408 ")]
)
async def test_who_stops_in_the_middle_is_waited_for_only_so_long(sent: bytes, said: bytes, side: LaneName) -> None:
    desk, loop = Desk(), asyncio.get_running_loop()
    async with listening(desk, idle_s=0.1, lane=side) as (_, port):
        connecting_at = loop.time()
        async with speaking(port) as peer:
            peer.say(sent)
            # For a head the time begins with the connection, for a body with the head.
            begun_at = loop.time() if said else connecting_at
            assert (await peer.rest()).startswith(said)
            # A difference of two times in whole ms, which a float may show as a hair less.
            assert round(loop.time() - begun_at, 6) >= 0.1
    assert (desk.refusals, desk.count) == ([408] if said else [], 0)


async def test_who_asks_nothing_more_is_closed_after_a_while(side: LaneName) -> None:
    async with listening(Desk(), idle_s=0.1, lane=side) as (_, port), speaking(port) as peer:
        peer.say(post(b"{}"))
        assert (await peer.answer())[1] == b"{}"
        assert await peer.rest() == b""


async def test_who_drips_is_waited_for_only_so_long(side: LaneName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "UNPACED_S", 0.2)
    desk = Desk()
    async with listening(desk, idle_s=0.2, lane=side) as (_, port), speaking(port) as peer:
        peer.say(LINE + b"Content-Length: 5000\r\n\r\n")
        said = asyncio.ensure_future(peer.answer())
        while not said.done():
            # Sooner than the patience with each byte ends.
            peer.say(b"x")
            await asyncio.wait({said}, timeout=0.05)
        assert said.result()[0].startswith(b"HTTP/1.1 408 ")
    assert (desk.requests, desk.refusals) == ([], [408])


async def slow_reader(port: int, tls: ssl.SSLContext | None = None) -> Peer:
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536 if tls else 4096)
    line.setblocking(False)
    await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
    name = "localhost" if tls else None
    reader, writer = await asyncio.open_connection(sock=line, limit=4096, ssl=tls, server_hostname=name)
    return Peer(reader, writer)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_an_answer_waits_for_its_client(side: LaneName, is_tls: bool, tmp_path: Path) -> None:
    desk = Desk(pours)
    async with listening(desk, lane=side, tls=files(tmp_path) if is_tls else None) as (_, port):
        peer = await slow_reader(port, client_side() if is_tls else None)
        peer.say(post(b"{}", b"Connection: close\r\n"))
        await until(lambda: desk.count == 1)
        await peer.reader.readuntil(b"\r\n\r\n")
        assert desk.ends == []
        said = await peer.rest()
        assert desk.ends == ["whole"]
        peer.writer.transport.abort()
    assert said.count(b"c350\r\n") == 400
    assert said.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_client_that_takes_nothing_is_cut(side: LaneName, is_tls: bool, tmp_path: Path) -> None:
    desk = Desk(pours)
    async with listening(desk, idle_s=0.1, lane=side, tls=files(tmp_path) if is_tls else None) as (_, port):
        peer = await slow_reader(port, client_side() if is_tls else None)
        peer.say(post(b"{}"))
        await until(lambda: desk.ends == ["ClientGone"])
        assert not (await peer.rest()).endswith(b"\r\n0\r\n\r\n")
        peer.writer.transport.abort()


@pytest.mark.parametrize("how", ["ends", "resets", "ends its sending"])
async def test_a_client_that_leaves_ends_its_request(how: str, side: LaneName) -> None:
    desk = Desk(hangs)
    async with listening(desk, lane=side) as (_, port), speaking(port) as peer:
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


async def test_at_the_end_of_the_daemon_answers_are_the_last_and_the_idle_are_closed(side: LaneName) -> None:
    desk = Desk()
    async with listening(desk, lane=side) as (server, port), speaking(port) as busy, speaking(port) as idle:
        for peer in (busy, idle):
            peer.say(post(b"{}"))
            await peer.answer()
        await server.stop_listening()
        busy.say(post(b"{}"))
        assert b"\r\nConnection: close\r\n" in (await busy.answer())[0]
        assert await busy.rest() == b""
        await server.stop()
        assert await idle.rest() == b""


async def test_who_is_refused_may_send_the_rest_of_the_body_while_the_daemon_ends_and_reads_why(side: LaneName) -> None:
    # A client that is reset in the midst of sending never looks for an answer.
    desk, loop = Desk(), asyncio.get_running_loop()
    desk.refusal = problems.shutting_down()
    async with listening(desk, lane=side) as (server, port):
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.setblocking(False)
            await loop.sock_sendall(line, LINE + b"Content-Length: 300000\r\n\r\n")
            assert (await loop.sock_recv(line, 65536)).startswith(b"HTTP/1.1 503 ")
            stopping = loop.create_task(server.stop())
            for _ in range(300):
                await loop.sock_sendall(line, b"x" * 1000)
                await asyncio.sleep(0)
            line.shutdown(socket.SHUT_WR)
            await stopping


@pytest.mark.parametrize("sent", [b"Content-Length: 300000\r\n\r\n", b"Content-Length: 999999999\r\n\r\n"])
async def test_who_is_refused_and_never_sends_the_rest_holds_up_the_end_for_a_moment_only(sent: bytes, side: LaneName) -> None:
    desk, loop = Desk(), asyncio.get_running_loop()
    desk.refusal = problems.shutting_down()
    async with listening(desk, idle_s=60.0, lane=side) as (server, port), speaking(port) as peer:
        peer.say(LINE + sent)
        assert (await peer.answer())[0].startswith(b"HTTP/1.1 503 ")
        begun_at = loop.time()
        await server.stop()
        assert loop.time() - begun_at < 0.8 * patience.LINGER_S


async def test_a_stream_that_is_cut_or_left_without_an_end_never_looks_whole(side: LaneName) -> None:
    async def cut(request: EdgeRequest, sink: EdgeSink) -> None:
        await sink.start(200, [])
        await sink.write(b"")
        await sink.write(b"half")
        assert sink.has_started
        sink.abort()

    async def fails(request: EdgeRequest, sink: EdgeSink) -> None:
        await sink.start(200, [])

    for behave, end in ((cut, b"\r\n4\r\nhalf\r\n"), (fails, b"\r\n\r\n")):
        async with listening(Desk(behave), lane=side) as (_, port), speaking(port) as peer:
            peer.say(post(b"{}") + post(b"{}"))
            said = await peer.rest()
            assert said.endswith(end)
            assert said.count(b"HTTP/1.1 ") == 1


async def test_an_answer_without_a_body_has_none(side: LaneName) -> None:
    async def nothing(request: EdgeRequest, sink: EdgeSink) -> None:
        await sink.whole(204, [], b"none")

    async with listening(Desk(nothing), lane=side) as (_, port), speaking(port) as peer:
        peer.say(post(b"{}") + post(b"{}", b"Connection: close\r\n"))
        said = await peer.rest()
    assert said.count(b"HTTP/1.1 204 No Content\r\n") == 2
    assert b"none" not in said
    assert b"ontent-" not in said
