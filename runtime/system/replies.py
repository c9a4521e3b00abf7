"""Where answers go. Every question gets exactly one; what comes after that is counted and dropped.

Three places take answers: an ``Ask`` (somebody outside waits), a ``Collector`` (one for a whole fan-out) and a ``Slot`` (a
question an actor has put aside, which passes its one answer on to whichever of the other two asked it).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from actors.kernel import Refs
from messages.base import Message, acyclic
from messages.envelope import Envelope, Fault, ReplyPort, TraceContext, Undelivered
from messages.routing import Gathered
from runtime.system.deadlines import Expiring

if TYPE_CHECKING:
    from runtime.system.cell import Cell
    from runtime.system.dispatcher import Dispatcher

log = logging.getLogger("pointsman.system")


class AskError(Exception):
    """No answer to a question from outside."""


class DeadlineExceeded(AskError):
    """The answer did not come in time."""


class Overloaded(AskError):
    """The mailbox is at its bound and the question was shed."""


class ActorGone(AskError):
    """The actor crashed on the question, is restarting, out, stopped, or does not exist; ``fault`` tells."""

    def __init__(self, actor: str, fault: str) -> None:
        super().__init__(f"{actor}: {fault}")
        self.fault = fault


@dataclass(slots=True)
class Counters:
    """What went another way than planned, since start."""

    handled: int = 0
    crashes: int = 0
    restarts: int = 0
    shed: int = 0
    late_replies: int = 0
    dead_letters: int = 0
    """Told to nobody: no actor of that name, or it stopped before it read the message."""
    swallowed: int = 0
    """Told to an actor that is out, or that stays away longer than its mailbox lasts."""
    expired: int = 0


def unanswered(question: Message, actor: str, fault: Fault) -> Message:
    """What the runtime answers in ``actor``'s place. A message that cannot tell is answered ``Undelivered``."""
    try:
        return question.unanswered(actor, fault)
    except Exception as error:
        log.error("%s.unanswered raised", type(question).__name__, exc_info=error)
        return Undelivered(actor, fault)


class Hearer(Protocol):
    """Who sees the answer to a question in the turn that gives it, before whoever waits for it does."""

    __slots__ = ()

    def heard(self, answer: Any) -> None:
        """The answer is here."""


class Heard(Hearer):
    """Lets a function see it."""

    __slots__ = ("_on_answer",)

    def __init__(self, on_answer: Callable[[Any], None]) -> None:
        self._on_answer = on_answer

    def heard(self, answer: Any) -> None:
        """The answer is here."""
        self._on_answer(answer)


class Follower(Protocol):
    """Who does not wait for the end of a question, but is told if it is none that its ``Hearer`` has seen."""

    __slots__ = ()

    def unanswered(self) -> None:
        """A question has ended without an answer; its ``outcome`` tells why."""


