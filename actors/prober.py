"""The prober: finds out what traffic does not tell.

Owns: the probes in flight, the turn in which providers get theirs, the admin's questions that wait for a probe, and what
paid probes have cost.
Accepts: ``ProbeTick`` and ``ProbeOverdue`` (its own timers), ``Gathered`` (the providers' wishes), ``ProbeDone`` (from the
runtime), ``ProbeNow`` (from the admin API), ``Configured`` (from the registry).
Always: passive first, so a provider is probed only if it wishes it or an admin asks; free first, so a model is called only
where the configuration allows it, within its cap, after the free endpoint; at most ``PROBES_LIMIT`` probes are in
flight and never two at one provider; a probe that does not come back is given up and counts as failed; what a probe found at
an address or with a key that is no longer configured is told to nobody but who asked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from actors.kernel import Context, Ref, ReplySlot, TimerId
from actors.probe_bill import Booking, ProbeBill
from messages.base import Message
from messages.control import ConfigSnapshot, Configured, ModelsLearned, ModelSpec, ProviderSpec
from messages.health import ProbeCheck, Probed, ProbeDone, ProbeNow, ProbeOverdue, ProbeTick, ProbeWish, RunProbe
from messages.routing import Gathered

ProberMail = ProbeTick | Gathered | ProbeDone | ProbeOverdue | ProbeNow | Configured
"""What the prober takes."""

TICK_S = 1.0
OVERDUE_S = 15.0
PROBES_LIMIT = 8
ASKERS_LIMIT = 100
"""Questions of the admin API that wait at once."""
MODELS_LIMIT = 10_000
NAME_LENGTH_LIMIT = 256
"""Names of models longer than this are left out of a learned list."""


@dataclass(slots=True)
class Probe:
    """A probe in flight."""

    probe_id: str
    spec: ProviderSpec
    """As it was when the probe began."""
    overdue: TimerId
    booking: Booking | None
    """None: it costs nothing."""
    askers: list[ReplySlot] = field(default_factory=list)


class ProberActor:
    """Its successor knows the same providers; what was in flight is lost, and comes back as unknown."""

    def __init__(self, runtime: Ref[RunProbe], registry: Ref[ModelsLearned], before: "ProberActor | None" = None) -> None:
        self._runtime = runtime
        self._registry = registry
        self._specs: dict[str, ProviderSpec] = dict(before._specs) if before else {}
        """By name, in order of names."""
        self._made: int = before._made if before else 0
        """Counts probes and rounds over all incarnations, so that no mail of an old one is taken for a new one's."""
        self._in_flight: dict[str, Probe] = {}
        """By provider."""
        self._asked: dict[str, list[ReplySlot]] = {}
        """Admin's questions whose probe has not begun, by provider."""
        self._bill: ProbeBill = before._bill if before else ProbeBill()
        """What was booked for probes that are lost stays booked."""
        self._last = ""
        """The provider that was probed last: the next turn begins behind it."""
        self._round = ""
        """The round of wishes that is being gathered; empty: none."""
        self._is_half_way = False
        self.unknown: int = before.unknown if before else 0
        """Answers to probes nobody waits for: late, or of an incarnation before."""

    def start(self, context: Context) -> None:
        """Begin to tick."""
        context.after(TICK_S, ProbeTick())

    def handle(self, message: ProberMail, context: Context) -> None:
        """Take one message."""
        self._is_half_way = True
        self._take(message, context)
        self._is_half_way = False

    def _take(self, message: ProberMail, context: Context) -> None:
        match message:
            case ProbeTick():
                self._on_tick(context)
            case Gathered():
                self._on_wishes(message, context)
            case ProbeDone():
                self._on_done(message, context)
            case ProbeOverdue():
                self._on_overdue(message, context)
            case ProbeNow():
                self._on_probe_now(message, context)
            case Configured():
                self._on_configured(message.snapshot, context)
            case _:
                assert_never(message)

    def invariant(self) -> str | None:
        """The limits are kept, every probe is filed under its provider, and no turn was left half-way."""
        if self._is_half_way:
            # Its timers and questions were dropped with it, so it may wait for what never comes.
            return "a turn was left half-way"
        if len(self._in_flight) > PROBES_LIMIT:
            return f"{len(self._in_flight)} probes are in flight"
        if any(probe.spec.id != provider for provider, probe in self._in_flight.items()):
            return "a probe is filed under another provider"
        if self._askers_count() > ASKERS_LIMIT:
            return f"{self._askers_count()} questions wait"
        return None

    def _on_tick(self, context: Context) -> None:
        context.after(TICK_S, ProbeTick())
        self._begin_asked(context)
        self._ask_for_wishes(context)

    def _on_configured(self, snapshot: ConfigSnapshot, context: Context) -> None:
        self._specs = {spec.id: spec for spec in sorted(snapshot.providers, key=lambda spec: spec.id)}
        for provider in [name for name in self._asked if name not in self._specs]:
            tell_askers(self._asked.pop(provider), refusal(provider, "it is no longer configured"), context)
        self._ask_for_wishes(context)

    def _ask_for_wishes(self, context: Context) -> None:
        idle: list[Ref[ProbeCheck]] = [
            Ref(f"provider:{name}") for name, spec in self._specs.items() if self._can_be_probed(spec)
        ]
        if self._round or not idle:
            return
        self._round = self._new_id("wishes")
        context.gather(idle, ProbeCheck(), self._round)

    def _on_wishes(self, message: Gathered, context: Context) -> None:
        if message.key != self._round:
            self.unknown += 1
            return
        self._round = ""
        for provider in in_turn(wanting(message.answers), self._last):
            if len(self._in_flight) >= PROBES_LIMIT:
                return
            spec = self._specs.get(provider)
            if spec is not None and self._can_be_probed(spec):
                self._begin(spec, [], context)
                self._last = provider

    def _on_probe_now(self, message: ProbeNow, context: Context) -> None:
        spec = self._specs.get(message.provider)
        if spec is None:
            context.reply(refusal(message.provider, "no such provider"))
        elif spec.probe.kind == "off":
            context.reply(refusal(message.provider, "its probe is off"))
        elif self._askers_count() >= ASKERS_LIMIT:
            context.reply(refusal(message.provider, "too many are waiting for probes"))
        elif message.provider in self._in_flight:
            self._in_flight[message.provider].askers.append(context.defer())
        else:
            self._asked.setdefault(message.provider, []).append(context.defer())
            self._begin_asked(context)

    def _begin_asked(self, context: Context) -> None:
        for provider in list(self._asked):
            if len(self._in_flight) >= PROBES_LIMIT:
                return
            # One the tick has begun meanwhile may be older than the question, but is no older than a tick.
            if provider in self._in_flight:
                self._in_flight[provider].askers.extend(self._asked.pop(provider))
            else:
                self._begin(self._specs[provider], self._asked.pop(provider), context)

    def _begin(self, spec: ProviderSpec, askers: list[ReplySlot], context: Context) -> None:
        probe_id = self._new_id("probe")
        overdue = context.after(OVERDUE_S, ProbeOverdue(probe_id))
        booking = self._bill.book(spec, context.wall())
        context.tell(self._runtime, RunProbe(probe_id, spec.id, "" if booking is None else booking.model.upstream))
        self._in_flight[spec.id] = Probe(probe_id, spec, overdue, booking, askers)

    def _on_done(self, done: ProbeDone, context: Context) -> None:
        probe = self._in_flight.get(done.provider)
        if probe is None or probe.probe_id != done.probe_id:
            self.unknown += 1
            return
        context.cancel(probe.overdue)
        self._end(probe, done, context)

    def _on_overdue(self, message: ProbeOverdue, context: Context) -> None:
        probe = next((probe for probe in self._in_flight.values() if probe.probe_id == message.probe_id), None)
        if probe is not None:
            detail = f"no answer within {OVERDUE_S:g} s"
            late = ProbeDone(probe.probe_id, probe.spec.id, False, False, OVERDUE_S, detail, is_paid=True)
            self._end(probe, late, context)

    def _end(self, probe: Probe, done: ProbeDone, context: Context) -> None:
        provider = probe.spec.id
        del self._in_flight[provider]
        if probe.booking is not None:
            done = replace(done, cost_usd=self._bill.settle(probe.booking, done))
        spec = self._specs.get(provider)
        if spec is not None and is_same_door(spec, probe.spec):
            found = Probed(done.ok, done.auth_failed, done.latency_s, done.detail, done.cost_usd)
            context.tell(Ref(f"provider:{provider}"), found)
            if spec.lists_models and done.models:
                context.tell(self._registry, ModelsLearned(provider, model_specs(done.models)))
        tell_askers(probe.askers, done, context)
        self._begin_asked(context)

    def _can_be_probed(self, spec: ProviderSpec) -> bool:
        return spec.enabled and spec.probe.kind != "off" and spec.id not in self._in_flight

    def _askers_count(self) -> int:
        waiting = sum(len(askers) for askers in self._asked.values())
        return waiting + sum(len(probe.askers) for probe in self._in_flight.values())

    def _new_id(self, what: str) -> str:
        self._made += 1
        return f"{what}-{self._made}"


