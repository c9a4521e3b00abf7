"""A race: the calls of one request that are out side by side. The first content wins, the others are called off.

Owns: the time from which the first call is overdue, the tasks of the calls beside it, and who has won.
Always: one winner at most, and whoever has not won has sent the client nothing; when ``run`` is over so is every call, and each
has ended its permit itself. A call that could not be made beside the first one is looked at again at 1.5 times its age.

The first call is made in the request's own task: most are over before anything is made beside them, and pay for a timer only.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from messages.calls import Outcome
from messages.envelope import Fault
from runtime.courier.attempt import Attempt
from runtime.courier.results import Failed, Relayed, Whole
from runtime.facts import fact
from runtime.ports import ClientGone, EdgeSink
from runtime.system.clock import Clock
from runtime.system.deadlines import Deadlines, Expiring

log = logging.getLogger("pointsman.courier")

AGAIN = 1.5
"""Times its age at which an overdue call that got no company is looked at once more."""
AGAIN_S_MIN = 0.05

Result = Whole | Relayed | Failed


@fact
class Finish:
    """How a call of a race ended, and the headers that go with an answer of its."""

    result: Result
    attempt: Attempt
    headers: list[tuple[str, str]]


Beside = Callable[[], Coroutine[Any, Any, Finish | None]]
"""Makes a call beside the first one. None: there was nobody to make it to."""


class Race(Expiring):
    """One race. ``run`` once. Times in monotonic seconds; ``deadline`` is when the first call is overdue, None: never."""

    __slots__ = (
        "_begun_at", "_clock", "_deadlines", "_first", "_hedge", "_is_cut", "_is_first_out", "_others", "_refused", "_task",
        "winner",
    )  # fmt: skip

    def __init__(
        self, clock: Clock, deadlines: Deadlines, task: asyncio.Task[Any] | None, first: Attempt, overdue_s: float | None
    ) -> None:
        self._clock = clock
        self._deadlines = deadlines
        task = task or asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task to race in")
        self._task = task
        self._first = first
        self._hedge: Beside | None = None
        # A first call may have been begun before there was a task to race in.
        self._begun_at = clock.now() if first.sent is None else first.begun_at
        self._is_first_out = True
        self._is_cut = False
        """The first call was called off by us: its task goes on."""
        self._others: dict[asyncio.Task[Finish | None], Attempt | None] = {}
        """Calls beside the first one, in order; None: it has not got its permit yet."""
        self._refused: Finish | None = None
        """An answer that says the request itself is wrong, as one beside the first call understood it: for want of a better."""
        super().__init__(None if overdue_s is None else self._begun_at + overdue_s)
        self.winner: Attempt | None = None

    async def run(self, sink: EdgeSink, headers: list[tuple[str, str]], hedge: Beside, copy: Beside | None) -> Finish:
        """Make the first call, a ``copy`` at once if there is to be one, and a ``hedge`` when it is overdue.

        Gives the end of the call that won; of the first one where none did. Raises as ``Attempt.call`` does.
        """
        self._hedge = hedge
        first, cancels_before = self._first, self._task.cancelling()
        found: Finish | None = None
        broken: BaseException | None = None
        try:
            if copy is not None:
                self._launch(copy, is_hedge=False)
            if self.deadline is not None:
                self._deadlines.add(self)
            found = Finish(await first.call(sink, headers, self), first, headers)
        except asyncio.CancelledError as error:
            # Called off by us, because another one has won; but the client may leave in the same moment, and that goes before.
            if not self._is_cut or self._task.uncancel() > cancels_before:
                broken = error
        except BaseException as error:
            # Not in the handler itself: compiled code must not wait there (``native.hazards``).
            broken = error
        self._is_first_out = False
        first.end()
        self._stop_watching()
        if found is not None and type(found.result) is not Failed:
            self.winner = self.winner or first
            if not self._others:
                self._hedge = None  # It knows this race: a ring, as with an attempt.
                return found
        elif broken is None:
            try:
                found = await self._run_others() or self._refused or found
            except BaseException as error:
                found, broken = None, error
        self._hedge = None
        ended: Finish | None = None
        is_cancelled = False
        if self._others:
            ended, is_cancelled = await self._call_off()
        if isinstance(broken, asyncio.CancelledError) and self._stands(ended):
            found = ended
        if is_cancelled and not self._stands(found):
            raise asyncio.CancelledError
        if found is not None:
            return found
        try:
            raise broken or AssertionError("the first call was called off, and nobody has won")
        finally:
            broken = None  # It knows this frame.

    def _stands(self, end: Finish | None) -> bool:
        """Whether ``end`` is the request's although its task is cancelled.

        A stream has been told to its last byte: its client may leave with it before this task is on again, and is answered
        all the same. Another answer has still to be given, which is done at shutdown only.
        """
        if end is None:
            return False
        return isinstance(end.result, Relayed) or (self._first.is_drained and isinstance(end.result, Whole))

    async def _run_others(self) -> Finish | None:
        """The calls beside, until one has answered; None: all of them failed, or were none."""
        while self._others:
            await _first_end(self._others)
            for task in [task for task in self._others if task.done()]:
                attempt = self._others.pop(task)
                if attempt is not None and attempt is self.winner:
                    return task.result()
                # It has failed, or lost to another one beside the first, which goes on.
                _look_at(task)
        return None

    def is_first(self, attempt: Attempt) -> bool:
        """Whether ``attempt`` is the one that is made in the request's own task."""
        return attempt is self._first

    @property
    def providers(self) -> tuple[str, ...]:
        """Where calls are out."""
        return (self._first.provider, *(attempt.provider for attempt in self._others.values() if attempt is not None))

    def win(self, attempt: Attempt) -> None:
        """``attempt`` has its first content: from now on the answer is its alone. The others end without another step."""
        self.winner = attempt
        self._stop_watching()
        for task, other in self._others.items():
            if other is not attempt:
                _lose(other)
                task.cancel()
        if self._is_first_out and attempt is not self._first:
            self._is_cut = True
            _lose(self._first)
            self._task.cancel()

    def join(self, attempt: Attempt) -> None:
        """A call beside the first one has its permit; said by its own task."""
        task = asyncio.current_task()
        if task is not None:
            self._others[task] = attempt

    # -- the timer

    def expire(self) -> None:
        """The first call is overdue."""
        if self._hedge is not None and self._is_first_out and self.winner is None:
            self._launch(self._hedge, is_hedge=True)

    def abandon(self, fault: Fault) -> None:
        """The system stops: whoever is on the way ends by itself."""

    def _stop_watching(self) -> None:
        if self.deadline is not None:
            self.deadline = None
            self._deadlines.discard(self)

    def _look_again(self, after_s: float) -> None:
        if self._is_first_out and self.winner is None:
            self.deadline = self._clock.now() + after_s
            self._deadlines.add(self)

    # -- calls beside

    def _launch(self, beside: Beside, *, is_hedge: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._run_beside(beside, is_hedge))
        self._others[task] = None

    async def _run_beside(self, beside: Beside, is_hedge: bool) -> Finish | None:
        found = await beside()
        if found is not None and isinstance(found.result, Whole):
            if found.result.status >= 400:
                self._refused = found
            elif self.winner is None:
                self.win(found.attempt)
        if is_hedge:
            age_s = self._clock.now() - self._begun_at
            self._look_again(max(AGAIN_S_MIN, (AGAIN - 1.0) * age_s) if found is None else 0.0)
        return found

    async def _call_off(self) -> tuple[Finish | None, bool]:
        """End the calls beside that still run, and wait until they have, whoever wants the race to end meanwhile.

        Gives the end of the winner if it has one: at shutdown it tells its client. The others' are of no use any more. And
        whether the race was cancelled meanwhile.
        """
        was_cancelled = False
        won: Finish | None = None
        for task, attempt in self._others.items():
            if self.winner is not None and attempt is not self.winner:
                _lose(attempt)
            task.cancel()
        while left := [task for task in self._others if not task.done()]:
            try:
                await _first_end(left)
            except asyncio.CancelledError:
                was_cancelled = True
        for task, attempt in self._others.items():
            if attempt is not None and attempt is self.winner and not task.cancelled() and task.exception() is None:
                won = task.result()
            else:
                _look_at(task)
        self._others.clear()
        return won, was_cancelled


async def _first_end(tasks: Iterable[asyncio.Task[Finish | None]]) -> None:
    """Wait until one of ``tasks`` is over: what ``asyncio.wait`` does as well, but in ten times as much time."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(task: asyncio.Task[Finish | None]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    for task in tasks:
        task.add_done_callback(wake)
    try:
        await waiter
    finally:
        for task in tasks:
            task.remove_done_callback(wake)


def _look_at(task: asyncio.Task[Finish | None]) -> None:
    """A call beside is over, and its end of no use: whatever it fell over is our mistake, unless its client left."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ClientGone):
        log.error("a call beside the first one broke", exc_info=error)


def _lose(attempt: Attempt | None) -> None:
    if attempt is not None:
        attempt.cut_as = Outcome.LOST_HEDGE