@acyclic
class Ask(Expiring):
    """A question from outside, and who is to see its answer first.

    ``follower`` must be let go by its owner, or let this go: the collector does not see the ring they make.
    """

    __slots__ = ("_answer", "_counters", "_error", "_future", "_hearer", "follower", "is_open")

    def __init__(self, counters: Counters, deadline: float | None, hearer: Hearer | None) -> None:
        super().__init__(deadline)
        self.is_open = True
        self._counters = counters
        self._hearer = hearer
        self._answer: Any = None
        self._error: Exception | None = None
        self._future: asyncio.Future[None] | None = None
        self.follower: Follower | None = None

    def answer(self, actor: str, reply: Any) -> None:
        """Take the one answer and wake whoever waits; if nobody does any more it is late."""
        if not self.is_open:
            self._counters.late_replies += 1
            return
        if type(reply) is Undelivered:
            self._end(None, _error(actor, reply.fault))
            return
        if self._hearer is not None:
            try:
                self._hearer.heard(reply)
            except Exception as error:
                # The mistake is the asker's, so it is raised there and not in the turn of the actor that answers.
                self._end(None, error)
                return
        if self._future is not None:
            self._end(reply, None)
            return
        # What ``_end`` does where nobody waits yet, without the call.
        self.is_open = False
        self._answer = reply

    def expire(self) -> None:
        """The deadline is here."""
        if self.is_open:
            self._end(None, DeadlineExceeded("no answer before the deadline"))

    def abandon(self, fault: Fault) -> None:
        """The system stops and whoever should answer never did."""
        if self.is_open:
            self._end(None, ActorGone("nobody", fault))

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Return when there is an answer or an end without one."""
        if self.is_open:
            self._future = loop.create_future()
            await self._future

    def outcome(self) -> Any:
        """The answer. Raises what stands in its place."""
        if self._error is not None:
            raise self._error
        return self._answer

    def _end(self, answer: Any, error: Exception | None) -> None:
        self.is_open = False
        self._answer = answer
        self._error = error
        if self._future is not None:
            if not self._future.done():
                self._future.set_result(None)
        elif error is not None and self.follower is not None:
            self.follower.unanswered()


def _error(actor: str, fault: str) -> AskError:
    if fault == Fault.OVERLOADED:
        return Overloaded(f"{actor} has no room for another question")
    if fault == Fault.EXPIRED:
        return DeadlineExceeded(f"{actor} reached the question after its deadline")
    return ActorGone(actor, fault)


@acyclic
class Collector(Expiring):
    """Takes one answer from each of a fan-out's addressees, then hands them all on together.

    ``asked`` are the addressees; what is handed on is in their order, whoever answers first.
    """

    __slots__ = (
        *("_answers", "_dispatcher", "_key", "_missing", "_names", "_next"),
        *("asker", "incarnation", "is_watched", "on_behalf", "question", "refs", "trace"),
    )

    def __init__(
        self,
        asker: "Cell",
        asked: Refs[Any],
        question: Message,
        key: str,
        dispatcher: "Dispatcher",
        on_behalf: "Slot | None",
        deadline: float | None,
    ) -> None:
        super().__init__(deadline)
        self.asker = asker
        self.incarnation = asker.incarnation
        self.trace: TraceContext | None = asker.trace
        self.refs = asked.refs
        self.question = question
        self.on_behalf = on_behalf
        self.is_watched = False
        """It is under its deadline: a drain has ended without all its answers."""
        self._key = key
        self._dispatcher = dispatcher
        self._names = names = asked.names
        # Not None so many times: compiled, that would make a list of one first.
        self._answers: list[Any] = [None for _ in names]
        """By the places of ``names``; None: not here yet."""
        self._missing = len(names)
        self._next = 0
        """The place behind the last answer: who stands there mostly answers next."""

    @property
    def is_open(self) -> bool:
        """Somebody has not answered yet."""
        return self._missing > 0

    def answer(self, actor: str, reply: Any) -> None:
        """Keep ``actor``'s answer; the last one completes the round."""
        place, names, answers = self._next, self._names, self._answers
        # Mostly the very name, which is seen at a glance.
        if names[place] is not actor:
            place = self._place_of(actor, place)
        if place < 0 or answers[place] is not None:
            self._dispatcher.counters.late_replies += 1
            return
        answers[place] = reply
        place += 1
        self._next = place if place < len(names) else 0
        self._missing -= 1
        if not self._missing:
            self._dispatcher.complete(self)

    def _place_of(self, actor: str, place: int) -> int:
        """Where ``actor`` stands, mostly not far behind ``place``; -1: it was not asked."""
        names = self._names
        for later in range(place + 1, len(names)):
            if names[later] is actor:
                return later
        for earlier in range(place):
            if names[earlier] is actor:
                return earlier
        return names.index(actor) if actor in names else -1

    def expire(self) -> None:
        """Answer for all that have not."""
        for actor, reply in zip(self._names, self._answers.copy(), strict=True):
            if reply is None:
                self.answer(actor, unanswered(self.question, actor, Fault.EXPIRED))

    def abandon(self, fault: Fault) -> None:
        """The system stops: nobody is left to read what was gathered."""

    def gathered(self) -> Gathered:
        """The mail that goes to the actor that asked."""
        return Gathered(self._key, tuple(self._answers))


def give(to: ReplyPort, actor: str, reply: Any) -> None:
    """Let ``to`` take ``actor``'s answer. Compiled, a call of what is known costs a third: so it is told who it mostly is."""
    if isinstance(to, Collector):
        to.answer(actor, reply)
        return
    if isinstance(to, Ask):
        to.answer(actor, reply)
        return
    to.answer(actor, reply)


@acyclic
class Slot:
    """A question an actor has put aside. Open from the end of the turn that put it aside until its answer.

    While it is open it stands in its actor's line of them, between the one put aside ``before`` it and the one ``behind``.
    """

    __slots__ = ("before", "behind", "deadline", "is_open", "question", "reply_to")

    def __init__(self, envelope: Envelope, reply_to: ReplyPort) -> None:
        self.question: Message = envelope.message
        self.deadline = envelope.deadline
        self.reply_to = reply_to
        self.is_open = False
        self.before: Slot | None = None
        self.behind: Slot | None = None


@acyclic
@dataclass(slots=True)
class GatheredEnvelope(Envelope):
    """Carries ``Gathered``; ``incarnation`` is the one that asked, ``on_behalf`` the slot of which it asked."""

    incarnation: int = 0
    on_behalf: Slot | None = None


@acyclic
@dataclass(slots=True)
class FirstMail(Envelope):
    """Carries what an actor reads before all waiting mail, after a restart or a message on which it raised."""


@acyclic
@dataclass(slots=True)
class TimerEnvelope(Envelope):
    """Carries a timer's message to the incarnation that set it, and to no other."""

    incarnation: int = 0


def is_left_behind(envelope: Envelope, incarnation: int) -> bool:
    """Whether it is mail for another incarnation than the one that is there, which is gone."""
    if isinstance(envelope, GatheredEnvelope):
        return envelope.incarnation != incarnation
    return isinstance(envelope, TimerEnvelope) and envelope.incarnation != incarnation
