"""The law of mailboxes: one FIFO each, nothing overtakes; only bounded messages are shed; the outbox of a crash is dropped."""

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from actors.kernel import Context, Ref
from messages.envelope import Envelope
from messages.routing import Gathered, NoBid, NoBidReason
from runtime.system.dispatcher import TURNS_IN_A_ROW, TURNS_PER_DRAIN
from runtime.system.replies import ActorGone, Overloaded
from runtime.system.system import ActorSystem
from tests.system.world import (
    Answer,
    Mouth,
    Note,
    Puppet,
    always,
    award,
    bids_wanted,
    echo,
    ended,
    never,
    put_aside,
    query,
    refs,
    run,
    settle,
)


def test_an_actor_reads_its_mail_in_the_order_in_which_it_was_sent() -> None:
    async def body(system: ActorSystem) -> None:
        reader = Puppet(never)
        system.spawn("reader", always(reader))
        for number in range(500):
            system.tell("reader", Note(str(number)))
        await settle()
        assert reader.texts() == [str(number) for number in range(500)]

    run(body)


def test_a_reference_leads_to_whoever_has_the_name_now_and_in_the_system_that_is_told() -> None:
    async def body(system: ActorSystem) -> None:
        ref, readers = Ref[Any]("reader"), [Puppet(never) for _ in range(3)]
        for number, reader in enumerate(readers[:2]):
            system.spawn("reader", always(reader))
            system.tell(ref, Note(str(number)))
            await settle()
            system.stop_actor("reader")
            system.tell(ref, Note("lost"))
        other = ActorSystem(clock=system.clock)
        other.spawn("reader", always(readers[2]))
        other.tell(ref, Note("2"))
        await settle()
        system.tell(ref, Note("lost"))
        await other.stop()
        assert [reader.texts() for reader in readers] == [["0"], ["1"], ["2"]]
        assert (system.counters.dead_letters, other.counters.dead_letters) == (3, 0)

    run(body)


def test_a_question_does_not_overtake_what_was_told_before_it() -> None:
    async def body(system: ActorSystem) -> None:
        reader = Puppet(lambda puppet, note, context: context.reply(Answer("reader", "ok")) if note.text == "asked" else None)
        system.spawn("reader", always(reader))
        system.tell("reader", Note("told"))
        await system.ask("reader", Note("asked"))
        assert reader.texts() == ["told", "asked"]

    run(body)


def test_what_an_actor_says_leaves_in_the_order_in_which_it_was_said() -> None:
    def speak(puppet: Puppet, message: Any, context: Context) -> None:
        context.tell(Ref("mouth"), Note("first"))
        context.reply(Answer("speaker", "second"))
        context.tell(Ref("mouth"), Note("third"))

    async def body(system: ActorSystem) -> None:
        heard: list[str] = []
        system.port("mouth", lambda envelope: heard.append(envelope.message.text))
        system.spawn("speaker", always(Puppet(speak)))
        await system.ask("speaker", Note("go"), on_answer=lambda answer: heard.append(answer.text))
        assert heard == ["first", "second", "third"]

    run(body)


def test_bounded_messages_are_shed_at_the_bound_and_others_always_taken() -> None:
    async def body(system: ActorSystem) -> None:
        reader = Puppet(never)
        system.spawn("reader", always(reader), bound=3)
        for _ in range(3):
            system.tell("reader", ended())
        system.tell("reader", query("told"))
        system.tell("reader", award())
        system.tell("reader", ended())
        assert system.mailbox_lengths()["reader"] == 5
        with pytest.raises(Overloaded):
            await system.ask("reader", query("asked"))
        assert system.counters.shed == 2
        await settle()
        assert reader.read == [ended(), ended(), ended(), award(), ended()]

    run(body)


def test_a_full_provider_bids_overloaded_in_a_fan_out() -> None:
    def ask_all(puppet: Puppet, message: Any, context: Context) -> None:
        if isinstance(message, Note):
            for _ in range(2):
                context.tell(Ref("provider:full"), ended())
            context.gather(refs("provider:full", "provider:free"), bids_wanted(), "round")

    async def body(system: ActorSystem) -> None:
        asker = Puppet(ask_all)
        system.spawn("asker", always(asker))
        system.spawn("provider:full", always(Puppet(never)), bound=2)
        free = NoBid("free", NoBidReason.DISABLED)
        system.spawn("provider:free", always(Puppet(lambda puppet, message, context: context.reply(free))))
        system.tell("asker", Note("go"))
        await settle()
        gathered = asker.read[-1]
        assert isinstance(gathered, Gathered)
        assert gathered.answers == (NoBid("full", NoBidReason.OVERLOADED), free)

    run(body)


