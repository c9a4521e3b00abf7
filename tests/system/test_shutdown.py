"""Stopping: mail under way is handled, last spawned goes first, every open question is answered, nobody hangs."""

import asyncio
from typing import Any

import pytest

from actors.kernel import Context, Ref, SupervisionSpec
from messages.calls import RefusalReason, Refused
from runtime.system.cell import CellState
from runtime.system.replies import ActorGone
from runtime.system.system import ActorSystem
from tests.system.world import Answer, Mouth, Note, Puppet, always, award, crash, echo, ended, never, put_aside, run, settle


def test_mail_under_way_is_handled_before_the_end() -> None:
    def pass_on(puppet: Puppet, message: Any, context: Context) -> None:
        if len(message.text) < 10:
            context.tell(Ref("a"), Note(message.text + "x"))

    async def body(system: ActorSystem) -> None:
        a = Puppet(pass_on)
        system.spawn("a", always(a))
        system.tell("a", Note(""))
        await system.stop()
        assert a.texts()[-1] == "x" * 10
        assert system.dead_letters == ()

    run(body)


def test_the_last_spawned_goes_first() -> None:
    async def body(system: ActorSystem) -> None:
        ends: list[str] = []
        for name in ("registry", "router", "provider:a"):
            system.spawn(name, always(Puppet(put_aside)))
        asking = []
        for name in ("router", "registry", "provider:a"):

            async def ask(name: str = name) -> None:
                with pytest.raises(ActorGone, match="stopped"):
                    await system.ask(name, Note("x"))
                ends.append(name)

            asking.append(asyncio.ensure_future(ask()))
        await settle()
        await system.stop()
        await asyncio.gather(*asking)
        assert ends == ["provider:a", "router", "registry"]
        assert [system.state_of(name) for name in ("registry", "router", "provider:a")] == [None] * 3

    run(body)


def test_nobody_waits_after_the_end_whoever_they_asked() -> None:
    async def body(system: ActorSystem) -> None:
        system.spawn("keeper", always(Puppet(put_aside)))
        system.spawn("slow", always(Puppet(crash, broken="yes")), SupervisionSpec(backoff_s=60.0))
        system.spawn("out", always(Puppet(crash, broken="yes")), SupervisionSpec(limit=0, fatal=False))
        system.port("mouth", Mouth())
        for name in ("slow", "out"):
            system.tell(name, Note("break"))
        await settle()
        asking = [
            asyncio.ensure_future(system.ask(name, Note("x"), deadline))
            for name in ("keeper", "mouth", "slow", "out", "nobody")
            for deadline in (None, 1e6)
        ]
        awarding = asyncio.ensure_future(system.ask("keeper", award()))
        await settle()
        assert [system.state_of(name) for name in ("slow", "out")] == [CellState.RESTARTING, CellState.OUT]
        await system.stop()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(answer) for answer in answers} == {ActorGone}
        assert await awarding == Refused("p", RefusalReason.OUT)
        assert asyncio.get_running_loop().time() == 0.0

    run(body)


def test_after_the_end_questions_are_answered_at_once_and_nobody_is_born() -> None:
    async def body(system: ActorSystem) -> None:
        system.spawn("a", always(Puppet(echo)))
        system.port("mouth", Mouth())
        await system.stop()
        for name in ("a", "mouth"):
            with pytest.raises(ActorGone, match="missing"):
                await system.ask(name, Note("x"))
        system.tell("a", ended())
        assert system.dead_letters == (("a", "Note"), ("mouth", "Note"), ("a", "CallEnded"))
        with pytest.raises(RuntimeError, match="stopping"):
            system.spawn("b", always(Puppet()))

    run(body)


def test_an_actor_that_never_rests_does_not_hold_up_the_end() -> None:
    def spin(puppet: Puppet, message: Any, context: Context) -> None:
        puppet.read.clear()
        context.tell(Ref("spinner"), message)

    async def body(system: ActorSystem) -> None:
        system.spawn("spinner", always(Puppet(spin)))
        system.tell("spinner", Note("again"))
        await system.stop()
        assert system.state_of("spinner") is None

    run(body)


def test_an_actor_that_ends_while_others_have_mail_does_not_stop_their_turns() -> None:
    async def body(system: ActorSystem) -> None:
        system.spawn("a", always(Puppet(never)))
        system.spawn("echo", always(Puppet(echo)))
        system.tell("a", ended())
        system.stop_actor("a")
        assert await system.ask("echo", Note("hello")) == Answer("echo", "hello")
        assert system.dead_letters == (("a", "CallEnded"),)

    run(body)
