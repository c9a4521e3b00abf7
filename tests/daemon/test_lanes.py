"""The two lanes of the listener are one server: the same bytes, however they come, get the same answers on both."""

import asyncio
from collections.abc import AsyncIterator
from gzip import compress
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.daemon.lane_kit import MAX_BODY, Lanes, both_lanes, turns
from tests.lines import LANES, LaneName, Line, replies

HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\n"
LINE = POST + HOST
CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
CLOSE = b"Connection: close\r\n"


def post(body: bytes, more: bytes = b"", path: bytes = b"/v1/chat/completions", version: bytes = b"1.1") -> bytes:
    return b"POST %b HTTP/%b\r\n%b%bContent-Length: %d\r\n\r\n%b" % (path, version, HOST, more, len(body), body)


SERVED = {
    "a request": post(b'{"a": 1}'),
    "one without a body": post(b""),
    "a stream": post(b"{}", b"X-Stream: 1\r\n"),
    "several, one after the other": post(b"1") + post(b"2", b"X-Stream: 1\r\n") + post(b"3", path=b"/v1/embeddings?v=1"),
    "the last on its connection": post(b"{}", CLOSE),
    "empty lines before it": b"\r\n\r\n" + post(b"{}"),
    "a body that looks like a request": post(b"\r\n\r\nPOST /v1/completions HTTP/1.1\r\n\r\n", path=b"/v1/completions"),
    "a chunked body": CHUNKED.replace(HOST, HOST + CLOSE) + b"3;x=y\r\na\r\n\r\n2\r\nbc\r\n0\r\nTrailer: t\r\nX: y\r\n\r\n",
    "a chunked body without content": CHUNKED.replace(HOST, HOST + CLOSE) + b"0\r\n\r\n",
    "a coding in capitals": LINE + CLOSE + b"TRANSFER-ENCODING: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "a client that asks first": LINE + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.0": post(b"{}", version=b"1.0"),
    "HTTP/1.0 without a host": b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.0 that stays": post(b"1", b"Connection: keep-alive\r\n", version=b"1.0") + post(b"2", version=b"1.0"),
    "an HTTP/1.0 stream": post(b"{}", b"X-Stream: 1\r\n", version=b"1.0"),
    "an HTTP/1.0 stream where the connection was to stay": post(
        b"{}", b"X-Stream: 1\r\nConnection: keep-alive\r\n", version=b"1.0"
    ),
    "white space around values": LINE + b"Content-Length: \t 2 \t\r\nX-A:b\t\r\n\r\nhi",
    "bytes above ASCII in a value": post(b"{}", b"X-A: \xc3\xa4 \xff\r\n"),
    "something else": GET,
    "something else with a body, and on": b"GET /healthz HTTP/1.1\r\n%bContent-Length: 5\r\n\r\nhello" % HOST
    + post(b"2")
    + GET,
    "the admin API, and on": post(b'{"a":1}', b"Content-Type: application/json\r\n", b"/admin/explain") + post(b"2"),
    "an unknown path": post(b"{}", path=b"/v1//chat/completions"),
    "a method it does not take": b"PUT /v1/chat/completions HTTP/1.1\r\n%bContent-Length: 2\r\n\r\nhi" % HOST,
    "OPTIONS of the whole": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "an upgrade nobody offers": post(b"{}", b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    "a client that asks first, in chunks": LINE
    + CLOSE
    + b"Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "a client that asks first, and one after it": LINE + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi" + post(b"2"),
    "a client that asks first with much too much": LINE
    + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1),
    "a client that asks first in HTTP/1.0": post(b"hi", b"Expect: 100-continue\r\n", version=b"1.0"),
    "an expectation nobody knows": post(b"hi", b"Expect: the-unexpected\r\n"),
    "chunks of one byte, sizes in capitals and with zeros before them": CHUNKED.replace(HOST, HOST + CLOSE)
    + b"01\r\na\r\n" * 12
    + b"00A\r\n0123456789\r\n000\r\n\r\n",
    "a chunk with an extension in quotes": CHUNKED.replace(HOST, HOST + CLOSE) + b'2;a="b;\\"c"\r\nhi\r\n0;x\r\n\r\n',
    "a chunk that looks like the end": CHUNKED.replace(HOST, HOST + CLOSE) + b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "chunks after a request, and a stream as their answer": post(b"1")
    + CHUNKED.replace(HOST, HOST + CLOSE + b"X-Stream: 1\r\n")
    + b"2\r\nhi\r\n0\r\n\r\n",
    "many in one go": b"".join(post(b"%d" % number) for number in range(7)),
    "a length with zeros before it": LINE + b"Content-Length: 002\r\n\r\nhi" + post(b"2"),
    "the end of the connection in a list": post(b"{}", b"Connection: x, Close\r\n"),
    "keep-alive where it goes without saying": post(b"1", b"Connection: keep-alive\r\n") + post(b"2"),
    "a compressed body": post(compress(b"hello"), b"Content-Encoding: gzip\r\n") + post(b"2"),
    "a path in disguise": post(b"{}", path=b"/v1/chat%2fcompletions"),
    "a query that is none": post(b"{}", path=b"/v1/completions?a=%zz&b[]"),
    "a body announced too large": post(b"x" * (MAX_BODY + 1)),
    "a body too large in chunks": CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (MAX_BODY + 1, b"x" * (MAX_BODY + 1)),
}
REFUSED = {
    "both lengths": LINE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way": LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": LINE + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nGET /",
    "the same length twice": LINE + b"Content-Length: 0\r\ncontent-length: 0\r\n\r\n",
    "a list of lengths": LINE + b"Content-Length: 0, 0\r\n\r\n",
    "a length with a sign": LINE + b"Content-Length: +0\r\n\r\n",
    "a negative length": LINE + b"Content-Length: -1\r\n\r\n",
    "an empty length": LINE + b"Content-Length:\r\n\r\n",
    "a hexadecimal length": LINE + b"Content-Length: 0x0\r\n\r\n",
    "a length without end": LINE + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a space before the colon": LINE + b"Content-Length : 0\r\n\r\n",
    "a tab before the colon": LINE + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "another coding": LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": LINE + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked twice": LINE + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked after nothing": LINE + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "chunked in disguise": LINE + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked after a vertical tab": LINE + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /v1/chat/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare LF after the request line": POST.replace(b"\r\n", b"\n") + HOST + b"Content-Length: 0\r\n\r\n",
    "a bare LF after a header": LINE + b"A: b\nContent-Length: 0\r\n\r\n",
    "a bare LF at the end": LINE + b"Content-Length: 0\r\n\n",
    "a bare CR": LINE + b"A: b\rContent-Length: 0\r\n\r\n",
    "a folded header": LINE + b"A: b\r\n Content-Length: 0\r\n\r\n",
    "a header folded by a tab": LINE + b"Transfer-Encoding:\r\n\tchunked\r\n\r\n0\r\n\r\n",
    "white space before the first header": POST + b" " + HOST + b"\r\n",
    "a line without a colon": LINE + b"Nothing\r\n\r\n",
    "a header without a name": LINE + b": b\r\n\r\n",
    "a zero byte": LINE + b"A: b\0c\r\n\r\n",
    "a control character": LINE + b"A: b\x01c\r\n\r\n",
    "a zero byte in a name": LINE + b"Content-Length\0: 0\r\n\r\n",
    "a chunk size that is none": CHUNKED + b"0x0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r\nhi\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"-1\r\nhi\r\n0\r\n\r\n",
    "a chunk size with a sign": CHUNKED + b"+2\r\nhi\r\n0\r\n\r\n",
    "a chunk size too large": CHUNKED + b"f" * 17 + b"\r\n",
    "a chunk size with a space": CHUNKED + b"0 \r\n\r\n",
    "a chunk size ended by LF": CHUNKED + b"0\n\r\n",
    "an extension ended by LF": CHUNKED + b"2;a\nhi\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "a chunk ended by LF": CHUNKED + b"2\r\nhi\n0\r\n\r\n",
    "a trailer ended by LF": CHUNKED + b"0\r\nA: b\n\r\n",
    "no host": POST + b"Content-Length: 0\r\n\r\n",
    "two hosts": LINE + b"Host: other\r\nContent-Length: 0\r\n\r\n",
    "a whole URL": b"POST http://x/v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
    "a whole URL of something else": b"GET http://127.0.0.1/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/2 with a host": b"POST /v1/chat/completions HTTP/2.0\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
    "HTTP/1.2": b"POST /v1/chat/completions HTTP/1.2\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
    "a method in small letters": b"post /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"POST /v1/chat/completions\r\n\r\n",
    "an unknown method": b"FOO /v1/chat/completions HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab in the request line": POST.replace(b" ", b"\t") + HOST + b"\r\n",
    "a space in the target": b"POST /v1/chat/completions x HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes above ASCII in the target": b"POST /v1/chat/completions?\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01",
}
MEASURELESS = {
    "too many headers": LINE + b"".join(b"X-%d: y\r\n" % number for number in range(200)) + b"\r\n",
    "too long a header": LINE + b"X: " + b"x" * 9_000 + b"\r\n\r\n",
    "too long a name": LINE + b"x" * 9_000 + b": x\r\n\r\n",
    "too long a target": b"POST /" + b"x" * 9_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "too much of everything": LINE + b"".join(b"X-%d: %b\r\n" % (number, b"x" * 8_000) for number in range(9)) + b"\r\n",
}


