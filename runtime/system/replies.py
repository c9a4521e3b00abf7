"""Where answers go. Every question gets exactly one; what comes after that is counted and dropped.

Three places take answers: an ``Ask`` (somebody outside waits), a ``Collector`` (one for a whole fan-out) and a ``Slot`` (a
question an actor has put aside, which passes its one answer on to whichever of the other two asked it).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from messages.base import Message, acyclic
from messages.envelope import Envelope, Fault, ReplyPort, TraceContext, Undelivered
from messages.routing import Gathered

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
class Ask:
    """A question from outside, and who is to see its answer first.

    ``follower`` must be let go by its owner, or let this go: the collector does not see the ring they make.
    """

    __slots__ = ("_answer", "_counters", "_error", "_future", "_hearer", "deadline", "follower", "is_open")

    def __init__(self, counters: Counters, deadline: float | None, hearer: Hearer | None) -> None:
        self.deadline: float | None = deadline
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
class Collector:
    """Takes one answer from each of a fan-out's addressees, then hands them all on together.

    ``names`` are the addressees, each once. They answer in the order in which they were asked, but for who has other mail to
    read first: so a place in a line of them tells who is missing. Who answers out of turn is brought forward in it.
    """

    __slots__ = (
        *("_answers", "_dispatcher", "_key", "_line", "_place"),
        *("asker", "deadline", "incarnation", "is_watched", "names", "on_behalf", "question", "trace"),
    )

    def __init__(
        self,
        asker: "Cell",
        names: list[str],
        question: Message,
        key: str,
        dispatcher: "Dispatcher",
        on_behalf: "Slot | None",
        deadline: float | None,
    ) -> None:
        self.asker = asker
        self.incarnation = asker.incarnation
        self.trace: TraceContext | None = asker.trace
        self.names = names
        self.question = question
        self.on_behalf = on_behalf
        self.deadline: float | None = deadline
        self.is_watched = False
        """It is under its deadline: a drain has ended without all its answers."""
        self._key = key
        self._dispatcher = dispatcher
        self._answers: list[Any] = []
        self._line = names
        """Who has answered, then who has not, in the order of asking."""
        self._place = 0
        """Of the first who has not."""

    @property
    def is_open(self) -> bool:
        """Somebody has not answered yet."""
        return self._place < len(self.names)

    def answer(self, actor: str, reply: Any) -> None:
        """Keep ``actor``'s answer; the last one completes the round."""
        line, place = self._line, self._place
        if place >= len(line) or (line[place] != actor and not self._is_brought_forward(actor)):
            self._dispatcher.counters.late_replies += 1
            return
        self._answers.append(reply)
        self._place = place = place + 1
        if place == len(line):
            self._dispatcher.complete(self)

    def _is_brought_forward(self, actor: str) -> bool:
        """Let ``actor`` be the next in line; False: it has answered already."""
        line, place = self._line, self._place
        at = place + 1
        # Mostly the very name, which is seen at a glance.
        while at < len(line) and line[at] is not actor:
            at += 1
        if at >= len(line):
            at = place + 1
            while at < len(line) and line[at] != actor:
                at += 1
            if at >= len(line):
                return False
        if line is self.names:
            # Which belongs to whoever asks.
            line = self._line = line.copy()
        line.insert(place, line.pop(at))
        return True

    def expire(self) -> None:
        """Answer for all that have not."""
        for actor in self._line[self._place :]:
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
