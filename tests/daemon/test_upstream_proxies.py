"""Calls by a proxy of the environment, as they reach it and what stands behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import connector

from messages.failures import Retry
from runtime.upstream.choice import ChoosingUpstream
from runtime.upstream.proxies import Proxies
from tests.daemon.proxy_server import Proxy, proxying
from tests.daemon.upstream_server import CHUNKED, OK, Reader, Server, Writer, failing, one_answer, request, serving
from tests.daemon.upstream_tls import server_side

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with proxying() as made:
        yield made


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as made:
        yield made


@pytest.fixture
async def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A server that is ``localhost``, and trusted."""
    async with serving(server_side(tmp_path)) as made:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        # aiohttp read the variable when it was imported.
        monkeypatch.setattr(connector, "_SSL_CONTEXT_VERIFIED", connector._make_ssl_context(True))
        made.url = made.url.replace("127.0.0.1", "localhost")
        yield made


def place_of(server: Server) -> str:
    return urlsplit(server.url).netloc


@asynccontextmanager
async def calling() -> AsyncIterator[ChoosingUpstream]:
    """The port as it is made of the environment of now."""
    made = ChoosingUpstream()
    try:
        yield made
    finally:
        await made.close()


async def hello(upstream: ChoosingUpstream, url: str) -> None:
    assert await (await upstream.call(request(url))).read(5) == b"hello"


