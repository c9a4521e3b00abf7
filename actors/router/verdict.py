"""Why there is no plan: from the reasons of all candidates to one error, a wait and a sentence (CONTRACT, table of errors)."""

from collections.abc import Sequence
from dataclasses import dataclass

from messages.routing import Exclusion, LeftOut, NoBidReason, RouteError

SOON_S = 1.0
"""``Retry-After`` where capacity is short and nobody knows for how long."""
LATER_S = 10.0
"""The same where providers are down or switched off."""

NAMED_MAX = 64
"""Candidates named in one sentence; of the others it tells how many there are."""
NOT_CALLED = "not_called"
"""In place of a reason: it was in the plan, and its turn never came."""
LATE = "late"
"""The same: it was called, and the time was over before it answered."""

_GONE = {NoBidReason.DISABLED, NoBidReason.DRAINING, NoBidReason.OUT}
"""Out of service for reasons of ours."""
_DOWN = {NoBidReason.CIRCUIT_OPEN, NoBidReason.UNAVAILABLE, NoBidReason.CRASHED}
_POLICY = {Exclusion.PIN, Exclusion.MODEL, Exclusion.TENANT, Exclusion.LABELS, Exclusion.CHAIN, Exclusion.RULE}
"""Said before anybody is asked: counts only when there is nothing else."""
_BUSY = {NoBidReason.AT_CAPACITY, NoBidReason.OVERLOADED}
_PASSING = {NoBidReason.RATE_LIMITED, NoBidReason.AT_CAPACITY, NoBidReason.CIRCUIT_OPEN, NoBidReason.UNAVAILABLE}
"""Whose end is worth coming back for; that of a bad key or a missing model is a guess."""
_RANKED: tuple[tuple[str, RouteError], ...] = (
    (NoBidReason.RATE_LIMITED, RouteError.RATE_LIMITED),
    (Exclusion.TRIED, RouteError.ALL_TRIED),
    (Exclusion.MAX_COST, RouteError.MAX_COST_EXCEEDED),
    (NoBidReason.AUTH_FAILED, RouteError.AUTH_FAILED),
)
"""One of these is enough, the first first."""
_FALLBACK_S = {
    RouteError.RATE_LIMITED: SOON_S,
    RouteError.AT_CAPACITY: SOON_S,
    RouteError.QUEUE_FULL: SOON_S,
    RouteError.OVERLOADED: SOON_S,
    RouteError.ALL_UNHEALTHY: LATER_S,
    RouteError.NO_PROVIDERS_AVAILABLE: LATER_S,
}
_WORDS: dict[str, str] = {
    NOT_CALLED: "was not called any more",
    LATE: "had not answered by then",
    Exclusion.NOT_SAMPLED: "was not among those asked",
    Exclusion.TRIED: "was tried already",
    Exclusion.REFUSED: "had no room left when asked",
    Exclusion.EXCLUDED: "was excluded by the request",
    Exclusion.TAGS: "does not have the tags asked for",
    Exclusion.WEIGHT_ZERO: "has weight 0",
    Exclusion.NO_STRATEGY: "was not asked, for there is no such strategy",
    Exclusion.PIN: "is not the one the name pins",
    Exclusion.MAX_COST: "is over the cost ceiling or has no known price",
    Exclusion.MAX_LATENCY: "is slower than the request's target",
    Exclusion.THROUGHPUT: "gives fewer tokens a second than the request's target",
    Exclusion.MODEL: "does not serve the model",
    Exclusion.TENANT: "is not allowed to the tenant",
    Exclusion.LABELS: "is denied to callers with these labels",
    Exclusion.RULE: "is not among those a rule allows",
    Exclusion.CHAIN: "is in no step of the pool's failover chain",
    Exclusion.LIMIT_AHEAD: "comes after one that is at its rate limit",
    Exclusion.WAITERS_AHEAD: "has earlier requests waiting for it",
    NoBidReason.CIRCUIT_OPEN: "has its circuit open",
    NoBidReason.AT_CAPACITY: "is at capacity",
    NoBidReason.RATE_LIMITED: "is at its rate limit",
    NoBidReason.CONTEXT_TOO_LONG: "cannot fit the request into its context window",
    NoBidReason.MISSING_CAPABILITY: "lacks a capability the request needs",
    NoBidReason.MODEL_UNAVAILABLE: "says it has no such model",
    NoBidReason.AUTH_FAILED: "does not accept our key",
    NoBidReason.UNAVAILABLE: "is unavailable",
    NoBidReason.DISABLED: "is disabled",
    NoBidReason.DRAINING: "is draining",
    NoBidReason.CRASHED: "could not answer",
    NoBidReason.OVERLOADED: "is overloaded",
    NoBidReason.TIMEOUT: "did not bid in time",
    NoBidReason.OUT: "is out of service",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """An error with the seconds after which asking again may succeed, and a sentence for people."""

    error: RouteError
    retry_after_s: float | None
    detail: str


def judge(
    model: str,
    left_out: Sequence[LeftOut],
    now: float,
    error: RouteError | None = None,
    detail: str = "",
    queue_s: float | None = None,
    counted: Sequence[LeftOut] | None = None,
) -> Verdict:
    """Say why nobody is left.

    ``error`` overrides what the reasons amount to, ``detail`` the sentence. ``queue_s``: seconds until the queue would come to
    such a request, its refusals considered; None: nobody waits, or nothing is known. ``counted``: the same candidates with the
    reasons that make the error, where these are not the ones that are told.
    """
    found = error or _error({left.reason for left in (left_out if counted is None else counted)})
    return Verdict(found, _wait_s(found, left_out, now, queue_s), detail or _sentence(model, left_out, now))


def _error(reasons: set[str]) -> RouteError:
    """What a set of reasons amounts to. What is out of use counts only when alone; what can change before what cannot."""
    others = reasons - _POLICY
    if not others and reasons - {Exclusion.PIN}:
        return RouteError.ALL_FILTERED
    reasons = others - _GONE
    if reasons == {NoBidReason.TIMEOUT}:
        return RouteError.TIMEOUT
    reasons = reasons - {NoBidReason.TIMEOUT}
    if reasons & {Exclusion.REFUSED, Exclusion.WAITERS_AHEAD} or reasons & _BUSY:
        return RouteError.OVERLOADED if reasons & _BUSY == {NoBidReason.OVERLOADED} else RouteError.AT_CAPACITY
    if reasons & _DOWN:
        return RouteError.ALL_UNHEALTHY
    for reason, error in _RANKED:
        if reason in reasons:
            return error
    if not reasons or reasons == {Exclusion.WEIGHT_ZERO}:
        return RouteError.NO_PROVIDERS_AVAILABLE
    if reasons == {NoBidReason.CONTEXT_TOO_LONG}:
        return RouteError.CONTEXT_LENGTH_EXCEEDED
    if reasons == {NoBidReason.MODEL_UNAVAILABLE}:
        return RouteError.MODEL_NOT_SUPPORTED
    return RouteError.ALL_FILTERED


def _wait_s(error: RouteError, left_out: Sequence[LeftOut], now: float, queue_s: float | None) -> float | None:
    if error not in _FALLBACK_S:
        return None
    if queue_s is not None:
        return queue_s
    known = [left.retry_at for left in left_out if left.retry_at is not None and left.reason in _PASSING]
    return max(0.0, min(known) - now) if known else _FALLBACK_S[error]


def _sentence(model: str, left_out: Sequence[LeftOut], now: float) -> str:
    if not left_out:
        return f"nobody can take {model!r}"
    return f"nobody can take {model!r} now: " + "; ".join(clauses(left_out, now))


def clauses(left_out: Sequence[LeftOut], now: float | None = None, more: int = 0) -> list[str]:
    """Who was left out and why, each in words as ``clause``; at last how many there are whom nobody names, with ``more``."""
    told = [clause(left, now) for left in left_out[:NAMED_MAX]]
    more += len(left_out) - len(told)
    return [*told, f"and {more} more"] if more else told


def clause(left: LeftOut, now: float | None = None) -> str:
    """Who was left out and why, in words. ``now`` (monotonic s): and for how long yet, where that is known."""
    told = f"{left.provider} {_WORDS.get(left.reason, left.reason)}"
    if left.detail:
        told += f" ({left.detail})"
    if now is not None and left.retry_at is not None and left.retry_at > now:
        told += f", for {left.retry_at - now:.1f} s yet"
    return told
