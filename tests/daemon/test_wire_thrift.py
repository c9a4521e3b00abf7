"""What a call and a connection may not cost: a task or a timer of its own. Counted on the loop."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from runtime.http.raw_edge import RawConnection
from runtime.upstream.raw_client import RawUpstream
from tests.daemon.edge_desk import Desk, Stage, Wire
from tests.daemon.lane_kit import turns
from tests.daemon.test_lanes import GET, post
from tests.daemon.upstream_server import CHUNKED, Reader, Server, Writer, request, serving


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is made on the loop from now on: ``task`` and ``timer``."""
    loop = asyncio.get_running_loop()
    found: list[str] = []

    def noted(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def making(*arguments: Any, **named: Any) -> Any:
            found.append(name)
            return make(*arguments, **named)

        return making

    monkeypatch.setattr(loop, "create_task", noted("task", loop.create_task))
    monkeypatch.setattr(asyncio, "Task", noted("task", asyncio.Task))
    monkeypatch.setattr(loop, "call_at", noted("timer", loop.call_at))
    return found


async def test_a_call_on_a_kept_connection_makes_no_task_and_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def behave(server: Server, reader: Reader, writer: Writer) -> None:
        while True:
            await server.take_request(reader)
            for piece in (CHUNKED, b"5\r\nhello\r\n", b"0\r\n\r\n"):
                await turns(5)
                writer.write(piece)

    async with serving() as server:
        server.behave = behave
        upstream = RawUpstream()
        assert await (await upstream.call(request(server.url))).read(5) == b"hello"
        made = counted(monkeypatch)
        for _ in range(10):
            # Each time both the head and the body are waited for.
            assert await (await upstream.call(request(server.url))).read(5) == b"hello"
            assert [chunk async for chunk in (await upstream.call(request(server.url))).chunks()] == [b"hello"]
        monkeypatch.undo()
        assert made == []
        assert server.connections == 1
        await upstream.close()


async def test_all_connections_of_a_listener_share_one_timer_and_no_request_needs_a_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = counted(monkeypatch)
    stage = Stage(Desk(at_once=True))
    for _ in range(10):
        RawConnection(stage.lane).connection_made(Wire())
    assert made == ["timer"]
    for number in range(3):
        body = b"%d" % number
        await stage.feed(post(body)[:60], post(body)[60:-1], post(body)[-1:])
    assert stage.desk.bodies == [b"0", b"1", b"2"]
    assert made == ["timer"]
    assert stage.wire.sent.count(b"HTTP/1.1 200 ") == 3


async def test_of_a_connection_that_was_handed_over_nothing_is_kept_and_without_others_nothing_ticks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(Desk(), idle_s=0.01)
    await stage.feed(GET)
    assert len(stage.lane.lines) == 0
    later = asyncio.Event()
    # By then the lane has looked for those whose time is up, and found nobody whose time could be.
    asyncio.get_running_loop().call_later(0.01, later.set)
    made = counted(monkeypatch)
    await later.wait()
    assert made == []
