"""What an actor is and what it may ask of its runtime.

An actor is a plain class. ``handle(message, context)`` is synchronous and makes every change of the actor's state; what
the actor wants done it says through ``Context``. The runtime carries that out when the handler has returned, or drops all
of it if the handler raised. So the same class runs in a test without an event loop, under virtual time, from a recording,
and in the daemon.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Generic, NewType, Protocol, TypeVar

from messages.base import Message

M_contra = TypeVar("M_contra", contravariant=True)
M = TypeVar("M")

TimerId = NewType("TimerId", int)


class Ref(Generic[M_contra]):
    """The address of an actor (or of a port of the runtime) that takes messages of type ``M_contra``.

    A name: it stays good over restarts. Hand out the narrowest type that serves.
    """

    __slots__ = ("found", "name")

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.found: object = None
        """Whom the runtime found by that name, so that it need not look again. Of no use to anybody else."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Ref({self.name})"


class Refs(Generic[M_contra]):
    """Addresses that are asked together again and again, each once: who asks them need not put their names together anew."""

    __slots__ = ("names", "refs")

    def __init__(self, refs: Iterable[Ref[M_contra]], are_distinct: bool = False) -> None:
        self.refs: Final = tuple(refs if are_distinct else dict.fromkeys(refs))
        self.names: Final = [ref.name for ref in self.refs]
        """To be looked at, not changed."""


class ReplySlot(Protocol):
    """A question put aside, to be answered in a later turn. The runtime answers it if the actor never can."""

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds after which nobody wants the answer."""


class Context(Protocol):
    """What an actor may say during ``handle``. All of it takes effect when the handler returns, nothing if it raises.

    What implements this or ``Actor`` need not inherit from it; compiled, calls of what does cost a fifth.
    """

    __slots__ = ()

    rng: Random
    """The actor's own source of chance, seeded by its name."""

    def tell(self, to: Ref[M], message: M) -> None:
        """Send ``message``; no answer comes."""

    def reply(self, message: Message) -> None:
        """Answer the message being handled. Once at most; raises ``RuntimeError`` if it was no question."""

    def defer(self) -> ReplySlot:
        """Put the question being handled aside, to ``answer`` it in a later turn."""

    def answer(self, slot: ReplySlot, message: Message) -> None:
        """Answer a question that was put aside. A second answer is counted and dropped."""

    def gather(
        self,
        to: Sequence[Ref[M]] | Refs[M],
        message: M,
        key: str,
        on_behalf: ReplySlot | None = None,
        within_s: float | None = None,
    ) -> None:
        """Put one question to all of ``to``; their answers arrive together, in that order, as ``Gathered(key, answers)``.

        Whoever cannot answer, or has not within ``within_s`` seconds, is answered for by the runtime, so the mail always
        comes. If handling it fails, the slot ``on_behalf`` of which the question was asked is answered by the runtime too.
        """

    def after(self, delay_s: float, message: Message) -> TimerId:
        """Send ``message`` to this very incarnation after ``delay_s`` seconds, as ordinary mail."""

    def cancel(self, timer: TimerId) -> None:
        """Call off a timer; one that has fired or is unknown is ignored."""

    def now(self) -> float:
        """Monotonic seconds: one time for the whole turn."""

    def wall(self) -> float:
        """Unix seconds, UTC."""


class Actor(Protocol):
    """What the runtime runs."""

    def start(self, context: Context) -> None:
        """First turn of an incarnation: set timers, say hello. Before any mail."""

    def handle(self, message: Any, context: Context) -> None:
        """Take one message."""

    def invariant(self) -> str | None:
        """None while the actor's state holds together, else what is broken. Asked after a handler raised."""


class Resident(Actor):
    """An actor by its class, as those are that every request passes.

    Compiled, a call of what may be of any class takes 60 instructions more.
    """

    def handle(self, message: Any, context: Context) -> None:
        """Take one message."""


@dataclass(frozen=True, slots=True)
class SupervisionSpec:
    """How the runtime treats an actor that fails. Times in seconds."""

    limit: int | None = 5
    """Restarts allowed within ``period_s``; None: for ever."""
    period_s: float = 30.0
    backoff_s: float = 0.0
    """Wait before a restart; doubles with each one within the period."""
    backoff_max_s: float = 30.0
    fatal: bool = True
    """Beyond the limit: True ends the daemon, False puts the actor out of service."""
    out_for_s: float = 300.0
    """How long an actor that is out stays so before it is tried again."""


ActorFactory = Callable[[Actor | None], Actor]
"""Makes an incarnation. It is given the one before, or None: a successor may carry over what makes it more cautious."""
