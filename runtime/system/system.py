"""The actor system: spawns, asks, supervises, stops.

Owns: every actor's life. Root is one_for_one: since references survive a restart, no sibling need restart with another.
Always: mailbox and references survive a restart. A pure handler's crash restarts nobody; after any other crash the actor's
invariant is asked, and only a broken one costs a restart. Stopping is in order, last spawned first, and leaves nobody waiting.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from actors.kernel import Actor, ActorFactory, Ref, SupervisionSpec
from messages.base import Message
from messages.envelope import Envelope, Fault, TraceContext
from runtime.system.cell import Cell, CellState
from runtime.system.clock import Clock, real_clock
from runtime.system.deadlines import Deadlines
from runtime.system.dispatcher import Dispatcher, Port
from runtime.system.replies import Ask, Counters, FirstMail, Heard, Hearer
from runtime.system.supervision import GiveUp, decide
from runtime.system.turn_spans import TurnTracing

log = logging.getLogger("pointsman.system")

ROUNDS_BEFORE_STOP = 100
"""Turns of the event loop that mail under way gets at most when the system stops."""


class ActorSystem:
    """Runs actors on one event loop. Make it inside the running loop, or give it one. Not thread-safe.

    ``seed`` decides each actor's chance, together with its name. ``tracing`` makes spans for sampled messages. ``journal`` sees
    every envelope and its addressee when it is posted. ``mailbox_bound`` is the number of waiting messages from which bounded
    ones are shed. ``on_fatal`` is told, once for each, which actor failed so often that the daemon must end.
    """

    def __init__(
        self,
        seed: str = "0",
        clock: Clock | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        tracing: TurnTracing | None = None,
        journal: Callable[[str, Envelope], None] | None = None,
        mailbox_bound: int = 10_000,
        on_fatal: Callable[[str], None] | None = None,
    ) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._clock = clock or real_clock()
        self._seed = seed
        self._bound = mailbox_bound
        self._on_fatal = on_fatal
        self._dispatcher = Dispatcher(self._loop, self._clock, self._on_crash, tracing, journal)
        self._returns: dict[str, asyncio.TimerHandle] = {}
        """Timers of those that are restarting or out."""
        self._is_stopping = False

    @property
    def counters(self) -> Counters:
        """What went another way than planned."""
        return self._dispatcher.counters

    @property
    def clock(self) -> Clock:
        """The time of this system."""
        return self._clock

    @property
    def deadlines(self) -> Deadlines:
        """The one timer for all that wait."""
        return self._dispatcher.deadlines

    @property
    def dead_letters(self) -> tuple[tuple[str, str], ...]:
        """The last dead letters: (address, kind of message)."""
        return tuple(self._dispatcher.dead_letters)

    def mailbox_lengths(self) -> dict[str, int]:
        """Waiting messages by actor."""
        return {name: len(cell.queue) for name, cell in self._dispatcher.cells.items()}

    def state_of(self, name: str) -> CellState | None:
        """Where an actor is in its life; None if there is none of that name."""
        cell = self._dispatcher.cells.get(name)
        return cell.state if cell is not None else None

    # Life.

    def spawn(
        self,
        name: str,
        factory: ActorFactory,
        spec: SupervisionSpec | None = None,
        bound: int | None = None,
        first_mail: Callable[[], Sequence[Message]] | None = None,
    ) -> Ref[Any]:
        """Start an actor.

        ``first_mail`` gives what the actor must read before all waiting mail, after a restart and after a message on which it
        raised: how the world stands where a lost message may have left it wrong.

        Raises ``ValueError`` if the name is taken or ``bound`` is below 1, ``RuntimeError`` if the system stops, and whatever
        the factory raises. An actor whose ``start`` raises is restarted like any other.
        """
        self._claim(name)
        bound = self._bound if bound is None else bound
        if bound < 1:
            raise ValueError(f"{name}: a mailbox bound of {bound} would take nothing")
        rng = Random(f"{self._seed}/{name}")
        cell = Cell(name, factory, spec or SupervisionSpec(), bound, rng, self._dispatcher, first_mail)
        cell.take_in(factory(None))
        self._claim(name)
        self._dispatcher.cells[name] = cell
        if not self._started(cell):
            self._restart(cell)
        return Ref(name)

    def port(self, name: str, handler: Port) -> Ref[Any]:
        """Give a part of the runtime an address. Raises ``ValueError`` if the name is taken.

        ``handler`` runs in the turn of whoever tells it something, so it must return at once. It owes an answer to every
        envelope with a ``reply_to``; if it raises, the runtime gives that answer.
        """
        self._claim(name)
        self._dispatcher.ports[name] = handler
        return Ref(name)

    def _claim(self, name: str) -> None:
        if self._is_stopping:
            raise RuntimeError(f"{name}: the system is stopping")
        if name in self._dispatcher.cells or name in self._dispatcher.ports:
            raise ValueError(f"there is an actor or port called {name} already")

    def has_mail(self, name: str) -> bool:
        """Whether an actor has mail that it has not taken yet. An unknown name has none."""
        cell = self._dispatcher.cells.get(name)
        return cell is not None and len(cell.queue) > 0

    def stop_actor(self, name: str) -> None:
        """End an actor: open questions are answered, waiting mail becomes dead letters. Unknown names are ignored."""
        cell = self._dispatcher.cells.pop(name, None)
        self._call_off_return(name)
        if cell is None:
            return
        cell.state = CellState.STOPPED
        cell.end_incarnation(Fault.STOPPED)
        while len(cell.queue):
            envelope = cell.queue.popleft()
            if type(envelope) is Envelope:
                self._dispatcher.bury(name, envelope, Fault.STOPPED)

    async def stop(self) -> None:
        """Let the mail that is under way be handled, then end all actors, last spawned first. Nobody waits afterwards."""
        self._is_stopping = True
        for _ in range(ROUNDS_BEFORE_STOP):
            if not any(len(cell.queue) for cell in self._dispatcher.cells.values() if cell.state is CellState.RUNNING):
                break
            await asyncio.sleep(0)
        for name in reversed(list(self._dispatcher.cells)):
            self.stop_actor(name)
        # A port might never answer who asks it from now on.
        self._dispatcher.ports.clear()
        self._dispatcher.deadlines.close(Fault.STOPPED)

    def revive(self, name: str) -> bool:
        """Bring back an actor that is out. True if it was out."""
        cell = self._dispatcher.cells.get(name)
        if cell is None or cell.state is not CellState.OUT:
            return False
        self._call_off_return(name)
        cell.failed_at.clear()
        if not self._is_made_again(cell):
            self._restart(cell)
        return True

    # Mail from outside.

    def tell(self, to: Ref[Any] | str, message: Message, trace: TraceContext | None = None, sender: str = "outside") -> None:
        """Send a message; no answer comes. Never waits."""
        posted_at = self._clock.now() if trace is not None else 0.0
        self._dispatcher.post(to, Envelope(message, sender, None, trace, None, posted_at))

    def tell_all(self, to: tuple[Ref[Any] | str, ...], message: Message, sender: str = "outside") -> None:
        """Send one message, outside any trace, to each of ``to``; they share its envelope. Never waits."""
        envelope = Envelope(message, sender)
        for ref in to:
            self._dispatcher.post(ref, envelope)

    async def ask(
        self,
        to: Ref[Any] | str,
        message: Message,
        deadline: float | None = None,
        trace: TraceContext | None = None,
        sender: str = "outside",
        on_answer: Callable[[Any], None] | None = None,
    ) -> Any:
        """Send a question and wait for its answer, until ``deadline`` (monotonic s) at most.

        ``on_answer`` sees the answer in the very turn that gave it, also when whoever asks is cancelled before it wakes; what
        it raises is raised here. Where the answer can be had at once this returns without a turn of the event loop. Raises
        ``DeadlineExceeded``, ``Overloaded`` or ``ActorGone``.
        """
        question = self.put(to, message, deadline, trace, sender, Heard(on_answer) if on_answer is not None else None)
        return await self.wait_for(question) if question.is_open else question.outcome()

    def put(
        self,
        to: Ref[Any] | str,
        message: Message,
        deadline: float | None = None,
        trace: TraceContext | None = None,
        sender: str = "outside",
        hearer: Hearer | None = None,
    ) -> Ask:
        """Send a question as ``ask`` does; ``hearer`` sees the answer in the turn that gives it.

        If it ``is_open`` afterwards ``wait_for`` is owed, else its ``outcome`` is there.
        """
        dispatcher = self._dispatcher
        question = Ask(dispatcher.counters, deadline, hearer)
        posted_at = self._clock.now() if trace is not None else 0.0
        dispatcher.post_and_drain(to, Envelope(message, sender, deadline, trace, question, posted_at))
        return question

    async def wait_for(self, question: Ask) -> Any:
        """Wait for the answer to a question that was ``put`` just now. Raises what ``ask`` raises."""
        deadlines = self._dispatcher.deadlines
        deadlines.add(question)
        try:
            await question.wait(self._loop)
        finally:
            question.is_open = False
            deadlines.discard(question)
        return question.outcome()

    # Failures.

    def _on_crash(self, cell: Cell, envelope: Envelope) -> None:
        if envelope.message.PURE:
            return
        broken = "what it must read first made it raise" if isinstance(envelope, FirstMail) else _broken(cell.actor)
        if broken is None and self._has_first_mail(cell):
            return
        log.error("%s must restart: %s", cell.name, broken or "there is no first mail for it")
        self._restart(cell)

    def _restart(self, cell: Cell) -> None:
        """Make the next incarnation, now or later. One that cannot even be made or started is a failure like any other."""
        while True:
            now = self._clock.now()
            verdict = decide(cell.failed_at, now, cell.spec)
            cell.failed_at.append(now)
            if isinstance(verdict, GiveUp):
                self._give_up(cell, verdict)
                return
            self.counters.restarts += 1
            log.warning("%s restarts in %.1f s", cell.name, verdict.delay_s)
            cell.state = CellState.RESTARTING
            cell.end_incarnation(Fault.RESTARTING)
            if verdict.delay_s > 0:
                self._answer_waiting(cell, Fault.RESTARTING)
                self._come_back_in(verdict.delay_s, cell)
                return
            if self._is_made_again(cell):
                return

    def _come_back_in(self, delay_s: float, cell: Cell) -> None:
        """Set the timer, unless one of those who were just answered has stopped the actor."""
        if cell.state is not CellState.STOPPED:
            self._returns[cell.name] = self._loop.call_later(delay_s, self._return, cell)

    def _return(self, cell: Cell) -> None:
        if cell.state is CellState.OUT:
            self.revive(cell.name)
            return
        del self._returns[cell.name]
        if not self._is_made_again(cell):
            self._restart(cell)

    def _is_made_again(self, cell: Cell) -> bool:
        """Make and start the next incarnation. False if that failed; True too if nobody wants it any more."""
        if cell.state is CellState.STOPPED:
            return True
        try:
            cell.take_in(cell.factory(cell.actor))
        except Exception as error:
            log.error("%s cannot be made again", cell.name, exc_info=error)
            return False
        cell.state = CellState.RUNNING
        return self._has_first_mail(cell) and self._started(cell)

    def _has_first_mail(self, cell: Cell) -> bool:
        """Put what must be read before all waiting mail, for a successor and after a message that was skipped alike."""
        if cell.first_mail is not None:
            try:
                self._dispatcher.put_first(cell, list(cell.first_mail()))
            except Exception as error:
                log.error("there is no first mail for %s", cell.name, exc_info=error)
                return False
        return True

    def _started(self, cell: Cell) -> bool:
        """Give an incarnation its first turn. False if that failed."""
        cell.begin(None, None)
        try:
            cell.actor.start(cell)
        except Exception as error:
            cell.drop()
            self.counters.crashes += 1
            log.error("%s cannot start", cell.name, exc_info=error)
            return False
        cell.commit()
        if len(cell.queue):
            self._dispatcher.schedule(cell)
        return True

    def _give_up(self, cell: Cell, verdict: GiveUp) -> None:
        cell.state = CellState.OUT
        cell.end_incarnation(Fault.OUT)
        self._answer_waiting(cell, Fault.OUT)
        self.counters.swallowed += sum(type(envelope) is Envelope for envelope in cell.queue)
        cell.queue.put_all(())
        reason = f"{cell.name} failed {verdict.failures} times in {cell.spec.period_s:g} s"
        if cell.spec.fatal:
            log.critical("%s: the daemon must end", reason)
            self._report_fatal(reason)
            return
        log.error("%s: out of service for %g s", reason, cell.spec.out_for_s)
        self._come_back_in(cell.spec.out_for_s, cell)

    def _report_fatal(self, reason: str) -> None:
        if self._on_fatal is not None:
            try:
                self._on_fatal(reason)
            except Exception as error:
                log.critical("the daemon could not be told to end", exc_info=error)

    def _answer_waiting(self, cell: Cell, fault: Fault) -> None:
        """Answer the questions in a mailbox nobody reads for now; what needs no answer stays.

        The mailbox is in order again before the first answer leaves, for an answer may bring new mail.
        """
        questions = [envelope for envelope in cell.queue if envelope.reply_to is not None]
        if questions:
            cell.queue.put_all([envelope for envelope in cell.queue if envelope.reply_to is None])
        for envelope in questions:
            self._dispatcher.turn_away(cell.name, envelope, fault)

    def _call_off_return(self, name: str) -> None:
        handle = self._returns.pop(name, None)
        if handle is not None:
            handle.cancel()


def _broken(actor: Actor) -> str | None:
    """What is wrong with an actor's state; an invariant that cannot be told is broken."""
    try:
        return actor.invariant()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
