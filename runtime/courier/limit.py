"""A limit on the time of one attempt, on the system's one timer instead of one of its own.

Always: as ``asyncio.timeout`` a limit that is over cancels the task inside it, and turns just that cancellation into
``TimeoutError``; somebody else's goes on as it is.
"""

import asyncio
from math import inf
from types import TracebackType
from typing import Any

from messages.envelope import Fault
from runtime.system.deadlines import Deadlines, Expiring
from runtime.timely import STALL_UNSEEN_S


class Limit(Expiring):
    """``with`` it, in a task: the block may take until ``deadline`` (monotonic s of the system's clock).

    Time in which the daemon itself stood still does not count, but ``until`` then it is over in any case. ``task`` is the one
    the block runs in, for whoever knows it: to find it out takes longer than all the rest.
    """

    __slots__ = ("_cancels_before", "_deadlines", "_stalled_s", "_task", "_until", "is_over")

    def __init__(
        self, deadlines: Deadlines, deadline: float, task: asyncio.Task[Any] | None = None, until: float = -inf
    ) -> None:
        super().__init__(deadline)
        self._deadlines = deadlines
        self._cancels_before = 0
        self._stalled_s = deadlines.stalled_s
        self._task = task
        self._until = until
        self.is_over = False

    def __enter__(self) -> "Limit":
        task = self._task = self._task or asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task to limit")
        self._cancels_before = task.cancelling()
        self._deadlines.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._deadlines.discard(self)
        task, self._task = self._task, None
        if not self.is_over or task is None:
            return
        if task.uncancel() <= self._cancels_before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def began(self, stalled_s: float) -> None:
        """It began when ``Deadlines.stalled_s`` was so much: before its block did."""
        self._stalled_s = stalled_s

    def move(self, deadline: float) -> None:
        """Let the block take until ``deadline`` instead, unless its time is over."""
        if self._task is not None and not self.is_over:
            self.deadline = deadline
            self._stalled_s = self._deadlines.stalled_s
            self._deadlines.add(self)

    def expire(self) -> None:
        """The deadline is here."""
        if self._task is not None and not self._begins_again():
            self.is_over = True
            self._task.cancel()

    def _begins_again(self) -> bool:
        """Whether there was a stall meanwhile, for which the block gets more time."""
        stalled_s = self._deadlines.stalled_s - self._stalled_s
        if stalled_s <= 0.0:
            return False
        self._stalled_s += stalled_s
        now = self._deadlines.now()
        self.deadline = min(now + stalled_s + STALL_UNSEEN_S, self._until)
        if self.deadline <= now:
            return False
        self._deadlines.add(self)
        return True

    def abandon(self, fault: Fault) -> None:
        """The system stops: whoever is on the way ends by itself."""
