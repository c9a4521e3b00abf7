"""Quotas in storms: clients that leave, providers that fail, quotas that crash or stall, limits that change, by one seed."""

import asyncio
from random import Random

import pytest

from actors.quota import QuotaActor
from messages.control import LimitsSpec
from messages.envelope import Envelope
from messages.quota import QuotaReconfigured, Reserve, Settle
from runtime.simulation.faults import FaultKind
from tests.system.house import Client, World, provider, run
from tests.system.house_watch import over_rate
from tests.system.test_quotas import change, limited

TENANT = LimitsSpec(requests_per_minute=300, tokens_per_minute=60_000, max_concurrency=12, burst=10)
POOL = LimitsSpec(requests_per_minute=600, max_concurrency=20, burst=25)
QUOTAS = {"tenant:acme": TENANT, "pool:m": POOL}
CRASHES_MAX = 4
"""Of one quota: one more within 30 s and the daemon must end, which is another test's matter."""


class Watch:
    """Counts for itself what is held, and does not believe the quotas."""

    def __init__(self) -> None:
        self.used: dict[str, dict[str, float]] = {name: {} for name in QUOTAS}
        """By quota: when a reservation was granted, without those of which nothing was sent."""
        self.out: dict[str, int] = dict.fromkeys(QUOTAS, 0)
        self.wrongs: list[str] = []

    def follow(self, world: World) -> None:
        table = world.house.reservations
        hold, end = table.hold, table.end
        held: dict[str, str] = {}

        def holds(reservation_id: str) -> None:
            name = held[reservation_id] = reservation_id.partition("/")[2]
            self.used[name].setdefault(reservation_id, world.now)
            self.out[name] += 1
            if self.out[name] > (QUOTAS[name].max_concurrency or 0):
                self.wrongs.append(f"{name} has {self.out[name]} out at {world.now}")
            hold(reservation_id)

        def ends(quota: str, reservation_id: str) -> None:
            if held.pop(reservation_id, None) is not None:
                self.out[quota] -= 1
            end(quota, reservation_id)

        vars(table)["hold"], vars(table)["end"] = holds, ends

    def see(self, to: str, envelope: Envelope) -> None:
        message = envelope.message
        if isinstance(message, Settle) and message.tokens is None:
            self.used[to.removeprefix("quota:")].pop(message.reservation_id, None)

    def at_the_end(self) -> list[str]:
        over = [
            f"{name}: {wrong}" for name, spec in QUOTAS.items() for wrong in over_rate(list(self.used[name].values()), spec)
        ]
        return [*self.wrongs, *over, *(f"{name}: {count} out" for name, count in self.out.items() if count)]


class QuotaStorm:
    """What a seed decides."""

    def __init__(self, seed: int, world: World) -> None:
        self.rng = Random(f"quotas/{seed}")
        self.world = world
        self.crashes = dict.fromkeys(QUOTAS, 0)

    async def blow(self, rounds: int) -> None:
        rng, world = self.rng, self.world
        for _ in range(rounds):
            for _ in range(rng.choice((1, 1, 2, 5, 40))):
                self.request()
            if rng.random() < 0.4:
                await self.break_something()
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.3, 1.0, rng.uniform(0, 3))))
        world.end_sabotage()
        await world.all_done()
        await asyncio.sleep(2.5)

    def request(self) -> Client:
        rng, world = self.rng, self.world
        headers = {"x-pointsman-tenant": rng.choice(("acme", "acme", "other"))}
        if rng.random() < 0.1:
            headers["x-pointsman-deadline"] = str(rng.choice((1, 50, 700)))
        client = world.send(stream=rng.random() < 0.5, max_tokens=rng.choice((1, 20, 200, None)), headers=headers)
        if rng.random() < 0.3:
            world.loop.call_later(rng.choice((0.0, 0.001, 0.15, rng.uniform(0, 2))), client.leave)
        return client

    async def break_something(self) -> None:
        rng, world = self.rng, self.world
        name = rng.choice(tuple(QUOTAS))
        what = rng.random()
        if what < 0.3:
            world.fault(rng.choice("ab"), rng.choice(tuple(FaultKind)), p=rng.choice((1.0, 0.5)), for_s=rng.uniform(0, 4))
        elif what < 0.5:
            # A stalled quota: clients give up while their question lies in its mailbox, and ends come behind it.
            world.loop.call_later(rng.uniform(0.0, 0.3), world.freeze(f"quota:{name}", rng.choice((Reserve, Settle))).thaw)
        elif what < 0.8 and self.crashes[name] < CRASHES_MAX:
            self.crashes[name] += 1
            mail, mode = rng.choice((Reserve, Settle, QuotaReconfigured)), rng.choice(("before", "after"))
            world.crash(f"quota:{name}", mail, 1, mode, rng.random() < 0.5)
        else:
            await change(world, TENANT, POOL)


@pytest.mark.parametrize("seed", range(12))
def test_B4_D1_in_any_storm_no_quota_is_passed_and_none_keeps_what_is_over(seed: int) -> None:
    watch = Watch()

    async def scene(world: World) -> None:
        watch.follow(world)
        await QuotaStorm(seed, world).blow(60)

        assert world.fatal == []
        assert len(world.house.reservations) == 0
        for name in QUOTAS:
            actor = world.cell(f"quota:{name}").actor
            assert isinstance(actor, QuotaActor)
            assert (actor.out, actor.invariant()) == ({}, None)
        assert {client.status for client in world.clients} > {200, 429}

    providers = [provider("a", limits={"max_concurrency": 5}), provider("b", limits={"max_concurrency": 10})]
    config = limited(providers, TENANT, POOL, queue={"max_wait": "2s", "max_length": 100}, deadline="20s")
    run(config, scene, seed=f"storm-{seed}", journal=watch.see)
    assert watch.at_the_end() == []
