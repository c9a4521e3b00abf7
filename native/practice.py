"""What a build practises on, so that the compiler knows which of its code is run: a daemon at the work it is for.

Whole answers, streams, an answer in pieces, providers that fail and requests that are wrong, all on loopback. What is counted
is which way the code went, so neither the machine nor its load matters.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

CONNECTIONS = 32
ROUNDS = 40
"""Of ``TURN``, on each connection."""
FAILED_MAX = 0.02
"""Of the answers. A provider fails now and then, and then another one is asked."""
PROVIDERS = {"small": 3, "large": 40}
"""By model."""
STARTED_WITHIN_S = 60.0
ENDED_WITHIN_S = 60.0

_SAID = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "What does a pointsman do? " * 6},
]
_USAGE = {"prompt_tokens": 60, "completion_tokens": 8, "total_tokens": 68}
_CHOICE = {"index": 0, "message": {"role": "assistant", "content": "A pointsman sets the points."}, "finish_reason": "stop"}
_ANSWER = json.dumps({"id": "c-1", "object": "chat.completion", "model": "m", "choices": [_CHOICE], "usage": _USAGE}).encode()


def _asked(model: str, **more: object) -> bytes:
    body = json.dumps({"model": model, "messages": _SAID, "temperature": 0.2, "max_tokens": 64} | more).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nContent-Length: "
    return b"%b%d\r\n\r\n%b" % (head.encode(), len(body), body)


TURN = (
    *[(_asked("small"), 200)] * 12,
    *[(_asked("large"), 200)] * 2,
    (_asked("small", stream=True, stream_options={"include_usage": True}), 200),
    (_asked("small", stream=True), 200),
    (_asked("nobody's"), 404),
)
"""What each connection sends, one after the other, again and again, and the status of a good answer to it."""


def _chunk(**choice: object) -> bytes:
    return b"data: " + json.dumps({"id": "c-1", "model": "m", "choices": [{"index": 0} | choice]}).encode() + b"\n\n"


class _Provider(asyncio.Protocol):
    """Answers what it is sent; every hundredth request with an error."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._data = transport, b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split()[0]):
            return
        self._data = b""
        _Provider.count += 1
        if head.partition(b"\r\n")[0].endswith(b"/traces HTTP/1.1"):
            self._answer(b"200 OK", b"")
        elif _Provider.count % 100 == 0:
            self._answer(b"500 Internal Server Error", b'{"error": {"message": "broken", "type": "server_error"}}')
        elif b'"stream":true' in body.replace(b" ", b""):
            self._streaming = asyncio.ensure_future(self._stream())
        else:
            self._answer(b"200 OK", _ANSWER)

    def _answer(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        if _Provider.count % 20:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            asyncio.get_running_loop().call_later(0.001, self._transport.write, body)

    async def _stream(self) -> None:
        write = self._transport.write
        write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        words = [_chunk(delta={"content": "word "}, finish_reason=None)] * 20
        last = [
            _chunk(delta={}, finish_reason="stop"),
            b"data: " + json.dumps({"choices": [], "usage": _USAGE}).encode() + b"\n\n",
        ]
        for event in (*words, *last, b"data: [DONE]\n\n"):
            write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0)
        write(b"0\r\n\r\n")


async def practise(folder: Path, connections: int = CONNECTIONS, rounds: int = ROUNDS) -> int:
    """Run the daemon that was built in ``folder`` and give it work; returns how many requests it answered as it should.

    Raises ``SystemExit`` where it does not start, or answers more than ``FAILED_MAX`` otherwise.
    """
    loop = asyncio.get_running_loop()
    upstream = await loop.create_server(_Provider, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}/v1"
    try:
        async with _daemon(folder, url) as port:
            good = sum(await asyncio.gather(*(_client(port, rounds) for _ in range(connections))))
    finally:
        upstream.close()
    count = connections * rounds * len(TURN)
    if good < (1.0 - FAILED_MAX) * count:
        raise SystemExit(f"the build has practised, but only {good} of {count} answers were what they should be")
    return good


@contextlib.asynccontextmanager
async def _daemon(folder: Path, url: str) -> AsyncIterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    limits = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "max_concurrency": 10**6}
    providers = [
        {"id": f"{model}-{number}", "kind": "openai_compatible", "base_url": url, "api_key": "practice", "limits": limits}
        | {"models": [{"name": model, "input_price": 1.0, "output_price": 2.0}], "probe": {"kind": "off"}}
        for model, count in PROVIDERS.items()
        for number in range(count)
    ]
    with tempfile.TemporaryDirectory() as made:
        configuration = Path(made) / "practice.yaml"
        telemetry = {"otlp_endpoint": url, "sample_ratio": 0.01}
        configuration.write_text(json.dumps({"providers": providers, "telemetry": telemetry}))
        command = ["-m", "runtime", "serve", "-c", str(configuration), "--port", str(port)]
        environment = os.environ | {"PYTHONPATH": str(folder)}
        daemon = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=folder, env=environment)
        try:
            async with asyncio.timeout(STARTED_WITHIN_S):
                while not await _listens(port):
                    if daemon.returncode is not None:
                        raise SystemExit(f"the build cannot practise: its daemon ended with {daemon.returncode}")
                    await asyncio.sleep(0.1)
            yield port
        finally:
            # What was counted is written when it ends.
            with contextlib.suppress(ProcessLookupError):
                daemon.terminate()
            await asyncio.wait_for(daemon.wait(), ENDED_WITHIN_S)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _client(port: int, rounds: int) -> int:
    """Returns how many answers were good."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    good = 0
    for _ in range(rounds):
        for request, status in TURN:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head.lower():
                await reader.readuntil(b"0\r\n\r\n")
            else:
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
            good += head.startswith(b"HTTP/1.1 %d " % status)
    writer.close()
    return good
