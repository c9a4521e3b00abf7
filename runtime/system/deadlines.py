"""One timer for all questions that wait: no timer per question."""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Expiring(Protocol):
    """Something that waits until ``deadline`` (monotonic s) at most."""

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds."""

    def expire(self) -> None:
        """The deadline has passed."""


class Deadlines:
    """The questions that wait, in order of asking, and one timer set for the earliest end among them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._loop = loop
        self._now = now
        self._waiting: dict[Expiring, None] = {}
        self._armed: asyncio.TimerHandle | None = None
        self._armed_for = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Expiring, deadline: float) -> None:
        """Watch ``item``."""
        self._waiting[item] = None
        if self._armed is None or deadline < self._armed_for:
            self._arm(deadline)

    def discard(self, item: Expiring) -> None:
        """Forget ``item``; the timer may stay set, it will find nothing to do."""
        self._waiting.pop(item, None)

    def close(self) -> None:
        """Call the timer off."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def _arm(self, deadline: float) -> None:
        if self._armed is not None:
            self._armed.cancel()
        self._armed_for = deadline
        self._armed = self._loop.call_later(max(0.0, deadline - self._now()), self._sweep)

    def _sweep(self) -> None:
        self._armed = None
        now = self._now()
        due = [item for item in self._waiting if item.deadline is not None and item.deadline <= now]
        for item in due:
            self._waiting.pop(item, None)
            item.expire()
        rest = [item.deadline for item in self._waiting if item.deadline is not None]
        if rest and self._armed is None:
            self._arm(min(rest))
