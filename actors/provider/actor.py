"""A provider: what it can take, how well it has done, who is out with it.

Owns
    the permits that are out; the limits (requests, tokens, calls at once); two circuits of the same make, one for the
    provider and one for our key there (which opens at the first 401); the models it said it lacks; evidence per model;
    the health score; what somebody else measured of it and pushed here.
Accepts
    ``ProviderMail``.
Always
    ``CallForBids`` changes nothing. An ``Award`` checks everything again and takes concurrency, one request and its tokens
    together or nothing. A permit ends once; an end nobody knows is counted and ignored. An open circuit grants nothing
    before its time but what explores. Whatever made it send ``NoBid`` and ends by an event (a call's end, a trial's success,
    a probe, a new configuration, a reset) is told to the router as ``CapacityFreed``; what ends by itself was told as
    ``retry_at``.
    From the moment all its places are taken until none is, every end tells how many are free: a call for bids may leave
    no note of who was sent away, so this errs by telling too often.
    What people say outranks what was learned: draining, disabled, or a status said by the admin API takes no calls and is
    not probed until a configuration says otherwise. What others measured ranks below our own measurements.
    After a crash it starts most cautious: buckets empty, open stays open, else half-open; permits come by ``Restored``.
"""

from typing import assert_never

from actors.kernel import Context, Ref, Resident
from actors.provider import loads
from actors.provider.bidding import offer, room_of
from actors.provider.catalog import Catalog, Offered
from actors.provider.circuit import Open
from actors.provider.health_report import health_report
from actors.provider.limits import Hindrance, Limits
from actors.provider.permits import PERMITS_MAX, OpenPermit, restored_permit
from actors.provider.pushed import pushed
from actors.provider.shut import AUTH_FAILED_SAID, is_shut, shut_bid, shut_refusal
from actors.provider.standing import Standing, has_probes
from actors.usage import tokens_used
from messages.calls import Award, CallEnded, ContentStarted, Granted, Outcome, RefusalReason, Refused, Restored
from messages.control import Drain, HealthSpec, ProviderSpec, Reconfigure, Reset
from messages.failures import Blame, Scope
from messages.health import GetHealth, GetReport, ProbeCheck, Probed, ProbeWish, ProviderReport, PushMetrics, Status
from messages.routing import CallForBids, CapacityFreed, NoBidReason

ProviderMail = (
    CallForBids
    | Award
    | ContentStarted
    | CallEnded
    | Restored
    | Reconfigure
    | Drain
    | Reset
    | ProbeCheck
    | Probed
    | PushMetrics
    | GetReport
    | GetHealth
)
"""What a provider takes."""

SLOTS_UNLIMITED = 1000
"""Told as free where nothing limits the calls at once: as many as the router's queue may hold."""

# A member of an enum is no plain attribute of its class: looking it up costs as much as two calls.
_SUCCESS = Outcome.SUCCESS


