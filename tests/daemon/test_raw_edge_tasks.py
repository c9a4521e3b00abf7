"""The tasks of the fast lane: one carries the requests of its connection in turn, as long as nobody has wanted to end it."""

import asyncio
import gc
from typing import Any, cast

import pytest

from runtime.ports import EdgeRequest, EdgeSink
from tests.daemon.edge_desk import Desk, Stage, echo
from tests.daemon.test_raw_edge import GET, post

Task = asyncio.Task[Any]


def others() -> list[Task]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


class Bearers:
    """Answers, and notes in which task. ``wants``: that the first one be cancelled meanwhile, which it survives."""

    def __init__(self, *, wants: bool = False, takes_back: bool = False) -> None:
        self.wants, self.takes_back = wants, takes_back
        self.tasks: list[Task] = []

    async def __call__(self, request: EdgeRequest, sink: EdgeSink) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        if self.wants and len(self.tasks) == 1:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(0)
            if self.takes_back:
                task.uncancel()
        await sink.whole(200, [], request.body)


async def test_the_requests_of_a_connection_are_carried_by_one_task() -> None:
    bearers = Bearers()
    stage = Stage(Desk(bearers))
    await stage.feed(post(b"0"), post(b"1")[:50], post(b"1")[50:-1], post(b"1")[-1:], post(b"2"))
    assert stage.desk.bodies == [b"0", b"1", b"2"]
    assert others() == [bearers.tasks[0]] == list(dict.fromkeys(bearers.tasks))
    assert stage.desk.count == 0


@pytest.mark.parametrize("takes_back", [False, True])
async def test_a_task_that_was_to_end_carries_no_more_unless_that_was_taken_back(takes_back: bool) -> None:
    bearers = Bearers(wants=True, takes_back=takes_back)
    stage = Stage(Desk(bearers))
    await stage.feed(post(b"0"), post(b"1"), post(b"2"))
    assert stage.desk.bodies == [b"0", b"1", b"2"]
    first, second, third = bearers.tasks
    assert second is third
    assert (first is second) == takes_back
    assert first.done() != takes_back
    assert stage.wire.sent.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize("is_done", [True, False], ids=["and is over", "in this very turn"])
async def test_a_task_that_was_ended_at_rest_is_followed_by_another(is_done: bool) -> None:
    bearers = Bearers()
    stage = Stage(Desk(bearers))
    await stage.feed(post(b"0"))
    (task,) = others()
    task.cancel()
    if is_done:
        await stage.turn()
    await stage.feed(post(b"1"))
    assert task.cancelled()
    assert stage.desk.bodies == [b"0", b"1"]
    assert bearers.tasks == [task, *others()]
    assert stage.wire.sent.count(b"HTTP/1.1 200 ") == 2


async def test_who_is_cancelled_between_rest_and_request_leaves_no_client_waiting() -> None:
    bearers = Bearers()
    stage = Stage(Desk(bearers))
    await stage.feed(post(b"0"))
    (task,) = others()
    cast(asyncio.Protocol, stage.wire.protocol).data_received(post(b"1"))
    task.cancel()
    await stage.turn()
    assert stage.wire.is_cut
    assert (stage.desk.bodies, stage.desk.count) == ([b"0"], 0)


@pytest.mark.parametrize("last", ["the client goes", "another asks", "a refusal"])
async def test_a_task_at_rest_ends_with_its_connection_and_nobody_cancels_it(last: str) -> None:
    stage = Stage(Desk())
    await stage.feed(post(b"0"))
    (task,) = others()
    match last:
        case "another asks":
            await stage.feed(GET)
            assert stage.successor.got == GET
        case "a refusal":
            await stage.feed(GET.replace(b"Host", b"Host "))
            assert stage.wire.sent.count(b"HTTP/1.1 400 ") == 1
            stage.end()
        case _:
            stage.end()
    await stage.turn()
    assert others() == []
    assert (task.done(), task.cancelled(), task.cancelling()) == (True, False, 0)
    assert (stage.desk.ends, stage.desk.count) == (["whole"], 0)


async def test_a_client_that_goes_in_the_turn_in_which_it_asks_again_is_not_served() -> None:
    stage = Stage(Desk())
    await stage.feed(post(b"0"))
    cast(asyncio.Protocol, stage.wire.protocol).data_received(post(b"1"))
    stage.end()
    await stage.turn()
    assert stage.desk.bodies == [b"0"]
    assert others() == []
    assert stage.desk.count == 0


async def test_who_sends_ahead_waits_for_its_turn_among_the_others() -> None:
    desk = Desk(echo)
    ahead, other = Stage(desk), Stage(desk)
    for stage, data in ((ahead, post(b"a0") + post(b"a1") + post(b"a2")), (other, post(b"b0"))):
        cast(asyncio.Protocol, stage.wire.protocol).data_received(data)
    await ahead.turn()
    assert desk.bodies == [b"a0", b"b0", b"a1", b"a2"]
    assert ahead.wire.sent.count(b"HTTP/1.1 200 ") == 3


async def test_at_rest_nothing_of_the_last_request_is_kept() -> None:
    stage, body = Stage(Desk()), b"not to be kept" * 1000

    def kept() -> int:
        return sum(isinstance(one, EdgeRequest) and one.body == body for one in gc.get_objects())

    for _ in range(2):
        await stage.feed(post(body))
        assert (len(others()), kept()) == (1, 1), "by the desk"
        stage.desk.requests.clear()
        assert kept() == 0
