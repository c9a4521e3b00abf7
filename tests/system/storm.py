"""Storms: everything that can go wrong with providers, clients and actors, at once, decided by one seed."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sized
from dataclasses import dataclass, field, replace
from math import inf
from random import Random
from typing import Any

from actors.kernel import Actor
from actors.prober import ProberActor
from actors.router.actor import RouterActor
from actors.router.exploring import CURIOUS
from actors.router.plans import STALE_S
from messages.calls import Award, CallEnded, ContentStarted
from messages.changes import PatchProvider, RegisterProvider, UnregisterProvider
from messages.control import Configured, Propose, Reconfigure, Timer
from messages.envelope import Envelope
from messages.health import GetReport, Probed, ProbeDone, ProbeTick, ProviderReport, Status
from messages.routing import CallForBids, CapacityFreed, Claimed, Gathered, RouteQuery, Withdraw
from messages.stats import GetStats, Stats
from runtime.config.kinds import SUPPORTED_STRATEGIES
from runtime.config.settings import Loaded
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import FaultKind
from runtime.system.frontier import encode_envelope
from tests.system.house import MODEL, Sabotage, World, loaded, provider, run
from tests.system.house_books import documented_errors
from tests.system.storm_changes import Changes

CRASHES_MAX = 4
"""Of those that cost a restart: one more within 30 s and the daemon must end, which is another test's matter."""
AWARDS_MAX = 300
"""Of one request: a round in 0.1 s while it waits 4 s at most, in each by four providers."""
ROUTER_MAIL = (RouteQuery, Gathered, Claimed, CapacityFreed, Withdraw, CallEnded, Timer)
PROVIDER_MAIL = (Award, Award, CallEnded, CallEnded, ContentStarted, CallForBids, Probed, GetReport)
REGISTRY_MAIL = (Propose, RegisterProvider, UnregisterProvider, PatchProvider)
FAULTS = tuple(FaultKind)
DOCUMENTED = documented_errors()


