"""The supervision tree: which actors there are, how each is supervised, and the providers that come and go with configuration.

Owns: the provider actors' lives.
Always: root is one_for_one. A provider's identity is its id: one that stays is told its new part, one that is gone drains
and is stopped when its last call has ended, one that comes back while draining is revived.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from actors.aggregator import AggregatorActor
from actors.kernel import Actor, Ref, SupervisionSpec
from actors.prober import ProberActor
from actors.provider.actor import ProviderActor
from actors.registry import Describe, RegistryActor, as_it_came
from actors.router.actor import RouterActor
from messages.calls import Permit, Restored
from messages.control import ConfigSnapshot, Configured, Drain, ProviderSpec, Reconfigure
from messages.decisions import StrategyFailed
from messages.envelope import Envelope
from runtime.courier.directory import Directory
from runtime.courier.permits import PermitTable
from runtime.courier.reservations import ReservationTable
from runtime.credentials import Credentials
from runtime.plugins import all_strategies
from runtime.quotas import Quotas
from runtime.system.dispatcher import Port
from runtime.system.system import ActorSystem

log = logging.getLogger("pointsman.tree")

CORE = SupervisionSpec(limit=5, period_s=30.0, fatal=True)
"""Registry, router, quotas: beyond their limit nothing can be decided, so the daemon ends and is started again from outside."""
PROVIDER = SupervisionSpec(limit=5, period_s=30.0, fatal=False, out_for_s=300.0)
"""A provider beyond its limit is out for a while; the others go on."""
OBSERVER = SupervisionSpec(limit=None, period_s=60.0, backoff_s=0.5, backoff_max_s=30.0, fatal=False)
"""Aggregator and prober restart with back-off for ever and take nobody with them."""

REAP_S = 1.0
FAULT_PAUSE_S = 10.0
"""One strategy's faults are logged no more often; the router counts them all."""
FAULTY_MAX = 1_000
"""Strategies whose last fault is remembered."""