@pytest.fixture
async def lanes() -> AsyncIterator[Lanes]:
    async with both_lanes() as made:
        yield made


def is_over(line: Line) -> bool:
    """Whether the client was told that nothing more comes."""
    return line.is_closed or line.is_ended or b"connection: close" in bytes(line.said).lower()


@pytest.mark.parametrize("name", SERVED)
async def test_the_lanes_answer_alike_at_whatever_byte_a_stream_is_split(lanes: Lanes, name: str) -> None:
    data = SERVED[name]
    wanted = seen = size = None
    for lane in LANES:
        line = await lanes.say(lane, data)
        got, asked = (replies(line.said), is_over(line)), lanes.seen(lane)
        wanted, seen = wanted or got, seen if seen is not None else asked
        assert (got, asked) == (wanted, seen), lane
        assert got[0]
        size = len(line.said)
        step = 1 + len(data) // 300
        for at in range(1, len(data), step):
            line = await lanes.say(lane, data[:at], data[at:], said_bytes=size)
            assert (replies(line.said), is_over(line), lanes.seen(lane)) == (*wanted, seen), (lane, at)
        if len(data) < 500:
            line = await lanes.say(lane, *(data[at : at + 1] for at in range(len(data))), said_bytes=size)
            assert (replies(line.said), is_over(line), lanes.seen(lane)) == (*wanted, seen), lane
        assert lanes.desks[lane].count == 0