@dataclass
class Storm:
    """What a seed decides."""

    seed: int
    rng: Random = field(init=False)
    more: Random = field(init=False)
    """For what came later, so that a seed's storm stays what it was."""
    tight: Random = field(init=False)
    """The same, for token limits that are nearly always reached."""
    news: Random = field(init=False)
    """The same, for those who fall over a new configuration."""
    providers: list[str] = field(init=False)
    router_crashes: int = 0
    registry_crashes: int = 0
    over_news: list[Sabotage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = Random(f"storm/{self.seed}")
        self.more = Random(f"storm/{self.seed}/more")
        self.tight = Random(f"storm/{self.seed}/tight")
        self.news = Random(f"storm/{self.seed}/news")
        self.providers = [f"p{number}" for number in range(self.rng.randint(1, 4))]

    def config(self) -> Loaded:
        rng, entries = self.rng, [provider(name, **self._entry()) for name in self.providers]
        strategy = rng.choice(SUPPORTED_STRATEGIES)
        if self.more.random() < 0.5:
            strategy = self.more.choice(sorted(CURIOUS))
        return loaded(
            entries,
            strategy=strategy,
            deadline=f"{rng.choice((1, 4, 20))}s",
            fanout=rng.choice((1, 2, 16)),
            queue={"max_wait": f"{rng.choice((0, 200, 1000, 4000))}ms", "max_length": rng.choice((0, 3, 1000))},
            failover={
                "max_attempts": rng.randint(1, 5),
                "retry_share": rng.choice((0, 0.2, 1)),
                "backoff": {"kind": rng.choice(("none", "linear", "exponential", "fibonacci"))},
                "on_rate_limit": self.more.random() < 0.8,
                "with_replacement": self.more.random() < 0.3,
            },
            hedge={
                "after": self.more.choice(("auto", "p95", "50ms")),
                "max_share": self.more.choice((0.05, 0.5, 1)),
            },
            explore={"max_share": self.more.choice((0.03, 0.5, 1)), "idle": self.more.choice(("200ms", "10s"))},
        )

    def _entry(self) -> dict[str, Any]:
        rng = self.rng
        limits: dict[str, Any] = {"max_concurrency": rng.choice((1, 2, 5, None))}
        if self.more.random() < 0.2:
            limits["max_concurrency"] = "auto"
        if rng.random() < 0.4:
            limits["requests_per_minute"] = rng.choice((60, 300, 1200))
            limits["burst"] = rng.choice((1, 3, 10))
        if rng.random() < 0.2:
            limits["tokens_per_minute"] = rng.choice((10_000, 100_000))
        if self.tight.random() < 0.15:
            # So small a bucket is full again before a call is over, and gives back what was not used then.
            limits |= {"tokens_per_minute": self.tight.choice((3000, 30_000)), "requests_per_minute": 1200, "burst": 60}
        return {
            "limits": limits,
            "circuit": {
                "failures": rng.randint(2, 6),
                "failure_rate": rng.choice((None, 0.5)),
                "open_for": f"{rng.choice((200, 1000, 4000))}ms",
                "half_open_calls": rng.randint(1, 3),
            },
            "timeouts": {
                "first_byte": "1s",
                "idle": "1s",
                "total": rng.choice(("2s", "10s")),
                "min_tokens_per_second": self.more.choice((0, 0, 5, 100)),
            },
            "probe": {"kind": rng.choice(("off", "models", "http")), "interval": "2s"},
            "weight": rng.randint(1, 3),
            # One that names no models has those it lists itself, once a probe has found them.
            "models": rng.choice(([MODEL], [MODEL], [MODEL], None)),
        }

    def behaviours(self) -> dict[str, Behaviour]:
        rng = self.rng
        return {
            name: Behaviour(
                name,
                ttfb_ms=rng.choice((0, 20, 200)),
                sigma=rng.choice((0, 0.5)),
                tokens_per_second=rng.choice((50, 500)),
                capacity=rng.choice((1, 3, 100)),
                requests_per_minute=rng.choice((None, 200)),
                error_share=rng.choice((0, 0, 0.2)),
                models=(MODEL,),
                chunk_tokens=rng.choice((1, 8)),
            )
            for name in self.providers
        }

    async def blow(self, world: World, rounds: int) -> "Aftermath":
        """Let it all happen, wait for the end, and tell how the house stands then."""
        rng, changes = self.rng, Changes(world, self.rng)
        for _ in range(rounds):
            # Bursts beyond 64 questions in a row, from which on answers take a turn of the loop.
            size = rng.choice((1,) * 12 + (2,) * 8 + (8,) * 4 + (150,))
            for _ in range(size):
                self._request(world, hurry=0.4 if size > 64 else 0.15)
            if rng.random() < 0.25:
                self._break_something(world)
            if self.news.random() < 0.15:
                self._break_over_news(world)
            if rng.random() < 0.15:
                changes.ask()
            await asyncio.sleep(rng.choice((0.0, 0.001, 0.05, 0.3, 1.0, rng.uniform(0, 4))))
        if rng.random() < 0.5:
            for name in self.providers:
                world.heal(name)
            await world.all_done()
        await world.house.edge.drain(rng.choice((0.0, 0.3, 10.0)))
        await world.house.edge.settled(5.0)
        world.end_sabotage()
        out_s = 310.0 if any(world.is_out(f"provider:{name}") for name in self.providers) else 0.0
        await asyncio.sleep(2 * STALE_S + 1.0 + out_s)
        await changes.settled()
        answers = changes.answers + Counter({"crashed": sum(sabotage.struck for sabotage in self.over_news)})
        return replace(await Aftermath.of(world), answers=answers)

    def _request(self, world: World, hurry: float) -> None:
        rng = self.rng
        deadline_ms = rng.choice((1, 50, 700)) if rng.random() < 0.15 else 0
        client = world.send(
            stream=rng.random() < 0.5,
            max_tokens=rng.choice((1, 5, 60, None)),
            pause_s=rng.choice((0, 0, 0, 0.01, 0.4)),
            patience=rng.choice((None, None, None, None, 1, 3)),
            model=rng.choice((MODEL,) * 20 + ("best", "nobody-has-it")),
            headers={"x-pointsman-tenant": rng.choice("tu")}
            | ({"x-pointsman-deadline": str(deadline_ms)} if deadline_ms else {}),
        )
        client.deadline_s = min(deadline_ms / 1000 if deadline_ms else inf, world.house.directory.routing.deadline_s)
        if rng.random() < 0.25:
            world.loop.call_later(rng.choice((0.0, 0.0, 0.02, 0.2, rng.uniform(0, 1))), client.leave)
        elif rng.random() < hurry:
            self.leave_after_turns(world.loop, client.leave, rng.randint(0, 5))

    @staticmethod
    def leave_after_turns(loop: asyncio.AbstractEventLoop, leave: Callable[[], None], turns: int) -> None:
        """Leave without time passing: between an award and its answer, or a plan and its award."""
        if turns:
            loop.call_soon(Storm.leave_after_turns, loop, leave, turns - 1)
        else:
            leave()

    def _break_over_news(self, world: World) -> None:
        """Let somebody fall over the next configuration it is told, and perhaps when it is told again what is in force."""
        rng = self.news
        times, mode, is_broken = rng.choice((1, 1, 2)), rng.choice(("before", "after")), rng.random() < 0.5
        who = rng.choice(("router", "router", "prober", f"provider:{rng.choice(self.providers)}"))
        if who == "router":
            # As with its other mail; and whoever falls over what it must read first has to restart in any case.
            is_broken = is_broken or mode == "after"
            self.router_crashes += times
            if self.router_crashes > CRASHES_MAX:
                return
        news = Reconfigure if who.startswith("provider:") else Configured
        self.over_news.append(world.crash(who, news, times, mode, is_broken))

    def _break_something(self, world: World) -> None:
        rng = self.rng
        name = rng.choice(self.providers)
        is_there = any(spec.id == name for spec in world.house.directory.snapshot.providers)
        what = rng.random()
        if what < 0.5:
            kind = rng.choice(FAULTS)
            world.fault(
                name, kind, p=rng.choice((1.0, 0.5)), for_s=rng.uniform(0, 4), retry_after_s=rng.choice((0.0, 0.5, 3.0))
            )
        elif what < 0.58:
            world.heal(name)
        elif what < 0.66:
            actor, on = rng.choice(((f"provider:{name}", Award), (f"provider:{name}", CallEnded), ("router", RouteQuery)))
            if is_there or actor == "router":
                world.loop.call_later(rng.uniform(0.0, 1.0), world.freeze(actor, on).thaw)
        elif what < 0.85:
            mode, is_broken = rng.choice(("before", "after")), rng.random() < 0.7
            world.crash(f"provider:{name}", rng.choice(PROVIDER_MAIL), rng.choice((1, 1, 2, 8)), mode, is_broken)
        elif what < 0.94:
            # Only from within its handler can it see that a turn was left half-way: then it must restart. A timer's is at once.
            mail = rng.choice(ROUTER_MAIL)
            mode = "after" if mail is Timer else rng.choice(("before", "after"))
            is_broken = mode == "after" or rng.random() < 0.5
            self.router_crashes += is_broken
            if not is_broken or self.router_crashes <= CRASHES_MAX:
                world.crash("router", mail, 1, mode, is_broken)
        elif what < 0.97:
            self.registry_crashes += 1
            if self.registry_crashes <= CRASHES_MAX:
                world.crash("registry", rng.choice(REGISTRY_MAIL), 1, rng.choice(("before", "after")))
        else:
            world.crash(rng.choice(("aggregator", "prober")), rng.choice((CallEnded, ProbeTick, ProbeDone)))


@dataclass
class Aftermath:
    """What a storm leaves behind."""

    world: World
    reports: list[ProviderReport]
    stats: Stats
    router: Actor
    flaws: list[str]
    """What is wrong with a provider's state, and who does not go by the configuration in force."""
    journal: list[bytes] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """What changes at run time were answered, and how often somebody fell over one of them."""

    @classmethod
    async def of(cls, world: World) -> "Aftermath":
        """How a house stands when everything is over and nobody raises any more."""
        providers = [spec.id for spec in world.house.directory.snapshot.providers]
        reports = [await world.report(name) for name in providers]
        flaws = [f"{name}: {flaw}" for name in providers if (flaw := world.provider_actor(name)._flaw())]
        stats = await world.house.system.ask("aggregator", GetStats())
        assert isinstance(stats, Stats)
        return cls(world, reports, stats, world.cell("router").actor, flaws + who_is_behind(world))

    def wrongs(self) -> list[str]:
        """What must not be, beyond the laws of every run."""
        world = self.world
        found = [f"{report.provider} has {report.in_flight} in flight" for report in self.reports if report.in_flight]
        found += [f"{report.provider} is out" for report in self.reports if report.status == Status.OUT]
        found += [f"fatal: {reason}" for reason in world.fatal]
        found += world.books.at_the_end(world.house.directory.routing)
        found += world.books.against(self.stats, world.uncounted)
        awards = Counter(permit_id.partition("/")[0] for permit_id in world.watch.permits)
        found += [f"{query} asked for {count} permits" for query, count in awards.items() if count > AWARDS_MAX]
        return found + self.flaws + self._unfit_answers() + self._counted_otherwise() + self._left_at_the_router()

    def _unfit_answers(self) -> list[str]:
        """Clients whose answer came late, was cut, or is an error that is documented nowhere."""
        world, found = self.world, []
        for client in world.clients:
            if client.started_at is not None and client.started_at - client.begun_at > client.deadline_s + 1e-6:
                found.append(f"{client!r} was answered after its deadline")
            if client.fate == "cut" and not world.house.edge.is_draining:
                found.append(f"{client!r} was cut")
            if client.fate == "error" and client.chunks and (client.status, client.code) not in DOCUMENTED:
                found.append(f"{client!r} got an error that is not documented")
        return found

    def _counted_otherwise(self) -> list[str]:
        """Where the edge or the books have not what the clients saw."""
        edge, found = self.world.house.edge.counters, []
        arrived = [client for client in self.world.clients if client.has_arrived]
        left = sum(client.fate == "left" for client in arrived)
        told = [client for client in arrived if client.fate in ("answer", "error", "frame")]
        answered = Counter(client.provider for client in told if client.fate == "answer")
        others = len(arrived) - len(told)
        seen = Counter(client.status for client in arrived if client.fate != "left")
        if (edge.requests, edge.client_gone) != (len(arrived), left):
            counted = f"{edge.requests} requests and {edge.client_gone} gone"
            found.append(f"the edge counted {counted}, {len(arrived)} came and {left} left")
        if edge.by_status != seen:
            found.append(f"the edge counted {edge.by_status}, clients saw {dict(seen)}")
        successes = self.world.books.successes()
        for name in sorted({*successes, *answered}):
            if not 0 <= successes[name] - answered[name] <= others:
                found.append(f"{name} succeeded {successes[name]} times, clients saw {answered[name]}")
        return found

    def _left_at_the_router(self) -> list[str]:
        router = self.router
        assert isinstance(router, RouterActor)
        left: dict[str, Sized] = {
            "open queries": router._open,
            "rounds": router._rounds,
            "queries in the queue": router._queue.waiting,
            "lines": router._queue.lines,
            "open plans": router._plans,
        }
        found = [f"the router keeps {len(kept)} {name}" for name, kept in left.items() if len(kept)]
        return found + ([fault] if (fault := router.invariant()) else [])


def who_is_behind(world: World) -> list[str]:
    """What is wrong with the configurations that those actors go by who are told of each."""
    router, prober, snapshot = world.cell("router").actor, world.cell("prober").actor, world.house.directory.snapshot
    assert isinstance(router, RouterActor)
    assert isinstance(prober, ProberActor)
    specs = {spec.id: spec for spec in snapshot.providers}
    actors = {name: world.provider_actor(name) for name in specs}
    known = {"the router": router._table.generation} | {name: actor.generation for name, actor in actors.items()}
    found = [f"{name} goes by generation {had}" for name, had in known.items() if had != snapshot.generation]
    found += [f"{name} goes by another entry" for name, actor in actors.items() if actor.spec != specs[name]]
    return found + (["the prober goes by other entries"] if prober._specs != specs else [])


def play(seed: int, rounds: int = 40, *, keeps_journal: bool = False) -> Aftermath:
    """Play the storm of ``seed``. Raises ``AssertionError`` if a law is broken, with the command that plays it again.

    With ``keeps_journal`` every envelope is encoded and kept, which takes a third of the time.
    """
    storm = Storm(seed)
    journal: list[bytes] = []

    def keep(to: str, envelope: Envelope) -> None:
        journal.append(to.encode() + b" " + encode_envelope(envelope))

    async def scene(world: World) -> Aftermath:
        return await storm.blow(world, rounds)

    try:
        aftermath = run(storm.config(), scene, storm.behaviours(), f"storm/{seed}", keep if keeps_journal else None)
        wrongs = aftermath.wrongs()
        assert not wrongs, wrongs
    except BaseException as error:
        error.add_note(f"storm {seed} breaks a law; play it again with: make simulate SEED={seed}")
        raise
    return replace(aftermath, journal=journal)
