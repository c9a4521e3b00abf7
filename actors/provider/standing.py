"""How a provider stands: what ends, first contents and probes have taught about it.

Each failure teaches by its scope: the provider's circuit, the key's, one model's absence, a rate limit, or nobody. What
says nothing about the provider (the client's own error, a cancel, a drain, nothing sent) gives a trial's slot back and
changes nothing else.
"""

from collections import deque
from typing import NamedTuple

from actors.provider.absences import Absences
from actors.provider.circuit import Circuit, Verdict
from actors.provider.health import Health
from actors.provider.models import Evidence
from actors.provider.permits import OpenPermit
from actors.provider.pushed import Pushed
from actors.provider.quantiles import p50_and_p95_s
from messages.calls import CallEnded, Outcome
from messages.control import CircuitSpec, HealthSpec, ProviderSpec
from messages.failures import Blame, Failure, Scope
from messages.routing import NoBidReason

# A member of an enum is no plain attribute of its class: looking it up costs as much as two calls.
_SUCCESS, _FAILED, _CANCELLED, _LOST_HEDGE = Outcome.SUCCESS, Outcome.FAILED, Outcome.CANCELLED, Outcome.LOST_HEDGE

INFINITE = float("inf")
FAILURES_KEPT = 10
"""Failures that are remembered for the report."""


class Noted(NamedTuple):
    """A failure, when (monotonic s) it came, and for which model."""

    at: float
    model: str
    failure: Failure


