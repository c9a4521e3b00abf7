"""Carries out the plan of an answer under whatever loop runs, real or virtual. Both frames, HTTP and in-process, use it.

Owns: one call's place, its waits, and its end. Always: whatever happens, ``finish`` gives the place back in that instant.
"""

import asyncio
from collections.abc import AsyncGenerator
from math import inf

from runtime.simulation.plan import AnswerPlan, Ending
from runtime.simulation.provider import Call, ProviderSimulation
from runtime.simulation.slots import Ticket


class Broken(Exception):
    """The connection breaks here: with a reset, or closed as by a peer that has said all it had to say."""

    def __init__(self, is_reset: bool = True) -> None:
        super().__init__("connection reset" if is_reset else "connection closed")
        self.is_reset = is_reset


class Performance:
    """One call, from its arrival to its end: ``start``, then ``pieces``, then in a ``finally`` ``finish``."""

    def __init__(self, provider: ProviderSimulation, call: Call) -> None:
        self._provider = provider
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._ticket: Ticket | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._outcome = "cancelled"
        self._is_broken = False
        self._plan: AnswerPlan | None = None
        self._begun_at = 0.0
        call.break_off = self.break_off

    async def start(self) -> AnswerPlan:
        """Wait for a place and for the first byte. Raises ``Broken`` if the connection is to break before anything is sent."""
        if self._call.needs_place:
            self._ticket = self._provider.slots.enter(self._wake)
            if not self._ticket.is_served:
                await self._wait(None)
        self._begun_at = self._loop.time()
        plan = self._plan = self._provider.begin(self._call, self._begun_at)
        if plan.ending is Ending.HANG:
            await self._wait(None)
        await self._until(plan.wait_s)
        if plan.ending is Ending.RESET:
            self._outcome = plan.outcome
            raise Broken
        return plan

    async def pieces(self, idle_s: float = inf) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises ``Broken`` where the plan is cut or the provider goes down, ``TimeoutError`` in a pause
        longer than ``idle_s``; the time the reader takes over a piece does not count."""
        assert self._plan is not None
        for piece in self._plan.pieces:
            await self._until(piece.at_s, idle_s)
            self._provider.sent(self._call, len(piece.data), piece.tokens)
            yield piece.data
        if self._plan.ending is Ending.CUT:
            self._outcome = self._plan.outcome
            # What was sent must arrive, and a reset may overtake it.
            raise Broken(is_reset=False)

    def complete(self) -> None:
        """The caller has the whole answer."""
        assert self._plan is not None
        self._outcome = self._plan.outcome

    def finish(self) -> None:
        """End the call; without ``complete`` or a break it counts as cancelled by the caller. A second time is ignored."""
        if self._ticket is not None:
            self._provider.slots.leave(self._ticket)
        self._provider.end(self._call, self._outcome, self._loop.time())

    def break_off(self) -> None:
        """The provider goes down: break the connection wherever the call is."""
        self._is_broken = True
        self._outcome = "killed"
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _until(self, at_s: float, longest_s: float = inf) -> None:
        delay_s = self._begun_at + at_s - self._loop.time()
        if delay_s > 0 or self._is_broken:
            await self._wait(min(delay_s, longest_s))
        if delay_s > longest_s:
            raise TimeoutError

    async def _wait(self, delay_s: float | None) -> None:
        """Wait so long, or until woken if None. Raises ``Broken`` if the provider has gone down."""
        if not self._is_broken:
            self._waiter = self._loop.create_future()
            timer = None if delay_s is None else self._loop.call_later(delay_s, self._wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        if self._is_broken:
            raise Broken
