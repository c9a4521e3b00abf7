"""The quotas of tenants and pools that have limits: actors that come and go with the configuration.

Owns: their lives.
Always: a quota that stays is told its new limits and keeps what is out and what is in its buckets. One whose limits are gone is
asked no more and is stopped when its last request has ended, unless its limits come back before.
"""

import asyncio
from collections.abc import Sequence

from actors.kernel import Actor, SupervisionSpec
from actors.quota import QuotaActor
from messages.control import ConfigSnapshot
from messages.limits import LimitsSpec
from messages.quota import QuotaReconfigured, ReservationsRestored
from runtime.config.quotas import quotas_of
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
        self._reaper: asyncio.TimerHandle | None = None

    @property
    def addresses(self) -> list[str]:
        """Of all that live."""
        return [_address(name) for name in self._limits]

    def publish(self, snapshot: ConfigSnapshot) -> None:
        """A generation is in force."""
        self._generation = snapshot.generation
        wanted = quotas_of(snapshot)
        for name, limits in wanted.items():
            self._leaving.pop(name, None)
            is_new = name not in self._limits
            self._limits[name] = limits
            if is_new:
                self._spawn(name)
            else:
                self._system.tell(_address(name), QuotaReconfigured(limits, self._generation), sender="quotas")
        self._leaving |= dict.fromkeys(name for name in self._limits if name not in wanted)
        self._reap_later()

    def _reap_later(self) -> None:
        """One alarm, however many changes come while some leave."""
        if self._leaving and self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(REAP_S, self._reap)

    def _reap(self) -> None:
        """Stop those that nobody needs any more and whose mail is read, and look again while there are others."""
        self._reaper = None
        mail = self._system.mailbox_lengths()
        for name in [name for name in self._leaving if not (self._table.has_any(name) or mail.get(_address(name)))]:
            del self._leaving[name], self._limits[name]
            self._system.stop_actor(_address(name))
        self._reap_later()

    def _spawn(self, name: str) -> None:
        def make(before: Actor | None) -> Actor:
            predecessor = before if isinstance(before, QuotaActor) else None
            return QuotaActor(name, self._limits[name], self._generation, predecessor)

        def first_mail() -> Sequence[ReservationsRestored | QuotaReconfigured]:
            return ReservationsRestored(self._table.held_of(name)), QuotaReconfigured(self._limits[name], self._generation)

        self._system.spawn(_address(name), make, self._spec, first_mail=first_mail)


def _address(name: str) -> str:
    return f"quota:{name}"
