"""Which mailbox? A question fanned out to N actors and back, six ways, and one tell in a burst.

    python -m tests.benchmarks.mailbox [--quick]

Every contestant lets each actor make the same small answer. The house's way does more than the others: its question goes from
outside to a router, which puts it aside, fans it out with a deadline, gathers and answers, with shedding, supervision, a place
for traces and one answer for sure. Prints µs for one question, the best of several rounds: on a shared machine the smallest
figure is the one that others disturbed least.
"""

import asyncio
import gc
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import uvloop
from anyio.streams.memory import MemoryObjectSendStream

from actors.kernel import Actor, Context, Ref, ReplySlot
from messages.routing import CallForBids, Gathered, NoBid, NoBidReason, RequestProfile, RoutePlan, RouteQuery
from runtime.system.system import ActorSystem

SIZES = (3, 10, 50, 200)
PROFILE = RequestProfile("gpt-4o")
CALL = CallForBids("q", PROFILE, "gpt-4o")
EMPTY = Gathered("q", ())
PLAN = RoutePlan("q", "d", 1, "gpt-4o", "first", ())


def bid_of(name: str) -> NoBid:
    """What each actor does with a call for bids."""
    return NoBid(name, NoBidReason.AT_CAPACITY, None, "")


async def best_us(ask: Callable[[], Awaitable[Any]], times: int, rounds: int) -> float:
    """Microseconds for one ``ask``, in the best round."""
    gc.collect()
    best_s = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(times):
            await ask()
        best_s = min(best_s, time.perf_counter() - start)
    return best_s / times * 1e6


async def end_all(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def queues(size: int, times: int, rounds: int) -> float:
    """An ``asyncio.Queue`` and a task for each actor; a future for each answer."""
    loop = asyncio.get_running_loop()

    async def actor(name: str, mailbox: asyncio.Queue[tuple[CallForBids, asyncio.Future[Any]]]) -> None:
        while True:
            _, future = await mailbox.get()
            future.set_result(bid_of(name))

    mailboxes: list[asyncio.Queue[tuple[CallForBids, asyncio.Future[Any]]]] = [asyncio.Queue() for _ in range(size)]
    tasks = [asyncio.ensure_future(actor(f"provider:{number}", box)) for number, box in enumerate(mailboxes)]

    async def ask() -> list[Any]:
        futures = [loop.create_future() for _ in mailboxes]
        for box, future in zip(mailboxes, futures, strict=True):
            box.put_nowait((CALL, future))
        return await asyncio.gather(*futures)

    figure = await best_us(ask, times, rounds)
    await end_all(tasks)
    return figure


async def streams(size: int, times: int, rounds: int) -> float:
    """An anyio memory stream and a task for each actor; a future for each answer."""
    loop = asyncio.get_running_loop()

    async def actor(name: str, mailbox: Any) -> None:
        async with mailbox:
            async for _, future in mailbox:
                future.set_result(bid_of(name))

    sends: list[MemoryObjectSendStream[Any]] = []
    tasks: list[asyncio.Task[None]] = []
    for number in range(size):
        send, receive = anyio.create_memory_object_stream[Any](100)
        sends.append(send)
        tasks.append(asyncio.ensure_future(actor(f"provider:{number}", receive)))

    async def ask() -> list[Any]:
        futures = [loop.create_future() for _ in sends]
        for send, future in zip(sends, futures, strict=True):
            await send.send((CALL, future))
        return await asyncio.gather(*futures)

    figure = await best_us(ask, times, rounds)
    await end_all(tasks)
    for send in sends:
        send.close()
    return figure


class Round:
    """One collector for a fan-out: as the house has, in small."""

    def __init__(self, missing: int, future: asyncio.Future[list[Any]]) -> None:
        self.missing = missing
        self.future = future
        self.answers: list[Any] = []

    def answer(self, reply: Any) -> None:
        self.answers.append(reply)
        self.missing -= 1
        if not self.missing:
            self.future.set_result(self.answers)


async def deques(size: int, times: int, rounds: int) -> float:
    """A deque and a task for each actor, woken by a future; one collector for all answers."""
    loop = asyncio.get_running_loop()
    wakers: list[asyncio.Future[None] | None] = [None] * size
    mailboxes: list[deque[tuple[CallForBids, Round]]] = [deque() for _ in range(size)]

    async def actor(number: int) -> None:
        name, mailbox = f"provider:{number}", mailboxes[number]
        while True:
            while mailbox:
                mailbox.popleft()[1].answer(bid_of(name))
            waker = wakers[number] = loop.create_future()
            await waker

    tasks = [asyncio.ensure_future(actor(number)) for number in range(size)]

    async def ask() -> list[Any]:
        collector = Round(size, loop.create_future())
        for number, mailbox in enumerate(mailboxes):
            mailbox.append((CALL, collector))
            waker = wakers[number]
            if waker is not None and not waker.done():
                waker.set_result(None)
        return await collector.future

    figure = await best_us(ask, times, rounds)
    await end_all(tasks)
    return figure


async def dispatched(size: int, times: int, rounds: int) -> float:
    """Deques drained by one callback, one collector: the principle of the house's dispatcher and nothing else of it."""
    loop = asyncio.get_running_loop()
    names = [f"provider:{number}" for number in range(size)]
    mailboxes: list[deque[tuple[CallForBids, Round]]] = [deque() for _ in range(size)]
    ready: deque[int] = deque()

    def drain() -> None:
        while ready:
            number = ready.popleft()
            mailbox = mailboxes[number]
            while mailbox:
                mailbox.popleft()[1].answer(bid_of(names[number]))

    async def ask() -> list[Any]:
        collector = Round(size, loop.create_future())
        for number, mailbox in enumerate(mailboxes):
            mailbox.append((CALL, collector))
            ready.append(number)
        loop.call_soon(drain)
        return await collector.future

    return await best_us(ask, times, rounds)


class BenchProvider:
    """Answers every call."""

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self, context: Context) -> None:
        pass

    def handle(self, message: Any, context: Context) -> None:
        if message.__class__ is CallForBids:
            context.reply(bid_of(self.name))

    def invariant(self) -> str | None:
        return None


