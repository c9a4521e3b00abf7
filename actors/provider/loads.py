"""What the calls of a provider tell its adaptive limit: the three verdicts success, dropped, ignored.

A success is a first content (for other answers than streams: the good end). Dropped is what too much load explains: a refusal
that says so (a rate limit, ``Failure.is_overload``), no answer in time. All else is ignored: the client's error, a cancel, a
bad key, money that is short (it will be with fewer calls too), a broken connection, a call that was out before a restart.
"""

from actors.provider.concurrency import AdaptiveLimit, Sample
from actors.provider.permits import OpenPermit
from messages.calls import CallEnded, Outcome
from messages.failures import Blame

_TOO_LATE = ("first_byte_timeout", "total_timeout", "too_slow")
_SUCCESS, _FAILED = Outcome.SUCCESS, Outcome.FAILED


def granted(limit: AdaptiveLimit, permit: OpenPermit, in_flight: int) -> None:
    """A permit is given; ``in_flight`` calls are out with it."""
    permit.beside = in_flight
    permit.is_at_ease = limit.is_at_ease(in_flight)


def content(limit: AdaptiveLimit, permit: OpenPermit, first_content_s: float | None, now: float) -> None:
    """The first content is here, after ``first_content_s`` seconds. That a long prompt takes long is no sign of a queue."""
    if permit.beside and permit.sending.stream and first_content_s is not None:
        scale = permit.evidence.scale(permit.sending.prompt_tokens)
        limit.succeeded(_sample(permit, first_content_s / scale), now)


def ended(limit: AdaptiveLimit, permit: OpenPermit, end: CallEnded, now: float) -> None:
    """A call is over; its content, if a stream's, was told before, or comes with its end."""
    if not permit.beside:
        return
    if end.outcome is _SUCCESS:
        if not permit.sending.stream:
            limit.succeeded(_sample(permit, end.duration_s), now)
        elif not permit.has_content:
            content(limit, permit, end.first_content_s, now)
        if permit.is_at_ease:
            limit.ended(_kind(permit), end.duration_s)
    elif end.outcome is _FAILED and is_dropped(end):
        limit.dropped(permit.sending.sent_at, permit.beside, now)


def is_dropped(end: CallEnded) -> bool:
    """Whether too much load explains how a call failed."""
    failure = end.failure
    if failure is None or failure.blame is not Blame.UPSTREAM or end.after_content:
        return False
    return failure.is_overload or failure.code in _TOO_LATE


def _sample(permit: OpenPermit, first_s: float) -> Sample:
    return Sample(_kind(permit), permit.sending.sent_at, permit.beside, permit.is_at_ease, first_s)


def _kind(permit: OpenPermit) -> str:
    return f"stream {permit.model}" if permit.sending.stream else permit.model