class Standing:
    """Two circuits, absent models, evidence, health, counts and pushed metrics of one provider. Times in monotonic seconds."""

    __slots__ = (
        "absences", "circuit", "credential", "evidence", "failures", "health", "heard_at", "last_failures",
        "latency_ewma_s", "probes_usd", "proved_at", "pushed", "successes",
    )  # fmt: skip

    def __init__(self, spec: ProviderSpec, health: HealthSpec) -> None:
        self.circuit = Circuit(spec.circuit, has_probes(spec))
        self.credential = Circuit(_credential_circuit(spec), has_probes(spec))
        self.absences = Absences()
        self.evidence = Evidence()
        self.health = Health(health)
        self.latency_ewma_s = 0.0
        """To the first content of streams and the end of other answers, all models together. 0: none yet."""
        self.successes = 0
        self.failures = 0
        self.probes_usd = 0.0
        """What paid probes have cost."""
        self.last_failures: deque[Noted] = deque(maxlen=FAILURES_KEPT)
        """The latest last."""
        self.proved_at: float | None = None
        """When a call or a probe last went well; None: unchecked."""
        self.heard_at: float | None = None
        """When a call or a probe last told something; None: never."""
        self.pushed: Pushed | None = None
        """What somebody else has measured, told last; None: nothing. It may be too old to count."""

    @property
    def is_closed(self) -> bool:
        """Both circuits let calls pass."""
        return self.circuit.is_closed and self.credential.is_closed

    @property
    def is_key_good(self) -> bool:
        """Nobody refused our key there since it last worked."""
        return self.credential.is_closed

    def latency_p50_and_p95_s(self, now: float) -> tuple[float, float]:
        """As ``latency_ewma_s``, of the models lately called. For reports: it goes over all models."""
        return p50_and_p95_s(self.evidence.quantiles(), now)

    def held(self, now: float) -> tuple[NoBidReason, float | None] | None:
        """Which circuit lets no call through at ``now``, and when to ask again; None: neither does. Changes nothing."""
        if self.credential.verdict(now) is Verdict.WAIT:
            return NoBidReason.AUTH_FAILED, self.credential.retry_at(now)
        if self.circuit.verdict(now) is Verdict.WAIT:
            return NoBidReason.CIRCUIT_OPEN, self.circuit.retry_at(now)
        return None

    def content(self, permit: OpenPermit, first_content_s: float | None, now: float) -> bool:
        """The first content of a call is here. True if that closed a circuit."""
        permit.has_content = True
        if permit.is_elsewhere:
            return False
        is_freed = self._worked(permit, now)
        permit.evidence.content(permit.sending, first_content_s, now, self.health.alpha)
        if first_content_s is not None and permit.sending.stream:
            self._record(first_content_s)
        return is_freed

    def ended(self, permit: OpenPermit, end: CallEnded, now: float) -> bool:
        """A call is over. True if a circuit closed by it, or a trial's slot came back."""
        outcome = end.outcome
        if permit.is_elsewhere:
            return self._counted(outcome, end.failure)
        if outcome is _SUCCESS:
            return self._succeeded(permit, end, now)
        if outcome is _FAILED:
            return self._failed(permit, end, end.failure, now)
        if outcome is _CANCELLED or outcome is _LOST_HEDGE:
            return self._called_off(permit, end, now)
        return self._ignored(permit)

    def _counted(self, outcome: Outcome, failure: Failure | None) -> bool:
        """The end of a call to an endpoint of before."""
        self.successes += outcome is _SUCCESS
        self.failures += outcome is _FAILED and failure is not None and _is_its_fault(failure)
        return False

    def lost(self, permit: OpenPermit) -> None:
        """The end of a call met a crash: it teaches nothing."""
        self._ignored(permit)

    def probed(self, is_good: bool, is_auth_failed: bool, now: float) -> bool:
        """A probe reported. True if that admitted trials."""
        self.heard_at = now
        if is_auth_failed:
            # Real calls outrank probes: a free endpoint may want rights that calls do not.
            if self.proved_at is None and self.credential.is_closed:
                self.credential.trip(now)
                return False
            return self.credential.probed(False, now)
        self.health.probed(is_good, now)
        is_freed = self.circuit.probed(is_good, now)
        if is_good:
            is_freed = self.credential.probed(True, now) or is_freed
            self.proved_at = now
        return is_freed

    def wish(self, spec: ProviderSpec, now: float) -> str:
        """Why a probe is wanted at ``now``; empty: it is not. Passive first: who is heard from in traffic is not probed."""
        if self.credential.wants_probe(now):
            return "auth_failed"
        if self.circuit.wants_probe(now):
            return "circuit_open"
        if self.held(now) is not None:
            # Before the wait is over a probe changes nothing.
            return ""
        if self.heard_at is None:
            return "unchecked"
        if now - self.heard_at >= spec.probe.interval_s:
            return "silent" if self.proved_at is not None else "unchecked"
        return ""

    def reconfigure(self, spec: ProviderSpec, health: HealthSpec) -> None:
        """New constants; what was learned stays."""
        self.health.reconfigure(health)
        self.circuit.reconfigure(spec.circuit, has_probes(spec))
        self.credential.reconfigure(_credential_circuit(spec), has_probes(spec))

    def forget(self) -> None:
        """Close both circuits and forget what failed; times stay known."""
        self.circuit.reset()
        self.credential.reset()
        self.absences = Absences()
        self.health = Health(self.health.spec)
        self.evidence.forget_failures()
        self.pushed = None

    def forget_endpoint(self) -> None:
        """It is another endpoint now: nothing that was learned holds."""
        self.forget()
        self.evidence = Evidence()
        self.latency_ewma_s = 0.0
        self.proved_at = self.heard_at = None
        self.last_failures.clear()

    def inherit(self, before: "Standing") -> None:
        """Take over from a crashed predecessor what makes its successor more cautious, and the counts."""
        self.circuit = before.circuit.after_crash(stays_closed=False)
        self.credential = before.credential.after_crash(stays_closed=True)
        self.absences = before.absences
        self.successes = before.successes
        self.failures = before.failures
        self.probes_usd = before.probes_usd
        self.last_failures = before.last_failures
        self.proved_at = before.proved_at
        self.heard_at = before.heard_at
        self.pushed = before.pushed

    def flaw(self, permits: dict[str, OpenPermit]) -> str | None:
        """What is broken, or None."""
        for name, circuit, tickets in (
            ("circuit", self.circuit, [permit.circuit for permit in permits.values()]),
            ("credential", self.credential, [permit.credential for permit in permits.values()]),
        ):
            flaw = circuit.flaw()
            trials = sum(1 for ticket in tickets if ticket.is_trial and ticket.epoch == circuit.epoch)
            if flaw is None and trials != circuit.trials:
                flaw = f"{circuit.trials} trials, {trials} permits of trials"
            if flaw is not None:
                return f"{name}: {flaw}"
        return self.health.flaw()

    def _worked(self, permit: OpenPermit, now: float) -> bool:
        self.proved_at = self.heard_at = now
        if self.absences.absent:
            self.absences.found(permit.model)
        is_freed = self.circuit.succeeded(permit.circuit, now)
        return self.credential.succeeded(permit.credential, now) or is_freed

    def _succeeded(self, permit: OpenPermit, end: CallEnded, now: float) -> bool:
        evidence, sending, usage = permit.evidence, permit.sending, end.usage
        is_freed = False
        if not permit.has_content:
            is_freed = self.content(permit, end.first_content_s, now) if sending.stream else self._worked(permit, now)
        self.successes += 1
        output_tokens = None if usage is None else usage.output_tokens
        evidence.finished(sending, end.duration_s, end.first_content_s, output_tokens, now, self.health.alpha)
        if not sending.stream:
            self._record(end.duration_s)
        self.health.succeeded(evidence.slowness, now)
        self.heard_at = now
        return is_freed

    def _record(self, latency_s: float) -> None:
        if 0.0 <= latency_s < INFINITE:
            self.latency_ewma_s += (self.health.alpha if self.latency_ewma_s else 1.0) * (latency_s - self.latency_ewma_s)

    def _failed(self, permit: OpenPermit, end: CallEnded, failure: Failure | None, now: float) -> bool:
        if failure is None or not _is_its_fault(failure):
            return self._ignored(permit)
        self.heard_at = now
        self.failures += 1
        self.last_failures.append(Noted(now, permit.model, failure))
        match failure.scope:
            case Scope.PROVIDER:
                self.circuit.failed(permit.circuit, now)
                is_freed = self.credential.ignored(permit.credential)
                self.health.failed(now)
                permit.evidence.failed(end.duration_s, end.after_content or permit.has_content, now)
                return is_freed
            case Scope.CREDENTIAL:
                self.credential.failed(permit.credential, now)
                return self.circuit.ignored(permit.circuit)
            case Scope.MODEL:
                self.absences.missed(permit.model, permit.sending.sent_at, self.circuit.spec.open_for_s, now)
        return self._ignored(permit)

    def _called_off(self, permit: OpenPermit, end: CallEnded, now: float) -> bool:
        is_late = (
            not permit.has_content
            and end.first_content_s is None
            and permit.evidence.called_off(permit.sending, end.duration_s, now)
        )
        if not is_late:
            return self._ignored(permit)
        self.health.called_off_late(now)
        if permit.circuit.is_trial:
            # The law for trials is plain: a cancel gives the slot back, however late it came.
            return self._ignored(permit)
        self.circuit.failed(permit.circuit, now)
        return self.credential.ignored(permit.credential)

    def _ignored(self, permit: OpenPermit) -> bool:
        is_freed = self.circuit.ignored(permit.circuit)
        return self.credential.ignored(permit.credential) or is_freed


def _is_its_fault(failure: Failure) -> bool:
    return failure.blame is Blame.UPSTREAM and failure.scope is not Scope.NONE


def has_probes(spec: ProviderSpec) -> bool:
    """Somebody probes this provider."""
    return spec.probe.kind != "off"


def _credential_circuit(spec: ProviderSpec) -> CircuitSpec:
    """One 401 is enough, and one trial call tells."""
    circuit = spec.circuit
    return CircuitSpec(failures=1, open_for_s=circuit.open_for_s, half_open_calls=1, open_max_s=circuit.open_max_s)
