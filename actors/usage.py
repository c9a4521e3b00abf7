"""What a call used of limits, by how it ended: the same for its provider's buckets and for those of tenant and pool."""

from messages.calls import Outcome, Usage
from messages.failures import Failure, Scope

CONNECT = "connect"
"""The code of a failure to connect: nothing was sent."""

# A member of an enum is no plain attribute of its class: looking it up costs as much as two calls.
_NOT_SENT, _SUCCESS, _FAILED, _BUCKET = Outcome.NOT_SENT, Outcome.SUCCESS, Outcome.FAILED, Scope.BUCKET


def tokens_used(outcome: Outcome, usage: Usage | None, failure: Failure | None, reserved: int) -> int | None:
    """Tokens of a call that ended so; ``reserved`` where nobody can tell. None: nothing was sent, so no request was used."""
    if outcome is _NOT_SENT:
        return None
    is_read = usage is not None and (usage.output_tokens > 0 or not usage.estimated)
    if usage is not None and (is_read or outcome is _SUCCESS or outcome is _FAILED):
        # Of an answer nobody has read, nobody can tell how much of it there was when the call was called off, whoever did that.
        return max(0, usage.input_tokens + usage.output_tokens)
    if failure is not None:
        if failure.code == CONNECT:
            return None
        if failure.scope is _BUCKET:
            return 0
    return reserved
