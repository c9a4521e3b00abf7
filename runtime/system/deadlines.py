"""One timer for all that wait: no timer per question.

It rings four times a second at least while anything waits, and by how late it rings it knows for how long the daemon itself
stood still. Then time is over only for those that still wait when what came meanwhile has been read, and of whoever was waited
for that time says nothing (``stalled_s``).
"""

import asyncio
import math
from collections.abc import Callable
from contextvars import Context

from messages.base import acyclic
from messages.envelope import Fault
from runtime.timely import AFTER_STALL_S, STALL_S, STALL_UNSEEN_S

_STALL_S = STALL_S
"""Asked for twice a request, which costs less of a constant of this module."""
LOOK_S = STALL_UNSEEN_S / 4
"""The timer is set for so long at most and then looks again: what of a stall lies before its time is not seen."""


CLOSE_RANKS_AT = 256
"""So many places of those that wait no longer, and as many again as there wait, are kept before the others close ranks."""
NOWHERE = -1


@acyclic
class Expiring:
    """Something that may wait until ``deadline`` (monotonic s) at most; None: until it is answered."""

    __slots__ = ("deadline", "place")

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.place = NOWHERE
        """Where it stands among those that wait. ``Deadlines`` writes it, and nobody else."""

    def expire(self) -> None:
        """The deadline has passed."""

    def abandon(self, fault: Fault) -> None:
        """The system stops."""


class Deadlines:
    """The questions that wait, in order of asking, and one timer set for the earliest end among them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float], context: Context) -> None:
        self._loop = loop
        self.now = now
        self._context = context
        # With a place for each, so that one can go wherever it stands without a table.
        self._waiting: list[Expiring | None] = []
        self._count = 0
        self._armed: asyncio.TimerHandle | None = None
        self._armed_for = math.inf
        self._rings_at = math.inf
        self.stalled_s = 0.0
        """For so many seconds in all the loop has stood still while anything waited, so far as stalls were seen."""

    def __len__(self) -> int:
        return self._count

    def add(self, item: Expiring) -> None:
        """Watch ``item`` until it is discarded or its deadline is here."""
        if item.place < 0:
            if len(self._waiting) > 2 * self._count + CLOSE_RANKS_AT:
                self._close_ranks()
            item.place = len(self._waiting)
            self._waiting.append(item)
            self._count += 1
        deadline = item.deadline
        if deadline is not None and deadline < self._armed_for:
            self._arm(deadline)

    def discard(self, item: Expiring) -> None:
        """Forget ``item``; the timer may stay set, it will find nothing to do."""
        place = item.place
        if place >= 0:
            item.place = NOWHERE
            self._waiting[place] = None
            self._count -= 1

    def close(self, fault: Fault) -> None:
        """Call the timer off and let nobody wait any longer."""
        self._disarm()
        waiting = [item for item in self._waiting if item is not None]
        for item in waiting:
            self.discard(item)
        self._waiting.clear()
        for item in waiting:
            item.abandon(fault)

    def stalled_until(self, at: float) -> float:
        """``stalled_s`` as of ``at``, which is now: also if the timer that will tell is only about to ring."""
        late_s = at - self._rings_at
        return self.stalled_s + late_s if late_s >= _STALL_S else self.stalled_s

    def _arm(self, deadline: float) -> None:
        self._disarm()
        self._armed_for = deadline
        now = self.now()
        wait_s = min(max(0.0, deadline - now), LOOK_S)
        self._rings_at = now + wait_s
        self._armed = self._loop.call_later(wait_s, self._ring, context=self._context)

    def _disarm(self) -> None:
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        self._armed_for = self._rings_at = math.inf

    def _ring(self) -> None:
        now = self.now()
        late_s = now - self._rings_at
        self._disarm()
        if late_s < _STALL_S:
            self._sweep()
        else:
            self.stalled_s += late_s
            self._arm(now + AFTER_STALL_S)

    def _sweep(self) -> None:
        """End all whose time is over, then set the timer for the next. One pass over who waits, in order of asking."""
        now = self.now()
        due: list[Expiring] = []
        next_deadline = math.inf
        for item in self._waiting:
            deadline = None if item is None else item.deadline
            if item is None or deadline is None:
                continue
            if deadline <= now:
                due.append(item)
            elif deadline < next_deadline:
                next_deadline = deadline
        for item in due:
            self.discard(item)
            item.expire()
        if next_deadline < self._armed_for:
            self._arm(next_deadline)

    def _close_ranks(self) -> None:
        waiting: list[Expiring | None] = []
        for item in self._waiting:
            if item is not None:
                item.place = len(waiting)
                waiting.append(item)
        self._waiting = waiting
