"""What a provider answers to a call for bids, from what it knows of itself. Pure: nothing is changed, not even a cache.

Every request asks every candidate, so this is the most travelled road of the house. What a bid needs was finished when it
was learned (``evidence``, ``health``); here it is only read, the usual case by attributes, and put together by position.
"""

from actors.buckets import AMPLE_S, TIGHT_SHARE, Bucket
from actors.provider.catalog import Catalog, Offered
from actors.provider.evidence import ModelEvidence
from actors.provider.limits import Hindrance, Hold, Limits
from actors.provider.models import NOTHING_KNOWN
from actors.provider.overdue import overdue_ages
from actors.provider.standing import Standing
from actors.requirements import too_long_an_answer, too_long_for_window
from messages.control import ProviderSpec
from messages.routing import Bid, CallForBids, NoBid, NoBidReason

_AT_EASE = (False, 0.0)
_AT_ONCE = (1.0, 0.0)
"""How a provider reads whose times were not seen to depend on prompts."""
STRAIN_S = 1.0
AMPLE_REQUESTS = 20.0
UNHEARD_S = 1e6
"""Told of a model of which no call has ever told anything."""


def offer(
    spec: ProviderSpec, catalog: Catalog, standing: Standing, limits: Limits, call: CallForBids, now: float
) -> Bid | NoBid:
    """The bid of a provider that is neither draining nor disabled, at ``now`` (monotonic s)."""
    model, profile, models = call.model, call.profile, standing.evidence
    offered = catalog.last if model is catalog.last_name else catalog.models.get(model, catalog.otherwise)
    if offered is None:
        return NoBid(spec.id, NoBidReason.MODEL_UNAVAILABLE, None, "not among its models")
    surplus = catalog.surplus(profile.needs)
    if surplus < 0:
        if missing := catalog.missing(profile.needs):
            return NoBid(spec.id, NoBidReason.MISSING_CAPABILITY, None, missing)
        surplus = catalog.beyond(profile.needs)
    prompt_tokens, max_tokens, stream = profile.prompt_tokens, profile.max_tokens, profile.stream
    wanted = prompt_tokens if max_tokens is None else prompt_tokens + max_tokens
    if wanted > offered.context_window or (max_tokens is not None and max_tokens > offered.output_tokens_max):
        return _too_long(spec, wanted, max_tokens, offered)
    if standing.absences.absent and (until := standing.absences.until(model)) > now:
        return NoBid(spec.id, NoBidReason.MODEL_UNAVAILABLE, until, "the provider said it has no such model")
    is_trial, held = not (standing.circuit.is_closed and standing.credential.is_closed), None
    if is_trial and (held := standing.held(now)) is not None and not standing.takes_explorers:
        return NoBid(spec.id, held[0], held[1], "")
    evidence = models.last if model is models.last_name else models.models.get(model, NOTHING_KNOWN)
    if profile.endpoint == "embeddings":
        reserved, output_tokens, priced_tokens = prompt_tokens, 0.0, 0.0
    elif max_tokens is None:
        output_tokens = priced_tokens = evidence.output.expected(None)
        reserved = prompt_tokens + evidence.output.upper
    else:
        # As the profile has it: what is known here to be a number would be made an object again.
        reserved, output_tokens, priced_tokens = wanted, evidence.output.expected(profile.max_tokens), float(max_tokens)
    if (hold := limits.hold(reserved, now)) is not None:
        return _held_back(spec, hold, limits) if held is None else NoBid(spec.id, held[0], held[1], "")
    scale, prefill_s = _reading(evidence, prompt_tokens) if evidence.prefill.slope else _AT_ONCE
    expected_s = evidence.expected_s(output_tokens, now, scale)
    failure_p, cut_p, successes, failures = evidence.failure_p, evidence.cut_p, evidence.successes, evidence.failures
    if failure_p or cut_p or now > evidence.counts_until:
        failure_p, cut_p, successes, failures = evidence.faded(now)
    known = evidence.known(failure_p)
    seen = evidence.streams if stream else evidence.wholes
    if seen.count:
        p50_s, p95_s, ewma_s = seen.p50_s, seen.p95_s, seen.ewma_s
        peak_s = seen.peak_s if now <= seen.peak_until else seen.peak_at(now)
        oldest = evidence.oldest
        if oldest is not None and now - oldest.sent_at > peak_s and oldest.stream == stream:
            peak_s = now - oldest.sent_at
    else:
        p50_s = p95_s = ewma_s = peak_s = 0.0 if not known else evidence.first_s if stream else expected_s
    pushed = standing.pushed
    if pushed is not None and now < pushed.until:
        known, failure_p, expected_s, stands_in_s = pushed.weigh(evidence, output_tokens, stream, known, failure_p, expected_s)
        if stands_in_s is not None:
            p50_s = p95_s = ewma_s = peak_s = stands_in_s
    health = standing.health
    is_steady = now <= health.steady_until
    score, is_healthy = (health.steady_score, health.is_steady_healthy) if is_steady else health.view(now)
    max_p95_s, in_flight, limit = health.spec.max_p95_s, limits.in_flight, limits.max_concurrency
    room = room_of(standing, limits) if is_trial else None if limit is None else limit - in_flight
    is_tight, strain_s = pressure(limits, reserved, now) if limit or limits.requests or limits.tokens else _AT_EASE
    _due_s, overdue_s, overdue_early_s = overdue_ages(evidence, stream, output_tokens, scale)
    bid = Bid(
        spec.id, in_flight, room, spec.weight, spec.priority, known,
        p50_s, p95_s, ewma_s, expected_s, (cost_usd := offered.cost_usd(prompt_tokens, priced_tokens)),
        failure_p, evidence.failure_loss_s, cut_p, score, is_healthy and (max_p95_s is None or p95_s <= max_p95_s),
        is_trial, 0 if known else evidence.in_flight, successes, failures, reserved,
        peak_s, evidence.tokens_per_s, surplus, overdue_s, overdue_early_s,
        is_tight, min(now - evidence.heard_at, UNHEARD_S), evidence.slowness,
        cost_usd if output_tokens == priced_tokens else offered.cost_usd(prompt_tokens, output_tokens), strain_s, prefill_s,
    )  # fmt: skip
    return bid if held is None else NoBid(spec.id, held[0], held[1], "", bid)


