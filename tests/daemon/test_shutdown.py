"""The end of the daemon: calls in flight are finished, nothing new is taken, and what is left at the end is told so.

How long it waits for whom, to the moment, is in ``tests/system/test_shutdown_times.py``; here a busy machine may take its time.
"""

import http.client
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from select import select
from time import monotonic
from typing import Any

import pytest

from tests.daemon.gateway import WITHIN_S, Gateway, chat_body, eventually, provider, read_to_end
from tests.daemon.gateway_upstreams import DONE, ROLE, Exchange, Gate, ScriptedUpstream, answers, event, hangs
from tests.daemon.otlp_receiver import OtlpReceiver

HALF = ROLE + event({"content": "half"})
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(autouse=True)
def _fresh(upstream: ScriptedUpstream) -> None:
    upstream.forget()
    upstream.scripts.update(good=answers, hang=hangs)


def gateway_over(upstream: ScriptedUpstream, drain: str, environ: dict[str, str] | None = None, **more: Any) -> Gateway:
    names = ("good", "hang", "half", "gated")
    providers = [provider(name, upstream.base_url(name), [name]) for name in names]
    providers[1]["limits"] = {"max_concurrency": 1}
    return Gateway({"server": {"drain": drain}, "providers": providers, **more}, environ)


@contextmanager
def sent(gateway: Gateway, body: bytes) -> Iterator[socket.socket]:
    with gateway.connect() as connection:
        connection.sendall(HEAD % len(body) + body)
        yield connection


