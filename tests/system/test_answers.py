"""The law of answers: every question gets exactly one, whatever becomes of whom it was put to."""

import asyncio
import math
from typing import Any

import pytest

from actors.kernel import Context, Ref, SupervisionSpec
from messages.calls import Granted, RefusalReason, Refused
from messages.envelope import Undelivered
from messages.routing import Gathered, NoBid, NoBidReason
from runtime.system.replies import ActorGone, DeadlineExceeded
from runtime.system.system import ActorSystem
from tests.system.world import (
    Answer,
    Mouth,
    Note,
    Puppet,
    always,
    award,
    bids_wanted,
    crash,
    echo,
    ended,
    never,
    put_aside,
    refs,
    run,
    settle,
)


@pytest.mark.parametrize(("handler", "fault"), [(crash, "crashed"), (never, "silent")])
def test_a_handler_that_gives_no_answer_is_answered_for(handler: Any, fault: str) -> None:
    async def body(system: ActorSystem) -> None:
        system.spawn("a", always(Puppet(handler)))
        with pytest.raises(ActorGone) as gone:
            await system.ask("a", Note("hello"))
        assert gone.value.fault == fault

    run(body)


def test_questions_waiting_in_the_mailbox_of_a_stopped_actor_are_answered_and_the_rest_is_dead() -> None:
    def ask_then_end(puppet: Puppet, message: Any, context: Context) -> None:
        if isinstance(message, Note):
            context.gather(refs("a"), award(), "award")
            context.gather(refs("a"), Note("x"), "note")
            context.tell(Ref("a"), ended())
            context.tell(Ref("end a"), message)

    async def body(system: ActorSystem) -> None:
        asker, a = Puppet(ask_then_end), Puppet(never)
        system.port("end a", lambda envelope: system.stop_actor("a"))
        system.spawn("a", always(a))
        system.spawn("asker", always(asker))
        system.tell("asker", Note("go"))
        await settle()
        assert asker.read[1:] == [
            Gathered("award", (Refused("p", RefusalReason.OUT),)),
            Gathered("note", (Undelivered("a", "stopped"),)),
        ]
        assert a.read == []
        assert system.dead_letters == (("a", "CallEnded"),)

    run(body)


def test_an_actor_stopped_by_what_it_says_leaves_no_slot_timer_or_fan_out_behind() -> None:
    def speak(puppet: Puppet, message: Any, context: Context) -> None:
        context.tell(Ref("end me"), message)
        context.after(1.0, message)
        slot = context.defer()
        context.gather(refs("echo"), Note("x"), "key", slot)

    async def body(system: ActorSystem) -> None:
        listener = Puppet(echo)
        system.spawn("echo", always(listener))
        system.port("end me", lambda envelope: system.stop_actor("a"))
        system.spawn("a", always(Puppet(speak)))
        with pytest.raises(ActorGone, match="stopped"):
            await system.ask("a", Note("go"))
        await asyncio.sleep(2.0)
        assert listener.read == []
        assert system.dead_letters == ()

    run(body)


def test_open_slots_are_answered_when_their_owner_stops() -> None:
    async def body(system: ActorSystem) -> None:
        system.spawn("a", always(Puppet(put_aside)))
        waiting = [asyncio.ensure_future(system.ask("a", message)) for message in (Note("x"), award(), bids_wanted())]
        await settle()
        system.stop_actor("a")
        gone, refused, no_bid = await asyncio.gather(*waiting, return_exceptions=True)
        assert str(gone) == "a: stopped"
        assert refused == Refused("p", RefusalReason.OUT)
        assert no_bid == NoBid("a", NoBidReason.OUT)

    run(body)


def test_open_slots_are_answered_when_their_owner_restarts() -> None:
    def keep_or_break(puppet: Puppet, message: Any, context: Context) -> None:
        if isinstance(message, Note) and message.text == "break":
            puppet.broken = "broken"
            raise ZeroDivisionError
        put_aside(puppet, message, context)

    async def body(system: ActorSystem) -> None:
        keeper = Puppet(keep_or_break)
        system.spawn("a", always(keeper))
        waiting = asyncio.ensure_future(system.ask("a", award()))
        await settle()
        system.tell("a", Note("break"))
        assert await waiting == Refused("p", RefusalReason.RESTARTING)

        system.tell("a", Note("answer"))
        await settle()
        assert system.counters.late_replies == 1

    run(body)