async def test_a_plain_request_goes_by_the_proxy_with_its_whole_url_and_its_connection_serves_again(
    proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
    async with calling() as upstream:
        for _ in range(2):
            await hello(upstream, server.url)
    assert proxy.asked == [f"POST {server.url}"]
    assert len(server.requests) == 2
    assert f"\r\nHost: {place_of(server)}\r\n".encode() in proxy.heads[0]
    assert server.requests[0].endswith(b'\r\n\r\n{"model":"m"}')


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_https_goes_through_a_tunnel_in_which_the_provider_is_checked_and_its_connection_serves_again(
    proxy: Proxy, secure: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, f"http://me:se%40cret@127.0.0.1:{proxy.port}")
    async with calling() as upstream:
        for _ in range(3):
            await hello(upstream, secure.url)
    assert proxy.asked == [f"CONNECT {place_of(secure)}"]
    assert b"\r\nProxy-Authorization: Basic bWU6c2VAY3JldA==\r\n" in proxy.heads[0]
    assert secure.connections == 1
    assert [sent.split(b"\r\n")[0] for sent in secure.requests] == [b"POST /v1/chat/completions HTTP/1.1"] * 3
    # What is meant for the provider is not told the proxy, nor the other way round.
    names = {line.partition(b":")[0].lower() for line in proxy.heads[0].split(b"\r\n")[1:-2]}
    assert names == {b"host", b"proxy-authorization", b"accept", b"accept-encoding", b"user-agent"}
    assert not any(b"proxy-" in sent.lower() for sent in secure.requests)


async def test_a_provider_behind_a_tunnel_is_not_trusted_more_than_another(
    proxy: Proxy, secure: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    proxy.leads_to = urlsplit(secure.url).port
    async with calling() as upstream:
        failure = (await failing(upstream, request("https://somebody.else.invalid/v1"))).failure
    assert (failure.code, failure.retry, secure.requests) == ("tls", Retry.ELSEWHERE, [])


async def test_a_large_body_passes_a_tunnel_both_ways_and_a_stream_comes_as_it_is_sent(
    proxy: Proxy, secure: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(range(256)) * 8_000

    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        await server.take_request(reader)
        writer.write(CHUNKED + b"5\r\nfirst\r\n")
        await server.release.wait()
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        await reader.read()

    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    secure.behave = behave
    async with calling() as upstream:
        chunks = (await upstream.call(request(secure.url, body=body))).chunks()
        assert await anext(chunks) == b"first"
        secure.release.set()
        assert b"".join([chunk async for chunk in chunks]) == body
    assert secure.requests[0].endswith(body)


async def test_pain_17_a_call_that_is_cancelled_or_closed_in_a_tunnel_takes_the_tunnel_with_it(
    proxy: Proxy, secure: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    async with calling() as upstream:
        secure.behave = one_answer(b"", "hang")
        call = asyncio.ensure_future(upstream.call(request(secure.url)))
        await secure.until(lambda: len(secure.requests) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await secure.until(lambda: secure.open == 0)
        await proxy.until_left()
        secure.behave = one_answer(CHUNKED + b"5\r\nfirst\r\n", "hang")
        (await upstream.call(request(secure.url))).close()
        await secure.until(lambda: secure.open == 0)
        await proxy.until_left()


async def test_a_tunnel_that_was_gone_when_it_was_used_again_is_made_up_for_once(
    proxy: Proxy, secure: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        is_first = server.connections == 1
        await server.take_request(reader)
        writer.write(OK)
        await server.take_request(reader)
        if not is_first:
            writer.write(OK)

    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    secure.behave = behave
    async with calling() as upstream:
        for _ in range(2):
            await hello(upstream, secure.url)
    assert proxy.asked == [f"CONNECT {place_of(secure)}"] * 2
    assert len(secure.requests) == 3


@pytest.mark.parametrize("is_tunnel", [True, False])
async def test_a_proxy_that_is_not_there_or_says_nothing_is_told_apart_in_time(
    proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch, is_tunnel: bool
) -> None:
    url = server.url.replace("http:", "https:") if is_tunnel else server.url
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
    proxy.is_silent = True
    async with calling() as upstream:
        silent = (await failing(upstream, request(url, connect_s=0.1 if is_tunnel else 2.0, headers_s=0.1))).failure
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with calling() as upstream:
        absent = (await failing(upstream, request(url))).failure
    assert silent.code == ("connect_timeout" if is_tunnel else "first_byte_timeout")
    assert absent.code == "connect"
    assert server.requests == []


async def test_a_proxy_may_itself_be_spoken_to_by_tls(secure: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxying(server_side(tmp_path)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
        async with calling() as upstream:
            for _ in range(2):
                await hello(upstream, secure.url)
        assert proxy.asked == [f"CONNECT {place_of(secure)}"]


async def test_who_is_excepted_is_spoken_to_directly(
    proxy: Proxy, server: Server, secure: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", "localhost")
    async with calling() as upstream:
        await hello(upstream, secure.url)
        assert proxy.asked == []
        await hello(upstream, server.url)
    assert len(proxy.asked) == 1


EXCEPTIONS: list[tuple[str, str, bool]] = [
    # (NO_PROXY, host and port, whether it is spoken to directly)
    ("", "a.example", False),
    ("example.com", "example.com", True),
    ("example.com", "api.example.com", True),
    ("example.com", "badexample.com", False),
    (".example.com", "api.example.com", True),
    ("*.example.com", "api.example.com", True),
    ("*.example.com", "badexample.com", False),
    ("EXAMPLE.com.", "Api.Example.COM", True),
    ("a.test,example.com , b.test", "example.com", True),
    ("a.test example.com", "example.com", True),
    ("example.com:8080", "example.com:8080", True),
    ("example.com:8080", "example.com:8081", False),
    ("*", "example.com", True),
    ("10.0.0.5", "10.0.0.5", True),
    ("10.0.0.5", "110.0.0.5", False),
    ("10.0.0.0/8", "10.200.3.4", True),
    ("10.0.0.0/8", "11.0.0.1", False),
    ("10.1.2.3/8", "10.200.3.4", True),
    ("10.0.0.0/8", "ten.example.com", False),
    ("10.0.0.0/99", "10.0.0.1", False),
    ("::1", "[::1]:8000", True),
    ("[::1]", "[::1]:8000", True),
    ("[::1]:8000", "[::1]:8000", True),
    ("[::1]:8000", "[::1]:8001", False),
    ("fd00::/8", "[fd00::5]:8000", True),
    ("0:0:0:0:0:0:0:1", "[::1]:8000", True),
    (".svc,.cluster.local", "vllm.models.svc", True),
    (".svc,.cluster.local", "vllm.models.svc.cluster.local", True),
]


@pytest.mark.parametrize(("exceptions", "place", "is_direct"), EXCEPTIONS)
def test_exceptions_are_names_with_all_below_them_addresses_and_their_ranges(
    exceptions: str, place: str, is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    host, port = urlsplit(f"//{place}").hostname, urlsplit(f"//{place}").port
    assert host is not None
    assert Proxies().of("https", host, port or 443) == (None if is_direct else "http://proxy:3128")


def test_the_proxy_of_a_scheme_comes_before_that_of_all_and_small_letters_before_capitals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://capitals:2")
    assert Proxies().of("http", "a.test", 80) is None
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    assert [Proxies().of(scheme, "a.test", 80) for scheme in ("http", "https")] == ["http://all:1", "http://capitals:2"]
    monkeypatch.setenv("https_proxy", "small:3")
    assert Proxies().of("https", "a.test", 443) == "http://small:3"
    monkeypatch.setenv("https_proxy", "")
    monkeypatch.setenv("ALL_PROXY", "")
    assert Proxies().of("https", "a.test", 443) is None


def test_a_header_of_a_cgi_request_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    monkeypatch.setenv("HTTP_PROXY", "http://somebody:1")
    assert Proxies().of("http", "a.test", 80) is None