def pressure(limits: Limits, tokens: int, now: float) -> tuple[bool, float]:
    """Whether over 80 % of a limit is used, and how dear (s) it is to take one more request of ``tokens`` from what is left.

    Who takes the last of a bucket lets others wait in the next burst, while what flows into full buckets is lost. So the price
    rises as a bucket drains: from nothing, with three seconds' worth or twenty requests in it, to ``STRAIN_S`` when it is empty
    (the square of what is missing; found by simulating three limited providers near their joint limit).
    """
    limit, requests, bucket = limits.max_concurrency, limits.requests, limits.tokens
    is_tight, strain_s = limit is not None and limits.in_flight > TIGHT_SHARE * limit, 0.0
    # The level as it was last written is a lower bound, and mostly enough.
    if requests is not None and requests.level < requests.ease:
        is_tight, strain_s = _drained(requests, 1.0, now, is_tight, strain_s)
    if bucket is not None and bucket.level < bucket.ease:
        is_tight, strain_s = _drained(bucket, float(tokens), now, is_tight, strain_s)
    return is_tight, strain_s


def _drained(bucket: Bucket, amount: float, now: float, is_tight: bool, strain_s: float) -> tuple[bool, float]:
    """``pressure`` so far, and that of one bucket more."""
    level, size = bucket.level_at(now), bucket.size
    ample = AMPLE_S * bucket.rate_per_s
    if ample > size:
        ample = size
    if ample > AMPLE_REQUESTS * amount:
        ample = AMPLE_REQUESTS * amount
    # Who takes nothing, as for an empty prompt, leaves others what there was.
    if 0.0 < ample > level:
        missing = 1.0 - level / ample
        if STRAIN_S * missing * missing > strain_s:
            strain_s = STRAIN_S * missing * missing
    return is_tight or level < (1.0 - TIGHT_SHARE) * size, strain_s


def room_of(standing: Standing, limits: Limits) -> int | None:
    """Calls that limits and circuits leave room for at once; None: nothing limits them."""
    rooms = (limits.room, standing.circuit.room(), standing.credential.room())
    limited = [room for room in rooms if room is not None]
    return min(limited) if limited else None


def _reading(evidence: ModelEvidence, prompt_tokens: int) -> tuple[float, float]:
    """``scale`` of a prompt, and what reading it takes (s)."""
    scale = evidence.prefill.scale(prompt_tokens)
    return scale, evidence.first_s * (scale - evidence.prefill.flat)


def _too_long(spec: ProviderSpec, wanted: int, max_tokens: int | None, offered: Offered) -> NoBid:
    if wanted > offered.context_window:
        detail = too_long_for_window(wanted, offered.context_window)
    else:
        detail = too_long_an_answer(max_tokens or 0, offered.output_tokens_max)
    return NoBid(spec.id, NoBidReason.CONTEXT_TOO_LONG, None, detail)


def _held_back(spec: ProviderSpec, hold: Hold, limits: Limits) -> NoBid:
    if hold.why is not Hindrance.CAPACITY:
        return NoBid(spec.id, NoBidReason.RATE_LIMITED, hold.retry_at, hold.detail)
    # A limit that was found out stands in no file.
    detail = hold.detail if limits.adaptive is None else f"it takes {limits.max_concurrency} at once now"
    return NoBid(spec.id, NoBidReason.AT_CAPACITY, hold.retry_at, detail)
