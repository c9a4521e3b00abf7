"""The one dispatcher: takes mail to mailboxes and lets each actor with mail have its turns.

Owns: the cells by name, the ports, the queue of cells that have mail, the counters.
Always: one FIFO for each actor and nothing overtakes in it. A handler runs alone and to its end. Every question gets
exactly one answer, from the actor or from here. Bounded messages are shed at the bound of the mailbox, others are always taken.

Deques drained by one callback with synchronous handlers: measured against queues and tasks in ``tests/benchmarks/mailbox.py``.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Protocol

from messages.base import Message
from messages.envelope import Envelope, Fault, TraceContext
from runtime.system.cell import Cell, CellState
from runtime.system.clock import Clock
from runtime.system.deadlines import Deadlines
from runtime.system.replies import Collector, Counters, FirstMail, GatheredEnvelope, Slot, TimerEnvelope, unanswered

log = logging.getLogger("pointsman.system")

TURNS_PER_DRAIN = 2000
"""So many messages at most before sockets and timers get their turn."""

TURNS_IN_A_ROW = 100
"""So many messages at most before another actor gets its turn."""

DRAINS_IN_A_ROW = 1
"""So many questions from outside at most are answered at once in one turn of the event loop; others wait for its end."""

DEAD_LETTERS_KEPT = 100

RUNNING = CellState.RUNNING
"""A global is read faster than a member of an enum."""

Port = Callable[[Envelope], None]
"""A part of the runtime that takes mail: it must return at once."""


class TurnSpan(Protocol):
    """A span around one turn."""

    @property
    def context(self) -> TraceContext:
        """What the messages told in this turn have as parent."""

    def end(self, error: str | None) -> None:
        """The turn is over; ``error`` names the exception that ended it."""


class TurnTracing(Protocol):
    """Makes spans for turns; asked for sampled messages only."""

    def process(self, actor: str, message_name: str, parent: TraceContext, queue_wait_s: float) -> TurnSpan:
        """Open the span of one turn."""


class Dispatcher:
    """Mailboxes and turns. What happens after a crash is decided by ``on_crash``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        on_crash: Callable[[Cell, Envelope], None],
        tracing: TurnTracing | None = None,
        journal: Callable[[str, Envelope], None] | None = None,
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.cells: dict[str, Cell] = {}
        self.ports: dict[str, Port] = {}
        self.counters = Counters()
        self.dead_letters: deque[tuple[str, str]] = deque(maxlen=DEAD_LETTERS_KEPT)
        """(address, kind of message), newest last."""
        # Turns belong to the system: what a port starts must not inherit the context of whichever request came along.
        self._context = copy_context()
        self.deadlines = Deadlines(loop, clock.now, self._context)
        self._on_crash = on_crash
        self._tracing = tracing
        self._journal = journal
        self._ready: deque[Cell] = deque()
        self._is_armed = False
        self._is_draining = False
        self._drains_in_a_row = 0
        # Made once: to bind a method costs more than to call it.
        self._on_complete, self._post_and_turn, self._run = self._complete, self._post_and_give_turns, self._context.run

    def call_later(self, delay_s: float, callback: Callable[..., Any], *arguments: Any) -> asyncio.TimerHandle:
        """Set a timer of the loop that belongs to the system."""
        return self.loop.call_later(max(0.0, delay_s), callback, *arguments, context=self._context)

    # Mail.

    def post(self, to: str, envelope: Envelope) -> None:
        """Put an envelope into a mailbox, hand it to a port, or answer for whoever cannot take it."""
        if self._journal is not None:
            self._journal(to, envelope)
        cell = self.cells.get(to)
        if cell is None:
            self._post_elsewhere(to, envelope)
        elif cell.state is not RUNNING:
            self._post_to_absent(cell, envelope)
        elif envelope.message.BOUNDED and len(cell.queue) >= cell.bound:
            self.counters.shed += 1
            self.turn_away(to, envelope, Fault.OVERLOADED)
        else:
            cell.queue.append(envelope)
            if not cell.is_scheduled:
                # What ``schedule`` does, without the call.
                cell.is_scheduled = True
                self._ready.append(cell)
                if not self._is_draining:
                    self._arm()

    def fan_out(
        self, asker: Cell, names: list[str], message: Message, key: str, on_behalf: Slot | None, within_s: float | None
    ) -> None:
        """Put one shared question into many mailboxes, with one collector for the answers."""
        deadline = None if within_s is None else self.clock.now() + within_s
        collector = Collector(asker, names, message, key, self.counters, self._on_complete, on_behalf, deadline)
        if not names:
            self._complete(collector)
            return
        if deadline is not None:
            self.deadlines.add(collector)
        trace = asker.trace
        envelope = Envelope(message, asker.name, None, trace, collector, self.clock.now() if trace is not None else 0.0)
        cells, ready = self.cells, self._ready
        is_plain = self._journal is None
        # A name that is given twice is asked once.
        for name in names if len(collector.missing) == len(names) else list(collector.missing):
            cell = cells.get(name)
            # What ``post`` does for most, without the call.
            if is_plain and cell is not None and cell.state is RUNNING and len(cell.queue) < cell.bound:
                cell.queue.append(envelope)
                if not cell.is_scheduled:
                    cell.is_scheduled = True
                    ready.append(cell)
            else:
                self.post(name, envelope)
        if not self._is_draining:
            self._arm()

    def _complete(self, collector: Collector) -> None:
        """All have answered: tell the incarnation that asked, if it is still there."""
        if collector.deadline is not None:
            self.deadlines.discard(collector)
        asker, trace, incarnation = collector.asker, collector.trace, collector.incarnation
        if asker.incarnation == incarnation:
            posted_at = self.clock.now() if trace is not None else 0.0
            message = collector.gathered()
            envelope = GatheredEnvelope(message, "runtime", None, trace, None, posted_at, incarnation, collector.on_behalf)
            self.enqueue_own(asker, envelope)

    def enqueue_own(self, cell: Cell, envelope: Envelope) -> None:
        """Append what the runtime owes an actor, whatever the bound: a timer, or answers it has gathered."""
        if self._journal is not None:
            self._journal(cell.name, envelope)
        cell.queue.append(envelope)
        if not cell.is_scheduled:
            self.schedule(cell)

    def put_first(self, cell: Cell, messages: list[Message]) -> None:
        """Put what must be read first in front of all waiting mail, in place of what was put there before."""
        while cell.queue and isinstance(cell.queue[0], FirstMail):
            cell.queue.popleft()
        envelopes = [FirstMail(message, "runtime") for message in messages]
        if self._journal is not None:
            for envelope in envelopes:
                self._journal(cell.name, envelope)
        cell.queue.extendleft(reversed(envelopes))

    def _post_elsewhere(self, to: str, envelope: Envelope) -> None:
        port = self.ports.get(to)
        if port is None:
            self.bury(to, envelope, Fault.MISSING)
            return
        try:
            port(envelope)
        except Exception as error:
            # It must not break the turn of whoever told it something.
            self.counters.crashes += 1
            log.error("port %s raised on %s", to, type(envelope.message).__name__, exc_info=error)
            self.refuse(to, envelope, Fault.CRASHED)

    def _post_to_absent(self, cell: Cell, envelope: Envelope) -> None:
        is_out = cell.state is CellState.OUT
        if envelope.reply_to is not None:
            self.turn_away(cell.name, envelope, Fault.OUT if is_out else Fault.RESTARTING)
        elif is_out or len(cell.queue) >= cell.bound:
            # One that fails at every start would pile up mail without end.
            self.counters.swallowed += 1
        else:
            cell.queue.append(envelope)

    def refuse(self, actor: str, envelope: Envelope, fault: Fault) -> None:
        """Answer a question in ``actor``'s place."""
        if envelope.reply_to is not None:
            envelope.reply_to.answer(actor, unanswered(envelope.message, actor, fault))

    def bury(self, to: str, envelope: Envelope, fault: Fault) -> None:
        """A message nobody can take: a question is answered, and whatever has no addressee left is a dead letter."""
        if envelope.reply_to is None or fault is Fault.MISSING:
            self.counters.dead_letters += 1
            self.dead_letters.append((to, type(envelope.message).__name__))
        self.turn_away(to, envelope, fault)

    def turn_away(self, to: str, envelope: Envelope, fault: Fault) -> None:
        """Answer for a message that gets no turn; its trace must show it all the same."""
        span = self._open_span(to, envelope)
        if span is not None:
            _end_span(span, fault.value)
        self.refuse(to, envelope, fault)

    # Turns.

    def schedule(self, cell: Cell) -> None:
        """Let a cell with mail have its turns, unless it is away."""
        if cell.is_scheduled or cell.state is not RUNNING:
            return
        cell.is_scheduled = True
        self._ready.append(cell)
        if not self._is_draining:
            self._arm()

    def post_and_drain(self, to: str, envelope: Envelope) -> None:
        """Post for somebody who waits, and give turns at once: a question that comes alone has its answer when this returns.

        Saves the asker two turns of the event loop. Not more often than ``DRAINS_IN_A_ROW``: of many that ask in one turn of
        the loop the actors handle each kind of message in a row, whose code is then still in the processor's cache.
        """
        if self._is_draining or self._drains_in_a_row >= DRAINS_IN_A_ROW:
            self.post(to, envelope)
            if not self._is_draining:
                self._arm()
            return
        self._drains_in_a_row += 1
        self._is_draining = True
        try:
            self._run(self._post_and_turn, to, envelope)
        finally:
            self._is_draining = False
            if self._ready:
                self._arm()

    def _post_and_give_turns(self, to: str, envelope: Envelope) -> None:
        self.post(to, envelope)
        self._give_turns()

    def _arm(self) -> None:
        if not self._is_armed:
            self._is_armed = True
            self.loop.call_soon(self._drain, context=self._context)

    def _drain(self) -> None:
        self._is_armed = False
        self._drains_in_a_row = 0
        self._is_draining = True
        try:
            self._give_turns()
        finally:
            self._is_draining = False
            if self._ready:
                self._arm()

    def _give_turns(self) -> None:
        """Give turns until no mail is left, or until sockets and timers have waited long enough."""
        ready, counters, now = self._ready, self.counters, self.clock.now
        budget = TURNS_PER_DRAIN
        while ready and budget > 0:
            # It stays in the queue of those that have mail until its turns are over, so that it is not scheduled twice.
            cell = ready[0]
            queue = cell.queue
            turns = TURNS_IN_A_ROW
            while queue and turns and cell.state is RUNNING:
                turns -= 1
                budget -= 1
                envelope = queue.popleft()
                if envelope.__class__ is not Envelope and _is_left_behind(envelope, cell):
                    continue
                question = envelope.reply_to
                if question is not None and envelope.deadline is not None and envelope.deadline <= now():
                    counters.expired += 1
                    self.turn_away(cell.name, envelope, Fault.EXPIRED)
                    continue
                if envelope.trace is not None:
                    self._traced_turn(cell, envelope)
                    continue
                # What ``_turn`` does, without the calls.
                counters.handled += 1
                cell.envelope = envelope
                cell.question = question
                cell.trace = None
                try:
                    cell.actor.handle(envelope.message, cell)
                except Exception as error:
                    self._crashed(cell, envelope, error)
                    continue
                except BaseException:
                    self._broken_off(cell, envelope)
                    raise
                reply_to = cell.reply_to
                if cell.outbox:
                    cell.commit()
                elif reply_to is not None:
                    cell.reply_to = None
                    if isinstance(reply_to, Collector):  # Compiled, a call of what is known costs a third.
                        reply_to.answer(cell.name, cell.reply_kept)
                    else:
                        reply_to.answer(cell.name, cell.reply_kept)
                if cell.question is not None:
                    self._silent(cell, envelope)
            ready.popleft()
            if queue and cell.state is RUNNING:
                ready.append(cell)
            else:
                cell.is_scheduled = False

    def _traced_turn(self, cell: Cell, envelope: Envelope) -> None:
        """The turn of a message with a trace."""
        span = self._open_span(cell.name, envelope)
        if span is None:
            self._turn(cell, envelope, envelope.trace)
        else:
            _end_span(span, self._turn(cell, envelope, span.context))

    def _turn(self, cell: Cell, envelope: Envelope, trace: TraceContext | None) -> str | None:
        """Let the actor handle a message. Returns the name of what it raised."""
        self.counters.handled += 1
        cell.begin(envelope, trace)
        try:
            cell.actor.handle(envelope.message, cell)
        except Exception as error:
            self._crashed(cell, envelope, error)
            return type(error).__name__
        except BaseException:
            self._broken_off(cell, envelope)
            raise
        cell.commit()
        if cell.question is not None:
            self._silent(cell, envelope)
        return None

    def _silent(self, cell: Cell, envelope: Envelope) -> None:
        """A turn is over and its question has neither reply nor slot."""
        log.error("%s gave no answer to %s", cell.name, type(envelope.message).__name__)
        self.refuse(cell.name, envelope, Fault.SILENT)

    def _broken_off(self, cell: Cell, envelope: Envelope) -> None:
        """The process is being ended: nothing of this half turn must leave with the next one."""
        cell.drop()
        self.refuse(cell.name, envelope, Fault.CRASHED)

    def _crashed(self, cell: Cell, envelope: Envelope, error: Exception) -> None:
        cell.drop()
        self.counters.crashes += 1
        log.error("%s raised on %s", cell.name, type(envelope.message).__name__, exc_info=error)
        self.refuse(cell.name, envelope, Fault.CRASHED)
        if isinstance(envelope, GatheredEnvelope) and envelope.on_behalf is not None and envelope.on_behalf.is_open:
            slot = envelope.on_behalf
            cell.settle(slot, unanswered(slot.question, cell.name, Fault.CRASHED))
        if cell.state is RUNNING:
            self._on_crash(cell, envelope)

    def report_failed_effect(self, actor: str, error: Exception) -> None:
        """Something an actor said could not be done: its mistake or ours, and no reason to keep the rest back."""
        self.counters.crashes += 1
        log.error("something %s said could not be done", actor, exc_info=error)

    # Traces.

    def _open_span(self, actor: str, envelope: Envelope) -> TurnSpan | None:
        """A span for a sampled message. Tracing that fails must not cost a message."""
        if envelope.trace is None or self._tracing is None:
            return None
        wait_s = max(0.0, self.clock.now() - envelope.posted_at)
        try:
            return self._tracing.process(actor, type(envelope.message).__name__, envelope.trace, wait_s)
        except Exception as error:
            log.error("no span for a turn of %s", actor, exc_info=error)
            return None


def _end_span(span: TurnSpan, error: str | None) -> None:
    try:
        span.end(error)
    except Exception as failure:
        log.error("a span could not be ended", exc_info=failure)


def _is_left_behind(envelope: Envelope, cell: Cell) -> bool:
    """Whether it is mail for an incarnation that is gone."""
    if isinstance(envelope, GatheredEnvelope):
        return envelope.incarnation != cell.incarnation
    return isinstance(envelope, TimerEnvelope) and envelope.incarnation != cell.incarnation
