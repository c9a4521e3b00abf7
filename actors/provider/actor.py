"""A provider: what it can take, how well it has done, who is out with it.

Owns
    the permits that are out; the limits (requests, tokens, calls at once); two circuits of the same make, one for the
    provider and one for our key there (which opens at the first 401); the models it said it lacks; evidence per model;
    the health score.
Accepts
    ``ProviderMail``.
Always
    ``CallForBids`` changes nothing. An ``Award`` checks everything again and takes concurrency, one request and its tokens
    together or nothing. A permit ends once; an end nobody knows is counted and ignored. An open circuit grants nothing
    before its time. Whatever made it send ``NoBid`` and ends by an event (a call's end, a trial's success, a probe, a new
    configuration) is told to the router as ``CapacityFreed``; what ends by itself was told as ``retry_at``.
    From the moment all its places are taken until none is, every end tells how many are free: a call for bids may leave
    no note of who was sent away, so this errs by telling too often.
    After a crash it starts most cautious: buckets empty, open stays open, else half-open; permits come by ``Restored``.
"""

from typing import assert_never

from actors.kernel import Context, Ref
from actors.provider.catalog import Catalog
from actors.provider.circuit import Open
from actors.provider.limits import Hindrance, Limits
from actors.provider.permits import PERMITS_MAX, OpenPermit, restored_permit
from actors.provider.standing import Standing, has_probes
from messages.calls import Award, CallEnded, ContentStarted, Granted, Outcome, RefusalReason, Refused, Restored
from messages.control import Drain, HealthSpec, ProviderSpec, Reconfigure, Reset
from messages.failures import Blame, Scope
from messages.health import GetReport, ProbeCheck, Probed, ProbeWish, ProviderReport, Status
from messages.routing import Bid, CallForBids, CapacityFreed, NoBid, NoBidReason

ProviderMail = (
    CallForBids | Award | ContentStarted | CallEnded | Restored | Reconfigure | Drain | Reset | ProbeCheck | Probed | GetReport
)
"""What a provider takes."""

SLOTS_UNLIMITED = 1000
"""Told as free where nothing limits the calls at once: as many as the router's queue may hold."""


