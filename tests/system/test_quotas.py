"""Limits of tenants and pools in the whole house: policy refuses at once, and whatever a request held comes back."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from actors.buckets import Bucket
from actors.quota import QuotaActor
from messages.calls import Award
from messages.control import ConfigSnapshot, Configured, LimitsSpec, Propose
from messages.envelope import Envelope
from messages.policy import PoolSpec, TenantSpec
from messages.quota import QuotaReconfigured, Reserve, Settle
from runtime.config.settings import Loaded
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, Client, World, loaded, provider, run
from tests.system.house_watch import Terms, over_rate

ACME = {"x-pointsman-tenant": "acme"}
PATIENT = {"max_wait": "100s", "max_length": 1000}
ONE_AT_ONCE = LimitsSpec(max_concurrency=1)
FREE = [provider("a"), provider("b")]


def limited(
    providers: Iterable[Mapping[str, Any]] = FREE,
    tenant: LimitsSpec | None = None,
    pool: LimitsSpec | None = None,
    **routing: Any,
) -> Loaded:
    """A configuration in which the tenant acme and the pool of the model have limits, or one of the two."""
    found = loaded(list(providers), **({"hedge": {"enabled": False}, "explore": {"enabled": False}} | routing))
    return replace(found, snapshot=with_limits(found.snapshot, tenant, pool))


def with_limits(snapshot: ConfigSnapshot, tenant: LimitsSpec | None, pool: LimitsSpec | None) -> ConfigSnapshot:
    tenants = (TenantSpec("acme", limits=tenant), TenantSpec("other")) if tenant is not None else ()
    return replace(snapshot, tenants=tenants, pools=(PoolSpec(MODEL, limits=pool),) if pool is not None else ())


async def change(world: World, tenant: LimitsSpec | None, pool: LimitsSpec | None = None) -> None:
    """Put another file in force, as a reload does."""
    answer = await world.house.system.ask("registry", Propose(with_limits(world.house.loaded.snapshot, tenant, pool)))
    assert isinstance(answer, Configured)


def quota(world: World, name: str = "tenant:acme") -> QuotaActor:
    actor = world.cell(f"quota:{name}").actor
    assert isinstance(actor, QuotaActor)
    return actor


def level(world: World, of: str) -> float:
    """What is in a bucket of the tenant's quota now."""
    bucket = getattr(quota(world).rates, of)
    assert isinstance(bucket, Bucket)
    return bucket.level_at(world.now)


def sent(clients: Iterable[Client]) -> list[int]:
    return [client.status for client in clients]


def test_pain_14_B4_of_many_at_once_exactly_as_many_pass_as_the_limit_lets() -> None:
    async def scene(world: World) -> None:
        clients = [world.send(headers=ACME) for _ in range(200)]
        await world.all_done()

        assert sent(clients) == [200] * 7 + [429] * 193
        assert len(world.wire.sent) == 7

    run(limited(tenant=LimitsSpec(requests_per_minute=60, burst=7)), scene)


def test_B4_over_minutes_no_window_admits_more_than_limit_and_burst_and_none_less_than_it_may() -> None:
    limits = LimitsSpec(requests_per_minute=120, burst=5)

    async def scene(world: World) -> None:
        for number in range(3000):
            world.send(headers=ACME, max_tokens=number % 40 + 1)
            await asyncio.sleep((number % 7) * 0.02)
        await world.all_done()

        times = [at for at, _, _ in world.wire.sent]
        assert over_rate(times, Terms.always(limits)) == []
        assert len(times) >= 5 + int(world.now - 2.0) * 2 - 1

    run(limited(tenant=limits), scene)


def test_B4_calls_at_once_of_a_pool_hold_for_all_its_providers_together() -> None:
    async def scene(world: World) -> None:
        clients = [world.send(stream=number % 2 == 0) for number in range(5)]
        await world.all_done()
        assert sent(clients) == [200, 200, 429, 429, 429]
        assert "Pool 'm' is at its limit max_concurrency: 2" in clients[2].text
        assert sent([world.send(), world.send(model=MODEL)]) == [0, 0]
        await world.all_done()
        assert world.clients[-1].status == 200

    run(limited(pool=LimitsSpec(max_concurrency=2)), scene)


