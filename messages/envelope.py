"""What travels around a message: who sent it, until when it matters, which trace it belongs to, who waits for the answer.

One envelope serves a whole fan-out: it does not name its addressee.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from messages.base import Message, acyclic, message


class Fault(StrEnum):
    """Why the runtime answers in an actor's place."""

    CRASHED = "crashed"
    """The handler raised."""
    RESTARTING = "restarting"
    """The actor is between two incarnations, or lost the question with the old one."""
    STOPPED = "stopped"
    """The actor has stopped, or the system is shutting down."""
    MISSING = "missing"
    """Nobody has that name."""
    OVERLOADED = "overloaded"
    """The mailbox is at its bound."""
    EXPIRED = "expired"
    """The question's deadline passed before it was handled."""
    OUT = "out"
    """The actor is beyond its restart limit and out of service for now."""
    SILENT = "silent"
    """The handler returned without an answer: a bug in the actor."""


FALLEN = (Fault.CRASHED, Fault.SILENT)
"""Of these the question itself may be the cause."""
AGAIN = (*FALLEN, Fault.RESTARTING)
"""After these a question may be put once more."""


@message("envelope.undelivered")
class Undelivered(Message):
    """The runtime's own answer to a question that has no better one."""

    actor: str
    fault: str


@message("envelope.trace_context")
class TraceContext(Message):
    """A sampled W3C trace position. Requests that are not sampled carry none, and so pay nothing."""

    trace_id: str
    """32 lower-case hexadecimal digits."""
    span_id: str
    """16 lower-case hexadecimal digits: the parent of whatever is done with the message."""
    tracestate: str = ""


class ReplyPort(Protocol):
    """Where an answer goes. Takes exactly one answer from each actor asked; later ones are counted and dropped."""

    __slots__ = ()

    def answer(self, actor: str, reply: Any) -> None:
        """Take ``actor``'s answer."""


@acyclic
@dataclass(slots=True)
class Envelope:
    """A message on its way. Never changed after it was posted, for several mailboxes may share it."""

    message: Any
    sender: str
    deadline: float | None = None
    """Monotonic seconds after which nobody wants an answer; None: no end."""
    trace: TraceContext | None = None
    reply_to: ReplyPort | None = None
    posted_at: float = 0.0
    """Monotonic seconds, set for traced messages only: what the wait in the mailbox is measured from."""
