"""The listener with a certificate of its own: all that it does, it does over TLS, on both lanes and both loops."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.config.problems import ConfigError
from runtime.config.settings import TlsFiles
from runtime.http import server
from runtime.ports import EdgeRequest, EdgeSink
from tests.daemon.config_files import load
from tests.daemon.edge_desk import MAX_BODY, Desk, listening, speaking, until
from tests.daemon.gateway import Gateway, chat_body, provider
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers
from tests.daemon.test_lanes import CHUNKED, GET, REFUSED, post
from tests.daemon.upstream_tls import CERTIFICATE, KEY, client_side, files
from tests.lines import LANES, LaneName

FILE = "providers: [{id: a, kind: openai}]\nserver: {tls: {certificate: certificate.pem, key: key.pem}}\n"


@pytest.fixture(params=LANES)
def side(request: pytest.FixtureRequest) -> LaneName:
    found: LaneName = request.param
    return found


async def test_a_connection_serves_again_and_again_whatever_is_asked(tmp_path: Path, side: LaneName) -> None:
    desk = Desk()
    async with listening(desk, lane=side, tls=files(tmp_path)) as (_, port), speaking(port, client_side()) as peer:
        for body in (b"one", b"two" * 100_000):
            peer.say(post(body))
            assert (await peer.answer())[1] == body
        peer.say(GET + post(b"three"))
        assert (await peer.answer())[1] == b'{"status":"ok"}'
        assert (await peer.answer())[1] == b"three"
    assert [len(body) for body in desk.bodies] == [3, 300_000, 5]


async def test_no_protocol_is_agreed_on_but_http_1_1_and_nothing_older_than_tls_1_2(tmp_path: Path, side: LaneName) -> None:
    context = client_side()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with listening(Desk(), lane=side, tls=files(tmp_path)) as (_, port):
        async with speaking(port, context) as peer:
            tls = peer.writer.get_extra_info("ssl_object")
            assert (tls.selected_alpn_protocol(), tls.version()) == ("http/1.1", "TLSv1.3")
        old = client_side()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with speaking(port, old):
                pass


async def test_who_speaks_plain_http_gets_no_answer_and_costs_no_request(tmp_path: Path, side: LaneName) -> None:
    desk = Desk()
    async with listening(desk, lane=side, tls=files(tmp_path)) as (_, port), speaking(port) as peer:
        peer.say(post(b"plain"))
        assert not (await peer.rest()).startswith(b"HTTP/")
    assert desk.requests == []


@pytest.mark.parametrize("sent", [post(b"x" * (4 * MAX_BODY)), CHUNKED + b"%x\r\n%b" % (4 * MAX_BODY, b"x" * 4 * MAX_BODY)])
async def test_who_is_refused_in_the_middle_of_sending_sees_why(tmp_path: Path, side: LaneName, sent: bytes) -> None:
    async with listening(Desk(), lane=side, tls=files(tmp_path)) as (_, port), speaking(port, client_side()) as peer:
        peer.say(sent)
        head, _ = await peer.answer()
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in head.lower()


async def test_nothing_after_a_refused_request_is_read(tmp_path: Path, side: LaneName) -> None:
    desk = Desk()
    async with listening(desk, idle_s=0.2, lane=side, tls=files(tmp_path)) as (_, port), speaking(port, client_side()) as peer:
        peer.say(REFUSED["both lengths"] + post(b"hidden"))
        said = await peer.rest()
    assert said.count(b"HTTP/1.") == 1
    assert desk.requests == []


async def test_a_client_that_leaves_ends_its_request(tmp_path: Path, side: LaneName) -> None:
    async def hangs(request: EdgeRequest, sink: EdgeSink) -> None:
        await asyncio.Event().wait()

    desk = Desk(hangs)
    async with listening(desk, lane=side, tls=files(tmp_path)) as (_, port), speaking(port, client_side()) as peer:
        peer.say(post(b"{}"))
        await until(lambda: desk.count == 1)
        peer.writer.transport.abort()
        await until(lambda: desk.count == 0)


async def test_a_handshake_that_never_ends_does_not_hold_up_the_end(tmp_path: Path, side: LaneName) -> None:
    async with listening(Desk(), lane=side, tls=files(tmp_path)) as (_, port), speaking(port) as peer:
        peer.say(b"\x16\x03\x01")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"])
async def test_who_does_not_shake_hands_is_waited_for_only_so_long(
    tmp_path: Path, side: LaneName, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S", 0.1)
    async with listening(Desk(), idle_s=600.0, lane=side, tls=files(tmp_path)) as (_, port), speaking(port) as peer:
        peer.say(sent)
        assert await peer.rest() == b""


# -- the daemon


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    upstream.scripts["p"] = answers
    tls = files(tmp_path_factory.mktemp("tls"))
    server = {"tls": {"certificate": str(tls.certificate), "key": str(tls.key)}}
    with Gateway({"server": server, "providers": [provider("p", upstream.base_url("p"), ["m"])]}) as found:
        yield found


def test_the_daemon_speaks_tls_with_the_certificate_of_its_file(gateway: Gateway) -> None:
    assert "listening on https://" in gateway.log()
    body = chat_body("m")
    plain = socket.create_connection(("127.0.0.1", gateway.port), timeout=15)
    with client_side().wrap_socket(plain, server_hostname="localhost") as line:
        line.sendall(post(body, b"Connection: close\r\n"))
        said = b"".join(iter(lambda: line.recv(65536), b""))
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    # Who does not speak TLS gets no answer, and no line in the log (looked at when the daemon ends).
    assert not gateway.exchange(GET).startswith(b"HTTP/")


# -- the file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files(tmp_path)
    return tmp_path


def test_files_are_found_beside_the_one_that_names_them(folder: Path) -> None:
    assert load(FILE, directory=folder).server.tls == TlsFiles(folder / "certificate.pem", folder / "key.pem")


@pytest.mark.parametrize(
    ("name", "content", "key", "said"),
    [
        ("certificate.pem", None, "certificate", "cannot be read"),
        ("key.pem", None, "key", "cannot be read"),
        ("certificate.pem", "", "certificate", "is no certificate"),
        ("certificate.pem", KEY, "certificate", "is no certificate"),
        ("key.pem", CERTIFICATE, "certificate", "is no certificate, or its key is none"),
        ("key.pem", "other", "key", "does not belong to the certificate"),
        ("key.pem", "encrypted", "key", "encrypted"),
    ],
)
def test_files_that_cannot_be_used_are_told_with_their_key(
    folder: Path, name: str, content: str | None, key: str, said: str
) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text({"other": OTHER_KEY, "encrypted": ENCRYPTED_KEY}.get(content, content))
    with pytest.raises(ConfigError) as caught:
        load(FILE, directory=folder)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == (f"server.tls.{key}", 2)
    assert said in problem.message


OTHER_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgp80lOWn8QEZ1FC3s
49H2GcQ5luYfBrV3GiN6mJhuF6uhRANCAAQF3cJzqr80XXMGurqscKkWetHn1HBR
zw06g316Lx/jAmJ03vLX4na8de/X23oGeI0anUm2AJVr9Wni1wKIVGEB
-----END PRIVATE KEY-----
"""

ENCRYPTED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjuR87seuFHvgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEEIvAKlQLaCUvVp+9PYoLvoEgZCC
GFmK2QeNtO1tQaxocqkHR588ZlvXLMtKBlvM8ClEhfUICIrDMjLxZPpALRslPDX5
4THrCbDa91o6I0/PoukBemoTndqnqoXqfg6q4+1rHgiXxpTCV1/HN+vottVo5l0H
05+/41UVY9YZ8+sCoDL3WKzy83ncwcqFQ/QANPN2jYttHH15xWTHhPhWlWKRiVs=
-----END ENCRYPTED PRIVATE KEY-----
"""