def test_B4_an_alias_counts_for_the_pool_it_leads_to() -> None:
    async def scene(world: World) -> None:
        world.send(model="alias")
        assert (await world.ask()).status == 429

    config = limited(pool=ONE_AT_ONCE)
    run(replace(config, snapshot=replace(config.snapshot, aliases=(("alias", MODEL),))), scene)


def test_D1_tokens_are_reserved_by_estimate_and_settled_to_what_was_really_used() -> None:
    async def scene(world: World) -> None:
        first = world.send(headers=ACME, max_tokens=None)
        refused = await world.ask(headers=ACME, max_tokens=None)
        assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
        assert "tokens_per_minute: 1200" in refused.text
        assert int(refused.headers["retry-after"]) == pytest.approx(42, abs=2)
        await first.wait()
        used = json.loads(first.text)["usage"]["total_tokens"]
        assert used < 500
        assert level(world, "tokens") == pytest.approx(min(1200.0, 1200 - used + 20 * first.took_s))
        assert (await world.ask(headers=ACME, max_tokens=500)).status == 200

    run(limited(tenant=LimitsSpec(tokens_per_minute=1200)), scene)


def test_pain_28_a_refusal_says_whose_limit_it_is_waits_for_nothing_and_blames_no_provider() -> None:
    async def scene(world: World) -> None:
        assert (await world.ask(headers=ACME)).status == 200
        for _ in range(10):
            client = await world.ask(headers=ACME)
            assert (client.status, client.code, client.took_s) == (429, "rate_limit_exceeded", 0.0)
            assert "Tenant 'acme' is at its limit requests_per_minute: 6." in client.text
            assert "Pointsman refused, no provider did." in client.text
            assert client.headers["retry-after"] == "10"
            assert "x-should-retry" not in client.headers
            assert client.attempts == 0
        # What was refused is owed no end.
        assert quota(world).unknown_ends == 0
        for name in "ab":
            report = await world.report(name)
            assert (report.failures, report.circuit, report.health) == (0, "closed", 1.0)
        assert sum([(await world.report(name)).requests for name in "ab"]) == 1
        assert (await world.ask()).status == 200
        assert (await world.ask(headers={"x-pointsman-tenant": "other"})).status == 200

    run(limited(tenant=LimitsSpec(requests_per_minute=6, burst=1), queue=PATIENT), scene)


def test_a_pools_refusal_gives_the_tenant_back_what_it_had_reserved() -> None:
    async def scene(world: World) -> None:
        world.send()
        await asyncio.sleep(0.01)
        for _ in range(20):
            client = await world.ask(headers=ACME)
            assert (client.status, "Pool 'm'" in client.text) == (429, True)
        await world.all_done()
        assert (await world.ask(headers=ACME)).status == 200

    run(limited(tenant=LimitsSpec(requests_per_minute=1, tokens_per_minute=100), pool=ONE_AT_ONCE), scene)


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.15])
def test_a_client_that_leaves_gives_its_place_back(after_s: float) -> None:
    async def scene(world: World) -> None:
        for _ in range(5):
            client = world.send(headers=ACME, stream=True)
            await asyncio.sleep(after_s)
            assert (await world.ask(headers=ACME)).status == 429
            client.leave()
            await client.wait()
        assert (await world.ask(headers=ACME)).status == 200

    run(limited(tenant=ONE_AT_ONCE), scene)


@pytest.mark.parametrize("how", ["leaves", "deadline", "queue"])
def test_who_waited_in_vain_gives_back_the_request_too(how: str) -> None:
    async def scene(world: World) -> None:
        world.send(max_tokens=1000)
        await asyncio.sleep(0.1)
        for _ in range(3):
            more = {"x-pointsman-deadline": "500"} if how == "deadline" else {}
            client = world.send(headers=ACME | more)
            await asyncio.sleep(0.2)
            assert (await world.ask(headers=ACME)).status == 429
            if how == "leaves":
                client.leave()
            assert (await client.wait()).status != 200
        await asyncio.sleep(10.0)
        assert (await world.ask(headers=ACME)).status == 200

    only = [provider("a", limits={"max_concurrency": 1})]
    run(limited(only, LimitsSpec(requests_per_minute=0.1, burst=1), queue={"max_wait": "2s", "max_length": 10}), scene)


