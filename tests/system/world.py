"""A world for the laws of the actor system: virtual time, small words, and actors that do as they are told."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from actors.kernel import Context, Ref, ReplySlot
from messages.base import Message
from messages.calls import Award, CallEnded, Outcome
from messages.envelope import Envelope, TraceContext
from messages.routing import CallForBids, RequestProfile, RouteQuery
from runtime.system.clock import loop_clock
from runtime.system.system import ActorSystem
from runtime.system.virtual_loop import VirtualLoop

T = TypeVar("T")

TRACE = TraceContext("a" * 32, "b" * 16)


# Not made with ``@message``: these words are of the tests alone and must not enter the table of tags.
@dataclass(frozen=True, slots=True)
class Note(Message):
    """Something told or asked; ``text`` picks what the actor does with it."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer(Message):
    """What an actor answers a ``Note``."""

    actor: str
    text: str


@dataclass(frozen=True, slots=True)
class Look(Message):
    """A question that changes no state."""

    PURE: ClassVar[bool] = True

    text: str


def run(body: Callable[[ActorSystem], Coroutine[Any, Any, T]], **options: Any) -> T:
    """Run ``body`` with an actor system of its own under virtual time; whatever it leaves running is stopped.

    An exception that no code awaits (in a timer, in the dispatcher) fails the test.
    """
    escaped: list[dict[str, Any]] = []

    async def world() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, report: escaped.append(report))
        system = ActorSystem(clock=loop_clock(loop), **options)
        try:
            return await body(system)
        finally:
            await system.stop()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(world())
    assert escaped == []
    return result


async def settle() -> None:
    """Let all mail that is under way be handled; no time passes."""
    for _ in range(50):
        await asyncio.sleep(0)


Handler = Callable[["Puppet", Any, Context], None]


@dataclass
class Puppet:
    """An actor that keeps what it reads and lets a function of the test handle it.

    One object stands for all incarnations unless the test makes a new one; ``starts`` counts them.
    """

    handler: Handler | None = None
    on_start: Callable[["Puppet", Context], None] | None = None
    broken: str | None = None
    read: list[Any] = field(default_factory=list)
    starts: int = 0
    slots: list[ReplySlot] = field(default_factory=list)

    def start(self, context: Context) -> None:
        self.starts += 1
        if self.on_start is not None:
            self.on_start(self, context)

    def handle(self, message: Any, context: Context) -> None:
        self.read.append(message)
        if self.handler is not None:
            self.handler(self, message, context)

    def invariant(self) -> str | None:
        return self.broken

    def texts(self) -> list[str]:
        """What it read, in order, where that was a ``Note`` or ``Look``."""
        return [message.text for message in self.read if isinstance(message, Note | Look)]


def always(puppet: Puppet) -> Callable[[Any], Puppet]:
    """A factory whose every incarnation is ``puppet``."""
    return lambda _: puppet


def echo(puppet: Puppet, message: Any, context: Context) -> None:
    """Answer a note with its own text."""
    context.reply(Answer("echo", message.text))


def put_aside(puppet: Puppet, message: Any, context: Context) -> None:
    """Keep questions for later; ``answer`` answers all that wait."""
    if isinstance(message, Note) and message.text == "answer":
        for slot in puppet.slots:
            context.answer(slot, Answer("late", "now"))
        puppet.slots.clear()
    else:
        puppet.slots.append(context.defer())


def crash(puppet: Puppet, message: Any, context: Context) -> None:
    """Raise on everything."""
    raise ZeroDivisionError("told to")


def never(puppet: Puppet, message: Any, context: Context) -> None:
    """Handle it and say nothing."""


@dataclass
class Mouth:
    """A port that keeps what it is told."""

    envelopes: list[Envelope] = field(default_factory=list)

    def __call__(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)

    def texts(self) -> list[str]:
        return [envelope.message.text for envelope in self.envelopes]


def refs(*names: str) -> list[Ref[Any]]:
    return [Ref(name) for name in names]


PROFILE = RequestProfile("gpt-4o")


def query(query_id: str = "q") -> RouteQuery:
    return RouteQuery(query_id, PROFILE, 1e9, 0.0)


def bids_wanted(query_id: str = "q") -> CallForBids:
    return CallForBids(query_id, PROFILE, "gpt-4o")


def award(permit_id: str = "p") -> Award:
    return Award(permit_id, "q", "gpt-4o", 100, False)


def ended(permit_id: str = "p") -> CallEnded:
    return CallEnded(permit_id, "q", "a", "gpt-4o", Outcome.SUCCESS, False, 1.0)
