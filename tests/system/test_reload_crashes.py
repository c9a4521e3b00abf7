"""Crashes over a new configuration: whoever fell over the message that told it lives under it all the same."""

import asyncio
from dataclasses import replace

import pytest

from actors.prober import ProberActor
from actors.quota import QuotaActor
from actors.router.actor import RouterActor
from messages.control import Configured, Drain, Propose, Reconfigure
from messages.limits import LimitsSpec
from messages.policy import PoolSpec
from messages.quota import QuotaReconfigured
from runtime.config.settings import Loaded
from tests.system.house import MODEL, World, loaded, provider, run

TWO = loaded([provider("a"), provider("b")], strategy="first")
MODES = [(mode, is_broken) for mode in ("before", "after") for is_broken in (True, False)]


async def put_in_force(world: World, config: Loaded) -> None:
    answer = await world.house.system.ask("registry", Propose(config.snapshot))
    assert isinstance(answer, Configured)
    await asyncio.sleep(1.0)


@pytest.mark.parametrize(("mode", "is_broken"), MODES)
def test_pain_21_a_router_that_falls_over_a_new_configuration_routes_by_it(mode: str, is_broken: bool) -> None:
    async def scene(world: World) -> None:
        world.crash("router", Configured, mode=mode, is_broken=is_broken)
        await put_in_force(world, loaded([provider("a"), provider("b", priority=9)], strategy="priority"))

        client = await world.ask()
        assert (client.provider, client.headers["x-pointsman-strategy"]) == ("b", "priority")
        router = world.cell("router").actor
        assert isinstance(router, RouterActor)
        assert router._table.generation == world.house.directory.snapshot.generation

    run(TWO, scene)


@pytest.mark.parametrize(("mode", "is_broken"), MODES)
def test_pain_21_a_provider_that_falls_over_its_new_configuration_keeps_to_it(mode: str, is_broken: bool) -> None:
    async def scene(world: World) -> None:
        long = world.send(stream=True, max_tokens=300)
        await asyncio.sleep(0.5)
        world.crash("provider:a", Reconfigure, mode=mode, is_broken=is_broken)
        await put_in_force(world, loaded([provider("a", enabled=False), provider("b")], strategy="first"))

        assert (await world.ask()).provider == "b"
        assert (await world.report("a")).in_flight == 1
        assert (await long.wait()).provider == "a"
        assert (await world.report("a")).in_flight == 0

    run(TWO, scene)


@pytest.mark.parametrize(("mode", "is_broken"), MODES)
def test_B9_a_provider_that_falls_over_its_removal_drains_and_is_revived_by_its_return(mode: str, is_broken: bool) -> None:
    async def scene(world: World) -> None:
        long = world.send(stream=True, max_tokens=400)
        await asyncio.sleep(0.5)
        world.crash("provider:a", Drain, mode=mode, is_broken=is_broken)
        await put_in_force(world, loaded([provider("b")], strategy="first"))
        assert world.provider_actor("a").is_draining

        world.crash("provider:a", Reconfigure, mode=mode, is_broken=is_broken)
        await put_in_force(world, TWO)
        assert not world.provider_actor("a").is_draining
        assert (await world.report("a")).in_flight == 1
        assert (await world.ask()).provider == "a"
        assert (await long.wait()).fate == "answer"

    run(TWO, scene)


@pytest.mark.parametrize(("mode", "is_broken"), MODES)
def test_B9_a_quota_that_falls_over_its_new_limits_keeps_to_them(mode: str, is_broken: bool) -> None:
    def of(most: int) -> Loaded:
        return replace(TWO, snapshot=replace(TWO.snapshot, pools=(PoolSpec(MODEL, limits=LimitsSpec(max_concurrency=most)),)))

    async def scene(world: World) -> None:
        address = f"quota:pool:{MODEL}"
        clients = [world.send(max_tokens=300) for _ in range(2)]
        await asyncio.sleep(0.5)
        world.crash(address, QuotaReconfigured, mode=mode, is_broken=is_broken)
        await put_in_force(world, of(2))

        assert (await world.ask()).status == 429
        quota = world.cell(address).actor
        assert isinstance(quota, QuotaActor)
        assert (len(quota.out), quota.limits.max_concurrency) == (2, 2)
        await world.all_done()
        assert [client.status for client in clients[:2]] == [200, 200]
        assert (await world.ask()).status == 200

    run(of(5), scene)


def test_a_prober_that_falls_over_a_new_configuration_probes_by_it() -> None:
    async def scene(world: World) -> None:
        world.crash("prober", Configured)
        await put_in_force(world, loaded([provider("a"), provider("b", probe={"kind": "models", "interval": "5s"})]))
        await asyncio.sleep(5.0)

        assert isinstance(world.cell("prober").actor, ProberActor)
        assert len(world.probes("b")) >= 1

    run(TWO, scene)