def test_one_reservation_serves_all_attempts_and_is_settled_to_all_they_used() -> None:
    told: list[Any] = []

    async def scene(world: World) -> None:
        world.fault("a", FaultKind.CUT)
        client = await world.ask(headers=ACME)
        assert (client.status, client.attempts) == (200, 2)
        assert [type(message) for message in told] == [Reserve, Reserve, Settle, Settle]
        assert [message.quota for message in told[:2]] == ["tenant:acme", f"pool:{MODEL}"]
        assert [message.reservation_id.split("/")[1] for message in told[2:]] == [f"pool:{MODEL}", "tenant:acme"]
        # One answer broke off, and nobody knows what it used: what was reserved. The other told.
        assert all(message.tokens > told[1].tokens for message in told[2:])

    def note(to: str, envelope: Envelope) -> None:
        if isinstance(envelope.message, Reserve | Settle):
            told.append(envelope.message)

    one = LimitsSpec(requests_per_minute=1)
    run(limited(tenant=one, pool=one, strategy="first"), scene, journal=note)


def test_what_could_not_even_be_sent_is_given_back_whole() -> None:
    async def scene(world: World) -> None:
        for _ in range(3):
            assert (await world.ask(headers=ACME)).status == 502
            assert level(world, "requests") == 1.0

    nobody = provider("a", base_url="http://nobody.test/v1")
    run(limited([nobody], LimitsSpec(requests_per_minute=1), failover={"enabled": False}), scene)


def test_without_limits_there_is_no_quota_and_no_hop_to_one() -> None:
    told: list[str] = []

    async def scene(world: World) -> None:
        assert (await world.ask(headers=ACME)).status == 200
        assert [name for name in world.house.system.mailbox_lengths() if name.startswith("quota:")] == []
        assert [to for to in told if to.startswith("quota:")] == []

    run(limited(tenant=LimitsSpec()), scene, journal=lambda to, envelope: told.append(to))


@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize("is_broken", [False, True])
@pytest.mark.parametrize("on", [Reserve, Settle, QuotaReconfigured])
def test_a_quota_that_crashes_loses_no_place_and_refills_nothing(on: type, mode: str, is_broken: bool) -> None:
    async def scene(world: World) -> None:
        held = world.send(headers=ACME, stream=True, max_tokens=400)
        await asyncio.sleep(0.1)
        world.crash("quota:tenant:acme", on, mode=mode, is_broken=is_broken)
        await change(world, limits)
        await world.ask(headers=ACME)
        await world.ask(headers=ACME)
        assert len(quota(world).out) == 1
        await held.wait()
        assert held.status == 200

        assert len(quota(world).out) == 0
        # Whatever happened, three at once is the limit, and a minute refills it.
        await asyncio.sleep(200.0)
        assert sent([await world.send(headers=ACME).wait() for _ in range(6)]) == [200] * 6
        late = [world.send(headers=ACME) for _ in range(4)]
        await world.all_done()
        assert sent(late) == [200] * 3 + [429]

    limits = LimitsSpec(requests_per_minute=60, max_concurrency=3)
    run(limited(tenant=limits), scene)


def test_a_request_that_crashes_its_quota_and_one_provider_is_answered_500_and_tried_no_further() -> None:
    async def scene(world: World) -> None:
        world.crash("quota:tenant:acme", Reserve, is_broken=False)
        world.crash("provider:a", Award, is_broken=False)
        client = await world.ask(headers=ACME)

        assert (client.status, client.code, client.attempts) == (500, "internal_error", 0)
        assert [(permit.provider, permit.refusal) for permit in world.watch.permits.values()] == [("a", "crashed")]

    run(limited(tenant=ONE_AT_ONCE, strategy="first"), scene)


