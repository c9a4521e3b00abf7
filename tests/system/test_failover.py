"""Failover by chain, with replacement, at limits and by back-off, in the running house (FEATURES B5, B6, D8)."""

import asyncio
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from actors.router.actor import RouterActor
from messages.calls import RefusalReason
from messages.control import LimitsSpec
from runtime.config.loading import load_bytes
from runtime.config.settings import Loaded
from runtime.courier.attempt import Attempt
from runtime.courier.retries import BUDGET_FLOOR
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, Client, World, loaded, provider, run
from tests.system.test_couriers import STILL, WHOLE, config, sent
from tests.system.test_quotas import ACME, limited


def chained(chain: list[Any], names: str = "abcd", **more: Any) -> Loaded:
    """A pool with a failover chain."""
    entries = [provider(name, **WHOLE, **more.pop(name, {})) for name in names]
    failover = {"backoff": STILL, "max_attempts": 4}
    data = {
        "providers": entries,
        "routing": {"strategy": "first", "failover": failover | more},
        "pools": {MODEL: {"failover": {"chain": chain}}},
    }
    found = load_bytes(json.dumps(data).encode(), Path("pointsman.yaml"), {})
    specs = tuple(replace(spec, credential=f"key-of-{spec.id}") for spec in found.snapshot.providers)
    return replace(found, snapshot=replace(found.snapshot, providers=specs))


CHAIN = [{"provider": "c"}, {"providers": ["b", "d"], "strategy": "first"}, "any"]


def test_D8_a_request_fails_over_step_by_step_along_the_chain() -> None:
    async def scene(world: World) -> None:
        for name in "cbd":
            world.fault(name, FaultKind.ERRORS)
        client = await world.ask()

        assert (client.status, client.provider, client.attempts) == (200, "a", 4)
        assert sent(world) == "cbda"

    run(chained(CHAIN), scene)


def test_D8_without_any_the_chain_ends_and_nobody_else_is_called() -> None:
    async def scene(world: World) -> None:
        for name in "cbd":
            world.fault(name, FaultKind.AUTH)
        client = await world.ask()

        assert (client.status, client.attempts) == (401, 3)
        assert world.calls("a") == []

    run(chained(CHAIN[:2]), scene)


def test_D8_a_full_step_is_passed_over_without_an_attempt() -> None:
    async def scene(world: World) -> None:
        first, second = world.send(max_tokens=200), world.send()
        await world.all_done()

        assert (first.provider, second.provider) == ("c", "b")
        assert (first.attempts, second.attempts) == (1, 1)

    run(chained(CHAIN, c={"limits": {"max_concurrency": 1}}), scene)


@pytest.mark.parametrize("kind", [FaultKind.AUTH, FaultKind.RATE_LIMIT, FaultKind.OUTAGE, FaultKind.HANG])
def test_pain_07_one_bad_provider_never_sinks_its_pool(kind: FaultKind) -> None:
    async def scene(world: World) -> None:
        world.fault("a", kind)
        for _ in range(30):
            client = await world.ask(stream=True)
            assert client.status == 200
        assert len(world.calls("a")) <= 5 + 30 // 10

    entries = [provider(name, timeouts={"first_byte": "1s"}, circuit={"failures": 3, "open_for": "60s"}) for name in "ab"]
    run(loaded(entries, strategy="first"), scene)


def test_pain_07_a_model_that_one_provider_lacks_costs_it_that_model_only() -> None:
    async def scene(world: World) -> None:
        for _ in range(5):
            assert (await world.ask()).provider == "b"
        assert (await world.ask(model="other")).provider == "a"
        assert len(world.calls("a")) == 2

    entries = [provider("a", models=[MODEL, "other"]), provider("b")]
    lacks = Behaviour("a", models=("other",), ttfb_ms=100, sigma=0)
    run(loaded(entries, strategy="first"), scene, {"a": lacks})


def test_pain_09_a_429_goes_on_to_the_next_at_once_and_the_limited_one_rests() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.RATE_LIMIT, retry_after_s=5.0)
        first, second = await world.ask(), await world.ask()
        assert (first.provider, first.attempts, second.provider, second.attempts) == ("b", 2, "b", 1)
        world.heal("a")
        await asyncio.sleep(5.0)
        assert (await world.ask()).provider == "a"

    run(config("ab"), scene)