class ProviderActor:
    """One provider. Its name is ``provider:<id>``."""

    def __init__(
        self,
        spec: ProviderSpec,
        health: HealthSpec,
        seconds_per_usd: float,
        generation: int,
        predecessor: "ProviderActor | None",
        router: Ref[CapacityFreed],
    ) -> None:
        if predecessor is not None and predecessor.generation >= generation:
            # The factory's configuration may be older than what the predecessor was told since.
            spec, health, seconds_per_usd = predecessor.spec, predecessor.standing.health.spec, predecessor.seconds_per_usd
            generation = predecessor.generation
        self.spec: ProviderSpec = spec
        self.generation: int = generation
        self.seconds_per_usd: float = seconds_per_usd
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
            self.limits.blocked_until = predecessor.limits.blocked_until
            self.requests = predecessor.requests
            self.unknown_ends = predecessor.unknown_ends
            self.is_draining = predecessor.is_draining

    def __repr__(self) -> str:
        standing = self.standing
        return f"<provider {self.spec.id}: {self.status}, circuit {standing.circuit!r}, {self.limits!r}, {standing.health!r}>"

    def start(self, context: Context) -> None:
        """A successor empties its buckets and lets the router ask those again who waited for its predecessor."""
        if self._predecessor is not None:
            self._predecessor = None
            self.limits.empty(context.now())
            context.tell(self._router, CapacityFreed(self.spec.id, 1))

    def handle(self, message: ProviderMail, context: Context) -> None:
        """Take one message."""
        match message:
            case CallForBids():
                context.reply(self._offer(message, context.now()))
            case Award():
                context.reply(self._on_award(message, context.now()))
            case ContentStarted():
                self._on_content_started(message, context)
            case CallEnded():
                self._on_call_ended(message, context)
            case Restored():
                self._on_restored(message, context)
            case Reconfigure():
                self._on_reconfigure(message, context)
            case Drain():
                self.is_draining = True
            case Reset():
                self._on_reset(context)
            case ProbeCheck():
                context.reply(self._wish(context.now()))
            case Probed():
                self._on_probed(message, context)
            case GetReport():
                context.reply(self._report(context.now()))
            case _:
                assert_never(message)

    def invariant(self) -> str | None:
        """What is broken, or None."""
        try:
            return self._flaw()
        except Exception as error:
            return f"cannot tell: {type(error).__name__}: {error}"

    @property
    def status(self) -> Status:
        """How it stands, the gravest thing first."""
        if self.is_draining:
            return Status.DRAINING
        if not self.spec.enabled:
            return Status.DISABLED
        if not self.standing.is_key_good:
            return Status.AUTH_FAILED
        if isinstance(self.standing.circuit.state, Open):
            return Status.UNAVAILABLE
        return Status.UNCHECKED if self.standing.proved_at is None else Status.READY

    def _offer(self, call: CallForBids, now: float) -> Bid | NoBid:
        spec, standing, limits = self.spec, self.standing, self.limits
        profile = call.profile
        if self.is_draining:
            return NoBid(spec.id, NoBidReason.DRAINING, None, "")
        if not spec.enabled:
            return NoBid(spec.id, NoBidReason.DISABLED, None, "")
        offered = self.catalog.find(call.model)
        if offered is None:
            return NoBid(spec.id, NoBidReason.MODEL_UNAVAILABLE, None, "not among its models")
        if missing := self.catalog.missing(profile.needs):
            return NoBid(spec.id, NoBidReason.MISSING_CAPABILITY, None, missing)
        max_tokens = profile.max_tokens
        wanted = profile.prompt_tokens + (max_tokens or 0)
        if wanted > offered.context_window:
            detail = f"about {wanted} tokens do not fit into {offered.context_window:.0f}"
            return NoBid(spec.id, NoBidReason.CONTEXT_TOO_LONG, None, detail)
        if (until := standing.absences.until(call.model)) > now:
            return NoBid(spec.id, NoBidReason.MODEL_UNAVAILABLE, until, "the provider said it has no such model")
        is_trial = not standing.is_closed
        if is_trial and (held := standing.held(now)) is not None:
            return NoBid(spec.id, held[0], held[1], "")
        evidence = standing.evidence.peek(call.model)
        is_answering = profile.endpoint != "embeddings"
        hold = limits.hold(profile.prompt_tokens + (evidence.output.reserve(max_tokens) if is_answering else 0), now)
        if hold is not None:
            reason = NoBidReason.AT_CAPACITY if hold.why is Hindrance.CAPACITY else NoBidReason.RATE_LIMITED
            return NoBid(spec.id, reason, hold.retry_at, "")
        output_tokens = evidence.output.expected(max_tokens) if is_answering else 0.0
        expected_s = evidence.expected_s(output_tokens, now)
        fading = evidence.fading(now)
        failure_p = evidence.failure_p * fading
        known = evidence.known(failure_p)
        seen = evidence.streams if profile.stream else evidence.wholes
        if seen.count:
            p50_s, p95_s, ewma_s = seen.p50_s, seen.p95_s, seen.ewma_s
        elif known:
            p50_s = p95_s = ewma_s = evidence.first_s if profile.stream else expected_s
        else:
            p50_s = p95_s = ewma_s = 0.0
        score, is_healthy = standing.health.view(now)
        max_p95_s = standing.health.spec.max_p95_s
        return Bid(
            spec.id,
            limits.in_flight,
            self._room() if is_trial else limits.room,
            spec.weight,
            spec.priority,
            known,
            p50_s,
            p95_s,
            ewma_s,
            expected_s,
            offered.cost_usd(profile.prompt_tokens, output_tokens),
            failure_p,
            evidence.failure_loss_s,
            evidence.cut_p * fading,
            score,
            is_healthy and (max_p95_s is None or p95_s <= max_p95_s),
            is_trial,
            0 if known else evidence.in_flight,
            evidence.successes,
            evidence.failures,
        )

    def _on_award(self, award: Award, now: float) -> Granted | Refused:
        known = self.permits.get(award.permit_id)
        if known is not None:
            if not known.is_restored:
                return Refused(award.permit_id, RefusalReason.DUPLICATE)
            # The couriers' table had it while this very Award lay in the mailbox: it is decided here, not there.
            self._forget(known)
        refused = self._refusal(award, now)
        if refused is not None:
            return refused
        offered = self.catalog.find(award.model)
        circuit, credential = self.standing.circuit.admit(now), self.standing.credential.admit(now)
        if offered is None or circuit is None or credential is None:
            raise AssertionError("the checks before a grant and the grant disagree")
        self.limits.take(award.tokens, now)
        evidence = self.standing.evidence.of(award.model)
        self.permits[award.permit_id] = OpenPermit(
            award.permit_id,
            award.query_id,
            award.model,
            award.tokens,
            now,
            evidence,
            evidence.sent(award.stream, award.max_tokens, now),
            circuit,
            credential,
        )
        self.requests += 1
        if self.limits.room == 0:
            self._was_full = True
        is_trial = circuit.is_trial or credential.is_trial
        return Granted(award.permit_id, offered.upstream or award.model, self.generation, is_trial)

    def _refusal(self, award: Award, now: float) -> Refused | None:
        permit_id = award.permit_id
        if self.is_draining:
            return Refused(permit_id, RefusalReason.DRAINING)
        if not self.spec.enabled:
            return Refused(permit_id, RefusalReason.DISABLED)
        if self.catalog.find(award.model) is None:
            return Refused(permit_id, RefusalReason.MODEL_UNAVAILABLE)
        if (until := self.standing.absences.until(award.model)) > now:
            return Refused(permit_id, RefusalReason.MODEL_UNAVAILABLE, until)
        held = None if self.standing.is_closed else self.standing.held(now)
        if held is not None:
            is_key = held[0] is NoBidReason.AUTH_FAILED
            return Refused(permit_id, RefusalReason.AUTH_FAILED if is_key else RefusalReason.CIRCUIT_OPEN, held[1])
        if len(self.permits) >= PERMITS_MAX:
            return Refused(permit_id, RefusalReason.AT_CAPACITY)
        hold = self.limits.hold(award.tokens, now)
        if hold is None:
            return None
        is_full = hold.why is Hindrance.CAPACITY
        return Refused(permit_id, RefusalReason.AT_CAPACITY if is_full else RefusalReason.RATE_LIMITED, hold.retry_at)

    def _on_content_started(self, started: ContentStarted, context: Context) -> None:
        permit = self.permits.get(started.permit_id)
        if permit is None or permit.has_content:
            return
        self.limits.answered()
        if self.standing.content(permit, started.first_content_s, context.now()):
            self._tell_room(context)

    def _on_call_ended(self, end: CallEnded, context: Context) -> None:
        permit = self.permits.get(end.permit_id)
        if permit is None:
            self.unknown_ends += 1
            return
        now = context.now()
        self._forget(permit)
        self._settle(permit, end, now)
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
            self.standing.lost(lost)
            self._was_full = True
        for permit in restored.permits:
            if permit.permit_id in self.permits:
                continue
            self.limits.restore()
            self.permits[permit.permit_id] = restored_permit(permit, self.standing.evidence.of(permit.model))
        if self._was_full:
            self._tell_room(context)
        if self.permits:
            self._was_full = True

    def _on_reconfigure(self, change: Reconfigure, context: Context) -> None:
        if change.generation < self.generation:
            return
        old, new = self.spec, change.spec
        self.spec, self.generation, self.seconds_per_usd = new, change.generation, change.seconds_per_usd
        self.is_draining = False
        self.catalog = Catalog(new)
        self.limits.reconfigure(new.limits, context.now())
        self.standing.reconfigure(new, change.health)
        if (old.endpoint, old.kind) != (new.endpoint, new.kind):
            self.standing.forget_endpoint()
        elif old.credential != new.credential:
            self.standing.credential.reset()
        self._tell_room(context)

    def _on_reset(self, context: Context) -> None:
        self.standing.forget()
        self._tell_room(context)

    def _on_probed(self, probed: Probed, context: Context) -> None:
        if self.standing.probed(probed.ok, probed.auth_failed, context.now()):
            self._tell_room(context)

    def _wish(self, now: float) -> ProbeWish:
        if self.is_draining or not self.spec.enabled or not has_probes(self.spec):
            return ProbeWish(self.spec.id, False, "off")
        why = self.standing.wish(self.spec, now)
        return ProbeWish(self.spec.id, bool(why), why or "heard")

    def _report(self, now: float) -> ProviderReport:
        requests, tokens, standing = self.limits.requests, self.limits.tokens, self.standing
        return ProviderReport(
            self.spec.id,
            self.status,
            self._why(now),
            standing.circuit.name,
            standing.health.score(now),
            len(self.permits),
            standing.latency.ewma_s * 1000.0,
            standing.latency.p50_s * 1000.0,
            standing.latency.p95_s * 1000.0,
            self.requests,
            standing.successes,
            standing.failures,
            None if requests is None else requests.level_at(now),
            None if tokens is None else tokens.level_at(now),
        )

    def _why(self, now: float) -> str:
        held = self.standing.held(now)
        if held is not None:
            return held[0] if held[1] is None else f"{held[0]} for another {held[1] - now:.1f} s"
        if self.limits.blocked_until > now:
            return f"rate_limited for another {self.limits.blocked_until - now:.1f} s"
        return ""

    def _settle(self, permit: OpenPermit, end: CallEnded, now: float) -> None:
        limits, failure = self.limits, end.failure
        if end.outcome is Outcome.NOT_SENT:
            limits.give_back(permit.tokens, now)
        elif end.usage is not None:
            limits.settle(permit.tokens, max(0, end.usage.input_tokens + end.usage.output_tokens), now)
        elif failure is not None and (failure.scope is Scope.BUCKET or failure.code == "connect"):
            limits.settle(permit.tokens, 0, now)
        if end.limits is not None:
            limits.see(end.limits, now)
        if end.outcome is Outcome.SUCCESS:
            limits.answered()
        if failure is not None and failure.blame is Blame.UPSTREAM:
            is_refused = failure.scope is Scope.BUCKET
            if is_refused or (failure.scope is Scope.PROVIDER and failure.retry_after_s is not None):
                limits.block(failure.retry_after_s, now)

    def _forget(self, permit: OpenPermit) -> None:
        del self.permits[permit.permit_id]
        self.limits.release()
        permit.evidence.ended(permit.sending)

    def _room(self) -> int | None:
        standing = self.standing
        rooms = (self.limits.room, standing.circuit.room(), standing.credential.room())
        limited = [room for room in rooms if room is not None]
        return min(limited) if limited else None

    def _tell_room(self, context: Context) -> None:
        room = self._room()
        slots = SLOTS_UNLIMITED if room is None else room
        if slots > 0 and self.spec.enabled and not self.is_draining:
            context.tell(self._router, CapacityFreed(self.spec.id, slots))

    def _flaw(self) -> str | None:
        if self.limits.in_flight != len(self.permits):
            return f"{self.limits.in_flight} in flight, {len(self.permits)} permits"
        if len(self.permits) > 2 * PERMITS_MAX:
            return f"{len(self.permits)} permits"
        return self.limits.flaw() or self.standing.flaw(self.permits)
