"""The tasks of the fast lane: a request has one if its errand asks for it, and for no longer than it lasts."""

import asyncio
import gc
from typing import Any, cast

import pytest

from runtime.ports import EdgeRequest
from tests.daemon.edge_desk import Desk, Stage, echo, hangs
from tests.daemon.test_raw_edge import post

Task = asyncio.Task[Any]


def others() -> list[Task]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def say(stage: Stage, data: bytes) -> None:
    cast(asyncio.Protocol, stage.wire.protocol).data_received(data)


async def test_a_request_that_is_answered_at_once_has_no_task() -> None:
    stage = Stage(Desk(at_once=True))
    say(stage, post(b"0"))
    assert stage.wire.sent.endswith(b"\r\n\r\n0")
    for piece in (post(b"1")[:50], post(b"1")[50:-1], post(b"1")[-1:]):
        say(stage, piece)
        assert others() == []
    assert stage.wire.sent.endswith(b"\r\n\r\n1")
    assert stage.desk.count == 0


async def test_a_request_that_needs_a_task_has_it_until_it_is_over() -> None:
    stage = Stage(Desk())
    say(stage, post(b"0"))
    assert len(others()) == 1
    await stage.turn()
    assert others() == []
    assert (stage.desk.bodies, stage.desk.ends, stage.desk.count) == ([b"0"], ["whole"], 0)


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_whoever_leaves_ends_the_task_of_its_request_however_soon(turns: int) -> None:
    stage = Stage(Desk(hangs))
    say(stage, post(b"0"))
    (task,) = others()
    for _ in range(turns):
        await asyncio.sleep(0)
    stage.end()
    await stage.turn()
    assert (task.done(), stage.desk.ends, stage.desk.count) == (True, ["CancelledError"], 0)


async def test_whoever_leaves_before_its_body_is_here_is_counted_as_gone() -> None:
    stage = Stage(Desk())
    say(stage, post(b"not all")[:-1])
    assert (stage.desk.count, others()) == (1, [])
    stage.end()
    assert (stage.desk.bodies, stage.desk.ends, stage.desk.count) == ([], ["left"], 0)


@pytest.mark.parametrize("at_once", [True, False])
async def test_who_sends_ahead_waits_for_its_turn_among_the_others(at_once: bool) -> None:
    desk = Desk(echo, at_once=at_once)
    ahead, other = Stage(desk), Stage(desk)
    for stage, data in ((ahead, post(b"a0") + post(b"a1") + post(b"a2")), (other, post(b"b0"))):
        say(stage, data)
    await ahead.turn()
    assert desk.bodies == [b"a0", b"b0", b"a1", b"a2"]
    assert ahead.wire.sent.count(b"HTTP/1.1 200 ") == 3


async def test_what_is_sent_ahead_in_pieces_is_put_together_again() -> None:
    desk = Desk(at_once=True)
    stage = Stage(desk)
    say(stage, post(b"0") + post(b"1")[:20])
    say(stage, post(b"1")[20:] + post(b"2")[:5])
    await stage.turn()
    say(stage, post(b"2")[5:])
    await stage.turn()
    assert desk.bodies == [b"0", b"1", b"2"]
    assert stage.wire.sent.count(b"HTTP/1.1 200 ") == 3


async def test_a_client_that_goes_while_its_next_request_waits_for_its_turn_is_not_served() -> None:
    stage = Stage(Desk(at_once=True))
    say(stage, post(b"0") + post(b"1"))
    stage.end()
    await stage.turn()
    assert (stage.desk.bodies, stage.desk.count) == ([b"0"], 0)


async def test_between_two_requests_nothing_of_the_last_is_kept() -> None:
    stage, body = Stage(Desk()), b"not to be kept" * 1000

    def kept() -> int:
        return sum(isinstance(one, EdgeRequest) and one.body == body for one in gc.get_objects())

    for _ in range(2):
        await stage.feed(post(body))
        assert kept() == 1, "by the desk"
        stage.desk.requests.clear()
        assert kept() == 0
