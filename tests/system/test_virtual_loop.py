"""The virtual loop: time jumps to the next timer, and the world stays outside."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.system.clock import loop_clock, real_clock
from runtime.system.virtual_loop import NothingLeftError, RealWorldError, VirtualLoop


def virtually(body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(body())


def time() -> float:
    return asyncio.get_running_loop().time()


def test_waiting_takes_no_time_and_time_stands_at_the_very_end_of_the_wait() -> None:
    async def body() -> None:
        assert time() == 0.0
        await asyncio.sleep(86400.0 * 365)
        assert time() == 86400.0 * 365
        await asyncio.sleep(0)
        assert time() == 86400.0 * 365

    virtually(body)


@given(st.lists(st.floats(0.0, 1e7), max_size=30))
def test_sleepers_wake_in_the_order_of_their_times_and_exactly_then(delays_s: list[float]) -> None:
    async def body() -> list[tuple[float, float]]:
        woken: list[tuple[float, float]] = []

        async def sleeper(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            woken.append((delay_s, time()))

        await asyncio.gather(*(sleeper(delay_s) for delay_s in delays_s))
        return woken

    woken = virtually(body)
    assert [at for _, at in woken] == sorted(delays_s)
    assert [delay_s for delay_s, _ in woken] == sorted(delays_s)


def test_sleepers_due_at_the_same_time_wake_in_the_order_they_lay_down() -> None:
    async def body() -> None:
        woken: list[int] = []

        async def sleeper(number: int) -> None:
            await asyncio.sleep(1.0)
            woken.append(number)

        await asyncio.gather(*(sleeper(number) for number in range(20)))
        assert woken == list(range(20))

    virtually(body)


@pytest.mark.parametrize("start", [0.0, 1e6, 1e8, 1e10])
def test_small_steps_late_in_a_long_run_do_not_stall_or_drift(start: float) -> None:
    async def body() -> None:
        await asyncio.sleep(start)
        for _ in range(1000):
            before = time()
            await asyncio.sleep(0.001)
            assert time() == before + 0.001

    virtually(body)


def test_a_million_seconds_in_steps_end_on_time() -> None:
    async def body() -> None:
        for _ in range(10_000):
            await asyncio.sleep(100.0)
        assert time() == 1_000_000.0

    virtually(body)


def test_timeouts_and_cancellation_work_as_ever() -> None:
    async def body() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await asyncio.sleep(10.0)
        assert time() == 3.0

        sleeper = asyncio.ensure_future(asyncio.sleep(10.0))
        await asyncio.sleep(1.0)
        sleeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeper
        assert time() == 4.0

        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(50.0))], timeout=2.0)
        assert time() == 6.0

    virtually(body)


def test_waiting_for_what_cannot_come_is_an_error_and_the_runner_still_closes() -> None:
    cleaned: list[str] = []

    async def body() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append("cleaned up")

    with pytest.raises(NothingLeftError):
        virtually(body)
    assert cleaned == ["cleaned up"]


WORLDLY: dict[str, Callable[[asyncio.AbstractEventLoop], Any]] = {
    "client": lambda loop: asyncio.open_connection("127.0.0.1", 1),
    "server": lambda loop: asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0),
    "datagram": lambda loop: loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)),
    "unix socket": lambda loop: loop.create_unix_connection(asyncio.Protocol, "/nowhere"),
    "subprocess": lambda loop: asyncio.create_subprocess_exec("true"),
    "shell": lambda loop: asyncio.create_subprocess_shell("true"),
    "thread": lambda loop: asyncio.to_thread(print, "never"),
    "name": lambda loop: loop.getaddrinfo("localhost", 80),
    "address": lambda loop: loop.getnameinfo(("127.0.0.1", 80)),
}


@pytest.mark.parametrize("name", sorted(WORLDLY))
def test_the_real_world_is_refused(name: str) -> None:
    async def body() -> None:
        with pytest.raises(RealWorldError):
            await WORLDLY[name](asyncio.get_running_loop())

    virtually(body)


def test_a_real_thread_cannot_call_in() -> None:
    refused: list[type[BaseException]] = []

    async def body() -> None:
        loop = asyncio.get_running_loop()

        def call_in() -> None:
            try:
                loop.call_soon_threadsafe(print, "never")
            except RealWorldError as error:
                refused.append(type(error))

        thread = threading.Thread(target=call_in)
        thread.start()
        thread.join()
        called: list[int] = []
        loop.call_soon_threadsafe(called.append, 1)
        await asyncio.sleep(0)
        assert called == [1]

    virtually(body)
    assert refused == [RealWorldError]


def test_the_clock_of_a_loop_and_that_of_the_machine_tell_the_same_things() -> None:
    async def body() -> None:
        clock = loop_clock(asyncio.get_running_loop(), epoch=1000.0)
        await asyncio.sleep(5.0)
        assert (clock.now(), clock.wall()) == (5.0, 1005.0)

    virtually(body)
    machine = real_clock()
    assert machine.now() <= machine.now()
    assert machine.wall() > 1_600_000_000.0
