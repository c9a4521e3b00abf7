"""Attempts and failover in the running house: whom a request is sent to, how often, when, and what the client is told."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from actors.router.actor import RouterActor
from messages.control import BackoffSpec, FailoverSpec
from messages.failures import Blame, Failure, Retry, Scope
from runtime.config.settings import Loaded
from runtime.courier.retries import RetryBudgets, Tries
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, PLAIN, World, loaded, provider, run

STILL = {"kind": "none"}
"""No back-off."""
WHOLE = {"circuit": {"failures": 100_000}}
"""A circuit that stays out of the way."""


def config(names: str = "abc", backoff: Any = STILL, max_attempts: int = 3, retry_share: float = 0.2, **routing: Any) -> Loaded:
    failover = {"backoff": backoff, "max_attempts": max_attempts, "retry_share": retry_share}
    return loaded([provider(name, **WHOLE) for name in names], **({"strategy": "first", "failover": failover} | routing))


def sent(world: World) -> str:
    """Providers of all calls upstream, in order."""
    return "".join(permit.provider for permit in world.watch.permits.values() if permit.granted_at is not None)


def test_a_plan_counts_as_open_until_its_award_is_answered_and_no_longer() -> None:
    async def scene(world: World) -> None:
        router = world.cell("router").actor
        assert isinstance(router, RouterActor)
        world.fault("a", FaultKind.OUTAGE)
        clients = [world.send(max_tokens=100) for _ in range(3)]
        await asyncio.sleep(0.5)

        assert (await world.report("b")).in_flight == 3
        assert len(router._plans) == 0, "what is in flight is in the bids, and would be counted twice"
        await world.all_done()
        assert {client.provider for client in clients} == {"b"}

    run(loaded([provider("a"), provider("b")], strategy="first"), scene)


FAILING = (FaultKind.OUTAGE, FaultKind.ERRORS, FaultKind.AUTH, FaultKind.GARBAGE, FaultKind.RATE_LIMIT, FaultKind.CUT)


@pytest.mark.parametrize("kind", FAILING)
@pytest.mark.parametrize("stream", [True, False])
def test_B5_pain_09_a_failed_attempt_goes_on_to_one_not_tried(kind: FaultKind, stream: bool) -> None:
    async def scene(world: World) -> None:
        world.fault("a", kind)
        client = await world.ask(stream=stream)

        if kind is FaultKind.CUT and stream:
            assert client.fate == "frame"
            return
        assert (client.status, client.provider, client.attempts, client.fate) == (200, "b", 2, "answer")
        assert sent(world) == "ab"

    run(config(), scene)


def test_D8_a_clients_own_error_is_passed_on_and_tried_nowhere_else() -> None:
    async def scene(world: World) -> None:
        # More than any provider here makes: each would say so.
        client = await world.ask(max_tokens=10_000_000)

        assert (client.status, client.attempts, sent(world)) == (400, 1, "a")
        assert "max_tokens is too large" in client.text
        report = await world.report("a")
        assert (report.failures, report.circuit, report.health) == (0, "closed", 1.0)

    run(config(), scene)


def test_what_is_no_request_at_all_is_sent_to_nobody() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(max_tokens=-1)

        assert (client.status, client.code, sent(world)) == (400, "invalid_request", "")

    run(config(), scene)


def test_pain_11_everybody_is_tried_once_before_anybody_is_tried_again() -> None:
    async def scene(world: World) -> None:
        for name in "abc":
            world.fault(name, FaultKind.ERRORS)
        client = await world.ask()

        assert sorted(sent(world)[:3]) == ["a", "b", "c"]
        assert len(sent(world)) == 5
        assert (client.status, client.code, client.attempts) == (502, "upstream_error", 5)
        assert all(f"{name} failed: http_503" in client.text for name in "abc")
        assert client.headers["x-should-retry"] == "false"

    run(config(max_attempts=5), scene)


def test_the_attempt_budget_counts_all_calls_of_a_request() -> None:
    async def scene(world: World) -> None:
        for name in "abcd":
            world.fault(name, FaultKind.ERRORS)
        client = await world.ask()

        assert sent(world) == "ab"
        assert (client.status, client.attempts) == (502, 2)

    run(config("abcd", max_attempts=2), scene)


def test_without_failover_there_is_one_attempt() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        assert (await world.ask()).status == 502
        assert sent(world) == "a"

    run(loaded([provider("a"), provider("b")], strategy="first", failover={"enabled": False}), scene)


def test_B6_a_status_that_is_not_listed_ends_it_and_is_told_as_the_providers_fault() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        client = await world.ask()

        assert (client.status, client.code, client.attempts, sent(world)) == (502, "upstream_error", 1, "a")
        assert "a failed: http_503" in client.text

    failover = {"backoff": STILL, "on_status": [429]}
    run(loaded([provider(name, **WHOLE) for name in "ab"], strategy="first", failover=failover), scene)


def test_who_failed_for_now_is_tried_again_after_the_back_off() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS, for_s=0.5)
        client = await world.ask()

        assert (client.status, client.attempts) == (200, 3)
        begun = world.calls("a")
        # Linear, without jitter: 0.4 s, then 0.8 s, after each answer.
        pauses = [later - earlier for earlier, later in pairwise(begun)]
        assert pauses == [pytest.approx(0.4, abs=0.25), pytest.approx(0.8, abs=0.25)]
        assert pauses[1] > pauses[0]

    run(config("a", backoff={"kind": "linear", "base": "400ms", "jitter": False}, max_attempts=4), scene)


def test_pain_12_who_named_a_wait_is_tried_again_when_it_is_over_and_not_a_moment_before() -> None:
    async def scene(world: World) -> None:
        for number in range(40):
            await asyncio.sleep(0.1 * number)
            world.fault("a", FaultKind.RATE_LIMIT, for_s=1.0, retry_after_s=3.0)
            client = await world.ask()

            assert (client.status, client.attempts) == (200, 2)
            first, second = world.calls("a")[-2:]
            assert 3.0 <= second - first < 3.05

    backoff = {"kind": "linear", "base": "1s", "jitter": False}
    run(config("a", backoff=backoff, retry_share=1.0), scene)


def test_pain_12_when_the_wait_that_was_named_is_longer_than_the_deadline_the_client_is_told_at_once() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.RATE_LIMIT, retry_after_s=120.0)
        client = await world.ask()

        assert (client.status, client.code) == (429, "rate_limit_exceeded")
        assert client.took_s < 1.0
        assert int(client.headers["retry-after"]) == pytest.approx(120, abs=1)

    run(config("a", deadline="60s"), scene)


def test_pain_29_a_retry_that_cannot_be_done_before_the_deadline_is_not_begun() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        client = await world.ask()

        assert (client.status, len(world.calls("a"))) == (502, 1)
        assert client.took_s < 1.0

    run(config("a", backoff={"kind": "linear", "base": "3s", "jitter": False}, deadline="2s"), scene)


@pytest.mark.parametrize("stream", [True, False])
def test_the_deadline_ends_a_request_wherever_it_is(stream: bool) -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.HANG)
        client = await world.ask(stream=stream)

        assert (client.status, client.code) == (504, "deadline_exceeded")
        assert client.took_s == pytest.approx(2.0)
        report = await world.report("a")
        assert (report.failures, report.in_flight) == (0, 0)

    run(config("a", deadline="2s"), scene)


def test_the_deadline_of_a_stream_counts_until_its_first_content_only() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=500)
        assert (client.status, client.fate) == (200, "answer")
        assert client.took_s > 5.0

    run(config("a", deadline="2s"), scene)


def test_a_client_can_shorten_the_deadline_and_not_prolong_it() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.HANG)
        shorter = world.send(headers={"x-pointsman-deadline": "300"})
        longer = world.send(headers={"x-pointsman-deadline": "60000"})
        await world.all_done()

        assert (shorter.status, longer.status) == (504, 504)
        assert shorter.took_s == pytest.approx(0.3)
        assert longer.took_s == pytest.approx(2.0)

    run(config("a", deadline="2s"), scene)


def test_a_provider_that_hangs_is_left_after_its_first_byte_time_and_not_asked_again() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.HANG)
        client = await world.ask(stream=True)

        assert (client.provider, client.attempts) == ("b", 2)
        assert client.took_s == pytest.approx(1.19)

    entries = [provider("a", timeouts={"first_byte": "1s"}), provider("b")]
    run(loaded(entries, strategy="first"), scene)


def test_pain_04_a_stream_that_breaks_after_content_ends_with_an_error_frame_and_no_other_attempt() -> None:
    async def scene(world: World) -> None:
        client = world.send(stream=True, max_tokens=200)
        await asyncio.sleep(1.0)
        world.fault("a", FaultKind.OUTAGE)
        await client.wait()

        assert (client.status, client.fate, client.provider) == (200, "frame", "a")
        assert sent(world) == "a"
        report = await world.report("a")
        assert (report.failures, report.in_flight) == (1, 0)

    run(config(), scene)


def test_repeats_at_one_provider_are_a_share_of_its_calls_beyond_a_floor_of_ten() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        for _ in range(100):
            await world.ask()

        # 100 first calls earn 20 repeats, ten more are always allowed; each request could have made four.
        assert len(world.calls("a")) == pytest.approx(100 + 10 + 20, abs=2)

    run(config("a", max_attempts=5, retry_share=0.2), scene)


def test_requests_that_fail_together_share_the_budget_for_repeats() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        for _ in range(100):
            world.send()
        await world.all_done()

        assert {client.status for client in world.clients} == {502}
        assert len(world.calls("a")) <= 100 + 10 + 20

    run(config("a", backoff={"kind": "linear", "base": "1s", "jitter": False}, max_attempts=5), scene)


def test_pain_13_in_an_outage_of_all_the_load_grows_by_the_retry_share_only() -> None:
    async def scene(world: World) -> None:
        for name in "ab":
            world.fault(name, FaultKind.ERRORS)
        for _ in range(200):
            await world.ask()

        for name in "ab":
            assert len(world.calls(name)) <= 200 + 10 + 0.1 * 200 + 1

    run(config("ab", max_attempts=10, retry_share=0.1), scene)


def test_no_provider_of_the_model_answers_404_and_sends_nothing() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(model="nobody-has-it")
        assert (client.status, client.code, sent(world)) == (404, "model_not_found", "")

    run(config(), scene)


def test_when_all_answers_were_rate_limits_the_client_gets_429_with_the_earliest_wait() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.RATE_LIMIT, retry_after_s=30.0)
        world.fault("b", FaultKind.RATE_LIMIT, retry_after_s=20.0)
        client = await world.ask()

        assert (client.status, client.code, client.attempts) == (429, "rate_limit_exceeded", 2)
        assert client.headers["retry-after"] == "20"

    run(config("ab", deadline="10s"), scene)


def test_A3_when_every_key_is_bad_the_client_is_told_401() -> None:
    async def scene(world: World) -> None:
        for name in "ab":
            world.fault(name, FaultKind.AUTH)
        first, second = await world.ask(), await world.ask()

        assert (first.status, first.code) == (401, "provider_auth_failed")
        assert (second.status, second.code, second.attempts) == (401, "provider_auth_failed", 0)

    run(config("ab"), scene)


def test_above_max_requests_the_edge_refuses_and_counts_right_again_afterwards() -> None:
    async def scene(world: World) -> None:
        clients = [world.send() for _ in range(5)]
        await world.all_done()
        assert sorted(client.status for client in clients) == [200, 200, 200, 503, 503]
        assert (await world.ask()).status == 200

    run(loaded([provider("a")], server={"max_requests": 3}), scene)


@pytest.mark.parametrize("strategy", ["round_robin", "least_connections", "adaptive"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_hundred_equal_requests_at_once_spread_evenly_over_three_equal_providers(strategy: str, stream: bool) -> None:
    async def scene(world: World) -> list[int]:
        for _ in range(100):
            world.send(stream=stream)
        await world.all_done()
        return sorted(len(world.calls(name)) for name in "abc")

    counts = run(config(strategy=strategy), scene)

    assert sum(counts) == 100
    slack = {"round_robin": 1, "least_connections": 1, "adaptive": 8}[strategy]
    assert counts[-1] - counts[0] <= slack


def test_a_hundred_requests_at_once_on_providers_that_are_known_do_not_herd() -> None:
    async def scene(world: World) -> list[int]:
        for _ in range(30):
            await world.ask()
        before = [len(world.calls(name)) for name in "abc"]
        for _ in range(100):
            world.send()
        await world.all_done()
        return sorted(len(world.calls(name)) - count for name, count in zip("abc", before, strict=True))

    counts = run(config(strategy="adaptive"), scene)

    assert counts[-1] - counts[0] <= 8


def test_a_slow_provider_in_front_is_not_the_end_of_a_quick_one_behind_it() -> None:
    async def scene(world: World) -> None:
        for _ in range(20):
            await world.ask()
        calls = {name: len(world.calls(name)) for name in "ab"}
        assert calls["b"] > 15

    slow = Behaviour("a", ttfb_ms=3000, sigma=0, models=(MODEL,))
    run(config("ab", strategy="adaptive"), scene, {"a": slow, "b": replace(PLAIN, name="b")})


def test_a_timer_that_fires_a_hair_early_costs_no_further_round() -> None:
    tries = Tries(FailoverSpec(backoff=BackoffSpec("none")))
    tries.add("a", Failure(Blame.UPSTREAM, Scope.BUCKET, Retry.LATER, "http_429", 429, 3.0), now=100.0)

    wait_s = tries.rest(100.0, RetryBudgets(1.0), Random(1))
    assert wait_s == pytest.approx(3.0)
    tries.wake(100.0 + 3.0 - 1e-3)

    assert tries.tried == ()
