"""What must hold in every run of the whole house, whatever happens in it: permits, limits, circuits.

It knows the mail and the answers to awards, and counts for itself; it does not believe the actors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.provider.actor import ProviderActor
from actors.provider.circuit import Circuit, Open
from messages.calls import Award, CallEnded, Granted, Outcome, Refused
from messages.control import LimitsSpec, ProviderSpec
from messages.envelope import Envelope
from runtime.daemon import House
from runtime.system.replies import Ask


@dataclass
class Permit:
    """One permit as it went through the mail. Times in virtual seconds."""

    provider: str
    awarded_at: float
    granted_at: float | None = None
    refusal: str = ""
    ended_at: float | None = None
    outcome: Outcome | None = None
    ends: int = 0


class PermitWatch:
    """Follows every permit, and keeps what breaks a law."""

    def __init__(self, specs: Sequence[ProviderSpec], now: Callable[[], float]) -> None:
        self._now = now
        self._limits = {spec.id: spec.limits for spec in specs}
        self._house: House | None = None
        self._out: dict[str, int] = {}
        """Permits granted and not ended, by provider."""
        self.permits: dict[str, Permit] = {}
        self.wrongs: list[str] = []
        self.longest_mailbox = 0
        self.most_out: dict[str, int] = {}

    def follow(self, house: House) -> None:
        """See the answers to awards too: they go to whoever asked, not through the journal."""
        self._house = house
        put = house.system.put

        def seen(to: Any, message: Any, deadline: Any = None, trace: Any = None, sender: str = "", look: Any = None) -> Ask:
            if not isinstance(message, Award):
                return put(to, message, deadline, trace, sender, look)

            def noted(answer: Any) -> None:
                self._answered(message, answer)
                look(answer)

            return put(to, message, deadline, trace, sender, noted)

        vars(house.system)["put"] = seen

    def see(self, to: str, envelope: Envelope) -> None:
        """An envelope is posted."""
        message = envelope.message
        cell = self._house.system._dispatcher.cells.get(to) if self._house is not None else None
        if cell is not None:
            self.longest_mailbox = max(self.longest_mailbox, len(cell.queue))
        if isinstance(message, Award):
            if message.permit_id in self.permits:
                self.wrongs.append(f"permit {message.permit_id} was awarded twice")
            self.permits[message.permit_id] = Permit(to.removeprefix("provider:"), self._now())
        elif isinstance(message, CallEnded) and to.startswith("provider:"):
            self._ended(message)

    def guard(self, actor: Any, message: Any, handle: Callable[[], None]) -> None:
        """Let a provider take an award; it must grant nothing while one of its circuits is open and its time is not come.

        Only calls that explore pass an open circuit; never one that is open for a bad key.
        """
        if not (isinstance(actor, ProviderActor) and isinstance(message, Award)):
            handle()
            return
        now = self._now()
        held = (is_held(actor.standing.circuit, now) and not message.explores) or is_held(actor.standing.credential, now)
        before = actor.requests
        handle()
        if held and actor.requests != before:
            self.wrongs.append(f"{actor.spec.id} granted {message.permit_id} at {now} while its circuit was open")

    def granted(self, provider: str) -> list[Permit]:
        """Permits a provider granted, in order."""
        return [permit for permit in self.permits.values() if permit.provider == provider and permit.granted_at is not None]

    def _answered(self, award: Award, answer: Any) -> None:
        permit = self.permits[award.permit_id]
        if isinstance(answer, Refused):
            permit.refusal = answer.reason
        elif isinstance(answer, Granted):
            permit.granted_at = self._now()
            name = permit.provider
            self._out[name] = self._out.get(name, 0) + 1
            self.most_out[name] = max(self.most_out.get(name, 0), self._out[name])
            limit = self._limits[name].max_concurrency
            if limit is not None and self._out[name] > limit:
                self.wrongs.append(f"{name} has {self._out[name]} calls out at {self._now()}, its limit is {limit}")

    def _ended(self, end: CallEnded) -> None:
        permit = self.permits.get(end.permit_id)
        if permit is None:
            self.wrongs.append(f"the end of {end.permit_id}, which was never awarded")
            return
        permit.ends += 1
        permit.ended_at, permit.outcome = self._now(), end.outcome
        if permit.granted_at is not None:
            self._out[permit.provider] -= 1

    def at_the_end(self) -> list[str]:
        """What is wrong when all is over."""
        wrongs = list(self.wrongs)
        for permit_id, permit in self.permits.items():
            owed = 0 if permit.refusal else 1
            if permit.ends != owed:
                wrongs.append(f"permit {permit_id} has {permit.ends} ends, not {owed}: {permit}")
        for name, limits in self._limits.items():
            sent = [p.granted_at for p in self.granted(name) if p.outcome is not Outcome.NOT_SENT and p.granted_at is not None]
            wrongs.extend(f"{name}: {wrong}" for wrong in over_rate(sent, limits))
        return wrongs


def is_held(circuit: Circuit, now: float) -> bool:
    """Open, and the wait is not over."""
    return isinstance(circuit.state, Open) and now < circuit.state.until


def over_rate(sent: Sequence[float], limits: LimitsSpec) -> list[str]:
    """Windows in which more was sent than limit x window + burst."""
    if limits.requests_per_minute is None:
        return []
    burst = limits.requests_per_minute if limits.burst is None else limits.burst
    wrongs = []
    for first, since in enumerate(sent):
        for last in range(first, len(sent)):
            most = burst + (sent[last] - since) * limits.requests_per_minute / 60.0
            if last - first + 1 > most + 1e-3:
                wrongs.append(f"{last - first + 1} requests between {since} and {sent[last]}, at most {most} may be")
                break
    return wrongs