class Tree:
    """Spawns the house's actors and keeps the providers in step with the configuration."""

    def __init__(
        self,
        system: ActorSystem,
        directory: Directory,
        permits: PermitTable,
        probes: Port,
        credentials: Credentials | None = None,
        reservations: ReservationTable | None = None,
    ) -> None:
        self._system = system
        self._directory = directory
        self._credentials = credentials
        self._permits = permits
        self._quotas = Quotas(system, ReservationTable() if reservations is None else reservations, CORE)
        self._specs: dict[str, ProviderSpec] = {}
        """By provider, those that were spawned; a draining one is among them until it is stopped."""
        self._draining: dict[str, float] = {}
        """Since when (monotonic s) those are told to take nothing more that no configuration has any more."""
        self._faulty: dict[str, float] = {}
        """When a fault of a strategy was last logged, in monotonic seconds."""
        self._reaper: asyncio.TimerHandle | None = None
        self._snapshot = directory.snapshot
        self.router: Ref[Any] = Ref("router")
        system.port("providers", self._on_configured)
        system.port("probes", probes)
        system.port("faults", self._on_fault)

    def start(self, describe: Describe = as_it_came) -> None:
        """Spawn all, in the order of the tree: what others depend on first, so that it is stopped last."""
        snapshot = self._directory.snapshot
        subscribers: Sequence[Ref[Configured]] = (Ref("providers"), Ref("router"), Ref("prober"))
        spawn = self._system.spawn

        def registry(before: Actor | None) -> Actor:
            return RegistryActor(subscribers, describe, _same(RegistryActor, before), strategies=tuple(all_strategies()))

        def router(before: Actor | None) -> Actor:
            return RouterActor(self._snapshot, strategies=all_strategies())

        def in_force() -> Sequence[Configured]:
            # The message that told it may be the one that was skipped.
            return (Configured(self._snapshot),)

        spawn("registry", registry, CORE)
        self._quotas.publish(snapshot)
        spawn("router", router, CORE, first_mail=in_force)
        for spec in snapshot.providers:
            self._spawn_provider(spec)
        spawn("aggregator", lambda before: AggregatorActor(_same(AggregatorActor, before)), OBSERVER)
        spawn(
            "prober",
            lambda before: ProberActor(Ref("probes"), Ref("registry"), _same(ProberActor, before)),
            OBSERVER,
            first_mail=in_force,
        )

    def lines(self) -> list[str]:
        """Names and states of all actors, for people."""
        return [f"{name}: {state.value}" for name in self._names() if (state := self._system.state_of(name)) is not None]

    def _names(self) -> list[str]:
        providers = (f"provider:{name}" for name in self._specs)
        return ["registry", *self._quotas.addresses, "router", *providers, "aggregator", "prober"]

    def _on_configured(self, envelope: Envelope) -> None:
        """A new generation is in force."""
        message = envelope.message
        if not isinstance(message, Configured):
            return
        snapshot = message.snapshot
        if self._credentials is not None:
            self._credentials.publish(snapshot)
        self._directory.publish(snapshot)
        self._quotas.publish(snapshot)
        self._snapshot = snapshot
        wanted = {spec.id: spec for spec in snapshot.providers}
        for spec in snapshot.providers:
            self._draining.pop(spec.id, None)
            if spec.id not in self._specs:
                self._spawn_provider(spec)
            else:
                self._specs[spec.id] = spec
                self._system.tell(f"provider:{spec.id}", self._part(spec), sender="providers")
        for provider in [name for name in self._specs if name not in wanted and name not in self._draining]:
            self._draining[provider] = self._system.clock.now()
            self._system.tell(f"provider:{provider}", Drain(), sender="providers")
        self._reap_later()

    def _reap_later(self) -> None:
        """Not at once: a provider reads its ``Drain`` first. One alarm, however many changes come while some drain."""
        if self._draining and self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(REAP_S, self._reap)

    def _reap(self) -> None:
        """Stop the draining providers whose last call has ended, and look again while there are others.

        An end that was told in this very turn of the loop may lie unread: it counts, so its provider is left to read it.
        """
        self._reaper = None
        now = self._system.clock.now()
        for provider, since in list(self._draining.items()):
            # The alarm may have been set for another: whoever has a plan that names this one is to come by its answer first.
            if now - since < REAP_S / 2:
                continue
            if self._permits.granted_to(provider) or self._system.has_mail(f"provider:{provider}"):
                continue
            del self._draining[provider], self._specs[provider]
            self._system.stop_actor(f"provider:{provider}")
            self._directory.forget(provider)
            if self._credentials is not None:
                self._credentials.forget(provider)
        self._reap_later()

    def _on_fault(self, envelope: Envelope) -> None:
        """A strategy of others failed, and ``first`` stood in."""
        message = envelope.message
        if not isinstance(message, StrategyFailed):
            return
        now = self._system.clock.now()
        if now - self._faulty.get(message.strategy, -FAULT_PAUSE_S) < FAULT_PAUSE_S:
            return
        if len(self._faulty) >= FAULTY_MAX:
            self._faulty.clear()
        self._faulty[message.strategy] = now
        log.error("strategy %s failed, 'first' stands in: %s", message.strategy, message.detail)

    def _spawn_provider(self, spec: ProviderSpec) -> None:
        provider = spec.id
        self._specs[provider] = spec

        def make(before: Actor | None) -> Actor:
            part = self._part(self._specs[provider])
            predecessor = _same(ProviderActor, before)
            return ProviderActor(part.spec, part.health, part.generation, predecessor, Ref("router"))

        def first_mail() -> Sequence[Restored | Drain | Reconfigure]:
            permits: tuple[Permit, ...] = self._permits.granted_to(provider)
            return Restored(permits), Drain() if provider in self._draining else self._part(self._specs[provider])

        self._system.spawn(f"provider:{provider}", make, PROVIDER, first_mail=first_mail)

    def _part(self, spec: ProviderSpec) -> Reconfigure:
        snapshot: ConfigSnapshot = self._snapshot
        return Reconfigure(spec, snapshot.health, snapshot.generation)


def _same(kind: Callable[..., Any], before: Actor | None) -> Any:
    """The predecessor, if it is of the kind its successor can read."""
    return before if isinstance(before, kind) else None  # type: ignore[arg-type] # kinds are classes