class ProviderActor(Resident):
    """One provider. Its name is ``provider:<id>``."""

    def __init__(
        self,
        spec: ProviderSpec,
        health: HealthSpec,
        generation: int,
        predecessor: "ProviderActor | None",
        router: Ref[CapacityFreed],
    ) -> None:
        if predecessor is not None and predecessor.generation >= generation:
            # The factory's configuration may be older than what the predecessor was told since.
            spec, health = predecessor.spec, predecessor.standing.health.spec
            generation = predecessor.generation
        self.spec: ProviderSpec = spec
        self.generation: int = generation
        self.standing: Standing = Standing(spec, health)
        self.catalog = Catalog(spec)
        self.limits = Limits(spec.limits, 0.0, is_full=predecessor is None)
        self.permits: dict[str, OpenPermit] = {}
        self.requests = 0
        """Permits granted."""
        self.unknown_ends = 0
        self.is_draining = False
        self._router = router
        self._was_full = False
        """All places were taken since the last time none was."""
        self._predecessor = predecessor
        if predecessor is not None:
            self.standing.inherit(predecessor.standing)
            self.limits.inherit(predecessor.limits)
            self.requests = predecessor.requests
            self.unknown_ends = predecessor.unknown_ends
            self.is_draining = predecessor.is_draining
        self.is_shut = is_shut(self.spec, self.is_draining)
        """Somebody said that it takes no calls: one look for what three attributes tell."""

    def __repr__(self) -> str:
        standing = self.standing
        return f"<provider {self.spec.id}: {self.status}, circuit {standing.circuit!r}, {self.limits!r}, {standing.health!r}>"

    def start(self, context: Context) -> None:
        """A successor empties its buckets and lets the router ask those again who waited for its predecessor."""
        if self._predecessor is not None:
            self.limits.empty_after(self._predecessor.limits, context.now())
            self._predecessor = None
            context.tell(self._router, CapacityFreed(self.spec.id, 1))

    def handle(self, message: ProviderMail, context: Context) -> None:
        """Take one message.

        The four that every request brings are told by ``isinstance``, which costs a third of a ``case``.
        """
        if isinstance(message, CallForBids):
            if self.is_shut:
                context.reply(shut_bid(self.spec, self.is_draining))
            else:
                context.reply(offer(self.spec, self.catalog, self.standing, self.limits, message, context.now()))
        elif isinstance(message, Award):
            context.reply(self._on_award(message, context.now()))
        elif isinstance(message, CallEnded):
            self._on_call_ended(message, context)
        elif isinstance(message, ContentStarted):
            self._on_content_started(message, context)
        else:
            self._handle_rare(message, context)

    def invariant(self) -> str | None:
        """What is broken, or None."""
        try:
            return self._flaw()
        except Exception as error:
            return f"cannot tell: {type(error).__name__}: {error}"

    def _handle_rare(
        self,
        message: Restored | Reconfigure | Drain | Reset | ProbeCheck | Probed | PushMetrics | GetReport | GetHealth,
        context: Context,
    ) -> None:
        match message:
            case Restored():
                self._on_restored(message, context)
            case Reconfigure():
                self._on_reconfigure(message, context)
            case Drain():
                self.is_draining = self.is_shut = True
            case Reset():
                self._on_reset(context)
            case ProbeCheck():
                context.reply(self._wish(context.now()))
            case Probed():
                self._on_probed(message, context)
            case PushMetrics():
                self.standing.pushed = pushed(message, context.now())
            case GetReport():
                context.reply(self._report(context.now()))
            case GetHealth():
                now = context.now()
                context.reply(health_report(self.spec, self.status, self._why(now), self.standing, self.is_shut, now))
            case _:
                assert_never(message)

    @property
    def status(self) -> Status:
        """How it stands, the gravest thing first."""
        if self.is_draining:
            return Status.DRAINING
        if not self.spec.enabled:
            return Status.DISABLED
        if self.spec.status:
            return Status.AUTH_FAILED if self.spec.status == AUTH_FAILED_SAID else Status.UNAVAILABLE
        if not self.standing.is_key_good:
            return Status.AUTH_FAILED
        if isinstance(self.standing.circuit.state, Open):
            return Status.UNAVAILABLE
        return Status.UNCHECKED if self.standing.proved_at is None else Status.READY

    def _on_award(self, award: Award, now: float) -> Granted | Refused:
        permit_id, model, standing, limits = award.permit_id, award.model, self.standing, self.limits
        known = self.permits.get(permit_id)
        if known is not None:
            if not known.is_restored:
                return Refused(permit_id, RefusalReason.DUPLICATE)
            # The couriers' table had it while this very Award lay in the mailbox: it is decided here, not there.
            self._forget(known)
        offered = self._granted_model(award, now)
        if isinstance(offered, Refused):
            return offered
        circuit, credential = standing.circuit.admit(now, award.explores), standing.credential.admit(now)
        if circuit is None or credential is None:
            raise AssertionError("the checks before a grant and the grant disagree")
        drawn = limits.take(award.tokens, now)
        evidence = standing.evidence.of(model)
        sending = evidence.sent(award.stream, award.max_tokens, now, award.explores, award.prompt_tokens)
        permit = OpenPermit(permit_id, model, award.tokens, evidence, sending, circuit, credential, drawn=drawn)
        self.permits[permit_id] = permit
        self.requests += 1
        if limits.adaptive is not None:
            loads.granted(limits.adaptive, permit, limits.in_flight)
        if limits.max_concurrency is not None and limits.in_flight == limits.max_concurrency:
            self._was_full = True
        return Granted(permit_id, offered.upstream or model, self.generation, circuit.is_trial or credential.is_trial)

    def _granted_model(self, award: Award, now: float) -> Refused | Offered:
        """The model a permit can be given for, or why none can."""
        permit_id, model, standing, catalog = award.permit_id, award.model, self.standing, self.catalog
        if self.is_shut:
            return shut_refusal(permit_id, self.spec, self.is_draining)
        offered = catalog.last if model is catalog.last_name else catalog.take(model)
        if offered is None:
            return Refused(permit_id, RefusalReason.MODEL_UNAVAILABLE)
        if standing.absences.absent and (until := standing.absences.until(model)) > now:
            return Refused(permit_id, RefusalReason.MODEL_UNAVAILABLE, until)
        is_closed = standing.circuit.is_closed and standing.credential.is_closed
        if not is_closed and (held := standing.held(now)) is not None and not (award.explores and standing.takes_explorers):
            is_key = held[0] is NoBidReason.AUTH_FAILED
            return Refused(permit_id, RefusalReason.AUTH_FAILED if is_key else RefusalReason.CIRCUIT_OPEN, held[1])
        if len(self.permits) >= PERMITS_MAX:
            return Refused(permit_id, RefusalReason.AT_CAPACITY)
        hold = self.limits.hold(award.tokens, now)
        if hold is None:
            return offered
        is_full = hold.why is Hindrance.CAPACITY
        return Refused(permit_id, RefusalReason.AT_CAPACITY if is_full else RefusalReason.RATE_LIMITED, hold.retry_at)

    def _on_content_started(self, started: ContentStarted, context: Context) -> None:
        permit = self.permits.get(started.permit_id)
        if permit is None or permit.has_content:
            return
        if self.limits.refusals_in_a_row:
            self.limits.answered()
        now, limits = context.now(), self.limits
        is_freed = self.standing.content(permit, started.first_content_s, now)
        if limits.adaptive is not None:
            loads.content(limits.adaptive, permit, started.first_content_s, now)
            is_freed = limits.adapt() or is_freed
        if is_freed:
            self._tell_room(context)

    def _on_call_ended(self, end: CallEnded, context: Context) -> None:
        permit = self.permits.get(end.permit_id)
        if permit is None:
            self.unknown_ends += 1
            return
        now, limits = context.now(), self.limits
        if limits.max_concurrency is not None and limits.in_flight >= limits.max_concurrency:
            # The limit may have come down to what is out.
            self._was_full = True
        self._forget(permit)
        self._settle(permit, end, now)
        if limits.adaptive is not None:
            loads.ended(limits.adaptive, permit, end, now)
            limits.adapt()
        is_freed = self.standing.ended(permit, end, now)
        if self._was_full or is_freed:
            self._tell_room(context)
        if not self.permits:
            self._was_full = False

    def _on_restored(self, restored: Restored, context: Context) -> None:
        """Take over the couriers' table: what it does not have has ended, and that end met a crash or is on its way."""
        out = {permit.permit_id for permit in restored.permits}
        for lost in [permit for permit_id, permit in self.permits.items() if permit_id not in out]:
            self._forget(lost)
            if lost.drawn is not None:
                lost.drawn.forget(context.now())
            self.standing.lost(lost)
            self._was_full = True
        for permit in restored.permits:
            if permit.permit_id in self.permits:
                continue
            drawn = self.limits.restore(permit.tokens)
            self.permits[permit.permit_id] = restored_permit(permit, self.standing.evidence.of(permit.model), drawn)
        if self._was_full:
            self._tell_room(context)
        if self.permits:
            self._was_full = True

    def _on_reconfigure(self, change: Reconfigure, context: Context) -> None:
        if change.generation < self.generation:
            return
        old, new = self.spec, change.spec
        self.spec, self.generation = new, change.generation
        self.is_draining = False
        self.is_shut = is_shut(self.spec, self.is_draining)
        self.catalog = Catalog(new)
        self.limits.reconfigure(new.limits, context.now())
        self.standing.reconfigure(new, change.health)
        if (old.endpoint, old.kind) != (new.endpoint, new.kind):
            self.standing.forget_endpoint()
            for permit in self.permits.values():
                # What is still out was sent to the endpoint before; it tells the adaptive limit nothing either.
                permit.is_elsewhere, permit.beside = True, 0
            self.limits.forget_endpoint(context.now())
        elif old.credential != new.credential:
            self.standing.credential.reset()
        self._tell_room(context)

    def _on_reset(self, context: Context) -> None:
        self.standing.forget()
        self.limits.unblock()
        self._tell_room(context)

    def _on_probed(self, probed: Probed, context: Context) -> None:
        self.standing.probes_usd += probed.cost_usd
        if self.standing.probed(probed.ok, probed.auth_failed, context.now()):
            self._tell_room(context)

    def _wish(self, now: float) -> ProbeWish:
        if self.is_shut or not has_probes(self.spec):
            return ProbeWish(self.spec.id, False, "off")
        why = self.standing.wish(self.spec, now)
        return ProbeWish(self.spec.id, bool(why), why or "heard")

    def _report(self, now: float) -> ProviderReport:
        requests, tokens, standing = self.limits.requests, self.limits.tokens, self.standing
        p50_s, p95_s = standing.latency_p50_and_p95_s(now)
        return ProviderReport(
            self.spec.id,
            self.status,
            self._why(now),
            standing.circuit.name,
            standing.health.score(now),
            len(self.permits),
            standing.latency_ewma_s * 1000.0,
            p50_s * 1000.0,
            p95_s * 1000.0,
            self.requests,
            standing.successes,
            standing.failures,
            None if requests is None else requests.level_at(now),
            None if tokens is None else tokens.level_at(now),
            self.limits.max_concurrency,
        )

    def _why(self, now: float) -> str:
        if self.spec.status:
            return self.spec.status_reason
        held = self.standing.held(now)
        if held is not None:
            return held[0] if held[1] is None else f"{held[0]} for another {held[1] - now:.1f} s"
        if self.limits.blocked_until > now:
            return f"rate_limited for another {self.limits.blocked_until - now:.1f} s"
        return ""

    def _settle(self, permit: OpenPermit, end: CallEnded, now: float) -> None:
        limits, failure, outcome = self.limits, end.failure, end.outcome
        if permit.drawn is not None:
            permit.drawn.settle(tokens_used(outcome, end.usage, failure, permit.tokens), now)
        if permit.is_elsewhere:
            return
        if end.limits is not None:
            limits.see(end.limits, now, permit.drawn)
        if limits.refusals_in_a_row and outcome is _SUCCESS:
            limits.answered()
        if failure is not None and failure.blame is Blame.UPSTREAM:
            is_refused = failure.scope is Scope.BUCKET
            if is_refused or (failure.scope is Scope.PROVIDER and failure.retry_after_s is not None):
                limits.block(failure.retry_after_s, now)

    def _forget(self, permit: OpenPermit) -> None:
        del self.permits[permit.permit_id]
        self.limits.release()
        permit.evidence.ended(permit.sending)

    def _tell_room(self, context: Context) -> None:
        room = room_of(self.standing, self.limits)
        slots = SLOTS_UNLIMITED if room is None else room
        if slots > 0 and not self.is_shut:
            context.tell(self._router, CapacityFreed(self.spec.id, slots))

    def _flaw(self) -> str | None:
        if self.is_shut != is_shut(self.spec, self.is_draining):
            return f"shut: {self.is_shut}"
        if self.limits.in_flight != len(self.permits):
            return f"{self.limits.in_flight} in flight, {len(self.permits)} permits"
        if len(self.permits) > 2 * PERMITS_MAX:
            return f"{len(self.permits)} permits"
        return self.limits.flaw() or self.standing.flaw(self.permits)
