"""The words of a call: a courier asks for a permit, makes the call, and ends the permit exactly once."""

from enum import StrEnum

from messages.base import Message, message
from messages.envelope import Fault
from messages.failures import Failure


class RefusalReason(StrEnum):
    """Why an ``Award`` got no permit."""

    EXPIRED = "expired"
    CRASHED = "crashed"
    """The provider fell over this very question: a request that does so twice is odd itself."""
    RESTARTING = "restarting"
    AT_CAPACITY = "at_capacity"
    RATE_LIMITED = "rate_limited"
    CIRCUIT_OPEN = "circuit_open"
    AUTH_FAILED = "auth_failed"
    UNAVAILABLE = "unavailable"
    """The admin API said so."""
    DISABLED = "disabled"
    DRAINING = "draining"
    MODEL_UNAVAILABLE = "model_unavailable"
    DUPLICATE = "duplicate"
    OUT = "out"


class AttemptKind(StrEnum):
    """Why a call was made."""

    FIRST = "first"
    FAILOVER = "failover"
    """The one before had failed."""
    HEDGE = "hedge"
    """The one before was overdue, and went on."""
    EXPLORE = "explore"
    """To find out how a provider is doing: a copy, or a first call whose failure costs next to nothing."""


class Outcome(StrEnum):
    """How a call ended."""

    SUCCESS = "success"
    FAILED = "failed"
    """``CallEnded.failure`` says by whose fault."""
    CANCELLED = "cancelled"
    """The client left."""
    LOST_HEDGE = "lost_hedge"
    """Another attempt of the same request was faster."""
    DRAINED = "drained"
    """Cut at shutdown; says nothing about the provider."""
    NOT_SENT = "not_sent"
    """The permit was given back before anything was sent."""


@message("calls.award")
class Award(Message):
    """A courier takes up a bid: reserve concurrency, one request and ``tokens`` for it, together or not at all.

    Answered by ``Granted`` or ``Refused``. The courier has noted ``permit_id`` before it tells this.
    """

    permit_id: str
    query_id: str
    model: str
    """The public name that was asked for."""
    tokens: int
    """Estimate of prompt and output together, reserved from the token limit."""
    stream: bool
    max_tokens: int | None = None
    explores: bool = False
    """True: an open circuit is to let it pass before its time, for nobody depends on how it goes."""
    prompt_tokens: int | None = None
    """Estimate of the prompt alone, as the provider bid for; None: not known."""

    def unanswered(self, actor: str, fault: str) -> Message:
        """A permit that nobody can grant is refused, so the courier owes no end for it."""
        return Refused(self.permit_id, _SILENCE.get(fault, RefusalReason.RESTARTING), None)


_SILENCE: dict[str, RefusalReason] = {
    Fault.EXPIRED: RefusalReason.EXPIRED,
    Fault.CRASHED: RefusalReason.CRASHED,
    Fault.SILENT: RefusalReason.CRASHED,
    Fault.OUT: RefusalReason.OUT,
    Fault.STOPPED: RefusalReason.OUT,
    Fault.MISSING: RefusalReason.OUT,
}


@message("calls.granted")
class Granted(Message):
    """The permit is the courier's until its ``CallEnded``."""

    permit_id: str
    upstream_model: str
    generation: int
    """Generation of the configuration under which the call is made (it picks the credential)."""
    trial: bool = False
    """True: one of the circuit's trial calls."""


@message("calls.refused")
class Refused(Message):
    """No permit; nothing is owed."""

    permit_id: str
    reason: RefusalReason
    retry_at: float | None = None
    """Monotonic seconds when it may be worth asking again."""


@message("calls.content_started")
class ContentStarted(Message):
    """The first content of a call is here. A trial succeeds at this."""

    permit_id: str
    first_content_s: float
    """Seconds from sending to first content."""


@message("calls.limits_seen")
class LimitsSeen(Message):
    """What the provider says of our limits there; None where it said nothing."""

    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None


@message("calls.usage")
class Usage(Message):
    """Tokens of one call as the provider counts them, or our estimate."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


@message("calls.call_ended")
class CallEnded(Message):
    """The one end of a permit, also told to the router (for the record) and the aggregator (for the statistics)."""

    permit_id: str
    query_id: str
    provider: str
    model: str
    """The public name."""
    outcome: Outcome
    stream: bool
    duration_s: float
    """Seconds from sending (or from the award, if nothing was sent) to the end."""
    first_content_s: float | None = None
    """Seconds from sending to first content; None if none came or the answer was no stream."""
    failure: Failure | None = None
    usage: Usage | None = None
    cost_nusd: int | None = None
    """Price of the call in billionths of a USD; None: price unknown."""
    limits: LimitsSeen | None = None
    attempt: int = 1
    """Which call upstream of its request this was, from 1."""
    after_content: bool = False
    """True: the call failed after content had gone to the client."""
    status: int = 0
    """HTTP status of the upstream's answer; 0: none came."""
    kind: AttemptKind = AttemptKind.FIRST


@message("calls.permit")
class Permit(Message):
    """An open permit as the couriers' table has it."""

    permit_id: str
    query_id: str
    model: str
    tokens: int
    stream: bool
    granted_at: float
    """Monotonic seconds."""


@message("calls.restored")
class Restored(Message):
    """First mail of a restarted provider: the permits that are out, according to the couriers."""

    permits: tuple[Permit, ...]
