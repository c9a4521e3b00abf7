"""One timer for all questions that wait: no timer per question."""

import asyncio
import math
from collections.abc import Callable
from contextvars import Context
from typing import Protocol

from messages.envelope import Fault

LONGEST_WAIT_S = 86400.0
"""The timer is set for so long at most and then looks again: not every loop takes any number of seconds."""


class Expiring(Protocol):
    """Something that waits until ``deadline`` (monotonic s) at most; None: until it is answered."""

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds."""

    def expire(self) -> None:
        """The deadline has passed."""

    def abandon(self, fault: Fault) -> None:
        """The system stops."""


class Deadlines:
    """The questions that wait, in order of asking, and one timer set for the earliest end among them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float], context: Context) -> None:
        self._loop = loop
        self._now = now
        self._context = context
        self._waiting: dict[Expiring, None] = {}
        self._armed: asyncio.TimerHandle | None = None
        self._armed_for = math.inf

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Expiring) -> None:
        """Watch ``item`` until it is discarded or its deadline is here."""
        self._waiting[item] = None
        deadline = item.deadline
        if deadline is not None and deadline < self._armed_for:
            self._arm(deadline)

    def discard(self, item: Expiring) -> None:
        """Forget ``item``; the timer may stay set, it will find nothing to do."""
        if item in self._waiting:
            del self._waiting[item]

    def close(self, fault: Fault) -> None:
        """Call the timer off and let nobody wait any longer."""
        self._disarm()
        waiting, self._waiting = self._waiting, {}
        for item in waiting:
            item.abandon(fault)

    def _arm(self, deadline: float) -> None:
        self._disarm()
        self._armed_for = deadline
        wait_s = min(max(0.0, deadline - self._now()), LONGEST_WAIT_S)
        self._armed = self._loop.call_later(wait_s, self._sweep, context=self._context)

    def _disarm(self) -> None:
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        self._armed_for = math.inf

    def _sweep(self) -> None:
        """End all whose time is over, then set the timer for the next. One pass over who waits, in order of asking."""
        self._disarm()
        now = self._now()
        due: list[Expiring] = []
        next_deadline = math.inf
        for item in self._waiting:
            deadline = item.deadline
            if deadline is None:
                continue
            if deadline <= now:
                due.append(item)
            elif deadline < next_deadline:
                next_deadline = deadline
        for item in due:
            self._waiting.pop(item, None)
            item.expire()
        if next_deadline < self._armed_for:
            self._arm(next_deadline)