def test_nothing_leaves_a_handler_that_raises() -> None:
    def speak_and_fall(puppet: Puppet, message: Any, context: Context) -> None:
        if message.text == "old":
            puppet.slots.append(context.defer())
        elif message.text == "fall":
            context.tell(Ref("mouth"), Note("told"))
            context.after(1.0, Note("timer"))
            context.gather(refs("echo"), Note("gathered"), "key")
            context.answer(puppet.slots[0], Answer("speaker", "answer of the old question"))
            puppet.slots.append(context.defer())
            raise ZeroDivisionError
        elif message.text == "after":
            context.answer(puppet.slots[1], Answer("speaker", "answer of a question that was never put aside"))

    async def body(system: ActorSystem) -> None:
        mouth, listener, speaker = Mouth(), Puppet(echo), Puppet(speak_and_fall)
        system.port("mouth", mouth)
        system.spawn("echo", always(listener))
        system.spawn("speaker", always(speaker))
        old = asyncio.ensure_future(system.ask("speaker", Note("old")))
        await settle()
        with pytest.raises(ActorGone, match="crashed"):
            await system.ask("speaker", Note("fall"))
        await asyncio.sleep(5.0)
        assert mouth.envelopes == []
        assert listener.read == []
        assert speaker.texts() == ["old", "fall"]
        assert not old.done()

        # Nor does it leave with the next turn, and a question that was never put aside cannot be answered.
        system.tell("speaker", Note("after"))
        await asyncio.sleep(5.0)
        assert system.counters.late_replies == 1
        assert mouth.envelopes == []
        assert listener.read == []
        assert speaker.texts() == ["old", "fall", "after"]
        assert not old.done()
        old.cancel()

    run(body)


def test_a_reply_of_a_handler_that_raises_is_dropped_too() -> None:
    def reply_and_fall(puppet: Puppet, message: Any, context: Context) -> None:
        context.reply(Answer("speaker", "never"))
        raise ZeroDivisionError

    async def body(system: ActorSystem) -> None:
        system.spawn("speaker", always(Puppet(reply_and_fall)))
        with pytest.raises(ActorGone, match="crashed"):
            await system.ask("speaker", Note("go"))
        assert system.counters.late_replies == 0

    run(body)


def test_a_second_reply_in_one_turn_is_a_crash() -> None:
    def reply_twice(puppet: Puppet, message: Any, context: Context) -> None:
        context.reply(Answer("speaker", "one"))
        context.reply(Answer("speaker", "two"))

    async def body(system: ActorSystem) -> None:
        system.spawn("speaker", always(Puppet(reply_twice)))
        with pytest.raises(ActorGone, match="crashed"):
            await system.ask("speaker", Note("go"))

    run(body)


def test_a_port_runs_at_once_and_one_that_raises_breaks_nobodys_turn() -> None:
    def speak(puppet: Puppet, message: Any, context: Context) -> None:
        context.tell(Ref("broken"), Note("one"))
        context.tell(Ref("mouth"), Note("two"))
        context.reply(Answer("speaker", "ok"))

    def broken(envelope: Envelope) -> None:
        raise OSError("the port is broken")

    async def body(system: ActorSystem) -> None:
        mouth = Mouth()
        system.port("broken", broken)
        system.port("mouth", mouth)
        system.spawn("speaker", always(Puppet(speak)))
        assert await system.ask("speaker", Note("go")) == Answer("speaker", "ok")
        assert mouth.texts() == ["two"]
        assert system.counters.crashes == 1
        with pytest.raises(ActorGone, match="crashed"):
            await system.ask("broken", Note("go"))

    run(body)


def test_what_cannot_be_done_keeps_nothing_else_back() -> None:
    def speak(puppet: Puppet, message: Any, context: Context) -> None:
        context.tell(Ref("reader"), "not a message")
        context.tell(Ref("reader"), Note("told"))
        context.reply(Answer("speaker", "ok"))

    async def body(system: ActorSystem) -> None:
        reader = Puppet(never)
        system.spawn("reader", always(reader))
        system.spawn("speaker", always(Puppet(speak)))
        assert await system.ask("speaker", Note("go")) == Answer("speaker", "ok")
        await settle()
        assert reader.texts() == ["told"]
        assert system.counters.crashes == 1

    run(body)


def test_an_actor_that_tells_itself_for_ever_starves_neither_others_nor_timers() -> None:
    def spin(puppet: Puppet, message: Any, context: Context) -> None:
        puppet.read.clear()
        context.tell(Ref("spinner"), message)

    async def body(system: ActorSystem) -> None:
        system.spawn("spinner", always(Puppet(spin)))
        system.spawn("echo", always(Puppet(echo)))
        system.tell("spinner", Note("again"))
        before = system.counters.handled
        assert await system.ask("echo", Note("hello")) == Answer("echo", "hello")
        assert system.counters.handled - before <= TURNS_PER_DRAIN + TURNS_IN_A_ROW
        rounds = 0
        for _ in range(3):
            await asyncio.sleep(0)
            rounds += 1
        assert rounds == 3
        system.stop_actor("spinner")

    run(body)