def test_a_slot_is_answered_once_and_the_second_answer_counted() -> None:
    def twice(puppet: Puppet, message: Any, context: Context) -> None:
        slot = context.defer()
        context.answer(slot, Answer("a", "one"))
        context.answer(slot, Answer("a", "two"))

    async def body(system: ActorSystem) -> None:
        system.spawn("a", always(Puppet(twice)))
        assert await system.ask("a", Note("go")) == Answer("a", "one")
        assert system.counters.late_replies == 1

    run(body)


def test_an_answer_after_the_deadline_is_counted_and_dropped() -> None:
    async def body(system: ActorSystem) -> None:
        heard: list[Any] = []
        system.spawn("a", always(Puppet(put_aside)))
        with pytest.raises(DeadlineExceeded):
            await system.ask("a", Note("x"), deadline=2.0, on_answer=heard.append)
        assert system.clock.now() == 2.0
        system.tell("a", Note("answer"))
        await settle()
        assert system.counters.late_replies == 1
        assert heard == []

    run(body)


def test_an_award_past_its_deadline_is_refused_without_reaching_the_handler() -> None:
    async def body(system: ActorSystem) -> None:
        provider = Puppet(never)
        system.spawn("a", always(provider))
        await asyncio.sleep(10.0)
        assert await system.ask("a", award(), deadline=9.0) == Refused("p", RefusalReason.EXPIRED)
        assert await system.ask("a", award(), deadline=10.0) == Refused("p", RefusalReason.EXPIRED)
        with pytest.raises(DeadlineExceeded):
            await system.ask("a", Note("x"), deadline=9.0)
        assert provider.read == []
        assert system.counters.expired == 3

    run(body)


def test_deadlines_expire_each_in_its_time_with_one_timer_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(system: ActorSystem) -> None:
        loop = asyncio.get_running_loop()
        timers: list[float] = []
        call_later = loop.call_later

        def counted(delay: float, *arguments: Any, **options: Any) -> Any:
            timers.append(delay)
            return call_later(delay, *arguments, **options)

        system.spawn("a", always(Puppet(put_aside)))
        monkeypatch.setattr(loop, "call_later", counted)
        ends: dict[int, float] = {}

        async def ask(number: int) -> None:
            with pytest.raises(DeadlineExceeded):
                await system.ask("a", Note("x"), deadline=5.0 + number % 3)
            ends[number] = system.clock.now()

        tasks = [asyncio.ensure_future(ask(number)) for number in range(300)]
        await settle()
        assert timers == [0.25], "it looks four times a second"
        await asyncio.gather(*tasks)
        assert ends == {number: 5.0 + number % 3 for number in range(300)}
        assert timers == [0.25] * 28

    run(body)


def test_an_earlier_deadline_that_comes_later_is_kept_too() -> None:
    async def body(system: ActorSystem) -> None:
        system.spawn("a", always(Puppet(put_aside)))
        ends: list[tuple[str, float]] = []

        async def ask(name: str, deadline: float) -> None:
            with pytest.raises((DeadlineExceeded, ActorGone)):
                await system.ask("a", Note("x"), deadline=deadline)
            ends.append((name, system.clock.now()))

        tasks = [asyncio.ensure_future(ask(name, at)) for name, at in (("never", math.inf), ("late", 9.0), ("early", 3.0))]
        await asyncio.sleep(100.0)
        assert ends == [("early", 3.0), ("late", 9.0)]
        system.stop_actor("a")
        await asyncio.gather(*tasks)

    run(body)


