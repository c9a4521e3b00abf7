"""Answers spoilt at random, over real sockets: by both clients each call ends, and the next one gets its own answer."""

import asyncio
from itertools import pairwise

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runtime.ports import CallFailed, Upstream
from runtime.upstream.aiohttp_client import AiohttpUpstream
from runtime.upstream.raw_client import RawUpstream
from tests.daemon.upstream_server import CHUNKED, OK, Reader, Server, Writer, request, serving

WITHIN_S = 4.0
"""Less than the 5 s of a call's idle time, after which anything would end."""
HEAD = b"HTTP/1.1 200 OK\r\n"
GOOD = [
    OK,
    CHUNKED + b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
    CHUNKED + b'c\r\ndata: {"a":1\r\n4\r\n}\n\n\n\r\n0\r\n\r\n',
    HEAD + b"\r\nuntil the end",
    HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 429 Slow Down\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}",
]
BYTES = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0\r\n\r\n", b"5\r\n", HEAD, OK, CHUNKED]),
    st.sampled_from(
        [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"X: y\r\n Z"]
    ),
)


@st.composite
def spoilt(draw: st.DrawFn) -> list[bytes]:
    """A good answer with a few bytes changed, added or taken out, in pieces."""
    data = draw(st.sampled_from(GOOD))
    for _ in range(draw(st.integers(0, 3))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        data = data[:at] + draw(BYTES) + data[at + length :]
    cuts = draw(st.lists(st.integers(1, 150), max_size=3))
    return [data[a:b] for a, b in pairwise(sorted({0, len(data), *(cut for cut in cuts if cut < len(data))}))]


async def said(upstream: Upstream, url: str) -> tuple[int, bytes] | str:
    """Status and body, or why there is none."""
    async with asyncio.timeout(WITHIN_S):
        try:
            answer = await upstream.call(request(url))
            try:
                return answer.status, b"".join([chunk async for chunk in answer.chunks()])
            finally:
                answer.close()
        except CallFailed as error:
            return error.failure.code


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@example(pieces=[CHUNKED + b"5\r\nhello\r\n", b"0\r\n", b"Trailer: x\r\n\rX"])
@example(pieces=[b"HTTP", CHUNKED[4:] + b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r", b"\nTrailer: x\r\n\rX"])
@given(pieces=spoilt())
async def test_a_spoilt_answer_ends_its_call_and_the_next_call_gets_its_own(pieces: list[bytes]) -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await server.take_request(reader)
        if len(server.requests) > 1:
            writer.write(OK)
            return
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    got = []
    for kind in (RawUpstream, AiohttpUpstream):
        async with serving() as server:
            server.behave = behave
            upstream: Upstream = kind()
            try:
                got.append(await said(upstream, server.url))
                # All that was said is here, be it too much, and the connection at its end, before the next.
                await server.until(lambda: server.open == 0)
                for _ in range(5):
                    await asyncio.sleep(0)
                assert await said(upstream, server.url) == (200, b"hello")
            finally:
                await upstream.close()
    assert failures == []
    ours, theirs = got
    if not isinstance(ours, str) and not isinstance(theirs, str):
        # What both take for whole they take for the same.
        assert ours == theirs
