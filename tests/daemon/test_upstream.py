"""The upstream port over real sockets, against servers that misbehave. Every case holds for both clients."""

import asyncio
import gc
import socket
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from messages.failures import Blame, Retry, Scope
from runtime.ports import CallFailed, Upstream, UpstreamRequest
from runtime.upstream import aiohttp_client, raw_client
from runtime.upstream.aiohttp_client import AiohttpUpstream
from runtime.upstream.raw_client import RawUpstream
from tests.daemon.upstream_server import CHUNKED, OK, Reader, Server, Writer, failing, one_answer, request, serving

HTTP_2 = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"
"""What a server says first that speaks nothing else: a frame of SETTINGS."""


@pytest.fixture(scope="module", autouse=True)
def _only_its_own() -> None:
    """What other modules hold need not be walked through after each test of this one."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as made:
        yield made


@pytest.fixture(params=[AiohttpUpstream, RawUpstream])
async def upstream(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    """Closed before the server, which then sees that no connection is left. Unclosed leftovers would be errors."""
    made: Upstream = request.param()
    yield made
    await made.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        gc.collect()


async def test_a_call_sends_what_it_was_given_and_nothing_of_its_own(server: Server, upstream: Upstream) -> None:
    answer = await upstream.call(request(server.url))
    assert answer.status == 200
    assert ("Content-Type", "text/plain") in answer.headers
    assert await answer.read(5) == b"hello"
    answer.close()
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"model":"m"}'
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert sorted(line.split(b":")[0].lower() for line in lines[1:]) == [
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
    ]


async def test_a_body_read_whole_gives_its_connection_back(server: Server, upstream: Upstream) -> None:
    for _ in range(3):
        answer = await upstream.call(request(server.url))
        assert [chunk async for chunk in answer.chunks()] == [b"hello"]
        answer.close()
    assert server.connections == 1


async def test_a_large_body_arrives_whole(server: Server, upstream: Upstream) -> None:
    body = bytes(range(256)) * 20_000
    await (await upstream.call(request(server.url, body=body))).read(5)
    head, _, sent = server.requests[0].partition(b"\r\n\r\n")
    assert sent == body
    assert b"content-length: %d" % len(body) in head.lower()
    assert b"chunked" not in head.lower()


async def test_a_get_has_no_body(server: Server, upstream: Upstream) -> None:
    await (await upstream.call(UpstreamRequest("GET", server.url, (), b"", 2, 5, 5))).read(5)
    assert server.requests[0].startswith(b"GET ")
    assert server.requests[0].endswith(b"\r\n\r\n")


async def test_redirects_cookies_and_compression_are_left_alone(server: Server, upstream: Upstream) -> None:
    lines = (
        "HTTP/1.1 302 Found",
        "Location: /elsewhere",
        "Set-Cookie: a=b",
        "Content-Encoding: gzip",
        "Content-Length: 3",
        "",
        "xyz",
    )
    answer = "\r\n".join(lines).encode()
    server.behave = one_answer(answer)
    for _ in range(2):
        got = await upstream.call(request(server.url))
        assert (got.status, await got.read(10)) == (302, b"xyz")
    assert [sent.split()[1] for sent in server.requests] == [b"/v1/chat/completions"] * 2
    assert not any(b"cookie" in sent.lower() for sent in server.requests)


async def test_pain_06_chunks_come_as_they_were_sent_without_waiting_for_more(server: Server, upstream: Upstream) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await server.take_request(reader)
        writer.write(CHUNKED + b"3\r\none\r\n")
        await server.release.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await reader.read()

    server.behave = behave
    answer = await upstream.call(request(server.url))
    chunks = answer.chunks()
    assert await anext(chunks) == b"one"
    server.release.set()
    assert [chunk async for chunk in chunks] == [b"two"]
    answer.close()


@pytest.mark.parametrize(
    ("answer", "then", "code", "status"),
    [
        (b"", "close", "broken", 0),
        (b"", "reset", "broken", 0),
        (b"HTTP/1.1 2", "close", "broken", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "reset", "broken", 0),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "hang", "broken", 0),
        (HTTP_2, "hang", "broken", 0),
        (b"\x00\xff\x00\xff\r\n\r\n", "hang", "broken", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "hang", "broken", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", "close", "broken", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", "reset", "broken", 200),
        (CHUNKED + b"5\r\nhello\r\n", "close", "broken", 200),
        (CHUNKED + b"5\r\nhello\r\n", "reset", "broken", 200),
        (CHUNKED + b"what?\r\n", "hang", "broken", 200),
    ],
)
async def test_an_answer_that_breaks_is_the_providers_failure(
    server: Server, upstream: Upstream, answer: bytes, then: str, code: str, status: int
) -> None:
    server.behave = one_answer(answer, then)
    failure = (await failing(upstream, request(server.url))).failure
    assert (failure.code, failure.blame, failure.scope) == (code, Blame.UPSTREAM, Scope.PROVIDER)
    assert failure.retry is Retry.LATER
    assert failure.status in (0, status)
    assert len(server.requests) == 1


LENGTH = b"Content-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    ("answer", "then", "status", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, "serve", 200, b"hello"),
        (CHUNKED + b"3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", "serve", 200, b"hello"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "close", 200, b"hello"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + LENGTH, "close", 200, b"hello"),
        (b"HTTP/1.0 200 OK\r\n" + LENGTH, "close", 200, b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", "close", 200, b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "serve", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "serve", 304, b""),
        (b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n", "serve", 503, b""),
        (b"HTTP/1.1 200 OK\r\nX-A: \xc3\xa4\r\n" + LENGTH, "serve", 200, b"hello"),
    ],
)
async def test_an_answer_is_read_the_same_whole_and_byte_by_byte(
    server: Server, upstream: Upstream, answer: bytes, then: str, status: int, body: bytes
) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        while True:
            await server.take_request(reader)
            for piece in [answer] if len(server.requests) == 1 else [bytes([byte]) for byte in answer]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if then == "close":
                return

    server.behave = behave
    for _ in range(2):
        got = await upstream.call(request(server.url))
        assert (got.status, await got.read(5)) == (status, body)
        assert not any(name.lower() in ("link", "trailer", "other") for name, _ in got.headers)
    assert server.connections == (2 if then == "close" else 1)


async def test_what_came_before_the_break_is_given_out(server: Server, upstream: Upstream) -> None:
    server.behave = one_answer(CHUNKED + b"5\r\nhello\r\n", "close")
    answer = await upstream.call(request(server.url))
    chunks = answer.chunks()
    assert await anext(chunks) == b"hello"
    with pytest.raises(CallFailed):
        await anext(chunks)
    answer.close()


async def test_headers_that_do_not_come_in_time_are_a_first_byte_timeout(server: Server, upstream: Upstream) -> None:
    server.behave = one_answer(b"HTTP/1.1 200 OK\r\nX-Slow: ", "hang")
    failure = (await failing(upstream, request(server.url, headers_s=0.05))).failure
    assert (failure.code, failure.retry) == ("first_byte_timeout", Retry.ELSEWHERE)
    await server.until(lambda: server.open == 0)


async def test_a_body_that_pauses_too_long_is_an_idle_timeout(server: Server, upstream: Upstream) -> None:
    server.behave = one_answer(CHUNKED + b"5\r\nhello\r\n", "hang")
    failure = (await failing(upstream, request(server.url, idle_s=0.05))).failure
    assert (failure.code, failure.status) == ("idle_timeout", 200)
    await server.until(lambda: server.open == 0)


async def test_a_pause_of_ours_is_no_pause_of_the_upstreams(server: Server, upstream: Upstream) -> None:
    is_awaited = asyncio.Event()

    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await server.take_request(reader)
        writer.write(CHUNKED)
        await is_awaited.wait()
        writer.write(b"3\r\none\r\n")
        await server.release.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await reader.read()

    server.behave = behave
    answer = await upstream.call(request(server.url, idle_s=0.2))
    chunks = answer.chunks()
    first = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    is_awaited.set()
    assert await first == b"one"
    loop = asyncio.get_running_loop()
    later = loop.create_future()
    # Longer than the idle limit, while nobody waits for a chunk.
    loop.call_later(0.35, later.set_result, None)
    await later
    server.release.set()
    assert [chunk async for chunk in chunks] == [b"two"]
    answer.close()


async def test_a_slow_but_steady_body_is_read_to_its_end(server: Server, upstream: Upstream) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await server.take_request(reader)
        writer.write(CHUNKED)
        for _ in range(8):
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.04)
        writer.write(b"0\r\n\r\n")
        await reader.read()

    server.behave = behave
    answer = await upstream.call(request(server.url, idle_s=0.2))
    assert await answer.read(100) == b"x" * 8


async def test_a_refused_connection_is_told_apart(upstream: Upstream) -> None:
    with socket.socket() as bound:
        # Bound, so that nobody else has the port, but not listening.
        bound.bind(("127.0.0.1", 0))
        failure = (await failing(upstream, request(f"http://127.0.0.1:{bound.getsockname()[1]}/"))).failure
    assert (failure.code, failure.retry, failure.scope) == ("connect", Retry.LATER, Scope.PROVIDER)


async def test_a_name_that_does_not_resolve_is_a_connect_failure(upstream: Upstream) -> None:
    failure = (await failing(upstream, request("http://no-such-host.invalid/"))).failure
    assert failure.code in ("connect", "connect_timeout")


async def test_tls_that_is_none_is_told_apart(server: Server, upstream: Upstream) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 400 This is plain HTTP\r\n\r\n")
        await reader.read()

    server.behave = behave
    failure = (await failing(upstream, request(server.url.replace("http:", "https:")))).failure
    assert (failure.code, failure.retry) == ("tls", Retry.ELSEWHERE)


async def test_a_connection_that_is_not_made_in_time_is_a_connect_timeout(server: Server, upstream: Upstream) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await reader.read()

    # TCP connects, but the TLS handshake is never answered: no connection yet.
    server.behave = behave
    failure = (await failing(upstream, request(server.url.replace("http:", "https:"), connect_s=0.05))).failure
    assert (failure.code, failure.retry) == ("connect_timeout", Retry.LATER)


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x/", "http://", "http://[::1", "http://x:99999/"])
async def test_a_url_that_is_none_is_our_own_fault_or_no_connection(upstream: Upstream, url: str) -> None:
    assert (await failing(upstream, request(url))).failure.code in ("unsendable", "connect", "connect_timeout")


async def test_a_header_that_would_end_early_is_never_sent(server: Server, upstream: Upstream) -> None:
    bad = UpstreamRequest("POST", server.url, (("X", "a\r\nx-evil: secret"),), b"{}", 2, 5, 5)
    error = await failing(upstream, bad)
    assert error.failure.code == "unsendable"
    assert "secret" not in str(error)
    assert server.requests == []


@pytest.mark.parametrize("answer", [OK, CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"])
async def test_a_body_beyond_the_limit_is_cut(server: Server, upstream: Upstream, answer: bytes) -> None:
    server.behave = one_answer(answer)
    got = await upstream.call(request(server.url))
    with pytest.raises(CallFailed) as caught:
        await got.read(4)
    assert (caught.value.failure.code, caught.value.failure.scope) == ("too_large", Scope.NONE)
    got.close()


async def test_a_body_announced_beyond_the_limit_is_not_waited_for(server: Server, upstream: Upstream) -> None:
    server.behave = one_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "hang")
    got = await upstream.call(request(server.url, idle_s=600.0))
    async with asyncio.timeout(5):
        with pytest.raises(CallFailed, match="too_large"):
            await got.read(999)
    await server.until(lambda: server.open == 0)


async def test_a_body_without_end_is_cut_at_the_limit(server: Server, upstream: Upstream) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await server.take_request(reader)
        writer.write(CHUNKED)
        while not server.release.is_set():
            writer.write(b"1000\r\n%b\r\n" % bytes(0x1000))
            await writer.drain()
            await asyncio.sleep(0)

    server.behave = behave
    got = await upstream.call(request(server.url))
    async with asyncio.timeout(5):
        with pytest.raises(CallFailed, match="too_large"):
            await got.read(100_000)
    await server.until(lambda: server.open == 0)


async def test_pain_17_cancelling_the_wait_for_the_answer_cuts_the_connection(server: Server, upstream: Upstream) -> None:
    server.behave = one_answer(b"", "hang")
    call = asyncio.ensure_future(upstream.call(request(server.url)))
    await server.until(lambda: len(server.requests) == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await server.until(lambda: server.open == 0)


async def test_pain_17_closing_in_mid_body_cuts_the_connection(server: Server, upstream: Upstream) -> None:
    server.behave = one_answer(CHUNKED + b"5\r\nhello\r\n", "hang")
    answer = await upstream.call(request(server.url))
    assert await anext(answer.chunks()) == b"hello"
    answer.close()
    answer.close()
    await server.until(lambda: server.open == 0)


async def test_pain_17_cancelling_the_wait_for_a_chunk_and_closing_cuts_the_connection(
    server: Server, upstream: Upstream
) -> None:
    server.behave = one_answer(CHUNKED, "hang")
    answer = await upstream.call(request(server.url))
    reading = asyncio.ensure_future(answer.read(100))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    answer.close()
    await server.until(lambda: server.open == 0)


async def test_pain_17_a_request_nobody_takes_is_cut_without_waiting_until_it_is_taken(
    server: Server, upstream: Upstream
) -> None:
    body = b"x" * 40_000_000
    taken = 0

    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        nonlocal taken
        await reader.readexactly(1)
        server.requests.append(b"started")
        await server.note()
        await server.release.wait()
        while piece := await reader.read(1 << 20):
            taken += len(piece)

    server.behave = behave
    call = asyncio.ensure_future(upstream.call(request(server.url, body=body)))
    await server.until(lambda: server.requests == [b"started"])
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    server.release.set()
    await server.until(lambda: server.open == 0)
    assert taken < len(body)


def drops_second(last_words: bytes = b"", reset: bool = False) -> Callable[[Server, Reader, Writer], Awaitable[None]]:
    """The first request of the first connection is answered; its second is read, and the connection dropped."""

    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        is_first = server.connections == 1
        await server.take_request(reader)
        writer.write(OK)
        if is_first:
            await server.take_request(reader)
            writer.write(last_words)
            await writer.drain()
            if reset:
                writer.transport.abort()
            return
        await reader.read()

    return behave


@pytest.mark.parametrize("reset", [False, True])
async def test_a_stale_connection_is_made_up_for_once(server: Server, upstream: Upstream, reset: bool) -> None:
    server.behave = drops_second(reset=reset)
    for _ in range(2):
        assert await (await upstream.call(request(server.url))).read(5) == b"hello"
    assert server.connections == 2
    assert len(server.requests) == 3


async def test_a_connection_that_is_cut_after_part_of_an_answer_is_not_stale(server: Server, upstream: Upstream) -> None:
    server.behave = drops_second(b"HTTP/1.1 2")
    await (await upstream.call(request(server.url))).read(5)
    assert (await failing(upstream, request(server.url))).failure.code == "broken"
    assert len(server.requests) == 2


async def test_a_fresh_connection_that_is_cut_is_not_tried_again(server: Server, upstream: Upstream) -> None:
    server.behave = one_answer(b"", "close")
    assert (await failing(upstream, request(server.url))).failure.code == "broken"
    assert len(server.requests) == 1


async def test_a_second_stale_connection_in_one_call_is_a_failure(server: Server, upstream: Upstream) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await server.take_request(reader)
        if server.connections == 1:
            writer.write(OK)
            await server.take_request(reader)

    server.behave = behave
    await (await upstream.call(request(server.url))).read(5)
    assert (await failing(upstream, request(server.url))).failure.code == "broken"
    assert len(server.requests) == 3


async def test_a_connection_that_ends_when_the_provider_has_worked_a_while_is_not_stale(
    server: Server, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for client in (aiohttp_client, raw_client):
        # A while that is over before it began.
        monkeypatch.setattr(client, "STALE_WITHIN_S", -1.0)
    server.behave = drops_second()
    await (await upstream.call(request(server.url))).read(5)
    assert (await failing(upstream, request(server.url))).failure.code == "broken"
    assert len(server.requests) == 2


async def test_a_connection_that_served_before_and_says_nothing_now_is_given_up_in_time_and_not_asked_again(
    server: Server, upstream: Upstream
) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await server.take_request(reader)
        writer.write(OK)
        await server.take_request(reader)
        await reader.read()

    server.behave = behave
    await (await upstream.call(request(server.url, headers_s=600.0, idle_s=600.0))).read(5)
    async with asyncio.timeout(5):
        assert (await failing(upstream, request(server.url, headers_s=0.05))).failure.code == "first_byte_timeout"
    await server.until(lambda: server.open == 0)
    assert len(server.requests) == 2


async def test_a_closed_port_makes_no_calls_and_leaves_no_connection(server: Server, upstream: Upstream) -> None:
    await (await upstream.call(request(server.url))).read(5)
    assert server.open == 1
    await upstream.close()
    await server.until(lambda: server.open == 0)
    failure = (await failing(upstream, request(server.url))).failure
    assert (failure.code, failure.blame) == ("closed", Blame.US)


async def test_a_proxy_of_the_environment_is_used_and_its_exceptions_heeded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1/chat/completions"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    upstream = AiohttpUpstream()
    await (await upstream.call(request("http://somewhere.invalid/v1"))).read(5)
    await (await upstream.call(request(server.url))).read(5)
    await upstream.close()
    assert [sent.split()[1] for sent in server.requests] == [b"http://somewhere.invalid/v1", b"/v1/chat/completions"]
