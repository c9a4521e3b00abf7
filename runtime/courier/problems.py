"""What a client is told when it gets no answer: CONTRACT's table of errors, in one place."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from actors.router.verdict import LATE, clause, clauses
from messages.failures import DEADLINE
from messages.quota import QuotaRefused
from messages.routing import Exclusion, LeftOut, NoRoute, RouteError
from runtime.courier.retries import Tries, Try


@dataclass(frozen=True, slots=True)
class Problem:
    """An error answer of our own, before it is put into OpenAI's shape."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None

    @property
    def kind(self) -> str:
        """OpenAI's ``type`` for the status: what its SDKs and their users look at."""
        return _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def headers(self) -> list[tuple[str, str]]:
        """``Retry-After`` in whole seconds, or word to SDKs not to retry what we have retried already."""
        if self.retry_after_s is not None:
            return [("Retry-After", str(max(1, math.ceil(self.retry_after_s))))]
        return [("x-should-retry", "false")]


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

RETRY_AFTER_DEFAULT_S = 1.0
"""What we ask for where an error carries ``Retry-After`` and nobody knows a better time."""


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    code: str
    has_retry_after: bool = False


_ROWS: dict[RouteError, _Row] = {
    RouteError.MODEL_NOT_SUPPORTED: _Row(404, "model_not_found"),
    RouteError.STRATEGY_NOT_FOUND: _Row(400, "invalid_request"),
    RouteError.CONTEXT_LENGTH_EXCEEDED: _Row(400, "context_length_exceeded"),
    RouteError.MAX_COST_EXCEEDED: _Row(400, "max_cost_exceeded"),
    RouteError.ALL_FILTERED: _Row(403, "rejected"),
    RouteError.AUTH_FAILED: _Row(401, "provider_auth_failed"),
    RouteError.RATE_LIMITED: _Row(429, "rate_limit_exceeded", True),
    RouteError.AT_CAPACITY: _Row(503, "overloaded", True),
    RouteError.QUEUE_FULL: _Row(503, "overloaded", True),
    RouteError.OVERLOADED: _Row(503, "overloaded", True),
    RouteError.DRAINING: _Row(503, "overloaded", True),
    RouteError.ALL_UNHEALTHY: _Row(503, "no_provider_available", True),
    RouteError.NO_PROVIDERS_AVAILABLE: _Row(503, "no_provider_available", True),
    RouteError.ALL_TRIED: _Row(502, "upstream_error"),
    RouteError.TIMEOUT: _Row(504, "deadline_exceeded"),
    RouteError.SELECTION_FAILED: _Row(500, "internal_error"),
    RouteError.REJECTED: _Row(403, "rejected"),
    RouteError.NO_HEDGE: _Row(500, "internal_error"),
}
_REJECTS: dict[str, _Row] = {
    "rate_limit_exceeded": _Row(429, "rejected", True),
    "maintenance_mode": _Row(503, "rejected", True),
    "invalid_request": _Row(400, "rejected"),
}
"""A rule's reasons that are no plain refusal (FEATURES D7); any other text is one."""


def no_route(answer: NoRoute) -> Problem:
    """The problem of a request that was never sent anywhere."""
    row = _REJECTS.get(answer.reject, _ROWS[answer.error]) if answer.error is RouteError.REJECTED else _ROWS[answer.error]
    retry_after_s = None
    if row.has_retry_after:
        retry_after_s = answer.retry_after_s if answer.retry_after_s is not None else RETRY_AFTER_DEFAULT_S
    param = "model" if answer.error is RouteError.MODEL_NOT_SUPPORTED else None
    return Problem(row.status, row.code, answer.detail, param, retry_after_s)


def attempts_spent(model: str, tries: Tries, now: float, left_out: Sequence[LeftOut] = (), more: int = 0) -> Problem:
    """The problem of a request whose every attempt failed.

    ``left_out`` are providers that were not called at all, ``more`` how many there are besides.
    """
    told = "; ".join([*map(_told, tries.failed), *_of_others(left_out, now, more)])
    count = len(tries.failed)
    message = f"No provider could answer for model '{model}' after {count} attempt{'s' if count != 1 else ''}: {told}."
    if tries.all_rate_limited():
        wait_s = tries.retry_after_s(now)
        return Problem(429, "rate_limit_exceeded", message, None, RETRY_AFTER_DEFAULT_S if wait_s is None else wait_s)
    if tries.all_bad_credentials():
        return Problem(401, "provider_auth_failed", message)
    return Problem(502, "upstream_error", message)


def all_refused(model: str, left_out: Sequence[LeftOut] = (), more: int = 0) -> Problem:
    """The problem of a request whose award everybody who bid has refused, again and again; arguments as above."""
    told = "; ".join(_of_others(left_out, None, more))
    message = f"Every provider that bid for model '{model}' was full when it was asked{': ' if told else ''}{told}."
    return Problem(503, "overloaded", message, None, RETRY_AFTER_DEFAULT_S)


def deadline_exceeded(model: str, deadline_s: float, tries: Tries, left_out: Sequence[LeftOut] = ()) -> Problem:
    """The problem of a request whose time is over; ``left_out``: whom it waited for, if it did, and others, with reasons."""
    told = "; ".join([*map(_told, tries.failed), *_of_others(left_out, None, 0)])
    told = told or "no attempt had failed yet"
    return Problem(504, "deadline_exceeded", f"The request for model '{model}' was not done within {deadline_s:g} s: {told}.")


def over_quota(refused: QuotaRefused, now: float) -> Problem:
    """The problem of a request that a limit of its tenant or its pool does not let through. ``now`` in monotonic s."""
    kind, _, name = refused.quota.partition(":")
    said = f"{kind.capitalize()} '{name}' is at its limit {refused.limit}: {refused.allowed:.10g}"
    wait_s = RETRY_AFTER_DEFAULT_S if refused.retry_at is None else refused.retry_at - now
    return Problem(429, "rate_limit_exceeded", f"{said}. Pointsman refused, no provider did.", None, wait_s)


def internal_error() -> Problem:
    """Our own fault. What exactly is in our log, not in the answer."""
    return Problem(500, "internal_error", "Pointsman failed on this request; its log tells more.")


def shutting_down() -> Problem:
    """The daemon takes nothing any more."""
    return Problem(503, "overloaded", "Pointsman is shutting down.", None, RETRY_AFTER_DEFAULT_S)


def _of_others(left_out: Sequence[LeftOut], now: float | None, more: int) -> list[str]:
    return clauses([who for who in left_out if who.reason != Exclusion.TRIED], now, more)


def _told(attempt: Try) -> str:
    failure = attempt.failure
    if failure.code == DEADLINE:
        return clause(LeftOut(attempt.provider, LATE))
    status = f" (status {failure.status})" if failure.status else ""
    detail = f", {failure.detail}" if failure.detail else ""
    return f"{attempt.provider} failed: {failure.code}{status}{detail}"