class BenchRouter(BenchProvider):
    """Fans out, gathers, answers."""

    def __init__(self, size: int) -> None:
        super().__init__("router")
        self.to: list[Ref[Any]] = [Ref(f"provider:{number}") for number in range(size)]
        self.waiting: dict[str, ReplySlot] = {}

    def handle(self, message: Any, context: Context) -> None:
        if message.__class__ is Gathered:
            context.answer(self.waiting.pop(message.key), PLAN)
        else:
            slot = self.waiting["q"] = context.defer()
            context.gather(self.to, CALL, "q", slot, 0.05)


def provider_factory(name: str) -> Callable[[Actor | None], Actor]:
    return lambda previous: BenchProvider(name)


async def house(size: int, times: int, rounds: int) -> float:
    """The house's dispatcher: from outside to the router, out to the providers, and back."""
    system = ActorSystem()
    system.spawn("router", lambda previous: BenchRouter(size))
    for number in range(size):
        system.spawn(f"provider:{number}", provider_factory(f"provider:{number}"))

    async def ask() -> Any:
        return await system.ask("router", RouteQuery("q", PROFILE, 1e12, 0.0), 1e12)

    figure = await best_us(ask, times, rounds)
    await system.stop()
    return figure


async def calls(size: int, times: int, rounds: int) -> float:
    """Plain method calls, no messages: the floor."""
    names = [f"provider:{number}" for number in range(size)]

    async def ask() -> list[Any]:
        return [bid_of(name) for name in names]

    return await best_us(ask, times, rounds)


BURST = 1000


async def tell_queue(times: int, rounds: int) -> float:
    mailbox: asyncio.Queue[Any] = asyncio.Queue()

    async def actor() -> None:
        while True:
            await mailbox.get()
            mailbox.task_done()

    task = asyncio.ensure_future(actor())

    async def burst() -> None:
        for _ in range(BURST):
            mailbox.put_nowait(CALL)
        await mailbox.join()

    figure = await best_us(burst, times, rounds) / BURST
    await end_all([task])
    return figure


async def tell_stream(times: int, rounds: int) -> float:
    send, receive = anyio.create_memory_object_stream[Any](BURST)
    done = asyncio.Event()

    async def actor() -> None:
        left = BURST
        async with receive:
            async for _ in receive:
                left -= 1
                if not left:
                    left = BURST
                    done.set()

    task = asyncio.ensure_future(actor())

    async def burst() -> None:
        done.clear()
        for _ in range(BURST):
            await send.send(CALL)
        await done.wait()

    figure = await best_us(burst, times, rounds) / BURST
    await end_all([task])
    send.close()
    return figure


async def tell_house(times: int, rounds: int) -> float:
    system = ActorSystem()
    system.spawn("reader", provider_factory("reader"))

    async def burst() -> None:
        for _ in range(BURST):
            system.tell("reader", EMPTY)
        await asyncio.sleep(0)
        assert not system.mailbox_lengths()["reader"]

    figure = await best_us(burst, times, rounds) / BURST
    await system.stop()
    return figure


FAN_OUTS = {
    "asyncio.Queue + task + gather": queues,
    "anyio memory stream + task + gather": streams,
    "deque + task, one collector": deques,
    "deques drained by one callback, one collector": dispatched,
    "the house: that, with all its laws": house,
    "plain method calls": calls,
}
TELLS = {"asyncio.Queue": tell_queue, "anyio memory stream": tell_stream, "the house": tell_house}


def main() -> None:
    """Print the tables."""
    is_quick = "--quick" in sys.argv
    rounds = 3 if is_quick else 15
    for loop_name, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        with asyncio.Runner(loop_factory=factory) as runner:
            print(f"\n{loop_name}: fan-out and back, µs".ljust(47), *(f"N={size}".rjust(8) for size in SIZES))
            for name, contestant in FAN_OUTS.items():
                figures = [runner.run(contestant(size, max(20, 1500 // size), rounds)) for size in SIZES]
                print(name.ljust(46), *(f"{figure:8.1f}" for figure in figures))
            print(f"\n{loop_name}: one tell in a burst of {BURST}, µs")
            for name, teller in TELLS.items():
                print(name.ljust(46), f"{runner.run(teller(5, rounds)):8.2f}")


if __name__ == "__main__":
    main()
