"""A cell: one actor's mailbox, its incarnation, and the ``Context`` through which it speaks.

Owns: the queue, the open slots, the timers, the outbox of the turn in progress.
Always: what a handler says leaves when it has returned, in the order in which it was said, and none of it if it raised. A slot
is open until it is answered, by the actor or by the runtime. Timers and fan-outs belong to the incarnation that made them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Any

from actors.kernel import Actor, ActorFactory, Context, Ref, Refs, ReplySlot, Resident, SupervisionSpec, TimerId
from messages.base import Message
from messages.envelope import Envelope, Fault, ReplyPort, TraceContext
from runtime.system.mailbox import Mailbox
from runtime.system.replies import Collector, Slot, TimerEnvelope, give, unanswered

if TYPE_CHECKING:
    from runtime.system.dispatcher import Dispatcher

FAILURES_KEPT = 64
"""Times of failures kept beyond the restart limit: enough for the back-off of those that have none."""


class CellState(Enum):
    """Where an actor is in its life."""

    RUNNING = "running"
    RESTARTING = "restarting"
    """Between two incarnations: tells wait, questions are answered by the runtime."""
    OUT = "out"
    """Beyond its restart limit."""
    STOPPED = "stopped"


STOPPED = CellState.STOPPED
"""A global is read faster than a member of an enum."""
Effect = tuple[int, Any, Any]
"""What an actor said, to be done when its turn closes: a number of those below, and what it is done with."""
_SEND, _ANSWER, _OPEN, _SETTLE, _FAN_OUT, _SET_TIMER, _CANCEL_TIMER = 0, 1, 2, 3, 4, 5, 6


class Cell(Context):
    """An actor as the runtime keeps it; also the ``Context`` of its turns."""

    __slots__ = (
        *("actor", "bound", "dispatcher", "envelope", "factory", "failed_at", "first_mail", "following", "has_said"),
        *("incarnation", "is_scheduled", "name", "outbox", "question", "queue", "reply_to", "resident", "rng", "spec", "state"),
        *("timers", "trace", "_asked", "_first_slot", "_kept", "_last_slot", "_next_timer", "_opened", "_settled", "_speaking"),
    )

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
        """It is among those that have mail; then ``following`` is the one behind it, if there is one."""
        self.following: Cell | None = None
        self.incarnation = 0
        self.queue = Mailbox()
        # Of the line of open slots, which needs no table to take one out wherever it stands.
        self._first_slot: Slot | None = None
        self._last_slot: Slot | None = None
        self.timers: dict[TimerId, asyncio.TimerHandle] = {}
        self.failed_at: deque[float] = deque(maxlen=(spec.limit or 0) + FAILURES_KEPT)
        self.actor: Actor
        self.resident: Resident | None = None
        """The actor, if it is one by its class."""
        self.trace: TraceContext | None = None
        """Parent of what is told in this turn: the span of the turn, if there is one."""
        self.dispatcher = dispatcher
        self.envelope: Envelope | None = None
        self.question: ReplyPort | None = None
        """Who waits for the answer to the message of this turn; None once it is answered or put aside."""
        self._speaking = 0
        """The incarnation whose turn is closing."""
        # What a turn says is mostly one thing, or a question put aside and others asked of it. These are kept apart, which is
        # quicker; all else, and whatever comes after it, lies in the outbox.
        self.has_said = False
        """Something waits for the end of the turn."""
        self.reply_to: ReplyPort | None = None
        """A reply that was the first thing said, ``_kept``: who gets it."""
        self._settled: Slot | None = None
        """A slot that was answered first, with ``_kept``."""
        self._opened: Slot | None = None
        """A question that was put aside first."""
        self._asked: Collector | None = None
        """A fan-out that was said first, or next after ``_opened``."""
        self._kept: Message | None = None
        self.outbox: list[Effect] = []
        self._next_timer = 0

    def __repr__(self) -> str:
        return f"<{self.name} #{self.incarnation} {self.state.value} mail={len(self.queue)} slots={len(self.open_slots)}>"

    @property
    def open_slots(self) -> list[Slot]:
        """Questions put aside, in the order in which that was done."""
        found: list[Slot] = []
        slot = self._first_slot
        while slot is not None:
            found.append(slot)
            slot = slot.behind
        return found

    def take_in(self, actor: Actor) -> None:
        """Let ``actor`` have the turns from now on."""
        self.actor = actor
        self.resident = actor if isinstance(actor, Resident) else None

    # The turn, as the dispatcher drives it.

    def begin(self, envelope: Envelope | None, trace: TraceContext | None) -> None:
        """Open a turn."""
        self.envelope = envelope
        self.question = envelope.reply_to if envelope is not None else None
        self.trace = trace
        self.dispatcher.begin_turn()

    def commit(self) -> None:
        """Close the turn and let everything said leave. A ``question`` that is there afterwards got neither reply nor slot."""
        if not self.has_said:
            return
        self.has_said = False
        self._speaking = self.incarnation
        if self.reply_to is not None:
            self.let_reply()
        else:
            try:
                self._let_first()
            except Exception as error:
                self.dispatcher.report_failed_effect(self.name, error)
        outbox = self.outbox
        if outbox:
            self.outbox = []
            for kind, first, second in outbox:
                try:
                    self._do(kind, first, second)
                except Exception as error:
                    # The handler has returned: what else it said must leave all the same.
                    self.dispatcher.report_failed_effect(self.name, error)

    def let_reply(self) -> None:
        """Let the reply leave that was the first thing said."""
        reply_to, reply = self.reply_to, self._kept
        self.reply_to = self._kept = None
        if reply_to is not None:
            give(reply_to, self.name, reply)

    def _let_first(self) -> None:
        settled, opened, asked, kept = self._settled, self._opened, self._asked, self._kept
        self._settled = self._opened = self._asked = self._kept = None
        if settled is not None and kept is not None:
            self.settle(settled, kept)
        if opened is not None:
            self._open(opened)
        if asked is not None:
            self.dispatcher.fan_out(asked)

    def _do(self, kind: int, first: Any, second: Any) -> None:
        if kind == _SEND:
            self._send(first, second)
        elif kind == _ANSWER:
            first.answer(self.name, second)
        elif kind == _OPEN:
            self._open(first)
        elif kind == _SETTLE:
            self.settle(first, second)
        elif kind == _FAN_OUT:
            self._fan_out(first)
        elif kind == _SET_TIMER:
            self._set_timer(first, second)
        else:
            self._cancel_timer(first)

    def drop(self) -> None:
        """Close the turn; nothing that was said leaves."""
        self.has_said = False
        self.reply_to = self._settled = self._opened = self._asked = self._kept = None
        self.outbox.clear()

    # The context, as the actor sees it.

    def now(self) -> float:
        """Monotonic seconds: one time for the whole turn."""
        return self.dispatcher.turn_time()

    def wall(self) -> float:
        """Unix seconds, UTC."""
        return self.dispatcher.clock.wall()

    def _say(self, kind: int, first: Any, second: Any) -> None:
        self.has_said = True
        self.outbox.append((kind, first, second))

    def tell(self, to: Ref[Any], message: Any) -> None:
        """Send a message when the turn closes."""
        self._say(_SEND, to, message)

    def reply(self, message: Message) -> None:
        """Answer the question of this turn."""
        question = self.question
        if question is None:
            raise RuntimeError(f"{self.name}: {type(message).__name__} answers no question, or one answered already")
        self.question = None
        if self.has_said:
            self._say(_ANSWER, question, message)
        else:
            self.has_said = True
            self.reply_to, self._kept = question, message

    def defer(self) -> ReplySlot:
        """Put the question of this turn aside."""
        envelope, question = self.envelope, self.question
        if envelope is None or question is None:
            raise RuntimeError(f"{self.name}: there is no open question to put aside")
        self.question = None
        slot = Slot(envelope, question)
        if self.has_said:
            self._say(_OPEN, slot, None)
        else:
            self.has_said = True
            self._opened = slot
        return slot

    def answer(self, slot: ReplySlot, message: Message) -> None:
        """Answer a question put aside."""
        if self.has_said or not isinstance(slot, Slot):
            self._say(_SETTLE, slot, message)
        else:
            self.has_said = True
            self._settled, self._kept = slot, message

    def gather(
        self,
        to: Sequence[Ref[Any]] | Refs[Any],
        message: Any,
        key: str,
        on_behalf: ReplySlot | None = None,
        within_s: float | None = None,
    ) -> None:
        """Put one question to many when the turn closes."""
        # A name that is given twice is asked once.
        asked = to if isinstance(to, Refs) else Refs(to)
        assert on_behalf is None or isinstance(on_behalf, Slot)
        deadline = None if within_s is None else self.now() + within_s
        collector = Collector(self, asked, message, key, self.dispatcher, on_behalf, deadline)
        if not self.has_said or (self._opened is not None and self._asked is None and not self.outbox):
            self.has_said = True
            self._asked = collector
        else:
            self._say(_FAN_OUT, collector, None)

    def after(self, delay_s: float, message: Message) -> TimerId:
        """Set a timer when the turn closes."""
        self._next_timer += 1
        timer = TimerId(self._next_timer)
        self._say(_SET_TIMER, timer, (delay_s, message))
        return timer

    def cancel(self, timer: TimerId) -> None:
        """Call off a timer when the turn closes."""
        self._say(_CANCEL_TIMER, timer, None)

    # Effects. A port that is told something runs at once and may end this very actor, so those that
    # leave something behind look first whether the incarnation that spoke is still there.

    def _send(self, to: Ref[Any], message: Message) -> None:
        trace = self.trace
        posted_at = self.dispatcher.clock.now() if trace is not None else 0.0
        self.dispatcher.post(to, Envelope(message, self.name, None, trace, None, posted_at))

    def _open(self, slot: Slot) -> None:
        if self._speaking != self.incarnation:
            slot.reply_to.answer(self.name, unanswered(slot.question, self.name, Fault.STOPPED))
            return
        slot.is_open = True
        last = slot.before = self._last_slot
        if last is None:
            self._first_slot = slot
        else:
            last.behind = slot
        self._last_slot = slot

    def settle(self, slot: Slot, message: Message) -> None:
        """Answer ``slot`` unless it has its answer."""
        if not slot.is_open:
            self.dispatcher.counters.late_replies += 1
            return
        slot.is_open = False
        before, behind = slot.before, slot.behind
        if before is None:
            self._first_slot = behind
        else:
            before.behind = behind
        if behind is None:
            self._last_slot = before
        else:
            behind.before = before
        slot.before = slot.behind = None
        give(slot.reply_to, self.name, message)

    def _fan_out(self, collector: Collector) -> None:
        if self._speaking == self.incarnation:
            self.dispatcher.fan_out(collector)

    def _set_timer(self, timer: TimerId, what: tuple[float, Message]) -> None:
        if self._speaking == self.incarnation:
            delay_s, message = what
            self.timers[timer] = self.dispatcher.call_later(delay_s, self._fire, timer, message)

    def _cancel_timer(self, timer: TimerId) -> None:
        handle = self.timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def _fire(self, timer: TimerId, message: Message) -> None:
        del self.timers[timer]
        self.dispatcher.enqueue_own(self, TimerEnvelope(message, self.name, incarnation=self.incarnation))

    # Ends of an incarnation.

    def end_incarnation(self, fault: Fault) -> None:
        """Cancel the timers and answer the open slots with ``fault``: their owner is gone."""
        self.incarnation += 1
        self.envelope = None
        for handle in self.timers.values():
            handle.cancel()
        self.timers.clear()
        for slot in self.open_slots:
            if slot.is_open:
                self.settle(slot, unanswered(slot.question, self.name, fault))


def led_to(ref: Ref[Any], dispatcher: "Dispatcher") -> Cell | None:
    """The cell of the name, if there is one. It is found once and stays the same until it stops."""
    found = ref.found
    if isinstance(found, Cell) and found.dispatcher is dispatcher and found.state is not STOPPED:
        return found
    ref.found = cell = dispatcher.cells.get(ref.name)
    return cell
