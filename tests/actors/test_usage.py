"""What a call has used of the limits, by how it ended: the same for its provider, its pool and its tenant (docs/limits.md)."""

import pytest

from actors.usage import CONNECT, tokens_used
from messages.calls import Outcome, Usage
from messages.failures import Blame, Failure, Retry, Scope

RESERVED = 500
TOLD = Usage(30, 12)
UNREAD, READ = Usage(30, 0, estimated=True), Usage(30, 3, estimated=True)
CALLED_OFF = (Outcome.CANCELLED, Outcome.LOST_HEDGE, Outcome.DRAINED)
BROKEN = Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, "broken")
UNREACHED = Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, CONNECT)
LIMITED = Failure(Blame.UPSTREAM, Scope.BUCKET, Retry.LATER, "http_429", 429)


@pytest.mark.parametrize(
    ("outcome", "usage", "failure", "used"),
    [
        (Outcome.SUCCESS, TOLD, None, 42),
        (Outcome.SUCCESS, None, None, RESERVED),
        (Outcome.FAILED, TOLD, BROKEN, 42),
        (Outcome.FAILED, None, BROKEN, RESERVED),
        (Outcome.CANCELLED, None, None, RESERVED),
        (Outcome.CANCELLED, TOLD, None, 42),
        (Outcome.LOST_HEDGE, TOLD, None, 42),
        (Outcome.DRAINED, None, None, RESERVED),
        # Called off, by whomever: with nothing read of the answer nobody can tell, else what was read is what there was.
        *((outcome, UNREAD, None, RESERVED) for outcome in CALLED_OFF),
        *((outcome, READ, None, 33) for outcome in CALLED_OFF),
        *((outcome, Usage(30, 0), None, 30) for outcome in CALLED_OFF),
        # An answer with nothing in it, which was read to its end.
        (Outcome.SUCCESS, UNREAD, None, 30),
        (Outcome.FAILED, UNREAD, BROKEN, 30),
    ],
)
def test_what_was_sent_has_used_what_is_told_or_else_what_was_reserved(
    outcome: Outcome, usage: Usage | None, failure: Failure | None, used: int
) -> None:
    assert tokens_used(outcome, usage, failure, RESERVED) == used


def test_what_never_left_has_used_nothing_not_even_its_request() -> None:
    assert tokens_used(Outcome.NOT_SENT, None, None, RESERVED) is None
    assert tokens_used(Outcome.FAILED, None, UNREACHED, RESERVED) is None


def test_a_429_has_used_its_request_and_no_tokens() -> None:
    assert tokens_used(Outcome.FAILED, None, LIMITED, RESERVED) == 0
