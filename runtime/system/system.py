"""The actor system: spawns, asks, supervises, stops.

Owns: every actor's life. Root is one_for_one: since references survive a restart, no sibling need restart with another.
Always: mailbox and references survive a restart. A pure handler's crash restarts nobody; after any other crash the actor's
invariant is asked, and only a broken one costs a restart. Stopping is in order, last spawned first.
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
from runtime.system.dispatcher import Dispatcher, Port, TurnTracing
from runtime.system.replies import Ask, Counters, FirstMail
from runtime.system.supervision import GiveUp, decide

log = logging.getLogger("pointsman.system")


class ActorSystem:
    """Runs actors on one event loop. Make it inside the running loop, or give it one."""

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

    @property
    def counters(self) -> Counters:
        """What went another way than planned."""
        return self._dispatcher.counters

    @property
    def clock(self) -> Clock:
        """The time of this system."""
        return self._clock

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

        Raises ``ValueError`` if the name is taken, and whatever the factory raises.
        """
        if name in self._dispatcher.cells or name in self._dispatcher.ports:
            raise ValueError(f"there is an actor or port called {name} already")
        rng = Random(f"{self._seed}/{name}")
        cell = Cell(name, factory, spec or SupervisionSpec(), bound or self._bound, rng, self._dispatcher, first_mail)
        cell.actor = factory(None)
        self._dispatcher.cells[name] = cell
        self._start(cell)
        return Ref(name)

    def port(self, name: str, handler: Port) -> Ref[Any]:
        """Give a part of the runtime an address. Raises ``ValueError`` if the name is taken."""
        if name in self._dispatcher.cells or name in self._dispatcher.ports:
            raise ValueError(f"there is an actor or port called {name} already")
        self._dispatcher.ports[name] = handler
        return Ref(name)

    def stop_actor(self, name: str) -> None:
        """End an actor: open questions are answered, waiting mail becomes dead letters. Unknown names are ignored."""
        cell = self._dispatcher.cells.pop(name, None)
        self._call_off_return(name)
        if cell is None or cell.state is CellState.STOPPED:
            return
        cell.end_incarnation(Fault.STOPPED)
        cell.state = CellState.STOPPED
        while cell.queue:
            self._dispatcher.bury(name, cell.queue.popleft(), Fault.STOPPED)

    async def stop(self) -> None:
        """Let the mail that is under way be handled, then end all actors, last spawned first."""
        for _ in range(1000):
            if not any(cell.queue for cell in self._dispatcher.cells.values() if cell.state is CellState.RUNNING):
                break
            await asyncio.sleep(0)
        for name in reversed(list(self._dispatcher.cells)):
            self.stop_actor(name)
        self._dispatcher.deadlines.close()

    def revive(self, name: str) -> bool:
        """Bring back an actor that is out. True if it was out."""
        cell = self._dispatcher.cells.get(name)
        if cell is None or cell.state is not CellState.OUT:
            return False
        self._call_off_return(name)
        cell.failed_at.clear()
        self._begin_again(cell)
        return True

    # Mail from outside.

    def tell(self, to: Ref[Any] | str, message: Message, trace: TraceContext | None = None, sender: str = "outside") -> None:
        """Send a message; no answer comes. Never waits."""
        name = to if isinstance(to, str) else to.name
        posted_at = self._clock.now() if trace is not None else 0.0
        self._dispatcher.post(name, Envelope(message, sender, None, trace, None, posted_at))

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

        ``on_answer`` sees the answer in the very turn that gave it. Raises ``DeadlineExceeded``, ``Overloaded`` or
        ``ActorGone``.
        """
        dispatcher = self._dispatcher
        ask = Ask(self._loop.create_future(), dispatcher.counters, deadline, on_answer)
        name = to if isinstance(to, str) else to.name
        posted_at = self._clock.now() if trace is not None else 0.0
        if deadline is not None:
            dispatcher.deadlines.add(ask, deadline)
        dispatcher.post(name, Envelope(message, sender, deadline, trace, ask, posted_at))
        try:
            return await ask.future
        finally:
            if deadline is not None:
                dispatcher.deadlines.discard(ask)

    # Failures.

    def _on_crash(self, cell: Cell, envelope: Envelope) -> None:
        if envelope.message.PURE:
            return
        if isinstance(envelope, FirstMail) or _broken(cell.actor) is not None:
            self._restart(cell)
        else:
            self._put_first_mail(cell)

    def _restart(self, cell: Cell) -> None:
        now = self._clock.now()
        verdict = decide(cell.failed_at, now, cell.spec)
        cell.failed_at.append(now)
        if isinstance(verdict, GiveUp):
            self._give_up(cell, verdict)
            return
        self.counters.restarts += 1
        log.warning("%s restarts after %.1f s: its invariant does not hold", cell.name, verdict.delay_s)
        cell.end_incarnation(Fault.RESTARTING)
        if verdict.delay_s <= 0:
            self._begin_again(cell)
            return
        cell.state = CellState.RESTARTING
        self._answer_waiting(cell, Fault.RESTARTING)
        self._returns[cell.name] = self._loop.call_later(verdict.delay_s, self._return, cell)

    def _return(self, cell: Cell) -> None:
        self._returns.pop(cell.name, None)
        self._begin_again(cell)

    def _begin_again(self, cell: Cell) -> None:
        """Make the next incarnation. One that cannot even be made is a failure like any other."""
        try:
            cell.actor = cell.factory(cell.actor)
        except Exception as error:
            log.error("%s cannot be made again", cell.name, exc_info=error)
            self._restart(cell)
            return
        cell.state = CellState.RUNNING
        self._put_first_mail(cell)
        self._start(cell)

    def _put_first_mail(self, cell: Cell) -> None:
        """What must be read before all waiting mail, for a successor and after a message that was skipped alike."""
        if cell.first_mail is not None:
            for message in reversed(cell.first_mail()):
                cell.queue.appendleft(FirstMail(message, "runtime"))

    def _start(self, cell: Cell) -> None:
        cell.begin(None, None)
        try:
            cell.actor.start(cell)
        except Exception as error:
            cell.drop()
            log.error("%s cannot start", cell.name, exc_info=error)
            self._restart(cell)
            return
        cell.commit()
        if cell.queue:
            self._dispatcher.schedule(cell)

    def _give_up(self, cell: Cell, verdict: GiveUp) -> None:
        cell.end_incarnation(Fault.OUT)
        cell.state = CellState.OUT
        self._answer_waiting(cell, Fault.OUT)
        cell.queue.clear()
        reason = f"{cell.name} failed {verdict.failures} times in {cell.spec.period_s:g} s"
        if cell.spec.fatal:
            log.critical("%s: the daemon must end", reason)
            if self._on_fatal is not None:
                self._on_fatal(reason)
            return
        log.error("%s: out of service for %g s", reason, cell.spec.out_for_s)
        self._returns[cell.name] = self._loop.call_later(cell.spec.out_for_s, self.revive, cell.name)

    def _answer_waiting(self, cell: Cell, fault: Fault) -> None:
        """Answer the questions in a mailbox nobody reads for now; what needs no answer stays."""
        waiting = list(cell.queue)
        cell.queue.clear()
        for envelope in waiting:
            if envelope.reply_to is not None:
                self._dispatcher.refuse(cell.name, envelope, fault)
            else:
                cell.queue.append(envelope)

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
