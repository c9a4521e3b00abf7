"""A mailbox: mail in the order in which it came.

Mostly there is one envelope in it or none. That one is kept apart, where compiled code finds it at once; a ``deque`` has those
behind it.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from messages.envelope import Envelope


class Mailbox:
    """A first-in-first-out line of envelopes."""

    __slots__ = ("_behind", "_first", "_size")

    def __init__(self, mail: Iterable[Envelope] = ()) -> None:
        self._first: Envelope | None = None
        self._behind: deque[Envelope] = deque()
        """Empty while ``_first`` is None."""
        self._size = 0
        self.put_all(mail)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Envelope]:
        return iter([] if self._first is None else [self._first, *self._behind])

    def append(self, envelope: Envelope) -> None:
        """Put it behind all others."""
        self._size += 1
        if self._first is None:
            self._first = envelope
        else:
            self._behind.append(envelope)

    def put_all(self, mail: Iterable[Envelope]) -> None:
        """Let ``mail``, in its order, be all there is."""
        line = deque(mail)
        self._size = len(line)
        self._first = line.popleft() if line else None
        self._behind = line

    def popleft(self) -> Envelope:
        """Take the first. Raises ``LookupError`` if there is none."""
        first = self._first
        if first is None:
            raise LookupError("there is no mail")
        self._size -= 1
        self._first = self._behind.popleft() if self._size else None
        return first