@pytest.mark.parametrize("name", [*REFUSED, *MEASURELESS])
async def test_the_lanes_refuse_alike_and_answer_nothing_after_it(lanes: Lanes, name: str) -> None:
    data = REFUSED.get(name) or MEASURELESS[name]
    hidden = post(b"hidden") + GET
    status = 400 if name in REFUSED else 431
    places = range(0, len(data), 1 + len(data) // 200)
    for lane in LANES:
        for before in (b"", GET):
            size = None
            for at in places if not before else (len(data),):
                line = await lanes.say(lane, before, data[:at], data[at:] + hidden, hidden, said_bytes=size)
                size = len(line.said)
                got = [reply.status for reply in replies(line.said)]
                assert got == ([200, status] if before else [status]), (lane, at, bytes(line.said))
                assert is_over(line)
                assert lanes.seen(lane) == []
                assert lanes.desks[lane].count == 0


SPOILT = {
    "announced too large": (413, LINE + b"Content-Length: %d\r\n\r\n" % 9_000),
    "too large in chunks": (413, CHUNKED + b"%x\r\n%b\r\n" % (MAX_BODY + 1, b"x" * (MAX_BODY + 1))),
    "with a chunk that is none": (400, CHUNKED + b"2\r\nhi\r\nx\r\n"),
    "that nobody takes there": (404, post(b"hi", path=b"/v1/nothing")),
}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("lane", LANES)
async def test_after_a_body_that_was_refused_nothing_is_a_request(lanes: Lanes, lane: LaneName, name: str) -> None:
    status, data = SPOILT[name]
    for after in (post(b"hidden"), b"\r\n" + post(b"hidden") + GET, b"x" * 8_800 + post(b"hidden")):
        for pieces in ((data, after), (data + after,)):
            line = await lanes.say(lane, *pieces)
            (reply,) = replies(line.said)
            # What is behind it may spoil it more, where both come together.
            assert reply.status in {status, 400 if len(pieces) == 1 else status}
            assert is_over(line)
            assert lanes.seen(lane) == []


async def test_of_what_comes_in_one_piece_the_good_requests_are_answered_before_the_bad_one_is_refused(lanes: Lanes) -> None:
    # aiohttp drops what came in the same piece as garbage, which is why this is the fast lane's alone.
    line = await lanes.say("raw", post(b"1") + post(b"2") + REFUSED["both lengths"] + post(b"hidden"))
    assert [reply.status for reply in replies(line.said)] == [200, 200, 400]
    assert [body for _, _, body in lanes.seen("raw")] == [b"1", b"2"]


@pytest.mark.parametrize("lane", LANES)
async def test_a_trailer_is_no_header_of_the_next_request(lanes: Lanes, lane: LaneName) -> None:
    body = b"0\r\nX-Pointsman-Tenant: somebody\r\n\r\n"
    await lanes.say(lane, CHUNKED + body + post(b"2"), post(b"3"))
    assert all("x-pointsman-tenant" not in dict(headers) for _, headers, _ in lanes.seen(lane))


@pytest.mark.parametrize("lane", LANES)
async def test_a_body_that_cannot_be_unpacked_is_refused_and_logged_by_nobody(
    lanes: Lanes, lane: LaneName, caplog: pytest.LogCaptureFixture
) -> None:
    line = await lanes.say(lane, post(b"no gzip", b"Content-Encoding: gzip\r\n"))
    assert [reply.status for reply in replies(line.said)] == [400]
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


@pytest.mark.parametrize("lane", LANES)
async def test_while_it_drains_every_answer_is_its_connections_last(lanes: Lanes, lane: LaneName) -> None:
    lines = [lanes.connect(lane) for _ in range(3)]
    await lanes.servers[LANES.index(lane)].stop_listening()
    for line, data in zip(lines, (post(b"{}"), post(b"{}", b"X-Stream: 1\r\n"), GET), strict=True):
        line.give(data + post(b"{}"))
        await turns(40)
        (reply,) = replies(line.said)
        assert (reply.status, dict(reply.headers)["connection"], line.is_closed or line.is_ended) == (200, "close", True)


BYTES = st.one_of(
    st.binary(max_size=8), st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0\r\n\r\n", LINE, GET, CHUNKED])
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from([*SERVED, *REFUSED]),
    spoils=st.lists(st.tuples(st.integers(0, 250), st.integers(0, 20), BYTES), max_size=3),
    cuts=st.lists(st.integers(0, 400), max_size=5),
)
async def test_spoilt_bytes_bring_neither_lane_down_and_after_a_refusal_comes_nothing(
    name: str, spoils: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    data = SERVED.get(name) or REFUSED[name]
    for at, length, put in spoils:
        data = data[:at] + put + data[at + length :]
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with both_lanes() as lanes:
        for lane in LANES:
            line = await lanes.say(lane, *(data[a:b] for a, b in pairwise(edges)))
            statuses = [reply.status for reply in replies(line.said)]
            refused = [index for index, status in enumerate(statuses) if status in (400, 408, 413, 431)]
            assert refused in ([], [len(statuses) - 1]), statuses
            assert not any(status >= 500 for status in statuses)
            served = lanes.seen(lane)
            if refused:
                line.give(post(b"next"))
                await turns(10)
                assert lanes.seen(lane) == []
            assert len(statuses) <= len(served) + data.count(b"HTTP/") + 1
            line.close()
            await turns(10)
            assert lanes.desks[lane].count == 0
    assert failures == []
