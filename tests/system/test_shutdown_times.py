"""How long the end of the daemon takes, to the moment, in virtual time: connections that are none, the product's listener.

The law: it waits for calls in flight as long as ``server.drain`` says, for what their clients have still to take or to send one
second more, and for nothing else. A refused client may otherwise go on sending for ten seconds, and one that takes nothing is
kept for a minute.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import pytest

from runtime.daemon import Daemon
from runtime.http.server import HttpServer
from tests.lines import LANES, LaneName, Line, replies
from tests.system.house import MODEL, PLAIN, World, loaded, provider, run

DRAIN_S, REST_S = 0.25, 1.0
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


class DeadLine(Line):
    """A connection whose client takes nothing: told to close, it waits for that until it is cut."""

    is_told = False

    def close(self) -> None:
        self.is_told = True

    def is_closing(self) -> bool:
        return self.is_told or self.is_closed

    def get_write_buffer_size(self) -> int:
        return len(self.said)

    def abort(self) -> None:
        super().close()


def asked(stream: bool = False, max_tokens: int = 10) -> bytes:
    said = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": stream, "max_tokens": max_tokens}
    body = json.dumps(said).encode()
    return HEAD % len(body) + body


@dataclass
class Scene:
    """A daemon's listener on connections that are none."""

    world: World
    daemon: Daemon
    http: HttpServer
    connect: Callable[[], asyncio.Protocol]

    def opened(self, *said: bytes, line: Line | None = None) -> Line:
        """A connection on which a client has said so much."""
        line = line or Line()
        line.protocol = self.connect()
        line.protocol.connection_made(line)
        for data in said:
            line.give(data)
        return line

    async def end(self) -> float:
        """What the daemon does from the signal to its end; the seconds that takes."""
        begun_at = self.world.now
        await self.daemon._wind_down(self.world.house, self.http)
        await self.http.stop()
        return self.world.now - begun_at


def play(lane: LaneName, scene: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    config = loaded([provider("a")], server={"drain": f"{DRAIN_S * 1000:.0f}ms", "lane": lane})

    async def whole(world: World) -> None:
        daemon = Daemon(config, {}, "test")
        http = HttpServer(world.house.edge, world.house.admin, config.server, "test")
        await scene(Scene(world, daemon, http, http.protocols()))

    run(config, whole, {"a": replace(PLAIN, tokens_per_second=10)})


async def turns() -> None:
    """Let all go on that can; no time passes."""
    for _ in range(60):
        await asyncio.sleep(0)


@pytest.mark.parametrize("lane", LANES)
def test_connections_that_nothing_is_asked_on_are_not_waited_for(lane: LaneName) -> None:
    async def scene(on: Scene) -> None:
        unused, used = on.opened(), on.opened(asked())
        await asyncio.sleep(5.0)
        assert [reply.status for reply in replies(used.said)] == [200]

        assert await on.end() == 0.0
        assert (unused.is_closed, used.is_closed) == (True, True)

    play(lane, scene)


@pytest.mark.parametrize("lane", LANES)
def test_a_call_that_ends_within_the_drain_is_waited_for_and_no_longer(lane: LaneName) -> None:
    async def scene(on: Scene) -> None:
        line = on.opened(asked(max_tokens=1))
        await asyncio.sleep(0.0625)

        assert await on.end() == pytest.approx(PLAIN.ttfb_ms / 1000 - 0.0625)
        assert [reply.status for reply in replies(line.said)] == [200]

    play(lane, scene)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("stream", [True, False])
def test_a_call_that_does_not_end_within_the_drain_is_told_so_and_no_longer_waited_for(lane: LaneName, stream: bool) -> None:
    async def scene(on: Scene) -> None:
        line = on.opened(asked(stream, max_tokens=1000))
        await asyncio.sleep(1.0)

        assert await on.end() == pytest.approx(DRAIN_S)
        (reply,) = replies(line.said)
        assert (reply.status, reply.is_whole) == ((200, False) if stream else (503, True))
        assert b"shutting down" in reply.body

    play(lane, scene)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(("leaves", "more_s"), [(True, 0.0), (False, REST_S)], ids=["who then leaves", "who stays"])
def test_half_a_body_is_refused_at_the_end_of_the_drain_and_the_rest_waited_for_a_second(
    lane: LaneName, leaves: bool, more_s: float
) -> None:
    async def scene(on: Scene) -> None:
        line = on.opened(HEAD % 100 + b'{"model"')
        await turns()
        if leaves:
            on.world.loop.call_later(DRAIN_S + 1e-9, line.close)

        assert await on.end() == pytest.approx(DRAIN_S + more_s)
        assert [reply.status for reply in replies(line.said)] == [503]
        assert line.is_closed

    play(lane, scene)


@pytest.mark.parametrize("lane", LANES)
def test_a_client_that_takes_nothing_is_waited_for_a_second_after_the_drain(lane: LaneName) -> None:
    async def scene(on: Scene) -> None:
        line = on.opened(asked(stream=True, max_tokens=1000), line=DeadLine())
        await asyncio.sleep(1.0)
        line.protocol.pause_writing()

        assert await on.end() == pytest.approx(DRAIN_S + REST_S)
        assert line.is_closed

    play(lane, scene)


@pytest.mark.parametrize("lane", LANES)
def test_at_a_second_signal_nothing_is_waited_for(lane: LaneName) -> None:
    async def scene(on: Scene) -> None:
        line = on.opened(asked(max_tokens=1000))
        await asyncio.sleep(1.0)
        on.world.loop.call_later(0.125, on.world.house.edge.cut)

        assert await on.end() == pytest.approx(0.125)
        assert [reply.status for reply in replies(line.said)] == [503]

    play(lane, scene)
