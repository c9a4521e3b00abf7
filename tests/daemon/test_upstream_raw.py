"""The raw client over real sockets: what the other client has no say in. Pool, names, back-pressure, TLS."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from messages.failures import Retry
from runtime.ports import CallFailed, UpstreamRequest
from runtime.system.virtual_loop import VirtualLoop
from runtime.upstream import raw_dial, raw_pool
from runtime.upstream.failures import ConnectTimeout, NoConnection
from runtime.upstream.raw_client import RawUpstream
from runtime.upstream.raw_connection import RawConnection
from runtime.upstream.raw_dial import Dialer
from runtime.upstream.raw_pool import Pool
from runtime.upstream.raw_request import Origin
from runtime.upstream.raw_tls import ClientContext
from tests.daemon.edge_desk import Wire
from tests.daemon.upstream_server import CHUNKED, OK, Reader, Server, Writer, failing, one_answer, request, serving
from tests.daemon.upstream_tls import server_side

SENT_BYTES_MAX = 24 * 1024 * 1024
"""What the sockets' own buffers may hold at most, and ours."""


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as made:
        yield made


@pytest.fixture
async def upstream(server: Server) -> AsyncIterator[RawUpstream]:
    made = RawUpstream()
    yield made
    await made.close()


async def hello(upstream: RawUpstream, url: str) -> None:
    assert await (await upstream.call(request(url))).read(5) == b"hello"


async def test_each_call_goes_with_its_own_headers_and_method_whatever_was_kept_of_the_calls_before(
    server: Server, upstream: RawUpstream
) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        while True:
            await server.take_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server.behave = behave
    several = [(("X-Call", str(number)),) for number in range(6)]
    plain = request(server.url)
    wanted = [(method, headers) for method in ("POST", "PUT") for headers in (*several, *several[:3], several[0], several[0])]
    for number, (method, headers) in enumerate(wanted):
        call = UpstreamRequest(method, plain.url, headers, b"x" * number, 2.0, 5.0, 5.0)
        await (await upstream.call(call)).read(0)
        head, _, body = server.requests[-1].partition(b"\r\n\r\n")
        assert head.startswith(method.encode() + b" /")
        assert f"X-Call: {headers[0][1]}".encode() in head.split(b"\r\n")
        assert f"Content-Length: {number}".encode() in head.split(b"\r\n")
        assert len(body) == number


async def test_many_calls_at_once_each_get_their_own_answer_and_then_share_connections(
    server: Server, upstream: RawUpstream
) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        while True:
            await server.take_request(reader)
            said = server.requests[-1].rpartition(b"\r\n")[2]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))

    server.behave = behave

    async def one(number: int) -> None:
        body = str(number).encode()
        assert await (await upstream.call(request(server.url, body=body))).read(100) == body

    for _ in range(3):
        await asyncio.gather(*(one(number) for number in range(40)))
    assert server.connections <= 40


@pytest.mark.parametrize("last_words", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_a_connection_the_server_ends_while_it_rests_is_not_used_again(
    server: Server, upstream: RawUpstream, last_words: bytes
) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await server.take_request(reader)
        writer.write(OK)
        await server.release.wait()
        writer.write(last_words)
        if last_words:
            # The client has to end it.
            await reader.read()

    server.behave = behave
    await hello(upstream, server.url)
    server.release.set()
    await server.until(lambda: server.open == 0)
    await hello(upstream, server.url)
    assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"Content-Type", b"Connection: close\r\nContent-Type"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK + b"and more that nobody asked for",
    ],
)
async def test_a_connection_that_is_not_to_be_kept_is_not(server: Server, upstream: RawUpstream, answer: bytes) -> None:
    server.behave = one_answer(answer)
    for count in (1, 2):
        await hello(upstream, server.url)
        await server.until(lambda: server.open == 0)
        assert server.connections == count


