"""Slow is a failure too: a provider's times are bounded, and a stream may have to show a rate before it is relayed."""

import asyncio
from typing import Any

import pytest

from runtime.config.settings import Loaded
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, World, loaded, provider, run

SLOW = Behaviour("slow", ttfb_ms=100, sigma=0, tokens_per_second=0.8, models=(MODEL,), chunk_tokens=1)
"""Begins as quickly as any, then 0.8 tokens/s for minutes (Bifrost #6472)."""
BRISK = Behaviour("brisk", ttfb_ms=100, sigma=0, tokens_per_second=20, models=(MODEL,), chunk_tokens=1)


def pair(**timeouts: Any) -> Loaded:
    """Two providers, both with these times."""
    return loaded([provider(name, timeouts=timeouts) for name in "ab"], strategy="first")


async def failures(world: World, name: str) -> int:
    return (await world.report(name)).failures


def test_pain_05_a_stream_below_the_least_rate_fails_over_before_the_client_has_anything() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=50)

        assert (client.status, client.fate, client.provider, client.attempts) == (200, "answer", "b", 2)
        # Two tokens a second: the first ten may take five seconds from the first of them.
        assert client.started_at is not None
        assert 5.1 <= client.started_at - client.begun_at < 6.0
        assert await failures(world, "a") == 1

    run(pair(min_tokens_per_second=2), scene, {"a": SLOW, "b": BRISK})


def test_pain_05_without_a_least_rate_a_slow_stream_is_relayed_as_it_comes() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=10)

        assert (client.provider, client.attempts, client.fate) == ("a", 1, "answer")
        assert client.took_s > 10.0
        assert client.chunks[0][0] - client.begun_at == pytest.approx(0.1)

    run(pair(), scene, {"a": SLOW, "b": BRISK})


def test_pain_05_a_stream_that_keeps_the_rate_is_held_for_its_first_ten_tokens_and_not_a_byte_is_lost() -> None:
    async def scene(world: World) -> str:
        client = await world.ask(stream=True, max_tokens=30)

        assert (client.provider, client.attempts, client.fate) == ("a", 1, "answer")
        return client.text

    async def held(world: World) -> str:
        text = await scene(world)
        (client,) = world.clients
        # Ten tokens take half a second at this rate; what is counted is an estimate.
        assert client.chunks[0][0] - client.begun_at == pytest.approx(0.5, abs=0.1)
        # And how quick it began is told as it was, not as it was held.
        assert (await world.report("a")).latency_ewma_ms == pytest.approx(100, abs=1)
        return text

    assert run(pair(min_tokens_per_second=2), held, {"a": BRISK, "b": BRISK}) == run(pair(), scene, {"a": BRISK, "b": BRISK})


def test_pain_05_a_short_answer_is_not_held_beyond_its_end() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=3)

        assert (client.provider, client.fate) == ("a", "answer")
        assert client.took_s < 0.5

    run(pair(min_tokens_per_second=2), scene, {"a": BRISK, "b": BRISK})


def test_pain_05_a_slow_answer_that_is_short_enough_is_still_an_answer() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=3)

        assert (client.provider, client.attempts, client.fate) == ("a", 1, "answer")

    run(pair(min_tokens_per_second=2), scene, {"a": SLOW, "b": BRISK})


def test_a_stream_that_breaks_while_it_is_held_leaves_no_trace_and_fails_over() -> None:
    async def scene(world: World) -> None:
        client = world.send(stream=True, max_tokens=30)
        await asyncio.sleep(0.3)
        world.fault("a", FaultKind.OUTAGE)
        await client.wait()

        assert (client.provider, client.attempts, client.fate) == ("b", 2, "answer")

    run(pair(min_tokens_per_second=2), scene, {"a": BRISK, "b": BRISK})


def test_the_deadline_counts_until_a_held_stream_is_let_go() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=50)

        assert (client.status, client.code) == (504, "deadline_exceeded")
        assert client.took_s == pytest.approx(3.0)
        assert await failures(world, "a") == 0

    config = loaded([provider("a", timeouts={"min_tokens_per_second": 2})], deadline="3s")
    run(config, scene, {"a": SLOW})


def test_when_every_stream_is_too_slow_the_client_is_told_so() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=50)

        assert (client.status, client.code, client.attempts) == (502, "upstream_error", 2)
        assert "too_slow" in client.text
        assert "fewer than 2 tokens/s" in client.text

    run(pair(min_tokens_per_second=2), scene, {"a": SLOW, "b": SLOW})


