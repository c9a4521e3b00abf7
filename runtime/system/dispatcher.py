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
from itertools import dropwhile
from typing import Any

from actors.kernel import Ref
from messages.base import Message
from messages.envelope import Envelope, Fault, TraceContext
from messages.routing import CallForBids
from runtime.system.cell import Cell, CellState, led_to
from runtime.system.clock import Clock
from runtime.system.deadlines import Deadlines
from runtime.system.replies import Collector, Counters, FirstMail, GatheredEnvelope, is_left_behind, unanswered
from runtime.system.turn_spans import TurnTracing, end_span, open_span
from runtime.timely import AFTER_STALL_S

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
_NO_ENVELOPE = Envelope(None, "")

Port = Callable[[Envelope], None]
"""A part of the runtime that takes mail: it must return at once."""


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
        # Those that have mail: the first, and the last of those that follow one another from there.
        self._ready: Cell | None = None
        self._last: Cell | None = None
        self._rounds: list[Collector] = []
        """Fan-outs of this drain: most have all their answers when it ends, and need no deadline."""
        self._turn_at = 0.0
        """The time of this turn (monotonic s); 0.0: nobody has asked yet."""
        self._is_armed = False
        self._is_draining = False
        self._drains_in_a_row = 0
        # Made once: to bind a method costs more than to call it.
        self._post_and_turn, self._run = self._post_and_give_turns, self._context.run

    def call_later(self, delay_s: float, callback: Callable[..., Any], *arguments: Any) -> asyncio.TimerHandle:
        """Set a timer of the loop that belongs to the system."""
        return self.loop.call_later(max(0.0, delay_s), callback, *arguments, context=self._context)

    # Time.

    def begin_turn(self) -> None:
        """Another turn has another time."""
        self._turn_at = 0.0

    def turn_time(self) -> float:
        """Monotonic seconds, read once in a turn. What came in one envelope is of one moment, and so are bids in a row."""
        at = self._turn_at
        if at == 0.0:
            at = self._turn_at = self.clock.now()
        return at

    # Mail.

    def post(self, to: Ref[Any] | str, envelope: Envelope) -> None:
        """Put an envelope into a mailbox, hand it to a port, or answer for whoever cannot take it."""
        message = envelope.message
        if not isinstance(message, Message):
            raise TypeError(f"{type(message).__name__} is no message")
        if self._journal is not None:
            self._journal(to if isinstance(to, str) else to.name, envelope)
        cell = self.cells.get(to) if isinstance(to, str) else led_to(to, self)
        if cell is None:
            self._post_elsewhere(to if isinstance(to, str) else to.name, envelope)
        elif cell.state is not RUNNING:
            self._post_to_absent(cell, envelope)
        elif len(cell.queue) >= cell.bound and message.BOUNDED:
            self.counters.shed += 1
            self.turn_away(cell.name, envelope, Fault.OVERLOADED)
        else:
            cell.queue.append(envelope)
            if not cell.is_scheduled:
                # What ``schedule`` does, without the call.
                self._line_up(cell)
                if not self._is_draining:
                    self._arm()

    def fan_out(self, collector: Collector) -> None:
        """Put one shared question into many mailboxes; the collector takes the answers."""
        refs, asker, trace, message = collector.refs, collector.asker, collector.trace, collector.question
        if not refs:
            self.complete(collector)
            return
        if collector.deadline is not None:
            self._rounds.append(collector)
        envelope = Envelope(message, asker.name, None, trace, collector, self.clock.now() if trace is not None else 0.0)
        is_plain = self._journal is None
        for ref in refs:
            cell = led_to(ref, self)
            # What ``post`` does for most, without the call.
            if is_plain and cell is not None and cell.state is RUNNING and len(cell.queue) < cell.bound:
                cell.name = ref.name  # The same, but now one object: the collector sees it at a glance.
                cell.queue.append(envelope)
                if not cell.is_scheduled:
                    self._line_up(cell)
            else:
                self.post(ref, envelope)
        if not self._is_draining:
            self._arm()

    def complete(self, collector: Collector) -> None:
        """All have answered: tell the incarnation that asked, if it is still there."""
        if collector.is_watched:
            self.deadlines.discard(collector)
        asker, trace, incarnation = collector.asker, collector.trace, collector.incarnation
        if asker.incarnation == incarnation:
            posted_at = self.clock.now() if trace is not None else 0.0
            message = collector.gathered()
            envelope = GatheredEnvelope(message, "runtime", None, trace, None, posted_at, incarnation, collector.on_behalf)
            self.enqueue_own(asker, envelope)

    def _watch_rounds(self) -> None:
        """Put the fan-outs that are still open under their deadlines. Whose time went by in this drain gets a moment more."""
        for collector in self._rounds:
            deadline = collector.deadline
            if deadline is not None and collector.is_open:
                collector.is_watched = True
                now = self.clock.now()
                if deadline <= now:
                    collector.deadline = now + AFTER_STALL_S
                self.deadlines.add(collector)
        self._rounds.clear()

    def enqueue_own(self, cell: Cell, envelope: Envelope) -> None:
        """Append what the runtime owes an actor, whatever the bound: a timer, or answers it has gathered."""
        if self._journal is not None:
            self._journal(cell.name, envelope)
        cell.queue.append(envelope)
        if not cell.is_scheduled:
            self.schedule(cell)

    def put_first(self, cell: Cell, messages: list[Message]) -> None:
        """Put what must be read first in front of all waiting mail, in place of what was put there before."""
        envelopes = [FirstMail(message, "runtime") for message in messages]
        if self._journal is not None:
            for envelope in envelopes:
                self._journal(cell.name, envelope)
        waiting = dropwhile(lambda envelope: isinstance(envelope, FirstMail), cell.queue)
        cell.queue.put_all([*envelopes, *waiting])

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
        span = open_span(self._tracing, to, envelope, self.clock)
        if span is not None:
            end_span(span, fault.value)
        self.refuse(to, envelope, fault)

    # Turns.

    def schedule(self, cell: Cell) -> None:
        """Let a cell with mail have its turns, unless it is away."""
        if cell.is_scheduled or cell.state is not RUNNING:
            return
        self._line_up(cell)
        if not self._is_draining:
            self._arm()

    def _line_up(self, cell: Cell) -> None:
        cell.is_scheduled = True
        last = self._last
        if last is None:
            self._ready = cell
        else:
            last.following = cell
        self._last = cell

    def post_and_drain(self, to: Ref[Any] | str, envelope: Envelope) -> None:
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

    def _post_and_give_turns(self, to: Ref[Any] | str, envelope: Envelope) -> None:
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
        counters, before, is_call, budget = self.counters, _NO_ENVELOPE, False, TURNS_PER_DRAIN
        while budget > 0:
            # It stays in front of those that have mail until its turns are over, so that it is not scheduled twice.
            ready = self._ready
            if ready is None:
                break
            cell: Cell = ready  # Compiled, what may be None would be looked at again each time.
            queue, turns = cell.queue, TURNS_IN_A_ROW
            while turns and cell.state is RUNNING and len(queue):
                turns -= 1
                envelope = queue.popleft()
                was_call, is_call = is_call, isinstance(envelope.message, CallForBids)
                if envelope is not before:
                    before = envelope
                    # Bids change nothing: those that an actor makes in a row are made as of one moment.
                    if not (is_call and was_call):
                        self._turn_at = 0.0
                if envelope.__class__ is not Envelope and is_left_behind(envelope, cell.incarnation):
                    continue
                question = envelope.reply_to
                if question is not None and envelope.deadline is not None and envelope.deadline <= self.turn_time():
                    counters.expired += 1
                    self.turn_away(cell.name, envelope, Fault.EXPIRED)
                    continue
                if envelope.trace is not None:
                    self._traced_turn(cell, envelope)
                    continue
                # What ``_turn`` does, without the calls.
                counters.handled += 1
                cell.envelope, cell.question, cell.trace = envelope, question, None
                resident = cell.resident
                try:
                    if resident is not None:
                        resident.handle(envelope.message, cell)
                    else:
                        cell.actor.handle(envelope.message, cell)
                except Exception as error:
                    self._crashed(cell, envelope, error)
                    continue
                except BaseException:
                    self._broken_off(cell, envelope)
                    raise
                if cell.has_said:
                    cell.commit()
                if cell.question is not None:
                    self._silent(cell, envelope)
            budget -= TURNS_IN_A_ROW - turns
            self._ready, cell.following = cell.following, None
            if self._ready is None:
                self._last = None
            cell.is_scheduled = is_call = False
            if len(queue) and cell.state is RUNNING:
                self._line_up(cell)
        if self._rounds:
            self._watch_rounds()

    def _traced_turn(self, cell: Cell, envelope: Envelope) -> None:
        """The turn of a message with a trace."""
        span = open_span(self._tracing, cell.name, envelope, self.clock)
        if span is None:
            self._turn(cell, envelope, envelope.trace)
        else:
            end_span(span, self._turn(cell, envelope, span.context))

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
