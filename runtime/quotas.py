"""The quotas of tenants and pools that have limits: actors that come and go with the configuration.

Owns: their lives.
Always: a quota that stays is told its new limits and keeps what is out; one whose limits are gone limits nothing from then on
and is stopped when its last request has ended, unless it comes back before.
"""

import asyncio
from collections.abc import Sequence

from actors.kernel import Actor, SupervisionSpec
from actors.quota import QuotaActor
from messages.control import ConfigSnapshot
from messages.limits import NO_LIMITS, LimitsSpec
from messages.quota import QuotaReconfigured, ReservationsRestored
from runtime.courier.reservations import ReservationTable
from runtime.system.system import ActorSystem

REAP_S = 1.0


class Quotas:
    """Spawns the quotas and keeps them in step with the configuration."""

    def __init__(self, system: ActorSystem, table: ReservationTable, spec: SupervisionSpec) -> None:
        self._system = system
        self._table = table
        self._spec = spec
        self._limits: dict[str, LimitsSpec] = {}
        """By quota, those that were spawned; one that is to go is among them until it is stopped."""
        self._leaving: dict[str, None] = {}
        self._generation = 0
        self._is_reaping = False

    @property
    def addresses(self) -> list[str]:
        """Of all that live."""
        return [f"quota:{name}" for name in self._limits]

    def publish(self, snapshot: ConfigSnapshot) -> None:
        """A generation is in force."""
        self._generation = snapshot.generation
        wanted = {f"tenant:{tenant.name}": tenant.limits for tenant in snapshot.tenants if tenant.limits.is_limited}
        wanted |= {f"pool:{pool.model}": pool.limits for pool in snapshot.pools if pool.limits.is_limited}
        for name, limits in wanted.items():
            self._leaving.pop(name, None)
            is_new = name not in self._limits
            self._limits[name] = limits
            if is_new:
                self._spawn(name)
            else:
                self._tell(name)
        for name in self._limits:
            if name not in wanted and name not in self._leaving:
                self._leaving[name] = None
                self._limits[name] = NO_LIMITS
                self._tell(name)
        if self._leaving and not self._is_reaping:
            self._is_reaping = True
            asyncio.get_running_loop().call_later(REAP_S, self._reap)

    def _tell(self, name: str) -> None:
        self._system.tell(f"quota:{name}", QuotaReconfigured(self._limits[name], self._generation), sender="quotas")

    def _reap(self) -> None:
        """Stop those that nobody needs any more and whose mail is read, and look again while there are others."""
        mail = self._system.mailbox_lengths()
        for name in [name for name in self._leaving if not (self._table.has_any(name) or mail.get(f"quota:{name}"))]:
            del self._leaving[name], self._limits[name]
            self._system.stop_actor(f"quota:{name}")
        self._is_reaping = bool(self._leaving)
        if self._is_reaping:
            asyncio.get_running_loop().call_later(REAP_S, self._reap)

    def _spawn(self, name: str) -> None:
        def make(before: Actor | None) -> Actor:
            predecessor = before if isinstance(before, QuotaActor) else None
            return QuotaActor(name, self._limits[name], self._generation, predecessor)

        def first_mail() -> Sequence[ReservationsRestored]:
            return (ReservationsRestored(self._table.held_of(name)),)

        self._system.spawn(f"quota:{name}", make, self._spec, first_mail=first_mail)