@pytest.mark.parametrize("stream", [True, False])
def test_pain_05_D8_a_first_byte_that_does_not_come_in_time_fails_over(stream: bool) -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.HANG)
        client = await world.ask(stream=stream)

        assert (client.provider, client.attempts) == ("b", 2)
        assert client.took_s == pytest.approx(1.19, abs=0.01)
        assert await failures(world, "a") == 1

    run(pair(first_byte="1s"), scene)


def test_the_first_byte_time_of_a_stream_lasts_until_its_first_content() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True)

        assert (client.provider, client.attempts) == ("b", 2)

    slow = Behaviour("a", ttfb_ms=1500, sigma=0, models=(MODEL,))
    run(pair(first_byte="1s"), scene, {"a": slow})


def test_after_its_first_content_a_stream_may_take_longer_than_its_first_byte_time() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=60)

        assert (client.provider, client.attempts, client.fate) == ("a", 1, "answer")
        assert client.took_s == pytest.approx(3.0, abs=0.2)

    run(pair(first_byte="1s", total="20s"), scene, {"a": BRISK})


def test_pain_05_a_pause_within_a_stream_longer_than_idle_ends_it_with_an_error_frame() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=50)

        assert (client.fate, client.provider) == ("frame", "a")
        assert "idle_timeout" in client.text
        assert client.took_s == pytest.approx(1.1, abs=0.01)
        assert await failures(world, "a") == 1

    run(pair(idle="1s"), scene, {"a": SLOW})


def test_pain_05_a_pause_longer_than_idle_while_a_stream_is_held_fails_over() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=50)

        assert (client.provider, client.attempts, client.fate) == ("b", 2, "answer")

    run(pair(idle="1s", min_tokens_per_second=1), scene, {"a": SLOW})


def test_pain_05_the_whole_time_of_an_attempt_is_bounded_whole_answers_fail_over_and_streams_end_in_a_frame() -> None:
    async def scene(world: World) -> None:
        whole = await world.ask(max_tokens=50)
        assert (whole.provider, whole.attempts) == ("b", 2)
        assert 3.0 < whole.took_s < 6.0

        stream = await world.ask(stream=True, max_tokens=50, headers={"x-pointsman-provider": "a"})
        assert (stream.fate, stream.provider) == ("frame", "a")
        assert "total_timeout" in stream.text
        assert stream.took_s == pytest.approx(3.0)

    run(pair(total="3s"), scene, {"a": SLOW, "b": BRISK})


@pytest.mark.parametrize("more", [{}, {"min_tokens_per_second": 2}], ids=["silent", "held"])
def test_pain_05_the_whole_time_of_an_attempt_goes_before_longer_times_of_its_parts(more: dict[str, Any]) -> None:
    async def scene(world: World) -> None:
        if not more:
            world.fault("a", FaultKind.HANG)
        client = await world.ask(stream=True, max_tokens=50)

        # The first content may take a minute, and ten tokens five seconds.
        assert (client.provider, client.attempts, client.fate) == ("b", 2, "answer")
        assert client.started_at is not None
        assert 3.1 <= client.started_at - client.begun_at < 4.0
        assert await failures(world, "a") == 1

    run(pair(total="3s", **more), scene, {"a": SLOW, "b": BRISK})


@pytest.mark.parametrize("stream", [True, False])
def test_pain_29_who_was_silent_for_too_long_is_not_asked_again_for_it_may_bill_what_it_has(stream: bool) -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.HANG)
        client = await world.ask(stream=stream)

        assert (client.status, client.attempts) == (502, 1)
        assert client.took_s == pytest.approx(1.0)

    times = {"first_byte": "1s"} if stream else {"total": "1s"}
    run(loaded([provider("a", timeouts=times)], failover={"max_attempts": 5}), scene)


def test_pain_29_a_slow_failure_leaves_the_retry_only_what_is_left_of_the_deadline() -> None:
    async def scene(world: World) -> None:
        for name in "ab":
            world.fault(name, FaultKind.HANG)
        client = await world.ask(stream=True)

        assert (client.status, client.code) == (504, "deadline_exceeded")
        assert client.took_s == pytest.approx(1.5)

    config = [provider(name, timeouts={"first_byte": "1s"}) for name in "ab"]
    run(loaded(config, strategy="first", deadline="1500ms"), scene)
