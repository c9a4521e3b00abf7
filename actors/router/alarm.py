"""The router's one timer."""

from math import inf

from actors.kernel import Context, TimerId
from messages.control import Timer


class Alarm:
    """Fires ``Timer`` at the earliest of the times it was set for. Times in monotonic seconds."""

    __slots__ = ("_due", "_timer")

    def __init__(self) -> None:
        self._timer: TimerId | None = None
        self._due = inf

    def set(self, at: float, now: float, context: Context) -> None:
        """See to it that it fires no later than ``at``. Costs a comparison where it would anyway."""
        if at < self._due:
            if self._timer is not None:
                context.cancel(self._timer)
            self._timer = context.after(max(0.0, at - now), Timer("wake"))
            self._due = at

    def has_fired(self) -> None:
        """It is to be set anew."""
        self._timer, self._due = None, inf