def test_B4_one_that_is_full_shows_in_the_statistics_while_it_is_and_after_a_crash() -> None:
    async def scene(world: World) -> None:
        held = world.send(headers=ACME, stream=True, max_tokens=400)
        await asyncio.sleep(0.1)
        assert (await world.ask(headers=ACME)).status == 429
        world.crash("quota:tenant:acme", QuotaReconfigured, is_broken=True)
        await change(world, ONE_AT_ONCE)
        (shown,) = (await world.house.admin.stats())["quotas"]

        assert (shown["name"], shown["in_flight"], shown["reserved"]) == ("acme", 1, 1)
        assert shown["refused"] == {"max_concurrency": 1}
        await held.wait()
        (shown,) = (await world.house.admin.stats())["quotas"]
        assert shown["in_flight"] == 0

    run(limited(tenant=ONE_AT_ONCE), scene)


def test_a_question_that_crashed_the_quota_twice_is_answered_500() -> None:
    async def scene(world: World) -> None:
        world.crash("quota:tenant:acme", Reserve, times=2)
        client = await world.ask(headers=ACME)
        assert (client.status, client.code) == (500, "internal_error")
        assert (await world.ask(headers=ACME)).status == 200

    run(limited(tenant=ONE_AT_ONCE), scene)


def test_a_quota_beyond_its_limit_of_restarts_ends_the_daemon_and_everybody_gets_an_answer() -> None:
    async def scene(world: World) -> None:
        world.crash("quota:tenant:acme", Reserve, times=6)
        clients = [world.send(headers=ACME) for _ in range(5)]
        await world.all_done()
        assert world.fatal == ["quota:tenant:acme failed 6 times in 30 s"]
        assert set(sent(clients)) == {500, 503}

    run(limited(tenant=ONE_AT_ONCE), scene)


def test_B9_a_changed_limit_holds_from_the_next_request_on_and_keeps_what_is_under_way() -> None:
    async def scene(world: World) -> None:
        held = [world.send(headers=ACME, stream=True, max_tokens=400) for _ in range(2)]
        assert (await world.ask(headers=ACME)).status == 429
        await change(world, LimitsSpec(max_concurrency=3))
        assert (await world.ask(headers=ACME)).status == 200
        await change(world, ONE_AT_ONCE)
        assert (await world.ask(headers=ACME)).status == 429
        held[0].leave()
        await held[0].wait()
        assert (await world.ask(headers=ACME)).status == 429
        held[1].leave()
        await held[1].wait()
        assert (await world.ask(headers=ACME)).status == 200

    run(limited(tenant=LimitsSpec(max_concurrency=2)), scene)


def test_B9_limits_that_come_and_go_under_traffic_stop_nobody_and_their_quota_goes_with_the_last_request() -> None:
    async def scene(world: World) -> None:
        before = world.send(headers=ACME, stream=True)
        await asyncio.sleep(0.05)
        await change(world, ONE_AT_ONCE, ONE_AT_ONCE)
        held = world.send(headers=ACME, stream=True, max_tokens=400)
        assert (await world.ask(headers=ACME)).status == 429
        await change(world, None)
        assert (await world.ask(headers=ACME)).status == 200
        await asyncio.sleep(1.5)
        assert len(quota(world).out) == 1
        await change(world, ONE_AT_ONCE)
        assert (await world.ask(headers=ACME)).status == 429
        await change(world, None)
        await before.wait()
        await held.wait()
        assert sent([before, held]) == [200, 200]
        await asyncio.sleep(2.5)
        assert [name for name in world.house.system.mailbox_lengths() if name.startswith("quota:")] == []
        await change(world, ONE_AT_ONCE)
        assert (await world.ask(headers=ACME)).status == 200

    run(limited(), scene)


def test_a_drained_daemon_leaves_no_reservation_behind() -> None:
    async def scene(world: World) -> None:
        for number in range(4):
            world.send(headers=ACME, stream=number % 2 == 0, max_tokens=10_000)
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        # Two wait for the provider, so that they do not hold the pool yet.
        assert len(world.house.reservations) == 6

    run(limited([provider("a", limits={"max_concurrency": 2})], LimitsSpec(5), LimitsSpec(5), queue=PATIENT), scene)
