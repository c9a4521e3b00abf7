"""Clients that other people wrote, against a daemon of each lane: whole answers, streams, kept connections, errors."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO

import aiohttp
import httpx2
import orjson
import pytest

from tests.daemon.clients.tools import program
from tests.daemon.gateway import HELLO, Gateway, chat_body, provider
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers, replies

Told = tuple[int, bytes]
"""Status and body."""
PATH = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.scripts.update(p=answers, large=replies(200, b'{"choices":[{"text":"' + b"x" * 3_000_000 + b'"}]}'))
    entries = [provider("p", upstream.base_url("p"), ["m"]), provider("large", upstream.base_url("large"), ["large"])]
    with Gateway({"server": {"max_body": "1MiB"}, "providers": entries}) as found:
        yield found


def by_curl(url: str, bodies: list[bytes]) -> list[Told]:
    """All over one connection. A body over 1 MiB makes curl ask first (``Expect: 100-continue``)."""
    command = [program("curl"), "-sS", "--noproxy", "*"]
    for body in bodies:
        more = ["-H", "content-type: application/json", "-w", "\x1e%{http_code}\x1f", "--data-binary", "@-"]
        if len(bodies) > 1:
            more[-1] = body.decode()
        command += [*more, url + PATH, "--next", "-sS", "--noproxy", "*"]
    done = subprocess.run(command[:-4], input=bodies[0], capture_output=True, timeout=60, check=True)
    pairs = [part.rpartition(b"\x1e") for part in done.stdout.split(b"\x1f")[:-1]]
    return [(int(status), said) for said, _, status in pairs]


def by_node(url: str, bodies: list[bytes]) -> list[Told]:
    """Its ``fetch``, which keeps connections."""
    script = """
    const [url, ...bodies] = JSON.parse(require('fs').readFileSync(0, 'utf8'));
    (async () => {
      const told = [];
      for (const body of bodies) {
        const answer = await fetch(url, {method: 'POST', headers: {'content-type': 'application/json'}, body});
        told.push([answer.status, await answer.text()]);
      }
      console.log(JSON.stringify(told));
    })();
    """
    sent = orjson.dumps([url + PATH, *(body.decode() for body in bodies)])
    done = subprocess.run([program("node"), "-e", script], input=sent, capture_output=True, timeout=60, check=True)
    return [(status, said.encode()) for status, said in orjson.loads(done.stdout)]


def by_httpx(url: str, bodies: list[bytes]) -> list[Told]:
    with httpx2.Client(base_url=url, headers=JSON, trust_env=False, timeout=30) as client:
        told = [client.post(PATH, content=body) for body in bodies]
        return [(answer.status_code, answer.content) for answer in told]


def by_httpx_in_chunks(url: str, bodies: list[bytes]) -> list[Told]:
    """The length is not known to begin with."""
    with httpx2.Client(base_url=url, headers=JSON, trust_env=False, timeout=30) as client:
        pieces = [[body[at : at + 50_000] for at in range(0, len(body), 50_000)] for body in bodies]
        told = [client.post(PATH, content=iter(body)) for body in pieces]
        return [(answer.status_code, answer.content) for answer in told]


def by_aiohttp(url: str, bodies: list[bytes]) -> list[Told]:

    async def ask() -> list[Told]:
        told = []
        async with aiohttp.ClientSession(headers=JSON) as session:
            for body in bodies:
                async with session.post(url + PATH, data=BytesIO(body)) as answer:
                    told.append((answer.status, await answer.read()))
        return told

    return asyncio.run(ask())


CLIENTS: dict[str, Callable[[str, list[bytes]], list[Told]]] = {
    "aiohttp": by_aiohttp,
    "httpx": by_httpx,
    "httpx in chunks": by_httpx_in_chunks,
    "curl": by_curl,
    "node": by_node,
}


@pytest.fixture(params=CLIENTS)
def ask(request: pytest.FixtureRequest, gateway: Gateway) -> Callable[..., list[Told]]:
    return lambda *bodies: CLIENTS[request.param](gateway.url, list(bodies))


def test_it_is_served_again_and_again_whole_and_streamed_and_refused_in_between(ask: Callable[..., list[Told]]) -> None:
    wanted = [chat_body("m"), chat_body("m", stream=True), b'{"model": "m"}', chat_body("nobody"), chat_body("m")]
    told = ask(*wanted)
    assert [status for status, _ in told] == [200, 200, 400, 404, 200]
    assert told[1][1].endswith(b"data: [DONE]\n\n")
    assert orjson.loads(told[4][1])["choices"]


def test_it_sends_much_and_gets_much(ask: Callable[..., list[Told]]) -> None:
    ((status, said),) = ask(chat_body("large", messages=[*HELLO, {"role": "user", "content": "x" * 900_000}]))
    assert (status, len(said) > 3_000_000) == (200, True)


def test_it_is_told_why_more_than_so_much_is_not_taken(ask: Callable[..., list[Told]]) -> None:
    ((status, said),) = ask(chat_body("m", padding="x" * 1_500_000))
    assert (status, orjson.loads(said)["error"]["code"]) == (413, "request_too_large")
