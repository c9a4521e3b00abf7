"""The fake is checked against the real: what a caller sees of a provider in-process is what it sees of it over sockets."""

import asyncio
from dataclasses import dataclass

import orjson
import pytest

from messages.failures import Retry, Scope
from runtime.ports import CallFailed, Upstream, UpstreamRequest
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import Fault, FaultKind
from runtime.simulation.in_process import SimulatedUpstream
from runtime.simulation.server import SimulatedProvider
from runtime.system.virtual_loop import VirtualLoop
from runtime.upstream.aiohttp_client import AiohttpUpstream

URL = "http://p.test/v1"
BEHAVIOUR = Behaviour(
    "p", ttfb_ms=2, tokens_per_second=10_000, models=("m",), requests_per_minute=60, burst_s=3, chunk_tokens=4, api_key="right"
)


@dataclass(frozen=True)
class Seen:
    """All that a caller can tell of one call but its time."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    failure: tuple[str, Scope, Retry] | None = None


async def seen(upstream: Upstream, url: str, key: str, path: str, **body: object) -> Seen:
    content = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "input": "hi"}
    headers = (("Authorization", f"Bearer {key}"), ("Content-Type", "application/json"))
    request = UpstreamRequest("POST", url + path, headers, orjson.dumps(content | body), 2.0, 0.5, 0.5)
    status, shown, received = 0, tuple[tuple[str, str], ...](), b""
    try:
        answer = await upstream.call(request)
        status = answer.status
        ours = {name.lower(): value for name, value in answer.headers}
        told = ("content-type", "content-length", "retry-after", "x-simulated-provider", "x-ratelimit-limit-requests")
        shown = tuple((name, ours[name]) for name in told if name in ours)
        async for chunk in answer.chunks():
            received += chunk
    except CallFailed as failed:
        failure = failed.failure
        return Seen(status, shown, received, (failure.code, failure.scope, failure.retry))
    return Seen(status, shown, received)


Case = tuple[Fault | None, str, str, dict[str, object]]
BROKEN: list[Case] = [
    (Fault(kind), "right", "/chat/completions", {"stream": stream}) for kind in FaultKind for stream in (True, False)
]
CALLS: list[Case] = [
    *BROKEN,
    (None, "right", "/chat/completions", {}),
    (None, "right", "/chat/completions", {"stream": True, "stream_options": {"include_usage": True}}),
    (None, "right", "/completions", {"stream": True, "max_tokens": 7}),
    (None, "right", "/embeddings", {"encoding_format": "base64"}),
    (None, "wrong", "/chat/completions", {}),
    (None, "right", "/chat/completions", {"model": "none"}),
    (None, "right", "/nothing", {}),
]


@pytest.mark.parametrize(("fault", "key", "path", "body"), CALLS)
async def test_both_frames_give_the_same_answer(fault: Fault | None, key: str, path: str, body: dict[str, object]) -> None:
    async def over_sockets() -> list[Seen]:
        upstream = AiohttpUpstream()
        async with SimulatedProvider(BEHAVIOUR, seed=1) as provider:
            if fault:
                provider.switch_on(fault)
            try:
                return [await seen(upstream, provider.base_url, key, path, **body) for _ in range(2)]
            finally:
                await upstream.close()

    async def in_process() -> list[Seen]:
        upstream = SimulatedUpstream({URL: BEHAVIOUR}, seed=1)
        if fault:
            upstream.simulation(URL).switch_on(fault, asyncio.get_running_loop().time())
        return [await seen(upstream, URL, key, path, **body) for _ in range(2)]

    def virtually() -> list[Seen]:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(in_process())

    assert await over_sockets() == await asyncio.to_thread(virtually)