async def test_connections_that_rest_too_long_are_closed(
    server: Server, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_pool, "KEEPALIVE_S", 0.05)
    await asyncio.gather(*(hello(upstream, server.url) for _ in range(3)))
    assert server.open == server.connections
    await server.until(lambda: server.open == 0)


async def test_calls_one_after_the_other_share_the_connection_that_was_used_last(server: Server, upstream: RawUpstream) -> None:
    served: list[int] = []

    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        number = server.connections
        while True:
            await server.take_request(reader)
            served.append(number)
            writer.write(OK)

    server.behave = behave
    answers = [await upstream.call(request(server.url)) for _ in range(4)]
    for answer in answers:
        assert await answer.read(5) == b"hello"
    for _ in range(20):
        await hello(upstream, server.url)
    assert served == [1, 2, 3, 4] + [4] * 20


def exchange(pool: Pool) -> RawConnection:
    """A request and its whole answer, on a connection that rested or a new one."""
    connection = pool.take()
    if connection is None:
        connection = pool.made()
        connection.connection_made(Wire())
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", has_no_body=False)
    connection.data_received(OK)
    assert connection.take() == b"hello"
    return connection


def test_connections_that_are_not_needed_are_closed_when_they_have_rested_for_half_a_minute() -> None:
    async def calls() -> list[tuple[float, int]]:
        loop = asyncio.get_running_loop()
        pool = Pool(loop)
        made = [exchange(pool) for _ in range(4)]
        for connection in made:
            await asyncio.sleep(0.25)
            pool.give_back(connection)
        open_at: list[tuple[float, int]] = []
        while loop.time() < 40.0:
            pool.give_back(exchange(pool))
            found = loop.time(), sum(connection.is_ready for connection in made)
            if not open_at or open_at[-1][1] != found[1]:
                open_at.append(found)
            await asyncio.sleep(0.125)
        assert made[-1].is_ready, "the one in use"
        return open_at

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(calls()) == [(1.0, 4), (30.25, 3), (30.5, 2), (30.75, 1)]


async def test_no_more_than_so_many_connections_rest(
    server: Server, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_pool, "IDLE_MAX", 2)
    answers = [await upstream.call(request(server.url)) for _ in range(5)]
    assert server.open == 5
    for answer in answers:
        assert await answer.read(5) == b"hello"
    await server.until(lambda: server.open == 2)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_server_cannot_send_without_end_while_nobody_reads(
    is_tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent_bytes = 0

    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        nonlocal sent_bytes
        await server.take_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
        while True:
            try:
                async with asyncio.timeout(0.3):
                    await writer.drain()
            except TimeoutError:
                server.release.set()
                await reader.read()
                return
            writer.write(bytes(1 << 16))
            sent_bytes += 1 << 16

    context = server_side(tmp_path) if is_tls else None
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with serving(context) as server:
        server.behave = behave
        upstream = RawUpstream()
        answer = await upstream.call(request(server.url.replace("127.0.0.1", "localhost")))
        await server.release.wait()
        assert 0 < sent_bytes < SENT_BYTES_MAX
        assert len(await anext(answer.chunks())) > 0
        answer.close()
        await upstream.close()


async def test_an_answer_before_the_request_was_read_is_given_out(server: Server, upstream: RawUpstream) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK.replace(b"200 OK", b"413 Too Large"))
        await server.release.wait()
        await reader.read()

    server.behave = behave
    answer = await upstream.call(request(server.url, body=bytes(40_000_000)))
    assert (answer.status, await answer.read(5)) == (413, b"hello")
    server.release.set()
    await server.until(lambda: server.open == 0)


async def test_an_answer_that_comes_byte_by_byte_is_whole_in_the_end(server: Server, upstream: RawUpstream) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await server.take_request(reader)
        for byte in CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    server.behave = behave
    await hello(upstream, server.url)


