"""What a request leaves behind: nothing that only the collector finds, or its body would stay until that comes round."""

import gc
from collections.abc import Awaitable, Callable

import pytest

from runtime.courier.attempt import Attempt
from runtime.courier.call import ClientCall
from runtime.courier.courier import Courier
from runtime.courier.race import Race
from runtime.dialects.request import ReadRequest
from runtime.ports import EdgeRequest
from runtime.simulation.faults import FaultKind
from tests.system.house import World, loaded, provider, run

OF_A_REQUEST = (Attempt, ClientCall, Courier, EdgeRequest, Race, ReadRequest)


def unreachable(world: World) -> list[str]:
    """The parts of requests in rings that nobody holds."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return [type(found).__name__ for found in gc.garbage if isinstance(found, OF_A_REQUEST)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def left_behind(requests: Callable[[World], Awaitable[None]]) -> list[str]:
    """What ``requests`` leave, in a house whose provider a is called before b."""
    found: list[str] = []

    async def scene(world: World) -> None:
        for _ in range(20):
            await world.ask(stream=True)
        gc.collect()
        gc.disable()
        try:
            await requests(world)
            found.extend(unreachable(world))
        finally:
            gc.enable()

    run(loaded([provider("a"), provider("b")], strategy="first", explore={"enabled": False}), scene)
    return found


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_leaves_nothing_for_the_collector(stream: bool) -> None:
    async def requests(world: World) -> None:
        for _ in range(10):
            assert (await world.ask(stream=stream)).fate == "answer"

    assert left_behind(requests) == []


@pytest.mark.parametrize("stream", [True, False])
def test_nor_does_one_that_fails_over(stream: bool) -> None:
    async def requests(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        for _ in range(3):
            assert (await world.ask(stream=stream)).provider == "b"

    assert left_behind(requests) == []


def test_nor_does_one_whose_second_call_wins() -> None:
    async def requests(world: World) -> None:
        world.fault("a", FaultKind.HANG)
        assert (await world.ask(stream=True)).attempts == 2

    assert left_behind(requests) == []