def test_pain_12_D8_the_only_provider_that_says_in_a_second_is_waited_for_within_the_deadline() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.RATE_LIMIT, for_s=0.5, retry_after_s=1.0)
        client = await world.ask()

        assert (client.status, client.attempts) == (200, 2)
        assert 1.0 <= client.took_s < 1.6

    run(loaded([provider("a")], deadline="5s"), scene)


def test_pain_10_a_provider_that_is_preferred_and_fails_is_followed_by_the_others() -> None:
    async def scene(world: World) -> None:
        prefer = {"x-pointsman-provider": "b"}
        assert (await world.ask(headers=prefer)).provider == "b"
        world.fault("b", FaultKind.ERRORS)
        client = await world.ask(headers=prefer)

        assert (client.status, client.provider, client.attempts) == (200, "a", 2)

    run(config("ab"), scene)


@pytest.mark.parametrize("failures", [3, 6])
def test_C3_after_as_many_failures_in_a_row_as_configured_requests_go_elsewhere_at_once(failures: int) -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.OUTAGE)
        clients = [await world.ask(headers={"x-pointsman-provider": "a"}) for _ in range(failures + 3)]

        # An unhealthy one comes after the healthy ones, and an open circuit takes nothing at all.
        assert {client.status for client in clients} == {200}
        assert 0 < len(world.calls("a")) <= failures
        assert [client.attempts for client in clients[-3:]] == [1, 1, 1]
        if failures == 3:
            assert (await world.report("a")).status == "unavailable"

    run(loaded([provider("a", circuit={"failures": failures}), provider("b")], strategy="first"), scene)


# -- with_replacement


def again(names: str, strategy: str = "first", with_replacement: bool = True, **failover: Any) -> Loaded:
    section = {"backoff": STILL, "max_attempts": 4, "with_replacement": with_replacement} | failover
    return loaded([provider(name, **WHOLE) for name in names], strategy=strategy, failover=section)


def test_B5_with_replacement_who_failed_for_now_competes_with_those_not_tried() -> None:
    async def scene(world: World) -> str:
        world.fault("a", FaultKind.ERRORS)
        await world.ask()
        return sent(world)

    assert run(again("ab", max_attempts=3), scene) == "aaa"
    assert run(again("ab", with_replacement=False), scene) == "ab"


def test_B5_with_replacement_a_repeat_waits_for_the_back_off() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS, for_s=0.6)
        client = await world.ask()

        assert (client.provider, client.attempts) == ("a", 3)
        assert [later - earlier for earlier, later in pairwise(world.calls("a"))] == [
            pytest.approx(0.3, abs=0.1),
            pytest.approx(0.6, abs=0.1),
        ]

    run(again("ab", backoff={"kind": "linear", "base": "300ms", "jitter": False}), scene)


@pytest.mark.parametrize("kind", [FaultKind.AUTH, FaultKind.HANG, FaultKind.RATE_LIMIT])
def test_B5_with_replacement_who_cannot_do_better_or_named_a_wait_is_still_left_out(kind: FaultKind) -> None:
    async def scene(world: World) -> None:
        world.fault("a", kind, **({"retry_after_s": 30.0} if kind is FaultKind.RATE_LIMIT else {}))
        client = await world.ask(stream=True)

        assert (client.provider, sent(world)) == ("b", "ab")

    entries = [provider(name, timeouts={"first_byte": "1s"}) for name in "ab"]
    failover = {"backoff": STILL, "max_attempts": 4, "with_replacement": True}
    run(loaded(entries, strategy="first", failover=failover), scene)


@pytest.mark.parametrize("with_replacement", [True, False])
def test_B5_under_priority_nobody_is_asked_twice(with_replacement: bool) -> None:
    async def scene(world: World) -> None:
        for name in "ab":
            world.fault(name, FaultKind.ERRORS)
        client = await world.ask()

        assert (client.status, sent(world)) == (502, "ab")

    run(again("ab", "priority", with_replacement), scene)