def test_an_asker_cancelled_between_award_and_answer_still_sees_the_answer() -> None:
    def grant_late(puppet: Puppet, message: Any, context: Context) -> None:
        if isinstance(message, Note):
            context.answer(puppet.slots[0], Granted("p", "gpt-4o", 1))
        elif message == award():
            puppet.slots.append(context.defer())

    async def body(system: ActorSystem) -> None:
        provider, seen = Puppet(grant_late), list[Any]()
        system.spawn("a", always(provider))

        # The answer is there, but the asker is cancelled before it wakes: it learns of the permit all the same.
        asking = asyncio.ensure_future(system.ask("a", award(), on_answer=seen.append))
        await settle()
        system.tell("a", Note("grant"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert seen == [Granted("p", "gpt-4o", 1)]
        assert system.counters.late_replies == 0

    run(body)


def test_an_asker_cancelled_before_the_answer_ends_its_permit_after_the_award() -> None:
    def grant_late(puppet: Puppet, message: Any, context: Context) -> None:
        if message == award():
            puppet.slots.append(context.defer())
        elif message == Note("grant"):
            context.answer(puppet.slots[0], Granted("p", "gpt-4o", 1))

    async def body(system: ActorSystem) -> None:
        provider = Puppet(grant_late)
        system.spawn("a", always(provider))

        async def courier() -> None:
            try:
                await system.ask("a", award())
            finally:
                system.tell("a", ended())

        asking = asyncio.ensure_future(courier())
        await settle()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        system.tell("a", Note("grant"))
        await settle()
        assert provider.read == [award(), ended(), Note("grant")]
        assert system.counters.late_replies == 1

    run(body)


def test_what_on_answer_raises_is_the_askers_and_not_the_actors() -> None:
    def fail(answer: Any) -> None:
        raise LookupError("mine")

    async def body(system: ActorSystem) -> None:
        system.spawn("echo", always(Puppet(echo)))
        with pytest.raises(LookupError, match="mine"):
            await system.ask("echo", Note("hello"), on_answer=fail)
        assert system.counters.crashes == 0

    run(body)


def test_a_message_that_cannot_tell_its_own_answer_is_answered_all_the_same() -> None:
    class Odd(Note):
        def unanswered(self, actor: str, fault: str) -> Any:
            raise LookupError

    async def body(system: ActorSystem) -> None:
        system.spawn("a", always(Puppet(crash)))
        for name in ("a", "nobody"):
            with pytest.raises(ActorGone):
                await system.ask(name, Odd("x"))

    run(body)


def gather_once(*names: str, within_s: float | None = None) -> Puppet:
    """An actor that puts a call for bids to ``names`` at every note."""

    def ask_all(puppet: Puppet, message: Any, context: Context) -> None:
        if isinstance(message, Note):
            context.gather(refs(*names), bids_wanted(message.text), message.text, None, within_s)

    return Puppet(ask_all)


def bidder(name: str) -> Puppet:
    return Puppet(lambda puppet, message, context: context.reply(NoBid(name, NoBidReason.DISABLED)))


@pytest.mark.parametrize("crashing", [("b",), ("a", "b"), ("a", "b", "c")])
def test_a_handler_that_raises_in_the_middle_of_a_fan_out_does_not_bid(crashing: tuple[str, ...]) -> None:
    async def body(system: ActorSystem) -> None:
        asker = gather_once("provider:a", "provider:b", "provider:c")
        system.spawn("asker", always(asker))
        actors = {name: Puppet(crash) if name in crashing else bidder(name) for name in "abc"}
        for name, actor in actors.items():
            actor.broken = "it would restart if it were asked"
            system.spawn(f"provider:{name}", always(actor))
        system.tell("asker", Note("round"))
        await settle()
        reasons = {answer.provider: answer.reason for answer in asker.read[1].answers}
        assert reasons == {name: NoBidReason.CRASHED if name in crashing else NoBidReason.DISABLED for name in "abc"}
        assert system.counters.crashes == len(crashing)
        assert system.counters.restarts == 0
        assert [actor.starts for actor in actors.values()] == [1, 1, 1]

    run(body)


def test_answers_are_handed_on_in_the_order_of_asking_whoever_answers_first_and_whoever_is_answered_for() -> None:
    async def body(system: ActorSystem) -> None:
        names = ("provider:a", "provider:b", "provider:c", "provider:d", "provider:e")
        asker, asking = gather_once(*names, within_s=0.05), list[Any]()
        system.spawn("asker", always(asker))
        for name in names:
            system.port(name, lambda envelope: asking.append(envelope.reply_to))
        system.tell("asker", Note("round"))
        await settle()
        for number, name in enumerate(("provider:d", "provider:b", "provider:d", "provider:b", "provider:nobody")):
            # As one who was asked names itself, and by a name that is only equal to that.
            actor = name if number % 2 else "".join(list(name))
            asking[0].answer(actor, NoBid(name, NoBidReason.DISABLED))
        assert system.counters.late_replies == 3
        await asyncio.sleep(1.0)
        answers = [(answer.provider.removeprefix("provider:"), answer.reason.value) for answer in asker.read[1].answers]
        assert answers == [("a", "timeout"), ("b", "disabled"), ("c", "timeout"), ("d", "disabled"), ("e", "timeout")]
        asking[0].answer("provider:a", NoBid("a", NoBidReason.DISABLED))
        assert system.counters.late_replies == 4

    run(body)


def test_a_fan_out_over_missing_stopped_silent_and_slow_actors_is_whole_in_time() -> None:
    async def body(system: ActorSystem) -> None:
        asker = gather_once("provider:none", "provider:stopped", "provider:silent", "provider:slow", "port", within_s=0.05)
        system.spawn("asker", always(asker))
        system.spawn("provider:stopped", always(Puppet(put_aside)))
        system.spawn("provider:silent", always(Puppet(never)))
        slow = Puppet(put_aside)
        system.spawn("provider:slow", always(slow))
        system.port("port", Mouth())
        system.tell("asker", Note("round"))
        await settle()
        system.stop_actor("provider:stopped")
        await asyncio.sleep(1.0)
        assert {answer.provider: answer.reason for answer in asker.read[1].answers} == {
            "none": NoBidReason.OUT,
            "stopped": NoBidReason.OUT,
            "silent": NoBidReason.CRASHED,
            "slow": NoBidReason.TIMEOUT,
            "port": NoBidReason.TIMEOUT,
        }
        system.tell("provider:slow", Note("answer"))
        await settle()
        assert system.counters.late_replies == 1
        assert len(asker.read) == 2

    run(body)


def test_a_fan_out_to_nobody_comes_back_empty_and_one_named_twice_is_asked_once() -> None:
    async def body(system: ActorSystem) -> None:
        system.spawn("nobody", always(alone := gather_once()))
        system.spawn("doubled", always(doubled := gather_once("provider:a", "provider:a")))
        system.spawn("provider:a", always(asked := bidder("a")))
        system.tell("nobody", Note("round"))
        system.tell("doubled", Note("round"))
        await settle()
        assert alone.read[1] == Gathered("round", ())
        assert doubled.read[1] == Gathered("round", (NoBid("a", NoBidReason.DISABLED),))
        assert len(asked.read) == 1
        assert system.counters.late_replies == 0

    run(body)


@pytest.mark.parametrize("invariant", [None, "broken"])
def test_who_fails_at_what_was_gathered_has_the_question_behind_it_answered(invariant: str | None) -> None:
    def route(puppet: Puppet, message: Any, context: Context) -> None:
        if isinstance(message, Gathered):
            raise ZeroDivisionError
        context.gather(refs("provider:a"), bids_wanted(), "round", context.defer())

    async def body(system: ActorSystem) -> None:
        system.spawn("router", always(Puppet(route, broken=invariant)), SupervisionSpec(limit=100))
        system.spawn("provider:a", always(bidder("a")))
        with pytest.raises(ActorGone) as gone:
            await system.ask("router", Note("q"))
        assert gone.value.fault == "crashed"
        assert system.counters.restarts == (0 if invariant is None else 1)

    run(body)


def test_what_was_gathered_for_an_incarnation_that_is_gone_reaches_nobody() -> None:
    def route(puppet: Puppet, message: Any, context: Context) -> None:
        if message == Note("break"):
            puppet.broken = "broken"
            raise ZeroDivisionError
        if isinstance(message, Note):
            context.gather(refs("slow"), Note("x"), "round", context.defer())

    async def body(system: ActorSystem) -> None:
        router = Puppet(route)
        system.spawn("router", always(router))
        system.spawn("slow", always(Puppet(put_aside)))
        asking = asyncio.ensure_future(system.ask("router", Note("q")))
        await settle()
        system.tell("router", Note("break"))
        with pytest.raises(ActorGone, match="restarting"):
            await asking
        system.tell("slow", Note("answer"))
        await settle()
        assert router.read == [Note("q"), Note("break")]

    run(body)


def test_an_actor_stopped_by_whoever_reads_its_reply_leaves_no_timer_behind() -> None:
    def speak(puppet: Puppet, message: Any, context: Context) -> None:
        context.reply(Answer("a", "ok"))
        context.after(1.0, Note("timer"))

    async def body(system: ActorSystem) -> None:
        a = Puppet(speak)
        system.spawn("a", always(a))
        await system.ask("a", Note("go"), on_answer=lambda _: system.stop_actor("a"))
        await asyncio.sleep(2.0)
        assert a.texts() == ["go"]

    run(body)
