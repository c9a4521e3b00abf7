"""A daemon that stood still blames nobody else: what came meanwhile counts, and the time says nothing of providers.

``stand_still`` does to the virtual loop what a busy machine or a handler that takes too long does to a real one: time passes,
and nothing is run.
"""

import asyncio
from math import inf

import pytest

from runtime.courier.limit import Limit
from runtime.system.clock import loop_clock
from runtime.system.deadlines import Deadlines
from runtime.system.system import ActorSystem
from runtime.system.virtual_loop import VirtualLoop
from runtime.timely import AFTER_STALL_S, STALL_S, STALL_UNSEEN_S
from runtime.upstream.raw_pool import Pool
from tests.system.house import World, loaded, provider, run


def stand_still(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop._time_s += seconds


def deadlines() -> Deadlines:
    return ActorSystem(clock=loop_clock(asyncio.get_running_loop())).deadlines


async def limited(begins: Deadlines, work_s: float, limit_s: float, until: float = inf) -> float:
    """When work of so many seconds in a limit of so many was done. Raises ``TimeoutError``."""
    with Limit(begins, begins.now() + limit_s, until=until):
        await asyncio.sleep(work_s)
    return begins.now()


def alone(work_s: float, limit_s: float, stall_at: float, stall_s: float, until: float = inf) -> float:
    async def scene() -> float:
        asyncio.get_running_loop().call_later(stall_at, stand_still, stall_s)
        return await limited(deadlines(), work_s, limit_s, until)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scene())


def test_what_was_done_while_the_daemon_stood_still_was_done_in_time() -> None:
    assert alone(2.0, 3.0, stall_at=1.5, stall_s=10.0) == 11.5


def test_what_was_not_done_yet_gets_the_time_of_the_stall_again() -> None:
    assert alone(6.0, 5.0, stall_at=1.5, stall_s=4.0) == 6.0
    with pytest.raises(TimeoutError):
        alone(60.0, 5.0, stall_at=1.5, stall_s=4.0)


def test_the_time_that_is_given_again_is_that_of_the_stall_as_far_as_it_can_be_told() -> None:
    # The timer was to ring at 1.75 and rang at 5.5: a stall of 3.75 s at least.
    until = 5.5 + AFTER_STALL_S + 3.75 + STALL_UNSEEN_S
    assert alone(until - 0.1, 5.0, stall_at=1.6, stall_s=3.9) == pytest.approx(until - 0.1)
    with pytest.raises(TimeoutError):
        alone(until + 0.1, 5.0, stall_at=1.6, stall_s=3.9)


def test_no_stall_puts_off_the_time_of_the_request_itself() -> None:
    with pytest.raises(TimeoutError):
        alone(7.0, 5.0, stall_at=1.5, stall_s=4.0, until=6.0)


def test_a_timer_that_rings_a_little_late_tells_of_no_stall() -> None:
    with pytest.raises(TimeoutError):
        alone(3.2, 3.0, stall_at=2.9, stall_s=STALL_S)


def test_stalls_are_added_up_while_somebody_waits() -> None:
    async def scene() -> None:
        waits = deadlines()
        task = asyncio.get_running_loop().create_task(limited(waits, 100.0, 200.0))
        for stall_s in (2.0, 0.3, 5.0):
            await asyncio.sleep(1.5)
            stand_still(stall_s)
        await asyncio.sleep(1.5)
        assert 7.0 - 2 * STALL_UNSEEN_S <= waits.stalled_s <= 7.0
        await task

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())


class Line(asyncio.Transport):
    """A transport that takes everything and sends nothing."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


def test_an_answer_that_comes_in_the_moment_in_which_its_time_is_over_has_come() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        connection = Pool(loop).made()
        connection.connection_made(Line())
        connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", has_no_body=False)
        # Both in one turn of the loop: the bytes, then the timer, and only then whoever waited.
        loop.call_later(1.0, connection.data_received, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh")
        await connection.wait(1.0)

        assert (connection.status, connection.take(), connection.error, connection.is_lost) == (200, b"h", None, False)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())


@pytest.mark.parametrize("stream", [False, True])
def test_pain_17_a_client_that_leaves_after_a_stall_leaves_no_failure_behind(stream: bool) -> None:
    async def scene(world: World) -> None:
        for _ in range(5):
            client = world.send(stream=stream, max_tokens=10)
            await asyncio.sleep(0.05)
            stand_still(30.0)
            client.leave()
            await client.wait()

        report = await world.report("a")
        assert (report.failures, report.circuit, report.health) == (0, "closed", 1.0)
        assert (await world.ask(stream=stream)).status == 200

    run(loaded([provider("a")]), scene)


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_is_no_slower_for_a_stall_of_ours(stream: bool) -> None:
    async def scene(world: World) -> None:
        await world.ask(stream=stream)
        before = (await world.report("a")).latency_ewma_ms
        client = world.send(stream=stream)
        await asyncio.sleep(0.05)
        stand_still(20.0)
        await client.wait()

        assert client.status == 200
        assert (await world.report("a")).latency_ewma_ms <= before + 1000.0 * STALL_UNSEEN_S

    run(loaded([provider("a")]), scene)
