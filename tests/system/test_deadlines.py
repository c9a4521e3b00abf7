"""Who waits until when: everybody is ended once and in time, in the order of asking, and the line does not grow."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from messages.envelope import Fault
from runtime.system.clock import loop_clock
from runtime.system.deadlines import CLOSE_RANKS_AT, Deadlines, Expiring
from runtime.system.system import ActorSystem
from runtime.system.virtual_loop import VirtualLoop

STEPS = st.lists(st.tuples(st.sampled_from(("add", "discard", "wait")), st.integers(0, 9)), max_size=60)


class Guest(Expiring):
    """Waits, and notes how that ended."""

    def __init__(self, number: int, deadline: float | None, ended: list[tuple[int, float]]) -> None:
        super().__init__(deadline)
        self.number = number
        self.abandoned = 0
        self._ended = ended

    def expire(self) -> None:
        self._ended.append((self.number, asyncio.get_running_loop().time()))

    def abandon(self, fault: Fault) -> None:
        self.abandoned += 1


def fresh() -> Deadlines:
    return ActorSystem(clock=loop_clock(asyncio.get_running_loop())).deadlines


@given(STEPS)
def test_who_waits_is_ended_at_its_time_in_the_order_of_asking_and_nobody_else_is(steps: list[tuple[str, int]]) -> None:
    async def scene() -> None:
        line, ended, wanted = fresh(), list[tuple[int, float]](), list[tuple[int, float]]()
        loop = asyncio.get_running_loop()
        guests = [Guest(number, None, ended) for number in range(10)]
        waiting: dict[int, float] = {}
        for step, number in steps:
            guest = guests[number]
            if step == "add":
                if number not in waiting:
                    waiting[number] = guest.deadline = loop.time() + 1.0 + number % 3
                line.add(guest)
            elif step == "discard":
                waiting.pop(number, None)
                line.discard(guest)
            else:
                await asyncio.sleep(0.5)
                due = sorted((at, place, key) for place, (key, at) in enumerate(waiting.items()) if at <= loop.time())
                wanted += [(key, at) for at, _, key in due]
                for _, _, key in due:
                    del waiting[key]
            assert len(line) == len(waiting)
            assert ended == wanted

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())


def test_the_line_is_no_longer_than_twice_those_who_wait_and_some_however_many_came_and_went() -> None:
    async def scene() -> None:
        line, ended = fresh(), list[tuple[int, float]]()
        staying = [Guest(number, 7.0, ended) for number in range(20)]
        for number in range(50 * CLOSE_RANKS_AT):
            passing = Guest(-1, None, ended)
            line.add(passing)
            if number < len(staying):
                line.add(staying[number])
            assert passing.place <= 2 * len(line) + CLOSE_RANKS_AT
            line.discard(passing)
        assert len(line) == len(staying)
        await asyncio.sleep(10.0)
        assert ended == [(guest.number, 7.0) for guest in staying]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())


def test_when_the_system_stops_each_is_abandoned_once_and_nobody_waits() -> None:
    async def scene() -> None:
        line, ended = fresh(), list[tuple[int, float]]()
        guests = [Guest(number, 1.0, ended) for number in range(3)]
        for guest in guests:
            line.add(guest)
        line.discard(guests[1])
        line.close(Fault.STOPPED)
        await asyncio.sleep(5.0)
        assert ([guest.abandoned for guest in guests], len(line), ended) == ([1, 0, 1], 0, [])
        line.discard(guests[0])
        assert len(line) == 0

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())
