"""Where answers go. Every question gets exactly one; what comes after that is counted and dropped.

Three places take answers: an ``Ask`` (somebody outside waits), a ``Collector`` (one for a whole fan-out) and a ``Slot`` (a
question an actor has put aside, which passes its one answer on to whichever of the other two asked it).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from messages.base import Message
from messages.envelope import Envelope, Fault, ReplyPort, TraceContext, Undelivered
from messages.routing import Gathered


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
    expired: int = 0


class Ask:
    """A question from outside. ``on_answer`` sees the answer in the turn that gave it, before whoever waits does."""

    __slots__ = ("counters", "deadline", "future", "on_answer")

    def __init__(
        self,
        future: "asyncio.Future[Any]",
        counters: Counters,
        deadline: float | None,
        on_answer: Callable[[Any], None] | None,
    ) -> None:
        self.future = future
        self.counters = counters
        self.deadline = deadline
        self.on_answer = on_answer

    def answer(self, actor: str, reply: Any) -> None:
        """Wake whoever waits; if nobody does any more the answer is late."""
        future = self.future
        if future.done():
            self.counters.late_replies += 1
            return
        if type(reply) is Undelivered:
            future.set_exception(_error(actor, reply.fault))
            return
        if self.on_answer is not None:
            self.on_answer(reply)
        future.set_result(reply)

    def expire(self) -> None:
        """The deadline is here."""
        if not self.future.done():
            self.future.set_exception(DeadlineExceeded("no answer before the deadline"))


def _error(actor: str, fault: str) -> AskError:
    if fault == Fault.OVERLOADED:
        return Overloaded(f"{actor} has no room for another question")
    if fault == Fault.EXPIRED:
        return DeadlineExceeded(f"{actor} reached the question after its deadline")
    return ActorGone(actor, fault)


class Collector:
    """Takes one answer from each of a fan-out's addressees, then hands them all on together."""

    __slots__ = ("answers", "counters", "deadline", "key", "missing", "on_behalf", "on_complete", "question", "trace")

    def __init__(
        self,
        names: list[str],
        question: Message,
        key: str,
        counters: Counters,
        on_complete: "Callable[[Collector], None]",
        on_behalf: "Slot | None",
        trace: TraceContext | None,
        deadline: float | None,
    ) -> None:
        self.missing = dict.fromkeys(names)
        self.question = question
        self.key = key
        self.counters = counters
        self.on_complete = on_complete
        self.on_behalf = on_behalf
        self.trace = trace
        self.deadline = deadline
        self.answers: list[Any] = []

    def answer(self, actor: str, reply: Any) -> None:
        """Keep ``actor``'s answer; the last one completes the round."""
        missing = self.missing
        if actor not in missing:
            self.counters.late_replies += 1
            return
        del missing[actor]
        self.answers.append(reply)
        if not missing:
            self.on_complete(self)

    def expire(self) -> None:
        """Answer for all that have not."""
        for actor in list(self.missing):
            self.answer(actor, self.question.unanswered(actor, Fault.EXPIRED))

    def gathered(self) -> Gathered:
        """The mail that goes to the actor that asked."""
        return Gathered(self.key, tuple(self.answers))


class Slot:
    """A question an actor has put aside."""

    __slots__ = ("deadline", "is_open", "question", "reply_to")

    def __init__(self, envelope: Envelope, reply_to: ReplyPort) -> None:
        self.question: Message = envelope.message
        self.deadline = envelope.deadline
        self.reply_to = reply_to
        self.is_open = True


@dataclass(slots=True)
class GatheredEnvelope(Envelope):
    """Carries ``Gathered``; ``incarnation`` is the one that asked, ``on_behalf`` the slot of which it asked."""

    incarnation: int = 0
    on_behalf: Slot | None = None


@dataclass(slots=True)
class FirstMail(Envelope):
    """Carries what an actor reads before all waiting mail, after a restart or a message on which it raised."""


@dataclass(slots=True)
class TimerEnvelope(Envelope):
    """Carries a timer's message to the incarnation that set it, and to no other."""

    incarnation: int = 0