def streams_when(gate: Gate) -> Any:
    """Half a stream, and the rest when the gate is open."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(HALF)
        await gate.passed()
        await exchange.chunk(event({}, "stop") + DONE)
        await exchange.end_stream()

    return script


def is_refused(gateway: Gateway) -> bool:
    try:
        gateway.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_sigterm_lets_calls_in_flight_end_whole_and_takes_no_new_ones(upstream: ScriptedUpstream) -> None:
    # Given a stream and a whole answer under way, and two connections that were used before
    gate = upstream.gate()

    async def whole_when(exchange: Exchange) -> None:
        if b'"stream":true' in exchange.body:
            await streams_when(gate)(exchange)
        else:
            await gate.passed()
            await answers(exchange)

    upstream.scripts["gated"] = whole_when
    with gateway_over(upstream, "30s") as gateway:
        asking, calling = (http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=WITHIN_S) for _ in range(2))
        for kept in (asking, calling):
            kept.request("GET", "/readyz")
            assert kept.getresponse().read()
        with (
            gateway.opened("POST", "/v1/chat/completions", chat_body("gated", stream=True)) as stream,
            sent(gateway, chat_body("gated")) as whole,
        ):
            assert stream.read1() == HALF
            eventually(lambda: len(upstream.requests("gated")) == 2, "both are upstream")

            # When the daemon is told to stop
            gateway.signal(signal.SIGTERM)
            eventually(lambda: is_refused(gateway), "new connections are refused")

            # Then who has a connection still is told that it is not ready, and gets no new call through; it is closed after it
            asking.request("GET", "/readyz")
            answer = asking.getresponse()
            assert (answer.status, answer.read()) == (503, b'{"status":"draining"}')
            calling.request("POST", "/v1/chat/completions", chat_body("good"))
            refused = calling.getresponse()
            assert refused.status == 503
            assert refused.headers["retry-after"] == "1"
            assert b"shutting down" in refused.read()
            assert (answer.headers["connection"], refused.headers["connection"]) == ("close", "close")
            assert upstream.requests("good") == []

            # And both answers end whole
            gate.open()
            assert stream.read() == event({}, "stop") + DONE
            said = whole.recv(65536)
            assert said.startswith(b"HTTP/1.1 200 ")
            assert b'"content":"hi"' in said
        # And it exits with 0 (checked at the end of the block), without waiting for its 30 s
        begun_at = monotonic()
        assert gateway.exit_code() == 0
        assert monotonic() - begun_at < 10


def test_sigint_with_nothing_to_do_ends_at_once_though_connections_are_open(upstream: ScriptedUpstream) -> None:
    with gateway_over(upstream, "30s") as gateway, gateway.connect() as idle:
        begun_at = monotonic()
        gateway.signal(signal.SIGINT)
        assert gateway.exit_code() == 0
        assert monotonic() - begun_at < 15
        assert read_to_end(idle) == b""


def test_a_call_longer_than_the_drain_is_told_that_it_is_over(upstream: ScriptedUpstream) -> None:
    # Given half a stream and a call without a byte yet, neither of which will end, and a collector
    async def half(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(HALF)
        await exchange.hang()

    upstream.scripts["half"] = half
    telemetry = {"telemetry": {"sample_ratio": 1}}
    with OtlpReceiver.http() as collector:
        with (
            gateway_over(upstream, "300ms", collector.environ(), **telemetry) as gateway,
            sent(gateway, chat_body("half", stream=True)) as stream,
            sent(gateway, chat_body("hang")) as whole,
        ):
            eventually(lambda: bool(upstream.requests("half") and upstream.requests("hang")), "both are upstream")
            seen = b""
            while HALF[-20:] not in seen:
                seen += stream.recv(65536)

            # When the daemon is told to stop, then it waits for them, but no longer than it may
            begun_at = monotonic()
            gateway.signal(signal.SIGTERM)
            seen += read_to_end(stream)
            assert 0.3 <= monotonic() - begun_at < 15
            refusal = read_to_end(whole)
        spans = collector.spans

    # Then the stream is told that it is broken and is cut, the other one gets a 503
    assert b'data: {"error":{"message":"' in seen
    assert b"shutting down" in seen
    assert b"[DONE]" not in seen
    assert not seen.endswith(b"0\r\n\r\n")
    assert refusal.startswith(b"HTTP/1.1 503 ")
    assert b"shutting down" in refusal
    # And both calls upstream were ended, as drained: no fault of the providers
    assert upstream.requests("half")[0].is_left
    assert upstream.requests("hang")[0].is_left
    attempts = [span for span in spans if span["kind"] == "CLIENT"]
    assert [span["attributes"]["error.type"] for span in attempts] == ["drained", "drained"]


def test_who_waits_for_a_place_is_told_at_once(upstream: ScriptedUpstream) -> None:
    # Given a provider with one place, a call in it and a request in the queue
    with gateway_over(upstream, "60s") as gateway, sent(gateway, chat_body("hang")) as first:
        eventually(lambda: len(upstream.requests("hang")) == 1, "the place is taken")
        with sent(gateway, chat_body("hang")) as second:
            eventually(lambda: gateway.stats()["router"]["waiting"] == 1, "one waits")

            gateway.signal(signal.SIGTERM)

            # Then the one in the queue hears at once, the call in flight only at the end
            assert second.recv(65536).startswith(b"HTTP/1.1 503 ")
            assert select([first], [], [], 0)[0] == []
            gateway.signal(signal.SIGTERM)
            assert first.recv(65536).startswith(b"HTTP/1.1 503 ")


def test_a_second_signal_stops_at_once(upstream: ScriptedUpstream) -> None:
    with gateway_over(upstream, "60s") as gateway, sent(gateway, chat_body("hang")) as connection:
        eventually(lambda: len(upstream.requests("hang")) == 1, "the call is upstream")
        gateway.signal(signal.SIGTERM)
        gateway.wait_for_log("SIGTERM: stopping")
        begun_at = monotonic()

        gateway.signal(signal.SIGINT)

        assert connection.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert gateway.exit_code() == 0
        assert monotonic() - begun_at < 15


def test_half_a_body_does_not_hold_up_the_end_for_longer_than_the_drain(upstream: ScriptedUpstream) -> None:
    with gateway_over(upstream, "200ms") as gateway, gateway.connect() as connection:
        connection.sendall(HEAD % 100 + b'{"model"')
        eventually(lambda: gateway.stats()["edge"]["in_flight"] == 1, "its request has begun")
        begun_at = monotonic()

        gateway.signal(signal.SIGTERM)

        assert gateway.exit_code() == 0
        assert monotonic() - begun_at < 15


def test_a_client_that_reads_nothing_does_not_hold_up_the_end(upstream: ScriptedUpstream) -> None:
    async def pours(exchange: Exchange) -> None:
        await exchange.begin_stream()
        while True:
            await exchange.chunk(event({"content": "x" * 60_000}))

    upstream.scripts["half"] = pours
    with gateway_over(upstream, "200ms") as gateway, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", gateway.port))
        body = chat_body("half", stream=True)
        connection.sendall(HEAD % len(body) + body)
        eventually(lambda: len(upstream.requests("half")) == 1, "the call is upstream")
        begun_at = monotonic()

        gateway.signal(signal.SIGTERM)

        assert gateway.exit_code() == 0
        assert monotonic() - begun_at < 15


def test_sighup_does_not_end_it_and_is_answered_in_the_log(upstream: ScriptedUpstream) -> None:
    with gateway_over(upstream, "1s") as gateway:
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log("configuration reloaded: generation 2")
        assert gateway.chat("good").status == 200


def test_requests_that_come_while_it_ends_are_answered_or_refused_but_never_cut(upstream: ScriptedUpstream) -> None:
    # Given clients that ask without pause
    seen: list[int] = []
    broken: list[BaseException] = []
    with gateway_over(upstream, "5s") as gateway:

        def ask() -> None:
            while True:
                try:
                    seen.append(gateway.chat("good").status)
                except ConnectionRefusedError:
                    return
                except (ConnectionResetError, BrokenPipeError, http.client.HTTPException) as error:
                    # Accepted by the system on our behalf and never by us: no byte of it was read, not all could be written.
                    broken.append(error)
                    return

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        eventually(lambda: len(seen) > 50, "they are served")

        gateway.signal(signal.SIGTERM)

        for client in clients:
            client.join()
    assert set(seen) <= {200, 503}
    never_ours = ConnectionResetError | BrokenPipeError | http.client.RemoteDisconnected
    assert all(isinstance(error, never_ours) for error in broken)
