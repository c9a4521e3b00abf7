"""A cell: one actor's mailbox, its incarnation, and the ``Context`` through which it speaks.

Owns: the queue, the open slots, the timers, the outbox of the turn in progress.
Always: what a handler says leaves only when it has returned. A slot is open until it is answered, by the actor or by the
runtime. Timers and fan-outs belong to the incarnation that made them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Any

from actors.kernel import Actor, ActorFactory, Ref, ReplySlot, SupervisionSpec, TimerId
from messages.base import Message
from messages.envelope import Envelope, ReplyPort, TraceContext
from runtime.system.replies import Slot, TimerEnvelope

if TYPE_CHECKING:
    from runtime.system.dispatcher import Dispatcher


class CellState(Enum):
    """Where an actor is in its life."""

    RUNNING = "running"
    RESTARTING = "restarting"
    """Between two incarnations: tells wait, questions are answered by the runtime."""
    OUT = "out"
    """Beyond its restart limit."""
    STOPPED = "stopped"


Effect = tuple[Callable[..., None], tuple[Any, ...]]


class Cell:
    """An actor as the runtime keeps it; also the ``Context`` of its turns."""

    def __init__(
        self,
        name: str,
        factory: ActorFactory,
        spec: SupervisionSpec,
        bound: int,
        rng: Random,
        dispatcher: "Dispatcher",
        first_mail: Callable[[], Sequence[Message]] | None,
    ) -> None:
        self.name = name
        self.factory = factory
        self.spec = spec
        self.bound = bound
        self.rng = rng
        self.first_mail = first_mail
        self.state = CellState.RUNNING
        self.is_scheduled = False
        self.incarnation = 0
        self.queue: deque[Envelope] = deque()
        self.open_slots: dict[Slot, None] = {}
        self.timers: dict[TimerId, asyncio.TimerHandle] = {}
        self.failed_at: deque[float] = deque(maxlen=64)
        self.actor: Actor
        self.envelope: Envelope | None = None
        self.trace: TraceContext | None = None
        """Parent of what is told in this turn: the span of the turn, if there is one."""
        self.now = dispatcher.clock.now
        self.wall = dispatcher.clock.wall
        self._dispatcher = dispatcher
        self._reply: Message | None = None
        self._reply_to: ReplyPort | None = None
        self._outbox: list[Effect] = []
        self._next_timer = 0

    def __repr__(self) -> str:
        return f"<{self.name} #{self.incarnation} {self.state.value} mail={len(self.queue)} slots={len(self.open_slots)}>"

    # The turn, as the dispatcher drives it.

    def begin(self, envelope: Envelope | None, trace: TraceContext | None) -> None:
        """Open a turn."""
        self.envelope = envelope
        self._reply_to = envelope.reply_to if envelope is not None else None
        self.trace = trace

    def commit(self) -> bool:
        """Close the turn and let everything said leave. False: the message was a question and got neither reply nor slot."""
        reply, reply_to, outbox = self._reply, self._reply_to, self._outbox
        self.envelope = self._reply = self._reply_to = None
        if outbox:
            self._outbox = []
            for effect, arguments in outbox:
                effect(*arguments)
        self.trace = None
        if reply_to is None:
            return True
        if reply is None:
            return False
        reply_to.answer(self.name, reply)
        return True

    def drop(self) -> None:
        """Close the turn; nothing that was said leaves."""
        self.envelope = self._reply = self._reply_to = None
        self.trace = None
        self._outbox = []

    # The context, as the actor sees it.

    def tell(self, to: Ref[Any], message: Any) -> None:
        """Send a message when the turn closes."""
        self._outbox.append((self._dispatcher.deliver, (to.name, message, self)))

    def reply(self, message: Message) -> None:
        """Answer the question of this turn."""
        if self._reply_to is None or self._reply is not None:
            raise RuntimeError(f"{self.name}: {type(message).__name__} answers no question, or one answered already")
        self._reply = message

    def defer(self) -> ReplySlot:
        """Put the question of this turn aside."""
        envelope = self.envelope
        if envelope is None or self._reply_to is None or self._reply is not None:
            raise RuntimeError(f"{self.name}: there is no open question to put aside")
        slot = Slot(envelope, self._reply_to)
        self._reply_to = None
        self._outbox.append((self._open, (slot,)))
        return slot

    def answer(self, slot: ReplySlot, message: Message) -> None:
        """Answer a question put aside."""
        self._outbox.append((self.settle, (slot, message)))

    def gather(
        self,
        to: Sequence[Ref[Any]],
        message: Any,
        key: str,
        on_behalf: ReplySlot | None = None,
        within_s: float | None = None,
    ) -> None:
        """Put one question to many when the turn closes."""
        self._outbox.append((self._dispatcher.fan_out, (self, [ref.name for ref in to], message, key, on_behalf, within_s)))

    def after(self, delay_s: float, message: Message) -> TimerId:
        """Set a timer when the turn closes."""
        self._next_timer += 1
        timer = TimerId(self._next_timer)
        self._outbox.append((self._set_timer, (timer, delay_s, message)))
        return timer

    def cancel(self, timer: TimerId) -> None:
        """Call off a timer when the turn closes."""
        self._outbox.append((self._cancel_timer, (timer,)))

    # Effects.

    def _open(self, slot: Slot) -> None:
        self.open_slots[slot] = None

    def settle(self, slot: Slot, message: Message) -> None:
        """Answer ``slot`` unless it has its answer."""
        if not slot.is_open:
            self._dispatcher.counters.late_replies += 1
            return
        slot.is_open = False
        self.open_slots.pop(slot, None)
        slot.reply_to.answer(self.name, message)

    def _set_timer(self, timer: TimerId, delay_s: float, message: Message) -> None:
        self.timers[timer] = self._dispatcher.loop.call_later(max(0.0, delay_s), self._fire, timer, message)

    def _cancel_timer(self, timer: TimerId) -> None:
        handle = self.timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def _fire(self, timer: TimerId, message: Message) -> None:
        del self.timers[timer]
        self._dispatcher.enqueue(self, TimerEnvelope(message, self.name, incarnation=self.incarnation))

    # Ends of an incarnation.

    def end_incarnation(self, fault: str) -> None:
        """Cancel the timers and answer the open slots with ``fault``: their owner is gone."""
        for handle in self.timers.values():
            handle.cancel()
        self.timers.clear()
        for slot in list(self.open_slots):
            self.settle(slot, slot.question.unanswered(self.name, fault))
        self.incarnation += 1
