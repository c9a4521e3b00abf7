"""A sampled message gets exactly one span for its turn, with its wait; what is not sampled pays nothing."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.kernel import Context, Ref, SupervisionSpec
from messages.envelope import TraceContext
from messages.routing import Gathered
from runtime.system.replies import ActorGone, DeadlineExceeded, Overloaded
from runtime.system.system import ActorSystem
from tests.system.world import TRACE, Answer, Note, Puppet, always, crash, echo, ended, query, refs, run, settle


@dataclass
class Span:
    actor: str
    name: str
    parent: str
    queue_wait_s: float
    context: TraceContext
    ends: list[str | None] = field(default_factory=list)

    def end(self, error: str | None) -> None:
        self.ends.append(error)


@dataclass
class Spans:
    """Keeps the spans it makes."""

    made: list[Span] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def process(self, actor: str, message_name: str, parent: TraceContext, queue_wait_s: float) -> Span:
        context = TraceContext(parent.trace_id, f"{next(self.numbers):016x}")
        self.made.append(Span(actor, message_name, parent.span_id, queue_wait_s, context))
        return self.made[-1]

    def of(self, actor: str) -> Span:
        (span,) = [span for span in self.made if span.actor == actor]
        return span


def route(puppet: Puppet, message: Any, context: Context) -> None:
    """A router in small: gathers, then answers and tells."""
    if isinstance(message, Note):
        puppet.slots.append(context.defer())
        context.gather(refs("provider:a", "provider:b"), Note("bid?"), "round", puppet.slots[-1])
    elif isinstance(message, Gathered):
        context.tell(Ref("book"), Note("decided"))
        context.answer(puppet.slots.pop(), Answer("router", "plan"))


def test_every_turn_of_a_sampled_question_is_one_span_under_the_turn_that_caused_it() -> None:
    spans = Spans()

    async def body(system: ActorSystem) -> None:
        system.spawn("router", always(Puppet(route)))
        for name in ("provider:a", "provider:b"):
            system.spawn(name, always(Puppet(echo)))
        system.spawn("book", always(Puppet()))
        await system.ask("router", Note("query"), trace=TRACE)
        await settle()

    run(body, tracing=spans)
    asked, gathered = [span for span in spans.made if span.actor == "router"]
    assert (asked.name, asked.parent) == ("Note", TRACE.span_id)
    for name in ("provider:a", "provider:b"):
        assert spans.of(name).parent == asked.context.span_id
    assert (gathered.name, gathered.parent) == ("Gathered", asked.context.span_id)
    assert spans.of("book").parent == gathered.context.span_id
    assert [span.ends for span in spans.made] == [[None]] * 5


def test_unsampled_messages_never_reach_the_tracing() -> None:
    class Untouchable:
        def process(self, *arguments: Any) -> Any:
            raise AssertionError("asked for a span")

    async def body(system: ActorSystem) -> None:
        system.spawn("router", always(Puppet(route)))
        for name in ("provider:a", "provider:b"):
            system.spawn(name, always(Puppet(crash)))
        assert await system.ask("router", Note("query"), deadline=10.0) == Answer("router", "plan")
        with pytest.raises(ActorGone):
            await system.ask("nobody", Note("x"))
        # The crashes of two providers and nothing else.
        assert system.counters.crashes == 2

    run(body, tracing=Untouchable())


def test_the_wait_in_the_mailbox_is_told_apart_from_the_turn() -> None:
    spans = Spans()
    waits: dict[str, float] = {}

    async def body(system: ActorSystem) -> None:
        system.spawn("a", always(Puppet(crash, broken="yes")), SupervisionSpec(backoff_s=7.0))
        system.tell("a", Note("break"), trace=TRACE)
        system.tell("a", Note("waits"), trace=TRACE)
        await asyncio.sleep(8.0)
        waits.update({str(number): span.queue_wait_s for number, span in enumerate(spans.made)})

    run(body, tracing=spans)
    assert waits == {"0": 0.0, "1": 7.0}


def test_a_crash_ends_its_span_with_the_exceptions_name() -> None:
    spans = Spans()

    async def body(system: ActorSystem) -> None:
        system.spawn("a", always(Puppet(crash)))
        with pytest.raises(ActorGone):
            await system.ask("a", Note("x"), trace=TRACE)

    run(body, tracing=spans)
    assert spans.of("a").ends == ["ZeroDivisionError"]


def test_what_gets_no_turn_is_seen_in_its_trace_too() -> None:
    spans = Spans()

    async def body(system: ActorSystem) -> None:
        system.tell("nobody", Note("x"), trace=TRACE)
        system.spawn("full", always(Puppet()), bound=1)
        system.tell("full", ended())
        with pytest.raises(Overloaded):
            await system.ask("full", query(), trace=TRACE)
        system.spawn("late", always(Puppet()))
        await asyncio.sleep(1.0)
        with pytest.raises(DeadlineExceeded):
            await system.ask("late", Note("x"), deadline=0.5, trace=TRACE)

    run(body, tracing=spans)
    assert [(span.actor, span.ends) for span in spans.made] == [
        ("nobody", ["missing"]),
        ("full", ["overloaded"]),
        ("late", ["expired"]),
    ]


@pytest.mark.parametrize("broken", ["process", "end"])
def test_tracing_that_fails_costs_no_message(broken: str) -> None:
    class Failing(Spans):
        def process(self, *arguments: Any) -> Any:
            if broken == "process":
                raise LookupError
            return self

        context = TRACE

        def end(self, error: str | None) -> None:
            raise LookupError

    async def body(system: ActorSystem) -> None:
        system.spawn("router", always(Puppet(route)))
        for name in ("provider:a", "provider:b"):
            system.spawn(name, always(Puppet(echo)))
        assert await system.ask("router", Note("query"), trace=TRACE) == Answer("router", "plan")
        with pytest.raises(ActorGone):
            await system.ask("nobody", bids := Note("x"), trace=TRACE)
        assert bids.text == "x"

    run(body, tracing=Failing())
