"""The limit on an attempt's time: over, moved, and told apart from somebody else's cancellation."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from runtime.courier.limit import Limit
from runtime.system.clock import loop_clock
from runtime.system.system import ActorSystem
from runtime.system.virtual_loop import VirtualLoop


def run(scene: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene)


def system() -> ActorSystem:
    return ActorSystem(clock=loop_clock(asyncio.get_running_loop()))


def test_a_block_that_takes_too_long_ends_with_a_timeout_at_the_deadline() -> None:
    async def scene() -> None:
        with pytest.raises(TimeoutError), Limit(system().deadlines, 3.0):
            await asyncio.sleep(10.0)
        assert asyncio.get_running_loop().time() == 3.0
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run(scene())


def test_a_deadline_that_has_passed_ends_the_block_at_its_first_wait() -> None:
    async def scene() -> None:
        await asyncio.sleep(5.0)
        with pytest.raises(TimeoutError), Limit(system().deadlines, 3.0):
            await asyncio.sleep(10.0)
        assert asyncio.get_running_loop().time() == 5.0

    run(scene())


@pytest.mark.parametrize("deadline", [5.0, 2.0])
def test_a_limit_that_is_moved_holds_where_it_was_moved_to(deadline: float) -> None:
    async def scene() -> None:
        async def limited() -> None:
            with Limit(deadlines, 3.0) as limit:
                limit.move(deadline)
                await asyncio.sleep(10.0)

        deadlines = system().deadlines
        with pytest.raises(TimeoutError):
            await limited()
        assert asyncio.get_running_loop().time() == deadline

    run(scene())


def test_a_block_that_is_done_in_time_is_forgotten() -> None:
    async def scene() -> None:
        deadlines = system().deadlines
        with Limit(deadlines, 3.0) as limit:
            await asyncio.sleep(1.0)
        limit.move(4.0)
        assert not len(deadlines)
        await asyncio.sleep(10.0)

    run(scene())


def test_somebody_else_who_cancels_is_not_taken_for_the_limit() -> None:
    async def scene() -> None:
        deadlines = system().deadlines

        async def limited() -> None:
            with Limit(deadlines, 3.0):
                await asyncio.sleep(10.0)

        task = asyncio.create_task(limited())
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not len(deadlines)

    run(scene())


def test_one_who_cancels_when_the_limit_is_over_is_heard_all_the_same() -> None:
    async def scene() -> None:
        deadlines = system().deadlines

        async def limited() -> None:
            with Limit(deadlines, 3.0):
                await asyncio.sleep(10.0)

        task = asyncio.create_task(limited())
        asyncio.get_running_loop().call_at(3.0, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()

    run(scene())


def test_an_error_of_the_block_passes_as_it_is() -> None:
    async def scene() -> None:
        with pytest.raises(KeyError), Limit(system().deadlines, 3.0):
            raise KeyError("its own")

    run(scene())
