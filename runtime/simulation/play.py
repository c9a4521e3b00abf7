"""Plays a scenario: the whole house as in the daemon, under virtual time, with simulated providers and clients.

Always: nothing outside is touched: no socket, no clock, no key of the configuration. Configuration, scenario and seed decide
everything, so the same give the same report. Restarting actors, rules, limits, queue, probes: all is as it would be.
"""

import asyncio
import gc
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import SecretStr

from messages.control import ConfigSnapshot, ProviderSpec
from messages.envelope import Envelope
from otel.spans import Tracing
from runtime.config.settings import Credential, Loaded
from runtime.daemon import GC_THRESHOLDS, House
from runtime.ports import UpstreamAnswer, UpstreamRequest
from runtime.simulation.arrivals import Arrival, arrivals
from runtime.simulation.in_process import SimulatedUpstream
from runtime.simulation.provider import ProviderSimulation
from runtime.simulation.scenario import behaviour_of, faults_of, models_asked_for
from runtime.simulation.scenario_schema import ProviderEntry, Scenario
from runtime.simulation.tally import Tally
from runtime.simulation.visitor import Visitor
from runtime.system.clock import loop_clock
from runtime.system.virtual_loop import VirtualLoop

SETTLE_S = 60.0
"""Beyond the deadline of requests, in which all must be over."""
_BEARER = "Bearer "


class ProvidersByKey:
    """The upstream port: finds a provider by its key, for two of them can have one address. Keys are the providers' ids."""

    def __init__(self, upstream: SimulatedUpstream, specs: Mapping[str, ProviderSpec]) -> None:
        self._upstream = upstream
        self._endpoints = {name: spec.endpoint.rstrip("/") for name, spec in specs.items()}

    def begin(self, request: UpstreamRequest) -> None:
        """It is always to be waited for."""

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """As the port says."""
        name = next((value for key, value in request.headers if key.lower() == "authorization"), "").removeprefix(_BEARER)
        path = request.url[len(self._endpoints[name]) :]
        return await self._upstream.call(replace(request, url=address_of(name) + path))

    async def close(self) -> None:
        """As the port says."""
        await self._upstream.close()


def address_of(provider: str) -> str:
    """Where a simulated provider listens."""
    return f"http://{provider}.simulated/v1"


def in_simulation(loaded: Loaded) -> Loaded:
    """The configuration without its secrets: a provider's key is its id."""
    # The fingerprints of real keys are salted for each process; what is simulated must be the same in any.
    snapshot = replace(
        loaded.snapshot, providers=tuple(replace(spec, credential=f"key-of-{spec.id}") for spec in loaded.snapshot.providers)
    )
    credentials = {
        name: Credential(name, one.kind, one.base_url, SecretStr(name), (), one.timeouts)
        for name, one in loaded.credentials.items()
    }
    return replace(loaded, snapshot=snapshot, credentials=credentials)


class Play:
    """One run. Make it inside the virtual loop; ``run`` once."""

    def __init__(self, loaded: Loaded, scenario: Scenario) -> None:
        self._loop = asyncio.get_running_loop()
        self._scenario = scenario
        self._loaded = in_simulation(loaded)
        self._snapshot: ConfigSnapshot = self._loaded.snapshot
        self._models = models_asked_for(scenario, self._snapshot)
        specs = {spec.id: spec for spec in self._snapshot.providers}
        self._entries = {name: scenario.providers.get(name, ProviderEntry()) for name in specs}
        behaviours = {address_of(name): behaviour_of(spec, self._entries[name], self._models) for name, spec in specs.items()}
        self._upstream = SimulatedUpstream(behaviours, scenario.seed)
        self.tally = Tally(tuple(specs))
        self.fatal: list[str] = []
        clock, seed = loop_clock(self._loop), f"simulate/{scenario.seed}"
        upstream = ProvidersByKey(self._upstream, specs)
        self.house = House(self._loaded, upstream, Tracing.off(), clock, seed, self.fatal.append, self._see)
        self._under_way: dict[asyncio.Task[None], None] = {}

    def _see(self, to: str, envelope: Envelope) -> None:
        self.tally.see(to, envelope, self._loop.time())

    async def run(self) -> dict[str, Any]:
        """Play it to its end; returns the report. Raises ``ConfigError`` if the configuration is refused."""
        await self.house.start()
        try:
            begun_at = self._loop.time()
            for name, entry in self._entries.items():
                for at, fault in faults_of(entry, self._scenario.duration):
                    self._loop.call_later(at, partial(self._break, name, fault))
            for arrival in arrivals(self._scenario, self._models):
                await asyncio.sleep(begun_at + arrival.at - self._loop.time())
                task = self._loop.create_task(self._serve(arrival))
                self._under_way[task] = None
                task.add_done_callback(self._under_way.pop)
            await asyncio.sleep(max(0.0, begun_at + self._scenario.duration - self._loop.time()))
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=self._snapshot.routing.deadline_s + SETTLE_S)
        finally:
            await self.house.edge.drain(0.0)
            await self.house.edge.settled(SETTLE_S)
            billed = {spec.id: self._billed_usd(spec) for spec in self._snapshot.providers}
            await self.house.stop()
        head = {"seed": self._scenario.seed, "duration_s": self._scenario.duration, "fatal": list(self.fatal)}
        return {**head, **self.tally.report(billed)}

    def simulation(self, provider: str) -> ProviderSimulation:
        """The simulated side of a provider."""
        return self._upstream.simulation(address_of(provider))

    def _break(self, provider: str, fault: Any) -> None:
        self.simulation(provider).switch_on(fault, self._loop.time())

    def _billed_usd(self, spec: ProviderSpec) -> float | None:
        are_known = spec.models and all(None not in (model.input_price, model.output_price) for model in spec.models)
        return self.simulation(spec.id).billed_usd if are_known else None

    async def _serve(self, arrival: Arrival) -> None:
        """What the listener does with a request."""
        visitor = Visitor(self._loop, arrival.tenant, arrival.is_stream)
        edge = self.house.edge
        task = asyncio.current_task()
        assert task is not None
        refusal = edge.admit(task)
        if refusal is not None:
            visitor.refuse(refusal.status, refusal.code)
        else:
            try:
                await edge.serve(arrival.request, visitor, task)
            finally:
                edge.leave(task)
        self.tally.add(visitor)


def play(loaded: Loaded, scenario: Scenario) -> dict[str, Any]:
    """Play ``scenario`` with a configuration; returns the report as plain data. Raises ``ConfigError``."""

    async def played() -> dict[str, Any]:
        return await Play(loaded, scenario).run()

    # As in the daemon: looking for cycles costs a quarter of a run, and there are hardly any.
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(played())
    finally:
        gc.set_threshold(*thresholds)