def wanting(answers: Iterable[object]) -> list[str]:
    """The providers that want a probe, sorted by name."""
    return sorted(answer.provider for answer in answers if isinstance(answer, ProbeWish) and answer.wanted)


def in_turn(providers: Sequence[str], last: str) -> list[str]:
    """``providers`` (sorted), those behind ``last`` first: nobody waits for more than one whole turn."""
    return [name for name in providers if name > last] + [name for name in providers if name <= last]


def is_same_door(now: ProviderSpec, then: ProviderSpec) -> bool:
    """Whether a probe of ``then`` says anything about ``now``."""
    return (now.endpoint, now.kind, now.credential) == (then.endpoint, then.kind, then.credential)


def model_specs(names: Iterable[str]) -> tuple[ModelSpec, ...]:
    """Models by the names the provider gives them, sorted, each once; public names are the same."""
    good = sorted({name for name in names if 0 < len(name) <= NAME_LENGTH_LIMIT})
    return tuple(ModelSpec(name, name) for name in good[:MODELS_LIMIT])


def refusal(provider: str, detail: str) -> ProbeDone:
    """The answer to a ``ProbeNow`` that no probe follows."""
    return ProbeDone("", provider, False, False, 0.0, detail)


def tell_askers(askers: Iterable[ReplySlot], answer: Message, context: Context) -> None:
    """Answer all who wait for one probe."""
    for asker in askers:
        context.answer(asker, answer)
