"""What both clients say when they begin with TLS, as the server sees it."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import connector

from runtime.ports import Upstream
from runtime.upstream.aiohttp_client import AiohttpUpstream
from runtime.upstream.raw_client import RawUpstream
from tests.daemon.upstream_server import Reader, Server, Writer, one_answer, request, serving
from tests.daemon.upstream_tls import server_side


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's, whom both clients trust."""
    made = server_side(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    # aiohttp read the variable when it was imported.
    monkeypatch.setattr(connector, "_SSL_CONTEXT_VERIFIED", connector._make_ssl_context(True))
    return made


@pytest.fixture(params=[AiohttpUpstream, RawUpstream])
async def upstream(request: pytest.FixtureRequest, context: ssl.SSLContext) -> AsyncIterator[Upstream]:
    made: Upstream = request.param()
    yield made
    await made.close()


async def test_the_host_is_named_and_no_protocol_offered_that_is_not_spoken(
    context: ssl.SSLContext, upstream: Upstream
) -> None:
    named: list[str | None] = []
    agreed: list[str | None] = []
    context.sni_callback = lambda _, name, __: named.append(name)
    context.set_alpn_protocols(["h2", "http/1.1"])
    answering = one_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        agreed.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await answering(server, reader, writer)

    async with serving(context) as server:
        server.behave = behave
        answer = await upstream.call(request(server.url.replace("127.0.0.1", "localhost")))
        assert await answer.read(2) == b"hi"
        await upstream.close()
    assert (named, agreed) == (["localhost"], ["http/1.1"])
