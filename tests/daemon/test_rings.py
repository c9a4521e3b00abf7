"""What ends before its time leaves nothing that only the collector could find: its pauses grow with what it has to look at."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from runtime.upstream.raw_client import RawUpstream
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
