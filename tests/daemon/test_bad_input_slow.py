"""Clients that are slow or stop, providers that answer nonsense without end, and more requests than the daemon takes."""

import asyncio
import socket
from collections.abc import Iterator
from time import monotonic

import pytest

from tests.daemon.gateway import Gateway, chat_body, eventually, provider, read_to_end
from tests.daemon.gateway_upstreams import Exchange, Script, ScriptedUpstream, answers, completion, event, hangs, replies

IDLE_S = 0.4
PIECE = event({"content": "x" * 60_000})


async def pours(exchange: Exchange) -> None:
    """A stream without end, as fast as it is taken."""
    await exchange.begin_stream()
    while True:
        await exchange.chunk(PIECE)


async def huge_header(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")


async def endless_headers(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        await exchange.send(b"X-%d: y\r\n" % number)


async def announces_too_much(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n")
    await exchange.hang()


async def endless_error(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        await exchange.send(b"no" * 30_000)


async def bad_chunks(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.send(b"zz\r\nnonsense\r\n")


async def stops_in_the_body(exchange: Exchange) -> None:
    await exchange.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"choices"')
    await exchange.hang()


async def endless_comments(exchange: Exchange) -> None:
    """Signs of life and never content."""
    await exchange.begin_stream()
    while True:
        await exchange.chunk(b": still thinking\n\n")
        await asyncio.sleep(0.02)


NONSENSE: dict[str, tuple[Script, bool]] = {
    "huge_header": (huge_header, False),
    "endless_headers": (endless_headers, False),
    "announces_too_much": (announces_too_much, False),
    "endless_error": (endless_error, False),
    "bad_chunks": (bad_chunks, True),
    "stops_in_the_body": (stops_in_the_body, False),
    "endless_comments": (endless_comments, True),
    "compressed": (replies(200, b"\x1f\x8b\x08", ("content-encoding", "gzip")), False),
    "bad_status_line": (lambda exchange: exchange.send(b"HTTP/1.1 abc Hello\r\n\r\n"), False),
    "header_without_name": (lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\n: x\r\n\r\n"), False),
}


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.scripts.update(m=answers, pours=pours, big=replies(200, completion("x" * 20_000_000)))
    providers = [provider(name, upstream.base_url(name), [name]) for name in ("m", "pours", "big")]
    for name, (script, _) in NONSENSE.items():
        upstream.scripts[name] = script
        times = {"first_byte": "500ms", "idle": "300ms"}
        providers.append(provider(name, upstream.base_url(name), [name], timeouts=times))
        upstream.scripts[f"{name}.good"] = answers
        providers.append(provider(f"{name}.good", upstream.base_url(f"{name}.good"), [name]))
    with Gateway({"server": {"client_idle": f"{IDLE_S}s"}, "providers": providers, "routing": {"strategy": "first"}}) as found:
        yield found


@pytest.mark.parametrize("name", NONSENSE)
def test_pain_26_a_provider_that_answers_nonsense_costs_one_attempt(
    gateway: Gateway, upstream: ScriptedUpstream, name: str
) -> None:
    answer = gateway.chat(name, stream=NONSENSE[name][1])

    assert answer.status == 200, answer.body
    assert answer.header("x-pointsman-provider") == f"{name}.good"
    assert len(upstream.requests(name)) == 1
    assert gateway.providers()[name]["in_flight"] == 0


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD % 100 + b'{"model": "m"',
        HEAD % 100,
        b'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"mod',
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"x" * 20_000,
    ],
)
def test_half_a_body_is_waited_for_as_long_as_a_client_may_idle(gateway: Gateway, sent: bytes) -> None:
    before = gateway.stats()["edge"]
    begun_at = monotonic()
    with gateway.connect() as connection:
        connection.sendall(sent)
        said = connection.recv(65536)

    assert said.startswith(b"HTTP/1.1 408 "), said
    assert b'"code":"request_timeout"' in said
    assert monotonic() - begun_at >= IDLE_S
    after = gateway.stats()["edge"]
    assert (after["refused"], after["in_flight"]) == (before["refused"] + 1, 0)
    assert gateway.chat("m").status == 200


def test_a_body_that_comes_slowly_but_comes_is_taken(gateway: Gateway) -> None:
    body = chat_body("m")
    gap = len(body) // 6 + 1
    with gateway.connect() as connection:
        connection.sendall(HEAD % len(body))
        for at in range(0, len(body), gap):
            # The other side is only seen to wait by waiting: each pause is shorter, all together longer than allowed.
            pause(IDLE_S / 4)
            connection.sendall(body[at : at + gap])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def pause(seconds: float) -> None:
    """Time that passes without a word is what is tested here."""
    ends_at = monotonic() + seconds
    eventually(lambda: monotonic() >= ends_at, "time passes")


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_connection_whose_request_does_not_come_is_closed(gateway: Gateway, sent: bytes) -> None:
    with gateway.connect() as connection:
        connection.sendall(sent)
        assert read_to_end(connection) == b""


def test_headers_that_trickle_in_for_ever_are_cut(gateway: Gateway) -> None:
    with gateway.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")

        def is_cut() -> bool:
            try:
                connection.sendall(b"x")
                connection.setblocking(False)
                return connection.recv(1) == b""
            except BlockingIOError:
                return False
            except ConnectionError:
                return True
            finally:
                connection.setblocking(True)

        eventually(is_cut, "the connection is cut")


@pytest.mark.parametrize(("model", "stream"), [("pours", True), ("big", False)])
def test_a_client_that_takes_nothing_is_cut_as_its_own_fault_and_holds_up_nobody(
    gateway: Gateway, upstream: ScriptedUpstream, model: str, stream: bool
) -> None:
    # Given a client with a small window that sends a request and reads nothing
    upstream.forget()
    gone_before = gateway.stats()["edge"]["client_gone"]
    body = chat_body(model, stream=stream)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(15)
        connection.connect(("127.0.0.1", gateway.port))
        connection.sendall(HEAD % len(body) + body)
        eventually(lambda: len(upstream.requests(model)) == 1, "the call is upstream")

        # Then others are served meanwhile
        assert gateway.chat("m").status == 200

        # And it is cut, and the call with it, without blame for the provider
        eventually(lambda: gateway.stats()["edge"]["client_gone"] == gone_before + 1, "the client is cut")
        assert len(read_to_end(connection)) < 20_000_000
    if stream:
        eventually(lambda: upstream.requests(model)[0].is_left, "the call upstream is ended")
    report = gateway.providers()[model]
    assert (report["in_flight"], report["failures"], report["circuit"]) == (0, 0, "closed")


def test_a_client_that_reads_slowly_but_reads_is_not_cut(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.forget()
    body = chat_body("pours", stream=True)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.settimeout(15)
        connection.connect(("127.0.0.1", gateway.port))
        connection.sendall(HEAD % len(body) + body)
        ends_at = monotonic() + 3 * IDLE_S
        while monotonic() < ends_at:
            assert connection.recv(200_000)
            pause(0.01)
        (request,) = upstream.requests("pours")
        assert not request.is_left


def opened(gateway: Gateway, bodies: list[bytes]) -> list[socket.socket]:
    connections = []
    for body in bodies:
        connection = gateway.connect()
        connection.sendall(HEAD % len(body) + body)
        connections.append(connection)
    return connections


def test_above_max_requests_the_next_is_told_to_come_back(upstream: ScriptedUpstream) -> None:
    # Given a daemon that takes two requests, and two that hang
    upstream.scripts.update(h=hangs, m=answers)
    providers = [provider("h", upstream.base_url("h"), ["h"]), provider("m", upstream.base_url("m"), ["m"])]
    with Gateway({"server": {"max_requests": 2}, "providers": providers}) as gateway:
        connections = opened(gateway, [chat_body("h")] * 2)
        try:
            eventually(lambda: gateway.stats()["edge"]["in_flight"] == 2, "both are taken")

            # When a third comes
            answer = gateway.chat("m")

            # Then it is refused before anything is done for it
            assert answer.status == 503
            assert answer.error["code"] == "overloaded"
            assert answer.header("retry-after") == "1"
            assert gateway.stats()["edge"]["by_status"] == {"503": 1}
            # And health and the admin API answer all the same
            assert gateway.get("/healthz").status == 200
        finally:
            for connection in connections:
                connection.close()

        # And it is taken when there is room again
        eventually(lambda: gateway.chat("m").status == 200, "there is room again")


def test_where_the_only_provider_is_full_the_queue_is_bounded_in_length_and_time(upstream: ScriptedUpstream) -> None:
    upstream.scripts["full"] = hangs
    entry = provider("full", upstream.base_url("full"), ["h"], limits={"max_concurrency": 1})
    routing = {"queue": {"max_wait": "700ms", "max_length": 1}}
    with Gateway({"providers": [entry], "routing": routing}) as gateway:
        connections = opened(gateway, [chat_body("h")])
        try:
            eventually(lambda: len(upstream.requests("full")) == 1, "the place is taken")
            connections += opened(gateway, [chat_body("h")])
            eventually(lambda: gateway.stats()["router"]["waiting"] == 1, "one waits")

            too_many = gateway.chat("h")
            waited = connections[1].recv(65536)
        finally:
            for connection in connections:
                connection.close()

    assert (too_many.status, too_many.error["code"]) == (503, "overloaded")
    assert too_many.header("retry-after")
    assert waited.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"overloaded"' in waited
