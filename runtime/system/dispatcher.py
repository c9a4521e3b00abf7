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
from typing import Protocol

from messages.base import Message
from messages.envelope import Envelope, Fault, TraceContext
from runtime.system.cell import Cell, CellState
from runtime.system.clock import Clock
from runtime.system.deadlines import Deadlines
from runtime.system.replies import Collector, Counters, GatheredEnvelope, Slot, TimerEnvelope

log = logging.getLogger("pointsman.system")

TURNS_PER_DRAIN = 2000
"""So many messages at most before sockets and timers get their turn."""

DEAD_LETTERS_KEPT = 100

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
        self.deadlines = Deadlines(loop, clock.now)
        self.dead_letters: deque[tuple[str, str]] = deque(maxlen=DEAD_LETTERS_KEPT)
        """(address, kind of message), newest last."""
        self._on_crash = on_crash
        self._tracing = tracing
        self._journal = journal
        self._ready: deque[Cell] = deque()
        self._is_armed = False

    # Mail.

    def deliver(self, to: str, message: Message, sender: Cell) -> None:
        """Take what an actor told in its turn."""
        trace = sender.trace
        self.post(to, Envelope(message, sender.name, None, trace, None, self.clock.now() if trace is not None else 0.0))

    def fan_out(
        self,
        asker: Cell,
        names: list[str],
        message: Message,
        key: str,
        on_behalf: Slot | None,
        within_s: float | None,
    ) -> None:
        """Put one shared question into many mailboxes, with one collector for the answers."""
        incarnation = asker.incarnation
        deadline = None if within_s is None else self.clock.now() + within_s

        def complete(collector: Collector) -> None:
            self.deadlines.discard(collector)
            mail = GatheredEnvelope(collector.gathered(), "runtime", None, collector.trace, None, 0.0, incarnation, on_behalf)
            if collector.trace is not None:
                mail.posted_at = self.clock.now()
            if not names_left_behind(asker, incarnation):
                self._record(asker.name, mail)
                self.enqueue(asker, mail)

        trace = asker.trace
        collector = Collector(names, message, key, self.counters, complete, on_behalf, trace, deadline)
        if not names:
            complete(collector)
            return
        if deadline is not None:
            self.deadlines.add(collector, deadline)
        envelope = Envelope(message, asker.name, None, trace, collector, self.clock.now() if trace is not None else 0.0)
        for name in list(collector.missing):
            self.post(name, envelope)

    def post(self, to: str, envelope: Envelope) -> None:
        """Put an envelope into a mailbox, hand it to a port, or answer for whoever cannot take it."""
        cell = self.cells.get(to)
        self._record(to, envelope)
        if cell is None:
            port = self.ports.get(to)
            if port is not None:
                self._into_port(to, port, envelope)
            else:
                self.bury(to, envelope, Fault.MISSING)
        elif cell.state is not CellState.RUNNING:
            self._post_to_absent(cell, envelope)
        elif envelope.message.BOUNDED and len(cell.queue) >= cell.bound:
            self.counters.shed += 1
            self.refuse(to, envelope, Fault.OVERLOADED)
        else:
            self.enqueue(cell, envelope)

    def _into_port(self, to: str, port: Port, envelope: Envelope) -> None:
        """A port that raises must not break the turn of whoever told it something."""
        try:
            port(envelope)
        except Exception as error:
            self.counters.crashes += 1
            log.error("port %s raised on %s", to, type(envelope.message).__name__, exc_info=error)
            self.refuse(to, envelope, Fault.CRASHED)

    def _record(self, to: str, envelope: Envelope) -> None:
        if self._journal is not None:
            self._journal(to, envelope)

    def _post_to_absent(self, cell: Cell, envelope: Envelope) -> None:
        if cell.state is CellState.RESTARTING and envelope.reply_to is None:
            cell.queue.append(envelope)
        elif cell.state is CellState.RESTARTING:
            self.refuse(cell.name, envelope, Fault.RESTARTING)
        elif cell.state is CellState.OUT and envelope.reply_to is None:
            self.counters.dead_letters += 1
        else:
            self.bury(cell.name, envelope, Fault.OUT if cell.state is CellState.OUT else Fault.STOPPED)

    def enqueue(self, cell: Cell, envelope: Envelope) -> None:
        """Append to a mailbox, whatever its bound."""
        cell.queue.append(envelope)
        if cell.state is CellState.RUNNING:
            self.schedule(cell)

    def schedule(self, cell: Cell) -> None:
        """Let a cell with mail have its turns."""
        if not cell.is_scheduled:
            cell.is_scheduled = True
            self._ready.append(cell)
            if not self._is_armed:
                self._is_armed = True
                self.loop.call_soon(self.drain)

    def refuse(self, actor: str, envelope: Envelope, fault: Fault) -> None:
        """Answer a question in ``actor``'s place."""
        if envelope.reply_to is not None:
            envelope.reply_to.answer(actor, envelope.message.unanswered(actor, fault))

    def bury(self, to: str, envelope: Envelope, fault: Fault) -> None:
        """A message nobody can take: a question is answered, anything else is a dead letter, counted and traced."""
        if envelope.reply_to is not None:
            self.refuse(to, envelope, fault)
            if fault is not Fault.MISSING:
                return
        self.counters.dead_letters += 1
        name = type(envelope.message).__name__
        self.dead_letters.append((to, name))
        if self._tracing is not None and envelope.trace is not None:
            self._tracing.process(to, name, envelope.trace, 0.0).end(f"dead_letter: {fault.value}")

    # Turns.

    def drain(self) -> None:
        """Give turns until no mail is left, or until sockets and timers have waited long enough."""
        ready = self._ready
        budget = TURNS_PER_DRAIN
        while ready and budget > 0:
            cell = ready.popleft()
            queue = cell.queue
            while queue and budget > 0 and cell.state is CellState.RUNNING:
                budget -= 1
                self._turn(cell, queue.popleft())
            if queue and cell.state is CellState.RUNNING:
                ready.append(cell)
            else:
                cell.is_scheduled = False
        if ready:
            self.loop.call_soon(self.drain)
        else:
            self._is_armed = False

    def _turn(self, cell: Cell, envelope: Envelope) -> None:
        if isinstance(envelope, TimerEnvelope | GatheredEnvelope) and envelope.incarnation != cell.incarnation:
            return
        if envelope.deadline is not None and envelope.reply_to is not None and envelope.deadline < self.clock.now():
            self.counters.expired += 1
            self.refuse(cell.name, envelope, Fault.EXPIRED)
            return
        self.counters.handled += 1
        if envelope.trace is not None and self._tracing is not None:
            self._traced_turn(cell, envelope, self._tracing, envelope.trace)
            return
        cell.begin(envelope, envelope.trace)
        try:
            cell.actor.handle(envelope.message, cell)
            is_answered = cell.commit()
        except Exception as error:
            self._crashed(cell, envelope, error)
        else:
            if not is_answered:
                self._was_silent(cell, envelope)

    def _traced_turn(self, cell: Cell, envelope: Envelope, tracing: TurnTracing, parent: TraceContext) -> None:
        wait_s = max(0.0, self.clock.now() - envelope.posted_at) if envelope.posted_at else 0.0
        span = tracing.process(cell.name, type(envelope.message).__name__, parent, wait_s)
        cell.begin(envelope, span.context)
        try:
            cell.actor.handle(envelope.message, cell)
            is_answered = cell.commit()
        except Exception as error:
            span.end(type(error).__name__)
            self._crashed(cell, envelope, error)
        else:
            span.end(None)
            if not is_answered:
                self._was_silent(cell, envelope)

    def _was_silent(self, cell: Cell, envelope: Envelope) -> None:
        log.error("%s gave no answer to %s", cell.name, type(envelope.message).__name__)
        self.refuse(cell.name, envelope, Fault.SILENT)

    def _crashed(self, cell: Cell, envelope: Envelope, error: Exception) -> None:
        cell.drop()
        self.counters.crashes += 1
        log.error("%s raised on %s", cell.name, type(envelope.message).__name__, exc_info=error)
        self.refuse(cell.name, envelope, Fault.CRASHED)
        if isinstance(envelope, GatheredEnvelope) and envelope.on_behalf is not None and envelope.on_behalf.is_open:
            slot = envelope.on_behalf
            cell.settle(slot, slot.question.unanswered(cell.name, Fault.CRASHED))
        self._on_crash(cell, envelope)


def names_left_behind(asker: Cell, incarnation: int) -> bool:
    """Whether the incarnation that asked is gone, so that nobody wants what was gathered."""
    return asker.incarnation != incarnation or asker.state in (CellState.STOPPED, CellState.OUT)
