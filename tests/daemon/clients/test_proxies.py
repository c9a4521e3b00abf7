"""nginx and HAProxy in front of two gateways: streams go through as they come, and nobody notices when a gateway ends."""

import contextlib
import getpass
import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.clients.tools import program, running
from tests.daemon.gateway import WITHIN_S, Client, Gateway, chat_body, eventually, provider
from tests.daemon.gateway_upstreams import DONE, ROLE, Exchange, Gate, Script, ScriptedUpstream, answers, event, replies

HALF, REST = ROLE + event({"content": "half"}), event({}, "stop") + DONE
PATH, JSON = "/v1/chat/completions", {"content-type": "application/json"}

NGINX = """
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  client_max_body_size 20m;
  upstream gateways {{
    {servers}
    keepalive 16;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateways;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_next_upstream error timeout http_503 non_idempotent;
    }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option abortonclose
  option redispatch 1
  # Without the first of these it repeats only what came in one piece with its headers.
  option http-buffer-request
  # It asks the same gateway again, on the next connection it keeps, until none is left and a new one is refused.
  retries 10
  retry-on conn-failure empty-response 503
frontend clients
  bind 127.0.0.1:{port}
  default_backend gateways
backend gateways
  http-reuse always
  {servers}
"""


def nginx(folder: Path, port: int, gateways: list[int]) -> list[str]:
    servers = " ".join(f"server 127.0.0.1:{one} max_fails=0;" for one in gateways)
    # As root it would hand its work to somebody who may not look into the test's folder.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(port=port, servers=servers, user=user))
    # The second one is for what it says before it has read the first.
    return [program("nginx"), "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr"]


def haproxy(folder: Path, port: int, gateways: list[int]) -> list[str]:
    servers = "\n  ".join(f"server gateway-{one} 127.0.0.1:{one}" for one in gateways)
    (folder / "haproxy.cfg").write_text(HAPROXY.format(port=port, servers=servers))
    return [program("haproxy"), "-db", "-q", "-f", "haproxy.cfg"]


Proxy = Callable[[Path, int, list[int]], list[str]]


@pytest.fixture(scope="module", params=[nginx, haproxy])
def proxy(request: pytest.FixtureRequest) -> Proxy:
    program(request.param.__name__)
    found: Proxy = request.param
    return found


def gateway_over(upstream: ScriptedUpstream) -> Gateway:
    names = ("good", "large", "gated", "half")
    providers = [provider(name, upstream.base_url(name), [name]) for name in names]
    return Gateway({"server": {"max_body": "1MiB", "drain": "30s"}, "providers": providers})