def test_pain_12_under_priority_a_429_still_tells_the_client_when_to_come_back() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.RATE_LIMIT, retry_after_s=7.0)
        client = await world.ask()

        assert (client.status, client.attempts, client.headers["retry-after"]) == (429, 1, "7")

    run(again("a", "priority"), scene)


def test_pain_13_with_replacement_repeats_are_a_share_of_the_calls_too() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        for _ in range(100):
            assert (await world.ask()).status == 200
        assert len(world.calls("a")) <= 100 + 10 + 0.1 * 100 + 1

    run(again("ab", retry_share=0.1), scene)


def test_pain_13_repeats_that_are_asked_for_at_once_stay_within_their_share_too(monkeypatch: pytest.MonkeyPatch) -> None:
    award = Attempt.award

    async def slowly(attempt: Attempt) -> RefusalReason | None:
        # All have been let through before anybody has a permit.
        await asyncio.sleep(0.01)
        return await award(attempt)

    monkeypatch.setattr(Attempt, "award", slowly)

    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        for _ in range(20):
            world.send()
        await world.all_done()

        assert {client.status for client in world.clients} == {502}
        assert len(world.calls("a")) == 20 + BUDGET_FLOOR

    run(again("a", with_replacement=False, max_attempts=2, retry_share=0), scene)


