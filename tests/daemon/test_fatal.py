"""An actor without which nothing can be decided fails for good: everybody is told, and the process ends to be started again."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from actors.kernel import Context
from actors.router.actor import RouterActor
from messages.routing import RouteQuery
from runtime import tree
from runtime.config.loading import load_bytes
from runtime.config.settings import Loaded
from runtime.daemon import EXIT_FATAL, Daemon
from runtime.simulation.demo_world import demo_behaviours
from runtime.simulation.faults import Fault, FaultKind
from runtime.simulation.server import SimulatedProvider

DEADLINE_S = 20.0


def loaded(provider: SimulatedProvider, lane: str) -> Loaded:
    entry = {
        "id": "a",
        "kind": "openai_compatible",
        "base_url": provider.base_url,
        "api_key": provider.behaviour.api_key,
        "models": ["demo-small"],
        "probe": {"kind": "off"},
        "transport": lane,
    }
    server = {"port": 0, "drain": "10m", "lane": lane}
    return load_bytes(json.dumps({"providers": [entry], "server": server}).encode(), Path("pointsman.yaml"), {})


class Faltering:
    """The router, until it ``is_broken``: then it fails on every query, and its state with it."""

    is_broken = False

    def __init__(self, *made: Any, **of: Any) -> None:
        self._router = RouterActor(*made, **of)

    def start(self, context: Context) -> None:
        self._router.start(context)

    def handle(self, message: Any, context: Context) -> None:
        if self.is_broken and isinstance(message, RouteQuery):
            raise LookupError("a mistake of ours")
        self._router.handle(message, context)

    def invariant(self) -> str | None:
        return "broken" if self.is_broken else self._router.invariant()


async def test_a_router_beyond_its_restarts_ends_the_daemon_and_every_open_request_is_answered(
    monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    monkeypatch.setattr(tree, "RouterActor", Faltering)
    monkeypatch.setattr(Faltering, "is_broken", False)
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def ask(session: aiohttp.ClientSession) -> tuple[int, Any]:
        body = {"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]}
        async with session.post(f"http://127.0.0.1:{ready.result()}/v1/chat/completions", json=body) as answer:
            return answer.status, (await answer.json())["error"]["code"]

    async with SimulatedProvider(demo_behaviours()[0], seed=1) as provider, asyncio.timeout(DEADLINE_S):
        # Given a request that waits for an upstream which never answers
        provider.switch_on(Fault(FaultKind.HANG))
        running = asyncio.ensure_future(Daemon(loaded(provider, lane), {}, "0").run(ready.set_result))
        await ready
        async with aiohttp.ClientSession() as session:
            waiting = asyncio.ensure_future(ask(session))
            while not provider.simulation.calls:  # noqa: ASYNC110 - the simulation announces nothing
                await asyncio.sleep(0.01)

            # When the router fails on every query, and its state with it
            monkeypatch.setattr(Faltering, "is_broken", True)
            failed = [await ask(session) for _ in range(3)]

            # Then those are answered, so is the one that waited, and the daemon says that it failed
            assert set(failed) <= {(500, "internal_error"), (503, "overloaded")}
            assert await waiting == (503, "overloaded")
        assert await running == EXIT_FATAL == 1
