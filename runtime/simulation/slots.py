"""Places at a provider: so many calls at once, the rest in line, first come first served. No loop, no futures.

Always: a freed place goes to whoever waits longest, in the same instant; nobody overtakes; a ticket is given back once.
"""

from collections.abc import Callable


class Ticket:
    """A place, or a place in the line for one."""

    __slots__ = ("is_served", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.is_served = False


class Slots:
    """``capacity`` places and the line in front of them."""

    __slots__ = ("_served", "_waiting", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Dicts for their order: a ticket anywhere in the line leaves it in O(1).
        self._served: dict[Ticket, None] = {}
        self._waiting: dict[Ticket, None] = {}

    @property
    def served(self) -> int:
        """Calls that have a place."""
        return len(self._served)

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return len(self._waiting)

    def enter(self, wake: Callable[[], None]) -> Ticket:
        """Take a place if there is one (``is_served``), else stand in line; ``wake`` is called when the turn comes."""
        ticket = Ticket(wake)
        if len(self._served) < self.capacity:
            self._serve(ticket)
        else:
            self._waiting[ticket] = None
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give up a place or the wait for one. A second time is ignored."""
        if ticket in self._waiting:
            del self._waiting[ticket]
        elif ticket in self._served:
            del self._served[ticket]
            if self._waiting:
                following = next(iter(self._waiting))
                del self._waiting[following]
                self._serve(following)
                following.wake()

    def _serve(self, ticket: Ticket) -> None:
        ticket.is_served = True
        self._served[ticket] = None