@pytest.mark.parametrize("leaves", [True, False], ids=["its client leaves", "it is refused"])
def test_pain_13_a_repeat_that_gets_no_permit_is_not_paid_for(leaves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    award = Attempt.award

    async def scene(world: World) -> None:
        async def first_only(attempt: Attempt) -> RefusalReason | None:
            if not world.calls("a"):
                return await award(attempt)
            assert world.house.budgets._tokens["a"] == BUDGET_FLOOR - 1
            if leaves:
                client.leave()
                await asyncio.sleep(1.0)
            return RefusalReason.RATE_LIMITED

        monkeypatch.setattr(Attempt, "award", first_only)
        world.fault("a", FaultKind.ERRORS)
        client = world.send(headers={"x-pointsman-deadline": "2000"})
        await client.wait()

        assert client.fate == ("left" if leaves else "error")
        assert len(world.calls("a")) == 1
        assert world.house.budgets._tokens.get("a", BUDGET_FLOOR) == BUDGET_FLOOR

    run(again("a", with_replacement=False, max_attempts=2), scene)


# -- on_rate_limit


LIMITED = provider("a", limits={"requests_per_minute": 60, "burst": 1})


def test_B6_as_a_rule_our_own_limit_fails_over() -> None:
    async def scene(world: World) -> None:
        assert [(await world.ask()).provider for _ in range(3)] == ["a", "b", "b"]

    run(loaded([LIMITED, provider("b")], strategy="first"), scene)


def test_B6_with_on_rate_limit_false_requests_wait_for_the_limited_one() -> None:
    async def scene(world: World) -> None:
        for _ in range(4):
            world.send()
        await world.all_done()

        assert [client.provider for client in world.clients] == ["a"] * 4
        assert [client.took_s for client in world.clients] == [pytest.approx(0.19 + wait, abs=0.05) for wait in range(4)]

    run(loaded([LIMITED, provider("b")], strategy="first", failover={"on_rate_limit": False}), scene)


def test_B6_with_on_rate_limit_false_a_request_that_would_wait_too_long_is_told_429() -> None:
    async def scene(world: World) -> None:
        first, second = await world.ask(), await world.ask()

        assert (first.status, first.provider) == (200, "a")
        assert (second.status, second.code) == (429, "rate_limit_exceeded")
        assert int(second.headers["retry-after"]) == pytest.approx(60, abs=1)
        assert world.calls("b") == []

    entries = [provider("a", limits={"requests_per_minute": 1}), provider("b")]
    run(loaded(entries, strategy="priority", failover={"on_rate_limit": False}), scene)


# -- back-off


@pytest.mark.parametrize(
    ("kind", "pauses"),
    [("none", [0, 0, 0]), ("linear", [0.2, 0.4, 0.6]), ("exponential", [0.2, 0.6, 1.0]), ("fibonacci", [0.2, 0.2, 0.4])],
)
@pytest.mark.parametrize("jitter", [True, False])
def test_D8_each_kind_of_back_off_keeps_its_pauses_with_full_jitter_up_to_them(
    kind: str, pauses: list[float], jitter: bool
) -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        client = await world.ask()

        assert client.attempts == 4
        # A refusal itself takes no time here.
        found = [later - earlier for earlier, later in pairwise(world.calls("a"))]
        for pause, most in zip(found, pauses, strict=True):
            assert (-0.01 if jitter else most - 0.01) <= pause <= most + 0.01

    backoff = {"kind": kind, "base": "200ms", "factor": 3, "max": "1s", "jitter": jitter}
    run(again("a", with_replacement=False, backoff=backoff), scene)


RESTS = {"kind": "linear", "base": "2s", "jitter": False}
ONE = LimitsSpec(max_concurrency=1)


def resting(quotas: LimitsSpec | None = ONE, **failover: Any) -> Loaded:
    """One provider with one place, and a pause of two seconds before it is asked again; one place of tenant and pool, too."""
    entries = [provider("a", **WHOLE, limits={"max_concurrency": 1})]
    return limited(entries, quotas, quotas, failover={"backoff": RESTS, "max_attempts": 4} | failover)


async def rests(world: World) -> Client:
    """A request whose first call has failed, half a second ago."""
    world.fault("a", FaultKind.ERRORS, for_s=0.4)
    client = world.send(headers=ACME)
    await asyncio.sleep(0.5)
    assert (len(world.calls("a")), client.fate) == (1, "none")
    return client


@pytest.mark.parametrize("failover", [{}, {"with_replacement": True}], ids=["all were tried", "with replacement"])
def test_D8_a_client_that_leaves_during_the_back_off_is_not_repeated_and_gives_back_all_it_holds(
    failover: dict[str, Any],
) -> None:
    async def scene(world: World) -> None:
        client = await rests(world)
        client.leave()
        other = await world.ask(headers=ACME)
        await asyncio.sleep(5.0)

        assert client.fate == "left"
        assert (other.status, other.attempts) == (200, 1), "nobody holds the one place of tenant, pool and provider"
        assert len(world.calls("a")) == 2
        assert (await world.report("a")).in_flight == 0
        assert world.house.edge.counters.client_gone == 1
        router = world.cell("router").actor
        assert isinstance(router, RouterActor)
        assert (len(router._open), len(router._plans), len(router._queue.waiting)) == (0, 0, 0)
        assert world.house.budgets._tokens.get("a", BUDGET_FLOOR) == BUDGET_FLOOR, "a repeat that was not made is not paid for"

    run(resting(**failover), scene)


@pytest.mark.parametrize("failover", [{}, {"with_replacement": True}], ids=["all were tried", "with replacement"])
def test_D8_the_back_off_holds_no_place_at_the_provider_and_a_newcomer_may_have_it(failover: dict[str, Any]) -> None:
    async def scene(world: World) -> None:
        client = await rests(world)
        other = await world.ask()

        assert other.status == 200
        assert other.took_s == pytest.approx(0.2, abs=0.1)
        await client.wait()
        assert (client.status, client.attempts) == (200, 2)

    run(resting(quotas=None, **failover), scene)


@pytest.mark.parametrize("deadline", [1, 3])
def test_D8_the_deadline_ends_a_pause_before_it_begins_or_leaves_it_whole(deadline: int) -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS, for_s=0.4)
        client = await world.ask(headers={"x-pointsman-deadline": str(1000 * deadline)})

        assert (client.status, client.attempts) == ((502, 1) if deadline == 1 else (200, 2))
        assert client.took_s == pytest.approx(0.0 if deadline == 1 else 2.2, abs=0.2)

    run(resting(), scene)


@pytest.mark.parametrize("failover", [{}, {"with_replacement": True}], ids=["all were tried", "with replacement"])
def test_D8_the_end_of_the_daemon_ends_a_back_off_at_once_and_the_client_is_told(failover: dict[str, Any]) -> None:
    async def scene(world: World) -> None:
        client = await rests(world)
        begun = world.now
        await world.house.edge.drain(30.0)

        assert (client.status, client.code) == (503, "overloaded")
        assert world.now == begun
        assert len(world.calls("a")) == 1

    run(resting(**failover), scene)
