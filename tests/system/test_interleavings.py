"""Whatever happens in whatever order: every question ends exactly once, nothing hangs, nothing is left behind."""

import asyncio
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kernel import Actor, Context, ReplySlot, SupervisionSpec
from messages.base import Message
from messages.envelope import Undelivered
from messages.routing import Gathered
from runtime.system.replies import AskError
from runtime.system.system import ActorSystem
from tests.system.world import Answer, Note, refs, run

NAMES = ("a", "b", "c")
TARGETS = (*NAMES, "mouth", "nobody")


@dataclass(frozen=True, slots=True)
class Do(Message):
    """What to do with this very message: the handler carries out each word in order."""

    words: tuple[str, ...]


class Obedient:
    """Does what ``Do`` says; keeps what it put aside over its restarts, as a careless actor might."""

    def __init__(self, slots: list[ReplySlot]) -> None:
        self.slots = slots
        self.rounds = 0
        self.broken: str | None = None

    def start(self, context: Context) -> None:
        context.after(0.5, Note("tick"))

    def handle(self, message: Any, context: Context) -> None:
        if isinstance(message, Gathered):
            # Where a slot has its answer already, by a restart or another round, this one is late.
            if self.slots:
                context.answer(self.slots.pop(0), Answer("gatherer", str(len(message.answers))))
        elif isinstance(message, Do):
            for word in message.words:
                self.obey(word, context)

    def obey(self, word: str, context: Context) -> None:
        match word:
            case "reply":
                context.reply(Answer("obedient", "yes"))
            case "defer":
                self.slots.append(context.defer())
            case "answer" if self.slots:
                context.answer(self.slots.pop(), Answer("obedient", "later"))
            case "answer twice" if self.slots:
                context.answer(self.slots[0], Answer("obedient", "later"))
                context.answer(self.slots[0], Answer("obedient", "and again"))
            case "gather":
                slot = context.defer()
                self.slots.append(slot)
                context.gather(refs(*TARGETS), Do(("reply",)), "round", slot, within_s=0.2)
            case "gather in circles":
                context.gather(refs(*NAMES), Do(("defer",)), "round", None, within_s=0.1)
            case "tell":
                for ref in refs(*TARGETS):
                    context.tell(ref, Do(("answer",)))
            case "timer":
                context.after(0.3, Do(("tell", "answer")))
            case "stop me" | "stop another":
                context.tell(refs(word)[0], Note(word))
            case "raise":
                raise ZeroDivisionError
            case "break":
                self.broken = "broken"
                raise ZeroDivisionError

    def invariant(self) -> str | None:
        return self.broken


WORDS = (
    *("reply", "defer", "answer", "answer twice", "gather", "gather in circles"),
    *("tell", "timer", "stop me", "stop another", "raise", "break"),
)
dos = st.lists(st.sampled_from(WORDS), max_size=4).map(lambda words: Do(tuple(words)))
times = st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.5, 3.0])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), st.sampled_from(TARGETS), dos),
        st.tuples(st.just("ask"), st.sampled_from(TARGETS), dos, st.none() | st.sampled_from([0.0, 0.1, 1.0])),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("sleep"), times),
        st.tuples(st.just("stop"), st.sampled_from(NAMES)),
        st.tuples(st.just("revive"), st.sampled_from(NAMES)),
        st.tuples(st.just("spawn"), st.sampled_from(NAMES)),
    ),
    max_size=25,
)
specs = st.builds(
    SupervisionSpec,
    limit=st.sampled_from([None, 0, 1, 3]),
    backoff_s=st.sampled_from([0.0, 0.2]),
    fatal=st.booleans(),
    out_for_s=st.just(2.0),
)


class World:
    """An actor system, those who ask, and how each question ended."""

    def __init__(self, system: ActorSystem, spec: SupervisionSpec) -> None:
        self.system = system
        self.spec = spec
        self.asking: list[asyncio.Task[None]] = []
        self.ends: list[list[str]] = []
        system.port("mouth", lambda envelope: None)
        system.port("stop me", lambda envelope: system.stop_actor(envelope.sender))
        system.port("stop another", lambda envelope: system.stop_actor(NAMES[(NAMES.index(envelope.sender) + 1) % 3]))
        for name in NAMES:
            self.spawn(name)

    def spawn(self, name: str) -> None:
        slots: list[ReplySlot] = []

        def make(previous: Actor | None) -> Obedient:
            return Obedient(slots)

        if self.system.state_of(name) is None:
            self.system.spawn(name, make, self.spec, first_mail=lambda: [Note("first")])

    async def ask(self, target: str, message: Message, within_s: float | None) -> None:
        ends: list[str] = []
        self.ends.append(ends)
        deadline = None if within_s is None else self.system.clock.now() + within_s
        try:
            answer = await self.system.ask(target, message, deadline, on_answer=lambda _: ends.append("seen"))
            assert not isinstance(answer, Undelivered)
            assert ends == ["seen"]
        except AskError:
            assert ends == []
            ends.append("error")
        except asyncio.CancelledError:
            ends.append("cancelled")

    async def take(self, step: Any) -> None:
        match step:
            case ("tell", target, message):
                self.system.tell(target, message)
            case ("ask", target, message, within_s):
                self.asking.append(asyncio.ensure_future(self.ask(target, message, within_s)))
            case ("cancel", number):
                if self.asking:
                    self.asking[number % len(self.asking)].cancel()
            case ("sleep", delay_s):
                await asyncio.sleep(delay_s)
            case ("stop", name):
                self.system.stop_actor(name)
            case ("revive", name):
                self.system.revive(name)
            case ("spawn", name):
                self.spawn(name)


@settings(max_examples=150, deadline=None)
@given(steps, specs, st.booleans())
def test_every_question_ends_once_and_nothing_is_left_behind(program: list[Any], spec: SupervisionSpec, rests: bool) -> None:
    async def body(system: ActorSystem) -> None:
        world = World(system, spec)
        for step in program:
            await world.take(step)
        if rests:
            await asyncio.sleep(20.0)
        dispatcher = system._dispatcher
        cells = list(dispatcher.cells.values())
        for cell in cells:
            assert all(slot.is_open for slot in cell.open_slots)
            assert not cell.queue or cell.is_scheduled or cell.state.value == "restarting"
        await system.stop()

        done, pending = await asyncio.wait(world.asking, timeout=1.0) if world.asking else (set(), set())
        assert not pending
        assert [task.exception() for task in done if not task.cancelled() and task.exception()] == []
        assert all(len(ends) == 1 or ends == ["seen", "cancelled"] for ends in world.ends)
        assert len(dispatcher.deadlines) == 0
        assert dispatcher.cells == {}
        assert all(not cell.open_slots and not cell.timers and not cell.queue for cell in cells)
        assert system._returns == {}

        # No timer of the system is left: whatever is set now would fire within a day.
        handled = system.counters.handled
        await asyncio.sleep(86400.0)
        assert system.counters.handled == handled

    run(body)
