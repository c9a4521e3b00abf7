"""A stream on the wires of both sides: a slow client holds up its provider, and nothing is held up or cut up in between."""

from collections.abc import Iterator

import pytest

from tests.daemon.gateway import Gateway, chat_body, eventually, provider, read_to_end
from tests.daemon.gateway_upstreams import DONE, ROLE, Exchange, ScriptedUpstream, event

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
PIECE = event({"content": "~" * 65_000})
PIECES = 600
BUFFERED_BYTES_MAX = 24 * 1024 * 1024
"""What the sockets' own buffers may hold at most on the way, and ours."""
LOOKS = 100
"""So often, a moment apart, nothing more must have been sent for its sender to count as held up."""


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    providers = [
        provider(name, upstream.base_url(name), [name], transport=name.removeprefix("by-"), stream_usage="estimate")
        for name in ("by-raw", "by-aiohttp")
    ]
    with Gateway({"providers": providers}) as found:
        yield found


@pytest.mark.parametrize("model", ["by-raw", "by-aiohttp"])
def test_a_client_that_does_not_read_holds_up_its_provider_and_gets_every_byte_when_it_reads(
    gateway: Gateway, upstream: ScriptedUpstream, model: str
) -> None:
    sent_pieces = 0

    async def pours(exchange: Exchange) -> None:
        nonlocal sent_pieces
        await exchange.begin_stream()
        for _ in range(PIECES):
            await exchange.chunk(PIECE)
            sent_pieces += 1
        await exchange.chunk(event({}, "stop") + DONE)
        await exchange.end_stream()

    upstream.scripts[model] = pours
    seen: list[int] = []

    def is_held_up() -> bool:
        seen.append(sent_pieces)
        return seen[-1] > 0 and seen[-LOOKS:] == [seen[-1]] * LOOKS

    with gateway.connect() as connection:
        body = chat_body(model, stream=True)
        connection.sendall(HEAD % (len(body), body))
        eventually(is_held_up, "the provider is held up")
        assert sent_pieces * len(PIECE) < BUFFERED_BYTES_MAX
        said = read_to_end(connection)
    assert sent_pieces == PIECES
    assert said.count(b"~") == PIECES * 65_000
    assert said.endswith(DONE + b"\r\n0\r\n\r\n")


def test_events_that_come_together_go_on_together_and_at_once(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    together = [event({"content": f"{number}"}) for number in range(50)]
    gate = upstream.gate()

    async def in_one_go(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(ROLE + event({"content": "first"}))
        await gate.passed()
        await exchange.send(b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in together))
        # Nothing more until the client has had them.
        await exchange.hang()

    upstream.scripts["by-raw"] = in_one_go
    with gateway.connect() as connection:
        body = chat_body("by-raw", stream=True)
        connection.sendall(HEAD % (len(body), body))
        said = b""
        while not said.endswith(b"\n\n\r\n"):
            said += connection.recv(65536)
        gate.open()
        whole = b"".join(together)
        framed = b"%x\r\n%b\r\n" % (len(whole), whole)
        said = b""
        while len(said) < len(framed):
            piece = connection.recv(65536)
            assert piece
            said += piece
    assert said == framed
