"""Calls that are begun without waiting for them, and tell of their answer: over real sockets."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from runtime.ports import CallFailed, UpstreamAnswer
from runtime.upstream.raw_client import RawUpstream
from tests.daemon.upstream_server import Server, request, serving

WITHIN_S = 5.0


class Told:
    """Hears of answers."""

    def __init__(self) -> None:
        self.times = 0
        self._heard = asyncio.Event()

    def answered(self) -> None:
        self.times += 1
        self._heard.set()

    async def once(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            await self._heard.wait()
        self._heard.clear()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as found:
        yield found


@pytest.fixture
async def upstream() -> AsyncIterator[RawUpstream]:
    found = RawUpstream()
    yield found
    await found.close()


async def kept(upstream: RawUpstream, server: Server) -> None:
    """A connection that rests."""
    await (await upstream.call(request(server.url))).read(100)


@pytest.mark.parametrize("is_kept", [True, False], ids=["on a connection that rests", "on a new one"])
async def test_a_call_tells_once_when_its_answer_is_whole(server: Server, upstream: RawUpstream, is_kept: bool) -> None:
    if is_kept:
        await kept(upstream, server)
    told, sent = Told(), upstream.begin(request(server.url))
    assert sent is not None
    sent.listen(told, to_head=False)
    await told.once()
    answer = sent.answer_at_hand()
    assert answer is not None
    assert (answer.status, answer.take_whole(100), told.times) == (200, b"hello", 1)
    await kept(upstream, server)
    assert (server.connections, told.times) == (1, 1)


async def test_a_call_that_cannot_connect_tells_and_its_answer_says_why(server: Server, upstream: RawUpstream) -> None:
    async with serving() as gone:
        nowhere = gone.url
    told, sent = Told(), upstream.begin(request(nowhere))
    assert sent is not None
    sent.listen(told, to_head=False)
    await told.once()
    assert sent.answer_at_hand() is None
    with pytest.raises(CallFailed) as caught:
        await sent.answer()
    assert caught.value.failure.code == "connect"


async def test_whoever_waits_in_the_moment_in_which_the_connection_is_made_has_the_answer(
    server: Server, upstream: RawUpstream
) -> None:
    before = asyncio.all_tasks()
    told, sent = Told(), upstream.begin(request(server.url))
    assert sent is not None
    sent.listen(told, to_head=False)
    (dial,) = asyncio.all_tasks() - before
    async with asyncio.timeout(WITHIN_S):
        while not dial.done():  # noqa: ASYNC110 – whoever is told of its end hears of it a turn later
            await asyncio.sleep(0)
        answer: UpstreamAnswer = await sent.answer()
        assert (answer.status, await answer.read(100)) == (200, b"hello")
    assert told.times == 0


@pytest.mark.parametrize("is_kept", [True, False], ids=["under way", "not yet connected"])
async def test_a_call_that_is_dropped_tells_nothing_and_takes_its_connection_with_it(
    server: Server, upstream: RawUpstream, is_kept: bool
) -> None:
    if is_kept:
        await kept(upstream, server)
    told, sent = Told(), upstream.begin(request(server.url))
    assert sent is not None
    sent.listen(told, to_head=False)
    sent.drop()
    await server.until(lambda: server.open == 0)
    assert told.times == 0


async def test_nothing_is_begun_that_cannot_be_sent(server: Server, upstream: RawUpstream) -> None:
    assert upstream.begin(request("gopher://nowhere/")) is None
    await upstream.close()
    assert upstream.begin(request(server.url)) is None
