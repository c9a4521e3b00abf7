"""The router's one timer."""

from math import inf

from actors.kernel import Context, TimerId
from messages.control import Timer


class Alarm:
    """Fires ``Timer`` at the earliest of the times it was set for. Times in monotonic seconds."""

    __slots__ = ("_timer", "due", "is_half_way")

    def __init__(self) -> None:
        self._timer: TimerId | None = None
        self.due = inf
        """When it fires; infinity: never."""
        self.is_half_way = False
        """It was set or has fired in the turn in progress. If that turn raises, its timer was dropped with it and nothing
        would ever wake the router: whoever ends the turn must clear this, and the invariant asks."""

    def set(self, at: float, now: float, context: Context) -> None:
        """See to it that it fires no later than ``at``. Costs two comparisons where it would anyway."""
        # One that is overdue was lost.
        if at < self.due or self.due < now:
            if self._timer is not None:
                context.cancel(self._timer)
            self._timer = context.after(max(0.0, at - now), Timer("wake"))
            self.due = at
            self.is_half_way = True

    def has_fired(self) -> None:
        """It is to be set anew."""
        self._timer, self.due = None, inf
        self.is_half_way = True
