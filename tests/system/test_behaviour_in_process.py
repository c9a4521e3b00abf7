"""Simulated providers behind the upstream port, under virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import orjson
import pytest

from messages.failures import Scope
from runtime.ports import CallFailed, Upstream, UpstreamAnswer, UpstreamRequest
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import Fault, FaultKind
from runtime.simulation.in_process import SimulatedUpstream
from runtime.system.virtual_loop import VirtualLoop

T = TypeVar("T")

URL = "http://p.test/v1"
PLAIN = Behaviour("p", ttfb_ms=100, sigma=0, tokens_per_second=100, capacity=2, models=("m",), chunk_tokens=4)


def virtually(scene: Callable[[SimulatedUpstream], Awaitable[T]], behaviour: Behaviour = PLAIN) -> T:
    async def play() -> T:
        return await scene(SimulatedUpstream({URL: behaviour}, seed=1))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(play())


def now() -> float:
    return asyncio.get_running_loop().time()


def request(headers_s: float = 60.0, idle_s: float = 30.0, url: str = URL, **more: object) -> UpstreamRequest:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, **more})
    return UpstreamRequest("POST", url + "/chat/completions", (), body, 2.0, headers_s, idle_s)


async def failure_of(call: Awaitable[object]) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await call
    return caught.value


async def slept(answer: UpstreamAnswer, pause_s: float) -> bytes:
    text = b""
    async for chunk in answer.chunks():
        text += chunk
        await asyncio.sleep(pause_s)
    return text


def test_an_answer_takes_the_time_its_behaviour_says_and_not_a_moment_of_ours() -> None:
    async def scene(upstream: SimulatedUpstream) -> tuple[float, bytes]:
        port: Upstream = upstream
        answer = await port.call(request())
        return now(), await answer.read(10_000)

    at, text = virtually(scene)

    assert at == pytest.approx(0.18)
    assert orjson.loads(text)["usage"]["completion_tokens"] == 9


def test_chunks_of_a_stream_come_one_by_one() -> None:
    async def scene(upstream: SimulatedUpstream) -> list[float]:
        answer = await upstream.call(request(stream=True))
        times = [now()]
        async for _ in answer.chunks():
            times.append(round(now(), 6))
        return times

    assert sorted(set(virtually(scene))) == pytest.approx([0.1, 0.14, 0.18])


def test_two_runs_with_one_seed_are_equal_byte_for_byte() -> None:
    async def scene(upstream: SimulatedUpstream) -> list[tuple[float, bytes]]:
        async def one(number: int) -> tuple[float, bytes]:
            answer = await upstream.call(request(stream=True, user=f"u{number}"))
            return now(), await answer.read(100_000)

        return list(await asyncio.gather(*map(one, range(12))))

    lively = Behaviour("p", ttfb_ms=100, sigma=0.5, capacity=3, models=("m",))
    assert virtually(scene, lively) == virtually(scene, lively)


def test_calls_beyond_capacity_wait_in_the_order_they_came() -> None:
    async def scene(upstream: SimulatedUpstream) -> list[int]:
        done: list[int] = []

        async def one(number: int) -> None:
            answer = await upstream.call(request(user=f"u{number}"))
            await answer.read(10_000)
            done.append(number)

        await asyncio.gather(*map(one, range(6)))
        assert now() == pytest.approx(3 * 0.18)
        return done

    assert virtually(scene) == [0, 1, 2, 3, 4, 5]


def test_pain_17_a_cancelled_call_frees_its_place_at_once() -> None:
    async def scene(upstream: SimulatedUpstream) -> None:
        calls = [asyncio.ensure_future(upstream.call(request(user=f"u{number}"))) for number in range(4)]
        await asyncio.sleep(0.05)
        simulation = upstream.simulation(URL)
        assert (simulation.slots.served, simulation.slots.waiting) == (2, 2)

        calls[0].cancel()
        calls[3].cancel()
        await asyncio.wait([calls[0], calls[3]])

        assert now() == 0.05
        assert (simulation.slots.served, simulation.slots.waiting) == (2, 0)
        for call in calls[1:3]:
            (await call).close()
        assert [record.outcome for record in simulation.journal.records()] == ["cancelled"] * 4
        assert simulation.calls == {}
        assert simulation.slots.served == 0

    virtually(scene)


def test_pain_17_closing_an_answer_in_the_middle_is_a_cancelled_call() -> None:
    async def scene(upstream: SimulatedUpstream) -> None:
        answer = await upstream.call(request(stream=True))
        async for _ in answer.chunks():
            break
        answer.close()

        record = upstream.simulation(URL).journal.records()[0]
        assert record.outcome == "cancelled"
        assert record.ended_at == pytest.approx(0.1)
        assert upstream.simulation(URL).slots.served == 0

    virtually(scene)


def test_a_hang_ends_when_the_wait_for_headers_is_over() -> None:
    async def scene(upstream: SimulatedUpstream) -> None:
        upstream.simulation(URL).switch_on(Fault(FaultKind.HANG), now())

        failed = await failure_of(upstream.call(request(headers_s=4.0)))

        assert now() == 4.0
        assert (failed.failure.code, failed.failure.scope) == ("first_byte_timeout", Scope.PROVIDER)
        assert upstream.simulation(URL).calls == {}

    virtually(scene)


def test_a_pause_longer_than_idle_fails_but_a_slow_reader_does_not() -> None:
    async def scene(upstream: SimulatedUpstream) -> None:
        patient = await upstream.call(request(stream=True, idle_s=0.05))
        assert (await slept(patient, 0.2)).endswith(b"[DONE]\n\n")
        upstream.simulation(URL).switch_on(Fault(FaultKind.SLOW, factor=10), now())

        slow = await upstream.call(request(stream=True, idle_s=0.05))

        assert (await failure_of(slow.read(100_000))).failure.code == "idle_timeout"

    virtually(scene)


def test_a_cut_answer_fails_after_its_content() -> None:
    async def scene(upstream: SimulatedUpstream) -> None:
        upstream.simulation(URL).switch_on(Fault(FaultKind.CUT), now())
        answer = await upstream.call(request(stream=True))
        chunks: list[bytes] = []

        async def collect() -> None:
            async for chunk in answer.chunks():
                chunks.append(chunk)

        assert (await failure_of(collect())).failure.code == "broken"
        text = b"".join(chunks)
        assert b"[p]" in text
        assert b"[DONE]" not in text

    virtually(scene)


def test_an_outage_breaks_calls_in_flight_and_refuses_new_ones() -> None:
    async def scene(upstream: SimulatedUpstream) -> None:
        streaming = await upstream.call(request(stream=True))
        waiting = asyncio.ensure_future(upstream.call(request()))
        await asyncio.sleep(0.01)

        upstream.simulation(URL).switch_on(Fault(FaultKind.OUTAGE, for_s=1), now())

        assert (await failure_of(waiting)).failure.code == "broken"
        assert (await failure_of(streaming.read(100_000))).failure.code == "broken"
        assert (await failure_of(upstream.call(request()))).failure.code == "broken"
        assert now() == pytest.approx(0.11)
        assert [record.outcome for record in upstream.simulation(URL).journal.records()] == ["killed", "killed", "reset"]
        await asyncio.sleep(1)
        assert (await upstream.call(request())).status == 200

    virtually(scene)


def test_the_base_url_itself_is_answered_so_that_a_probe_finds_somebody_there() -> None:
    async def scene(upstream: SimulatedUpstream) -> int:
        return (await upstream.call(UpstreamRequest("GET", URL, (), b"", 2.0, 10.0, 10.0))).status

    assert virtually(scene) == 404


def test_an_address_where_nobody_lives_fails_to_connect() -> None:
    async def scene(upstream: SimulatedUpstream) -> str:
        return (await failure_of(upstream.call(request(url="http://nobody.test/v1")))).failure.code

    assert virtually(scene) == "connect"


def test_an_answer_longer_than_the_limit_fails_and_closing_the_upstream_breaks_what_is_left() -> None:
    async def scene(upstream: SimulatedUpstream) -> None:
        answer = await upstream.call(request())
        assert (await failure_of(answer.read(100))).failure.code == "too_large"
        left = asyncio.ensure_future(upstream.call(request()))
        await asyncio.sleep(0)
        await upstream.close()
        assert (await failure_of(left)).failure.code == "broken"
        assert (await failure_of(upstream.call(request()))).failure.code == "closed"

    virtually(scene)