async def test_closing_the_port_ends_calls_in_every_stage(server: Server, upstream: RawUpstream) -> None:
    server.behave = one_answer(CHUNKED, "hang")
    in_body = await upstream.call(request(server.url))
    reading = asyncio.ensure_future(in_body.read(100))
    server.behave = one_answer(b"", "hang")
    in_head = asyncio.ensure_future(upstream.call(request(server.url)))
    await server.until(lambda: len(server.requests) == 2)
    # The handshake is never answered.
    connecting = asyncio.ensure_future(upstream.call(request(server.url.replace("http:", "https:"))))
    await server.until(lambda: server.open == 3)
    await upstream.close()
    for waiting in (reading, in_head, connecting):
        with pytest.raises(CallFailed) as caught:
            await waiting
        assert caught.value.failure.code == "closed"
    await server.until(lambda: server.open == 0)


async def test_pain_17_a_call_that_is_cancelled_while_it_connects_leaves_no_connection(
    server: Server, upstream: RawUpstream
) -> None:
    server.behave = one_answer(b"", "hang")
    call = asyncio.ensure_future(upstream.call(request(server.url.replace("http:", "https:"))))
    await server.until(lambda: server.open == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await server.until(lambda: server.open == 0)


async def test_an_answer_that_was_read_is_not_read_again(server: Server, upstream: RawUpstream) -> None:
    answer = await upstream.call(request(server.url))
    assert await answer.read(5) == b"hello"
    with pytest.raises(CallFailed):
        await answer.read(5)
    assert [chunk async for chunk in answer.chunks()] == []
    await hello(upstream, server.url)
    answer.close()
    await hello(upstream, server.url)
    assert server.connections == 1


async def test_an_answer_that_was_closed_in_the_middle_does_not_look_whole(server: Server, upstream: RawUpstream) -> None:
    server.behave = one_answer(CHUNKED + b"5\r\nhello\r\n", "hang")
    answer = await upstream.call(request(server.url))
    answer.close()
    with pytest.raises(CallFailed):
        [chunk async for chunk in answer.chunks()]


async def test_the_answer_to_head_has_no_body_and_its_connection_serves_again(server: Server, upstream: RawUpstream) -> None:
    server.behave = one_answer(OK.removesuffix(b"hello"))
    for _ in range(2):
        answer = await upstream.call(UpstreamRequest("HEAD", server.url, (), b"", 2, 5, 5))
        assert ("Content-Length", "5") in answer.headers
        assert await answer.read(0) == b""
    assert server.connections == 1


# -- TLS


async def test_tls_is_trusted_by_the_systems_certificates_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(server_side(tmp_path)) as server:
        by_name = server.url.replace("127.0.0.1", "localhost")
        stranger = RawUpstream()
        failure = (await failing(stranger, request(by_name))).failure
        await stranger.close()
        assert (failure.code, failure.retry) == ("tls", Retry.ELSEWHERE)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        upstream = RawUpstream()
        assert (await failing(upstream, request(server.url))).failure.code == "tls"
        before = server.connections
        for _ in range(3):
            await hello(upstream, by_name)
        assert server.connections == before + 1
        await upstream.close()


async def test_a_large_request_and_a_large_answer_pass_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = server_side(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    body = bytes(range(256)) * 20_000
    async with serving(context) as server:
        server.behave = one_answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        upstream = RawUpstream()
        answer = await upstream.call(request(server.url.replace("127.0.0.1", "localhost"), body=body))
        assert await answer.read(len(body)) == body
        assert server.requests[0].endswith(body)
        await upstream.close()


async def test_a_later_connection_goes_on_with_the_session_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = server_side(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    continued: list[bool] = []

    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        continued.append(writer.get_extra_info("ssl_object").session_reused)
        await server.take_request(reader)
        writer.write(OK.replace(b"Content-Type", b"Connection: close\r\nContent-Type"))
        await reader.read()

    async with serving(context) as server:
        server.behave = behave
        by_name = server.url.replace("127.0.0.1", "localhost")
        upstream, stranger = RawUpstream(), RawUpstream()
        for _ in range(3):
            await hello(upstream, by_name)
        await hello(stranger, by_name)
        # By another name it is not the same host, whatever stands behind it: nothing is continued, all is checked.
        assert (await failing(upstream, request(server.url))).failure.code == "tls"
        await upstream.close()
        await stranger.close()
    assert continued[:4] == [False, True, True, False]


async def test_a_handshake_that_failed_is_begun_anew_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = server_side(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    ours = ClientContext.made()
    monkeypatch.setattr(ClientContext, "made", lambda: ours)
    async with serving(context) as secure:
        upstream = RawUpstream()
        await hello(upstream, secure.url.replace("127.0.0.1", "localhost"))
        assert list(ours.sessions) == ["localhost"]
        # Somebody else at that name, who speaks no TLS.
        async with serving() as other:
            other.behave = speaks_no_tls
            plain = other.url.replace("http://127.0.0.1", "https://localhost")
            assert (await failing(upstream, request(plain))).failure.code == "tls"
        assert list(ours.sessions) == []
        await upstream.close()


async def speaks_no_tls(server: Server, reader: Reader, writer: Writer) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


# -- names and addresses


class Names:
    """The running loop with a resolver of its own, and addresses that never answer."""

    def __init__(self, addresses: list[tuple[str, int]], silent: tuple[str, ...] = ()) -> None:
        self._loop = asyncio.get_running_loop()
        self._addresses = addresses
        self._silent = silent
        self.asked = 0
        self.tried: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked += 1
        await asyncio.sleep(0)
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        families = [socket.AF_INET6 if ":" in address[0] else socket.AF_INET for address in self._addresses]
        return [(f, socket.SOCK_STREAM, 6, "", address) for f, address in zip(families, self._addresses, strict=True)]

    async def sock_connect(self, sock: socket.socket, address: tuple[str, int]) -> None:
        self.tried.append(address[0])
        if address[0] in self._silent:
            await self._loop.create_future()
        if address[1] == 1:
            raise OSError(errno.ECONNREFUSED, "Connection refused")
        await self._loop.sock_connect(sock, address)


def origin_of(server: Server, host: str = "provider") -> Origin:
    return Origin("http", host, int(server.url.split(":")[2].split("/")[0]))


async def dialled(names: Names, origin: Origin, pool: Pool, connect_s: float = 2.0) -> RawConnection:
    return await Dialer(names).dial(origin, pool.made, connect_s)  # type: ignore[arg-type] # stands in for a loop


async def emptied(pool: Pool) -> None:
    pool.close()
    await pool.emptied()


async def test_a_name_is_looked_up_once_for_all_who_wait_for_it_and_for_a_while(server: Server) -> None:
    origin, pool = origin_of(server), Pool(asyncio.get_running_loop())
    names = Names([("127.0.0.1", origin.port)])
    dialer = Dialer(names)  # type: ignore[arg-type] # stands in for a loop
    await asyncio.gather(*(dialer.dial(origin, pool.made, 2.0) for _ in range(5)))
    await dialer.dial(origin, pool.made, 2.0)
    assert names.asked == 1
    assert len(pool.connections) == 6
    await emptied(pool)


async def test_a_name_whose_addresses_refuse_is_looked_up_again(server: Server) -> None:
    names, pool = Names([("127.0.0.1", 1)]), Pool(asyncio.get_running_loop())
    dialer = Dialer(names)  # type: ignore[arg-type] # stands in for a loop
    for _ in range(2):
        with pytest.raises(NoConnection, match="refused"):
            await dialer.dial(origin_of(server), pool.made, 2.0)
    with pytest.raises(NoConnection, match="resolve"):
        await dialer.dial(origin_of(server, "nowhere"), pool.made, 2.0)
    assert names.asked == 3


@pytest.mark.parametrize("first", [("127.0.0.1", 1), ("127.0.0.9", 80)])
async def test_where_one_address_refuses_or_says_nothing_the_next_is_taken(
    server: Server, first: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_dial, "HAPPY_EYEBALLS_S", 0.02)
    origin, pool = origin_of(server), Pool(asyncio.get_running_loop())
    names = Names([first, ("127.0.0.1", origin.port)], silent=("127.0.0.9",))
    assert (await dialled(names, origin, pool)).is_ready
    await emptied(pool)


async def test_the_families_of_addresses_take_turns_so_that_a_broken_one_costs_one_try(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_dial, "HAPPY_EYEBALLS_S", 1000.0)  # It is the refusal that lets the next one be tried.
    origin, pool = origin_of(server), Pool(asyncio.get_running_loop())
    refusing = [(f"fd00::{number}", 1) for number in (1, 2, 3)]
    names = Names([*refusing, ("127.0.0.1", origin.port)])
    assert (await dialled(names, origin, pool, connect_s=60.0)).is_ready
    assert names.tried == ["fd00::1", "127.0.0.1"]
    await emptied(pool)


class VirtualNames(Names):
    """Under virtual time: an address takes the connection at once or says nothing."""

    def __init__(self, addresses: list[tuple[str, int]], silent: tuple[str, ...] = ()) -> None:
        super().__init__(addresses, silent)
        self.tried_at: list[tuple[str, float]] = []

    async def sock_connect(self, sock: socket.socket, address: tuple[str, int]) -> None:
        self.tried_at.append((address[0], self._loop.time()))
        if address[0] in self._silent:
            await self._loop.create_future()

    async def create_connection(self, made: Callable[[], Any], *, sock: socket.socket, **_: Any) -> tuple[None, Any]:
        sock.close()
        return None, made()


V6, V4 = tuple(f"fd00::{number}" for number in (1, 2, 3)), tuple(f"10.0.0.{number}" for number in (1, 2))


@pytest.mark.parametrize(
    ("silent", "tried"),
    [
        (V6, [("fd00::1", 0.0), ("10.0.0.1", 0.25)]),
        (V6 + V4[:1], [("fd00::1", 0.0), ("10.0.0.1", 0.25), ("fd00::2", 0.5), ("10.0.0.2", 0.75)]),
        (
            V6[:2] + V4,
            [("fd00::1", 0.0), ("10.0.0.1", 0.25), ("fd00::2", 0.5), ("10.0.0.2", 0.75), ("fd00::3", 1.0)],
        ),
    ],
    ids=["one family is silent", "and one of the other", "all but the last"],
)
def test_each_address_has_a_quarter_of_a_second_before_the_next_of_the_other_family_is_tried_beside_it(
    silent: tuple[str, ...], tried: list[tuple[str, float]]
) -> None:
    async def dial() -> list[tuple[str, float]]:
        names = VirtualNames([(address, 80) for address in (*V6, *V4)], silent)
        await Dialer(names).dial(Origin("http", "provider", 80), asyncio.Protocol, 10.0)  # type: ignore[arg-type] # stands in for a loop
        return names.tried_at

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(dial()) == tried


async def test_what_a_name_resolved_to_is_not_believed_for_ever(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_dial, "RESOLVED_S", 0.0)
    origin, pool = origin_of(server), Pool(asyncio.get_running_loop())
    names = Names([("127.0.0.1", origin.port)])
    dialer = Dialer(names)  # type: ignore[arg-type] # stands in for a loop
    for _ in range(2):
        await dialer.dial(origin, pool.made, 2.0)
    assert names.asked == 2
    await emptied(pool)


async def test_addresses_that_say_nothing_are_given_up_in_time(server: Server) -> None:
    names = Names([("127.0.0.9", 80), ("127.0.0.9", 81)], silent=("127.0.0.9",))
    with pytest.raises(ConnectTimeout):
        await dialled(names, origin_of(server), Pool(asyncio.get_running_loop()), connect_s=0.05)