def test_a_long_mailbox_lets_others_have_their_turns_in_between() -> None:
    async def body(system: ActorSystem) -> None:
        heard: list[str] = []
        system.spawn("busy", always(Puppet(lambda puppet, note, context: heard.append("busy"))))
        system.spawn("brief", always(Puppet(lambda puppet, note, context: heard.append("brief"))))
        for _ in range(3 * TURNS_IN_A_ROW):
            system.tell("busy", Note(""))
        system.tell("brief", Note(""))
        await settle()
        assert heard.index("brief") == TURNS_IN_A_ROW
        assert heard.count("busy") == 3 * TURNS_IN_A_ROW

    run(body)


def test_somebody_who_asks_and_asks_lets_the_loop_turn() -> None:
    async def body(system: ActorSystem) -> None:
        system.spawn("echo", always(Puppet(echo)))
        turned = asyncio.ensure_future(asyncio.sleep(0))
        asked = 0
        while not turned.done():
            await system.ask("echo", Note("again"))
            asked += 1
            assert asked < 1000

    run(body)


def test_an_answer_that_can_be_had_at_once_needs_no_turn_of_the_loop() -> None:
    async def body(system: ActorSystem) -> None:
        system.spawn("echo", always(Puppet(echo)))
        asking = system.ask("echo", Note("hello"))
        with pytest.raises(StopIteration) as stop:
            asking.send(None)
        assert stop.value.value == Answer("echo", "hello")

    run(body)


def test_turns_run_in_the_context_of_the_system_not_of_who_asks() -> None:
    request: ContextVar[str] = ContextVar("request", default="none")

    async def body(system: ActorSystem) -> None:
        seen: list[str] = []
        system.port("mouth", lambda envelope: seen.append(request.get()))

        def speak(puppet: Puppet, message: Any, context: Context) -> None:
            context.tell(Ref("mouth"), message)
            context.after(1.0, Note("later"))

        system.spawn("speaker", always(Puppet(speak)))
        request.set("mine")
        with pytest.raises(ActorGone, match="silent"):
            await system.ask("speaker", Note("asked"))
        system.tell("speaker", Note("told"))
        await asyncio.sleep(1.5)
        assert len(seen) == 4
        assert set(seen) == {"none"}

    run(body)


def test_mail_to_nobody_is_a_dead_letter_and_few_of_them_are_kept() -> None:
    async def body(system: ActorSystem) -> None:
        for _ in range(250):
            system.tell("nobody", Note("hello"))
        with pytest.raises(ActorGone, match="missing"):
            await system.ask("nobody", Note("hello"))
        assert system.counters.dead_letters == 251
        assert len(system.dead_letters) == 100
        assert system.dead_letters[-1] == ("nobody", "Note")

    run(body)


def test_a_name_is_taken_once_by_actors_and_ports_together() -> None:
    async def body(system: ActorSystem) -> None:
        system.spawn("a", always(Puppet()))
        system.port("b", Mouth())
        for name in ("a", "b"):
            with pytest.raises(ValueError, match=name):
                system.spawn(name, always(Puppet()))
            with pytest.raises(ValueError, match=name):
                system.port(name, Mouth())
        with pytest.raises(ValueError, match="bound"):
            system.spawn("c", always(Puppet()), bound=0)
        assert system.state_of("c") is None

    run(body)


def test_a_factory_that_raises_leaves_nothing_behind() -> None:
    def broken(previous: Any) -> Puppet:
        raise OSError("no")

    async def body(system: ActorSystem) -> None:
        with pytest.raises(OSError, match="no"):
            system.spawn("a", broken)
        assert system.state_of("a") is None
        system.spawn("a", always(Puppet(echo)))
        assert await system.ask("a", Note("hello")) == Answer("echo", "hello")

    run(body)


def test_put_aside_questions_wait_without_holding_up_the_mailbox() -> None:
    async def body(system: ActorSystem) -> None:
        keeper = Puppet(put_aside)
        system.spawn("keeper", always(keeper))
        waiting = [asyncio.ensure_future(system.ask("keeper", Note(str(number)))) for number in range(3)]
        await settle()
        assert [task.done() for task in waiting] == [False, False, False]
        system.tell("keeper", Note("answer"))
        assert await asyncio.gather(*waiting) == [Answer("late", "now")] * 3

    run(body)
