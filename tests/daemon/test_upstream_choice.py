"""Which client makes a call: seen from the wire, where the two differ in how they reach it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from runtime.upstream import choice
from runtime.upstream.aiohttp_client import AiohttpUpstream
from runtime.upstream.choice import ChoosingUpstream
from tests.daemon.config_files import load
from tests.daemon.upstream_server import Server, failing, one_answer, request, serving

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as made:
        yield made


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def aiohttp_made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every client on aiohttp that is made."""
    made: list[object] = []

    def make() -> object:
        made.append(AiohttpUpstream())
        return made[-1]

    monkeypatch.setattr(choice, "AiohttpUpstream", make)
    return made


def proxy_of(server: Server) -> str:
    return server.url.removesuffix("/v1/chat/completions")


async def test_without_a_proxy_auto_is_raw(server: Server, aiohttp_made: list[object]) -> None:
    upstream = ChoosingUpstream()
    for transport in ("auto", "raw"):
        assert await (await upstream.call(replace(request(server.url), transport=transport))).read(5) == b"hello"
    await upstream.close()
    assert aiohttp_made == []
    assert server.connections == 1


async def test_aiohttp_where_it_is_wanted(server: Server, aiohttp_made: list[object]) -> None:
    upstream = ChoosingUpstream()
    for _ in range(2):
        assert await (await upstream.call(replace(request(server.url), transport="aiohttp"))).read(5) == b"hello"
    await upstream.close()
    assert len(aiohttp_made) == 1


async def test_auto_leaves_a_url_that_ours_does_not_take_to_the_other_client(
    server: Server, aiohttp_made: list[object]
) -> None:
    upstream = ChoosingUpstream()
    odd = request(server.url + "/\N{GREEK SMALL LETTER ALPHA}")
    assert (await failing(upstream, replace(odd, transport="raw"))).failure.code == "unsendable"
    assert await (await upstream.call(odd)).read(5) == b"hello"
    await upstream.close()
    assert len(aiohttp_made) == 1
    assert server.requests[0].startswith(b"POST /v1/chat/completions/%CE%B1 HTTP/1.1\r\n")


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
async def test_auto_asks_the_proxy_of_the_environment_and_raw_never_does(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "HTTP_PROXY":
        # Under CGI it could come from a client's header; the standard library then ignores it.
        monkeypatch.delenv("REQUEST_METHOD", raising=False)
    monkeypatch.setenv(name, proxy_of(server))
    upstream = ChoosingUpstream()
    elsewhere = request("http://somewhere.invalid/v1")
    assert await (await upstream.call(elsewhere)).read(5) == b"hello"
    assert (await failing(upstream, replace(elsewhere, transport="raw"))).failure.code in ("connect", "connect_timeout")
    assert await (await upstream.call(replace(request(server.url), transport="raw"))).read(5) == b"hello"
    await upstream.close()
    assert [sent.split()[1] for sent in server.requests] == [b"http://somewhere.invalid/v1", b"/v1/chat/completions"]


@pytest.mark.parametrize("exception", ["127.0.0.1", "example.com, 127.0.0.1:{port}", "*"])
async def test_auto_is_raw_where_the_environment_excepts_the_host(
    server: Server, monkeypatch: pytest.MonkeyPatch, aiohttp_made: list[object], exception: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", exception.format(port=urlsplit(server.url).port))
    upstream = ChoosingUpstream()
    assert await (await upstream.call(request(server.url))).read(5) == b"hello"
    await upstream.close()
    assert aiohttp_made == []


async def test_a_tunnel_is_asked_of_the_proxy_for_https_with_the_name_and_password_of_its_url(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy_of(server).replace("//", "//me:secret@"))
    server.behave = one_answer(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    upstream = ChoosingUpstream()
    error = await failing(upstream, request("https://somewhere.invalid/v1"))
    await upstream.close()
    assert (error.failure.code, error.failure.detail) == ("connect", "the proxy answered 403")
    assert "secret" not in str(error)
    (sent,) = server.requests
    assert sent.startswith(b"CONNECT somewhere.invalid:443 HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n" in sent
    assert b"Bearer" not in sent


async def test_a_proxy_that_does_not_speak_http_is_told_as_such(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    upstream = ChoosingUpstream()
    failure = (await failing(upstream, request(server.url))).failure
    await upstream.close()
    assert (failure.code, failure.detail) == ("connect", "the environment names a proxy that does not speak HTTP")


@pytest.mark.parametrize("transport", ["auto", "raw", "aiohttp"])
async def test_a_closed_port_makes_no_calls_with_either(server: Server, transport: str) -> None:
    upstream = ChoosingUpstream()
    await (await upstream.call(replace(request(server.url), transport=transport))).read(5)
    await upstream.close()
    await server.until(lambda: server.open == 0)
    assert (await failing(upstream, replace(request(server.url), transport=transport))).failure.code == "closed"


@pytest.mark.parametrize("transport", ["auto", "raw", "aiohttp"])
def test_the_transport_of_the_file_reaches_the_provider(transport: str) -> None:
    text = f"providers: [{{id: a, kind: openai, transport: {transport}}}]"
    assert load(text).snapshot.providers[0].transport == transport