@pytest.fixture(scope="module")
def front(upstream: ScriptedUpstream, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The proxy, before a gateway that stays."""
    upstream.scripts.update(good=answers, large=replies(200, b'{"choices":[{"text":"' + b"x" * 3_000_000 + b'"}]}'))
    with gateway_over(upstream) as gateway, in_front(proxy, [gateway.port], tmp_path_factory.mktemp("proxy")) as found:
        yield found


@contextmanager
def in_front(proxy: Proxy, gateways: list[int], folder: Path) -> Iterator[Client]:
    """The proxy before the gateways on these ports."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with running(proxy(folder, port, gateways), port, folder / "log"):
        yield Client(port)


def streams_when(gate: Gate) -> Script:
    """Half a stream, and the rest when the gate is open."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(HALF)
        await gate.passed()
        await exchange.chunk(REST)
        await exchange.end_stream()

    return script


def test_one_connection_gets_whole_answers_streams_and_refusals_one_after_the_other(front: Client) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=WITHIN_S)
    bodies = [chat_body("good"), chat_body("good", stream=True), b'{"model": "good"}', chat_body("nobody")] * 5
    told = []
    for body in bodies:
        connection.request("POST", PATH, body, JSON)
        answer = connection.getresponse()
        told.append((answer.status, answer.read()))
    connection.close()
    assert [status for status, _ in told] == [200, 200, 400, 404] * 5
    assert all(said.endswith(DONE) for _, said in told[1::4])


def test_much_goes_through_both_ways_and_too_much_is_refused(front: Client) -> None:
    large = front.chat("large", padding="x" * 900_000)
    assert (large.status, len(large.body) > 3_000_000) == (200, True)
    assert front.chat("large", padding="x" * 1_500_000).status == 413


def test_a_body_in_chunks_arrives(front: Client, upstream: ScriptedUpstream) -> None:
    body = chat_body("good", padding="x" * 100_000)
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=WITHIN_S)
    connection.request("POST", PATH, iter([body[:10], body[10:50_000], body[50_000:]]), JSON, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert b"x" * 100_000 in upstream.requests("good")[-1].body


def test_a_stream_comes_as_it_is_made(front: Client, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    upstream.scripts["gated"] = streams_when(gate)
    with front.opened("POST", PATH, chat_body("gated", stream=True), JSON) as stream:
        said = b""
        while len(said) < len(HALF):
            said += stream.read1()
        assert said == HALF
        gate.open()
        assert stream.read() == REST


def test_a_client_that_leaves_ends_the_call_upstream(front: Client, upstream: ScriptedUpstream) -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(HALF)
        await exchange.hang()

    upstream.scripts["half"] = half
    upstream.forget()
    with front.opened("POST", PATH, chat_body("half", stream=True), JSON) as stream:
        assert stream.read1()
    eventually(lambda: upstream.requests("half")[0].is_left, "the call has ended")


def test_a_stream_that_breaks_upstream_is_no_whole_one_behind_the_proxy_either(
    front: Client, upstream: ScriptedUpstream
) -> None:
    async def breaks(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(HALF)
        exchange.cut()

    upstream.scripts["half"] = breaks
    with (
        front.opened("POST", PATH, chat_body("half", stream=True), JSON) as stream,
        pytest.raises(http.client.IncompleteRead) as cut,
    ):
        stream.read()
    assert b'data: {"error"' in cut.value.partial
    assert b"[DONE]" not in cut.value.partial


def test_one_of_two_gateways_drains_and_nobody_notices(upstream: ScriptedUpstream, proxy: Proxy, tmp_path: Path) -> None:
    # Given two gateways, a stream under way on one of them, and clients that ask both without pause
    gate = upstream.gate()
    upstream.scripts.update(good=answers, gated=streams_when(gate))
    seen: list[tuple[int, bytes]] = []
    is_over = threading.Event()
    with (
        gateway_over(upstream) as ending,
        gateway_over(upstream) as staying,
        in_front(proxy, [ending.port, staying.port], tmp_path) as front,
    ):

        def ask(is_stream: bool) -> None:
            while not is_over.is_set():
                answer = front.chat("good", stream=is_stream)
                seen.append((answer.status, answer.body))

        clients = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(4)]
        with contextlib.ExitStack() as stack:
            streams = []
            while not ending.stats()["edge"]["in_flight"]:
                opened = front.opened("POST", PATH, chat_body("gated", stream=True), JSON)
                streams.append(stack.enter_context(opened))
            for client in clients:
                client.start()
            eventually(lambda: len(seen) > 50, "they are served")

            # When one of them is told to end
            ending.signal(signal.SIGTERM)
            before = len(seen)
            eventually(lambda: len(seen) > before + 100, "they are served all the same")

            # Then its streams come to their end, and so does it
            gate.open()
            assert all(stream.read().endswith(REST) for stream in streams)
            assert ending.exit_code() == 0
            before = len(seen)
            eventually(lambda: len(seen) > before + 50, "the other one serves them")
        is_over.set()
        for client in clients:
            client.join()

    # And everybody was answered well
    assert [told for told in seen if told[0] != 200] == []
    assert all(said.endswith((b"}", DONE)) for _, said in seen)
