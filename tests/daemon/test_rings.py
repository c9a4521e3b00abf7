"""What ends before its time leaves nothing that only the collector could find: its pauses grow with what it has to look at."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any, cast

import pytest

from runtime.courier.race import Race
from runtime.http.raw_edge import RawConnection
from runtime.http.raw_sink import RawSink
from runtime.ports import EdgeRequest
from runtime.upstream.raw_client import RawUpstream
from tests.daemon.edge_desk import Behaviour, Desk, Stage, echo, hangs
from tests.daemon.test_raw_edge import post
from tests.daemon.upstream_server import request, serving


@pytest.fixture
def rings() -> Iterator[list[object]]:
    """Whatever the collector finds, once it has been called at the end of the test."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.enable()
    gc.garbage.clear()


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_call_that_is_cancelled_while_it_connects_leaves_no_ring(turns: int, rings: list[object]) -> None:
    async with serving() as server:
        upstream = RawUpstream()
        task = asyncio.create_task(upstream.call(request(server.url)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        del task
        gc.collect()
        assert [one for one in rings if isinstance(one, asyncio.Task | asyncio.CancelledError)] == []
        await upstream.close()


@pytest.mark.parametrize("is_cut", [False, True], ids=["it leaves", "the daemon ends"])
async def test_a_client_whose_request_ends_before_its_answer_leaves_no_ring(is_cut: bool, rings: list[object]) -> None:
    desk = Desk(hangs)
    stage = Stage(desk)
    await stage.feed(post(b"kept for nobody"))
    (task,) = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
    desk.is_cut = is_cut
    stage.connection.cancel() if is_cut else stage.end()
    await stage.turn()
    assert (task.done(), desk.count, desk.ends) == (True, 0, ["CancelledError"])
    assert stage.wire.sent.startswith(b"HTTP/1.1 503 ") == is_cut
    desk.requests.clear()
    del task
    gc.collect()
    assert [one for one in rings if isinstance(one, EdgeRequest | asyncio.Task)] == []


@pytest.mark.parametrize("behave", [echo, hangs])
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_connection_that_ends_leaves_no_ring(behave: Behaviour, at_once: bool, rings: list[object]) -> None:
    stage = Stage(Desk(behave, at_once=at_once))
    await stage.feed(post(b"0"), post(b"1"))
    stage.end()
    await stage.turn()
    assert stage.desk.count == 0
    stage.wire.protocol = None
    del stage
    gc.collect()
    assert [one for one in rings if isinstance(one, RawConnection | RawSink)] == []


class NeverAnswered:
    """A first call, as a race knows it."""

    is_drained = False
    sent = None

    async def call(self, *_: object) -> None:
        await asyncio.Event().wait()

    def end(self) -> None:
        pass


class Now:
    def now(self) -> float:
        return 0.0


async def test_a_race_that_is_called_off_leaves_no_ring(rings: list[object]) -> None:
    first, nobody = NeverAnswered(), cast(Any, None)

    async def run() -> None:
        race = Race(cast(Any, Now()), nobody, None, cast(Any, first), None)
        with pytest.raises(asyncio.CancelledError):
            await race.run(nobody, [], nobody, None)

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    await task
    del task
    gc.collect()
    assert [one for one in rings if isinstance(one, Race | asyncio.CancelledError)] == []
