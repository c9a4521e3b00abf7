"""The laws of restarts and supervision: mailbox and references survive, timers die, first mail comes first, limits hold."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from actors.kernel import Actor, Context, Ref, SupervisionSpec
from messages.base import Message
from messages.calls import RefusalReason, Refused
from messages.routing import NoBid, NoBidReason
from runtime.system.cell import CellState
from runtime.system.replies import ActorGone
from runtime.system.system import ActorSystem
from tests.system.world import (
    Answer,
    Look,
    Note,
    Puppet,
    always,
    award,
    bids_wanted,
    crash,
    echo,
    ended,
    run,
    settle,
)

OUT_AFTER_TWO = SupervisionSpec(limit=2, period_s=30.0, fatal=False, out_for_s=300.0)
SLOW = SupervisionSpec(backoff_s=5.0)
OBSERVER = SupervisionSpec(limit=None, backoff_s=0.5, backoff_max_s=8.0)


def fragile(puppet: Puppet, message: Any, context: Context) -> None:
    """Break on a note that says so (state and all), raise on ``raise``, answer other notes."""
    if message == Note("break"):
        puppet.broken = "broken"
        raise ZeroDivisionError("told to")
    if message == Note("raise"):
        raise ZeroDivisionError("told to")
    if message == Note("ask"):
        context.reply(Answer("fragile", str(puppet.starts)))


def heal(puppet: Puppet, context: Context) -> None:
    puppet.broken = None


def fragile_actor() -> Puppet:
    return Puppet(fragile, on_start=heal)


def test_mailbox_and_references_survive_a_restart() -> None:
    async def body(system: ActorSystem) -> None:
        made: list[Puppet] = []

        def factory(previous: Actor | None) -> Puppet:
            assert previous is (made[-1] if made else None)
            made.append(Puppet(fragile))
            return made[-1]

        ref = system.spawn("a", factory)
        for text in ("one", "break", "two", "three"):
            system.tell(ref, Note(text))
        assert await system.ask(ref, Note("ask")) == Answer("fragile", "1")
        assert [actor.texts() for actor in made] == [["one", "break"], ["two", "three", "ask"]]
        assert system.counters.restarts == 1

    run(body)


def test_an_invariant_that_holds_costs_a_message_and_no_restart() -> None:
    async def body(system: ActorSystem) -> None:
        actor = fragile_actor()
        system.spawn("a", always(actor))
        for text in ("one", "raise", "two"):
            system.tell("a", Note(text))
        await settle()
        assert actor.texts() == ["one", "raise", "two"]
        assert actor.starts == 1
        assert (system.counters.crashes, system.counters.restarts) == (1, 0)

    run(body)


def test_an_invariant_that_cannot_be_told_is_broken() -> None:
    class Unsure(Puppet):
        def invariant(self) -> str | None:
            raise LookupError

    async def body(system: ActorSystem) -> None:
        actor = Unsure(fragile)
        system.spawn("a", always(actor))
        system.tell("a", Note("raise"))
        await settle()
        assert actor.starts == 2

    run(body)


def test_a_crash_in_a_pure_handler_restarts_nobody_even_if_the_invariant_is_broken() -> None:
    async def body(system: ActorSystem) -> None:
        actor = Puppet(crash, broken="always")
        system.spawn("a", always(actor), first_mail=lambda: [Note("first")])
        for _ in range(20):
            assert await system.ask("a", bids_wanted()) == NoBid("a", NoBidReason.CRASHED)
            system.tell("a", Look("x"))
        await settle()
        assert actor.starts == 1
        assert Note("first") not in actor.read
        assert system.counters.crashes == 40

    run(body)


def test_timers_die_with_their_incarnation() -> None:
    def set_timer(puppet: Puppet, context: Context) -> None:
        puppet.broken = None
        context.after(10.0, Note(f"timer of {puppet.starts}"))

    async def body(system: ActorSystem) -> None:
        actor = Puppet(fragile, on_start=set_timer)
        system.spawn("a", always(actor))
        await asyncio.sleep(5.0)
        system.tell("a", Note("break"))
        await asyncio.sleep(100.0)
        assert actor.texts() == ["break", "timer of 2"]

    run(body)


def test_a_timer_that_fired_before_the_restart_does_not_reach_the_successor() -> None:
    def set_timer(puppet: Puppet, context: Context) -> None:
        puppet.broken = None
        if puppet.starts == 1:
            context.after(1.0, Note("break"))
            context.after(1.0, Note("due at the same time"))

    async def body(system: ActorSystem) -> None:
        actor = Puppet(fragile, on_start=set_timer)
        system.spawn("a", always(actor))
        await asyncio.sleep(2.0)
        assert actor.texts() == ["break"]

    run(body)


def test_a_timer_is_mail_of_a_later_turn_and_can_be_called_off() -> None:
    def handle(puppet: Puppet, message: Any, context: Context) -> None:
        if message == Note("go"):
            context.after(0.0, Note("at once"))
            context.after(-5.0, Note("long ago"))
            context.cancel(context.after(1.0, Note("never")))
            puppet.read.append(Note("end of turn"))

    async def body(system: ActorSystem) -> None:
        actor = Puppet(handle)
        system.spawn("a", always(actor))
        system.tell("a", Note("go"))
        await asyncio.sleep(5.0)
        assert actor.texts() == ["go", "end of turn", "at once", "long ago"]

    run(body)


@pytest.mark.parametrize(("text", "spec"), [("raise", None), ("break", None), ("break", SLOW)])
def test_first_mail_is_read_before_all_waiting_mail(text: str, spec: SupervisionSpec | None) -> None:
    async def body(system: ActorSystem) -> None:
        actor = fragile_actor()
        system.spawn("a", always(actor), spec, first_mail=lambda: [Note("first"), Note("second")])
        for message in ("one", text, "two"):
            system.tell("a", Note(message))
        await asyncio.sleep(10.0)
        assert actor.texts() == ["one", text, "first", "second", "two"]

    run(body)


def test_first_mail_is_asked_for_after_what_met_the_crash_was_answered() -> None:
    async def body(system: ActorSystem) -> None:
        permits = {"p": None}
        restored: list[list[str]] = []

        def first_mail() -> Sequence[Message]:
            restored.append(sorted(permits))
            return []

        system.spawn("a", always(Puppet(crash, broken="always")), SupervisionSpec(limit=9), first_mail=first_mail)
        answer = await system.ask("a", award("p"), on_answer=lambda refused: permits.pop(refused.permit_id))
        assert answer == Refused("p", RefusalReason.CRASHED)
        assert restored == [[]]

    run(body)


def test_a_first_mail_on_which_the_actor_raises_restarts_it_and_is_put_anew() -> None:
    def handle(puppet: Puppet, message: Any, context: Context) -> None:
        if message in (Note("raise"), Note("1: first")):
            raise ZeroDivisionError

    async def body(system: ActorSystem) -> None:
        actor, calls = Puppet(handle), list[int]()

        def first_mail() -> Sequence[Message]:
            calls.append(1)
            return [Note(f"{len(calls)}: first"), Note(f"{len(calls)}: second")]

        system.spawn("a", always(actor), first_mail=first_mail)
        for text in ("raise", "waiting"):
            system.tell("a", Note(text))
        await settle()
        # The invariant held, yet an actor that cannot read how the world stands must begin again.
        assert actor.starts == 2
        assert actor.texts() == ["raise", "1: first", "2: first", "2: second", "waiting"]

    run(body)


def test_first_mail_that_cannot_be_had_counts_as_a_failure() -> None:
    async def body(system: ActorSystem) -> None:
        def first_mail() -> Sequence[Message]:
            raise LookupError

        actor, other = fragile_actor(), Puppet(echo)
        system.spawn("a", always(actor), OUT_AFTER_TWO, first_mail=first_mail)
        system.spawn("other", always(other))
        system.tell("a", Note("raise"))
        await settle()
        assert system.state_of("a") is CellState.OUT
        assert await system.ask("other", Note("alive")) == Answer("echo", "alive")

    run(body)


def test_while_it_restarts_tells_wait_in_order_and_questions_are_answered() -> None:
    async def body(system: ActorSystem) -> None:
        actor = fragile_actor()
        system.spawn("a", always(actor), SLOW)
        system.tell("a", Note("break"))
        system.tell("a", Note("one"))
        await settle()
        assert system.state_of("a") is CellState.RESTARTING
        system.tell("a", Note("two"))
        assert await system.ask("a", award()) == Refused("p", RefusalReason.RESTARTING)
        assert await system.ask("a", bids_wanted()) == NoBid("a", NoBidReason.CRASHED)
        with pytest.raises(ActorGone, match="restarting"):
            await system.ask("a", Note("ask"))
        assert actor.texts() == ["break"]
        await asyncio.sleep(5.0)
        assert system.state_of("a") is CellState.RUNNING
        assert actor.texts() == ["break", "one", "two"]

    run(body)


def test_mail_that_an_answer_brings_does_not_overtake_what_waits() -> None:
    def speak(puppet: Puppet, message: Any, context: Context) -> None:
        context.tell(Ref("a"), Note("break"))
        context.tell(Ref("ask"), message)
        context.tell(Ref("a"), Note("one"))

    async def body(system: ActorSystem) -> None:
        asking = system.ask("a", award(), on_answer=lambda _: system.tell("a", Note("last")))
        # As an eager task would: the question is posted in the middle of somebody's turn.
        system.port("ask", lambda envelope: asking.send(None))
        actor = fragile_actor()
        system.spawn("a", always(actor), SLOW)
        system.spawn("speaker", always(Puppet(speak)))
        system.tell("speaker", Note("go"))
        await asyncio.sleep(10.0)
        assert actor.texts() == ["break", "one", "last"]
        asking.close()

    run(body)


def test_an_actor_that_stays_away_swallows_what_its_mailbox_does_not_hold() -> None:
    async def body(system: ActorSystem) -> None:
        actor = fragile_actor()
        system.spawn("a", always(actor), SLOW, bound=10)
        system.tell("a", Note("break"))
        await settle()
        for _ in range(25):
            system.tell("a", ended())
        assert system.mailbox_lengths()["a"] == 10
        assert system.counters.swallowed == 15
        await asyncio.sleep(5.0)
        assert actor.read[1:] == [ended()] * 10

    run(body)


def test_beyond_its_limit_a_provider_is_out_and_back_after_its_time() -> None:
    async def body(system: ActorSystem) -> None:
        actor = fragile_actor()
        system.spawn("provider:a", always(actor), OUT_AFTER_TWO)
        for _ in range(3):
            system.tell("provider:a", Note("break"))
        system.tell("provider:a", ended())
        await settle()
        assert system.state_of("provider:a") is CellState.OUT
        assert system.counters.swallowed == 1

        assert await system.ask("provider:a", bids_wanted()) == NoBid("a", NoBidReason.OUT)
        assert await system.ask("provider:a", award()) == Refused("p", RefusalReason.OUT)
        system.tell("provider:a", ended())
        assert system.counters.swallowed == 2
        assert system.dead_letters == ()
        assert system.mailbox_lengths()["provider:a"] == 0

        await asyncio.sleep(299.0)
        assert system.state_of("provider:a") is CellState.OUT
        await asyncio.sleep(2.0)
        assert system.state_of("provider:a") is CellState.RUNNING
        assert await system.ask("provider:a", Note("ask")) == Answer("fragile", "4")

    run(body)


def test_an_actor_that_is_out_comes_back_at_once_when_revived_and_only_once() -> None:
    async def body(system: ActorSystem) -> None:
        actor = fragile_actor()
        system.spawn("a", always(actor), OUT_AFTER_TWO, first_mail=lambda: [Note("first")])
        assert not system.revive("a")
        assert not system.revive("nobody")
        for _ in range(3):
            system.tell("a", Note("break"))
        await settle()
        assert system.revive("a")
        assert not system.revive("a")
        # Its history is forgotten: it may fail as often as a new one.
        for _ in range(2):
            system.tell("a", Note("break"))
        await settle()
        assert system.state_of("a") is CellState.RUNNING
        assert actor.texts()[-1] == "first"

        # And the timer that would have brought it back is off.
        starts = actor.starts
        await asyncio.sleep(1000.0)
        assert actor.starts == starts

    run(body)


def test_a_fatal_actor_beyond_its_limit_ends_the_daemon_and_its_questions_are_answered() -> None:
    told: list[str] = []

    def on_fatal(reason: str) -> None:
        told.append(reason)
        raise OSError("and even that fails")

    async def body(system: ActorSystem) -> None:
        def keep(puppet: Puppet, message: Any, context: Context) -> None:
            if message == Note("keep"):
                context.defer()
            fragile(puppet, message, context)

        system.spawn("router", always(Puppet(keep, on_start=heal)), SupervisionSpec(limit=0))
        kept = asyncio.ensure_future(system.ask("router", Note("keep")))
        await settle()
        system.tell("router", Note("break"))
        with pytest.raises(ActorGone, match="out"):
            await kept
        assert told == ["router failed 1 times in 30 s"]
        assert system.state_of("router") is CellState.OUT
        await asyncio.sleep(1000.0)
        assert system.state_of("router") is CellState.OUT

    run(body, on_fatal=on_fatal)


def test_observers_restart_for_ever_with_back_off_and_take_nobody_with_them() -> None:
    async def body(system: ActorSystem) -> None:
        starts: list[float] = []

        def fail_to_start(puppet: Puppet, context: Context) -> None:
            starts.append(context.now())
            if context.now() < 3600.0:
                raise LookupError

        observer, other = Puppet(echo, on_start=fail_to_start), Puppet(echo)
        system.spawn("observer", always(observer), OBSERVER)
        system.spawn("other", always(other))
        await asyncio.sleep(3700.0)
        waits = [later - earlier for earlier, later in itertools.pairwise(starts)]
        assert waits[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]
        assert all(0.5 <= wait_s <= 8.0 for wait_s in waits)
        assert other.starts == 1
        assert await system.ask("observer", Note("alive")) == Answer("echo", "alive")

    run(body)


@pytest.mark.parametrize("failing", ["factory", "start"])
def test_who_cannot_be_made_again_is_out_after_its_limit_and_hangs_nobody(failing: str) -> None:
    async def body(system: ActorSystem) -> None:
        attempts: list[float] = []

        def on_start(puppet: Puppet, context: Context) -> None:
            if failing == "start" and attempts:
                raise LookupError

        def factory(previous: Actor | None) -> Puppet:
            if previous is not None:
                attempts.append(system.clock.now())
                if failing == "factory":
                    raise LookupError
            return Puppet(fragile, on_start=on_start)

        system.spawn("a", factory, SupervisionSpec(limit=50, fatal=False, out_for_s=60.0))
        system.tell("a", Note("break"))
        with pytest.raises(ActorGone, match="out"):
            await system.ask("a", Note("ask"))
        assert len(attempts) == 50
        await asyncio.sleep(61.0)
        assert len(attempts) == 101

    run(body)


def test_what_start_says_is_dropped_if_start_raises() -> None:
    def on_start(puppet: Puppet, context: Context) -> None:
        context.tell(Ref("reader"), Note(str(puppet.starts)))
        context.after(1.0, Note("timer"))
        if puppet.starts == 1:
            raise LookupError

    async def body(system: ActorSystem) -> None:
        reader = Puppet()
        actor = Puppet(on_start=on_start)
        system.spawn("reader", always(reader))
        system.spawn("a", always(actor))
        await asyncio.sleep(2.0)
        assert reader.texts() == ["2"]
        assert actor.texts() == ["timer"]

    run(body)


def test_stopping_an_actor_calls_its_return_off() -> None:
    async def body(system: ActorSystem) -> None:
        slow, gone = fragile_actor(), fragile_actor()
        system.spawn("slow", always(slow), SLOW)
        system.spawn("gone", always(gone), OUT_AFTER_TWO)
        for name, times in (("slow", 1), ("gone", 3)):
            for _ in range(times):
                system.tell(name, Note("break"))
        await settle()
        system.stop_actor("slow")
        system.stop_actor("gone")
        system.stop_actor("never was")
        await asyncio.sleep(1000.0)
        assert (slow.starts, gone.starts) == (1, 3)
        assert system.state_of("slow") is None

        # The name is free again, and nothing of the old one comes with it.
        system.spawn("slow", always(again := fragile_actor()), SLOW)
        await asyncio.sleep(1000.0)
        assert (again.starts, again.read) == (1, [])

    run(body)


@pytest.mark.parametrize("spec", [SupervisionSpec(), SLOW, SupervisionSpec(limit=0, fatal=False)])
def test_an_actor_stopped_by_the_answer_its_restart_gives_stays_stopped(spec: SupervisionSpec) -> None:
    def keep(puppet: Puppet, message: Any, context: Context) -> None:
        if message == award():
            context.defer()
        fragile(puppet, message, context)

    async def body(system: ActorSystem) -> None:
        actor = Puppet(keep, on_start=heal)
        system.spawn("a", always(actor), spec)
        asking = asyncio.ensure_future(system.ask("a", award(), on_answer=lambda _: system.stop_actor("a")))
        await settle()
        system.tell("a", Note("break"))
        await asking
        assert system._returns == {}
        await asyncio.sleep(1000.0)
        assert system.state_of("a") is None
        assert actor.starts == 1

    run(body)
