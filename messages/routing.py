"""The words of the contract net: a query, the call for bids, the bids, the plan."""

from enum import StrEnum
from typing import Any

from messages.base import Message, message
from messages.envelope import Fault
from messages.policy import NORMAL


class NoBidReason(StrEnum):
    """Why a provider does not bid."""

    CIRCUIT_OPEN = "circuit_open"
    AT_CAPACITY = "at_capacity"
    RATE_LIMITED = "rate_limited"
    CONTEXT_TOO_LONG = "context_too_long"
    MISSING_CAPABILITY = "missing_capability"
    MODEL_UNAVAILABLE = "model_unavailable"
    """The provider said it has no such model."""
    AUTH_FAILED = "auth_failed"
    UNAVAILABLE = "unavailable"
    DISABLED = "disabled"
    DRAINING = "draining"
    CRASHED = "crashed"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    """No answer within ``routing.decision_timeout``."""
    OUT = "out"
    """Its actor is beyond its restart limit."""


class Exclusion(StrEnum):
    """Why the router did not even ask a provider."""

    TRIED = "tried"
    REFUSED = "refused"
    EXCLUDED = "excluded"
    """The request said so."""
    TAGS = "tags"
    WEIGHT_ZERO = "weight_zero"
    PIN = "pin"
    """The name pins another provider."""
    NOT_SAMPLED = "not_sampled"
    """More candidates than ``routing.fanout``."""
    MAX_COST = "max_cost"
    """Its price is over the request's ceiling, or unknown."""
    MAX_LATENCY = "max_latency"
    """It is known to be slower than the request's target."""
    THROUGHPUT = "throughput"
    """It is known to give fewer tokens a second than the request's target."""
    WAITERS_AHEAD = "waiters_ahead"
    """It bid, but requests that came earlier wait for it."""
    MODEL = "model"
    """It does not serve the model."""
    TENANT = "tenant"
    """Not among the tenant's allowed providers."""
    LABELS = "labels"
    """A rule of the pool denies callers with these labels."""
    RULE = "rule"
    """Not among those a rule allows."""
    CHAIN = "chain"
    """In no step of the pool's failover chain."""
    LIMIT_AHEAD = "limit_ahead"
    """It bid, but one that goes before it is at its rate limit, which is no reason to fail over here."""
    NO_STRATEGY = "no_strategy"
    """There is no strategy of the name the request goes by, so nobody was asked."""


class RouteError(StrEnum):
    """Why there is no plan. The edge translates these to HTTP (CONTRACT, table of errors)."""

    MODEL_NOT_SUPPORTED = "model_not_supported"
    STRATEGY_NOT_FOUND = "strategy_not_found"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    MAX_COST_EXCEEDED = "max_cost_exceeded"
    ALL_FILTERED = "all_filtered"
    AUTH_FAILED = "auth_failed"
    RATE_LIMITED = "rate_limited"
    AT_CAPACITY = "at_capacity"
    QUEUE_FULL = "queue_full"
    OVERLOADED = "overloaded"
    ALL_UNHEALTHY = "all_unhealthy"
    NO_PROVIDERS_AVAILABLE = "no_providers_available"
    ALL_TRIED = "all_tried"
    SELECTION_FAILED = "selection_failed"
    DRAINING = "draining"
    REJECTED = "rejected"
    """By a rule; ``NoRoute.reject`` has its reason."""
    TIMEOUT = "timeout"
    """No bid came within ``routing.decision_timeout``."""
    NO_HEDGE = "no_hedge"
    """A second call is not worth it, or over its share. Never told to a client."""


CRASHES_MAX = 2
"""Handlers that may fall over a request before it is given up: one odd request must not take a pool out."""
_HEDGE_MARK = "+"


def hedge_query_id(query_id: str, number: int) -> str:
    """The id under which a courier asks for the ``number``-th second call of a request: it has a plan of its own."""
    return f"{query_id}{_HEDGE_MARK}{number}"


def request_of(query_id: str) -> str:
    """The id of the request that a query is made for."""
    return query_id.partition(_HEDGE_MARK)[0]


@message("routing.hints")
class Hints(Message):
    """What the client said about the choice, in headers."""

    strategy: str = ""
    prefer: tuple[str, ...] = ()
    """Providers to prefer, the first before the others."""
    exclude: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    """All of them are required."""
    max_cost_usd: float | None = None
    regions: tuple[str, ...] = ()
    """Regions to prefer, the first before the others."""
    zone: str = ""
    """A zone to prefer."""
    priority: int = NORMAL
    """A position in ``policy.PRIORITIES``."""
    max_latency_s: float | None = None
    """Target for the first content of a stream, or the whole of another answer."""
    tokens_per_s: float | None = None
    """Target for the output."""
    organization: str = ""
    features: tuple[str, ...] = ()
    """Flags: carried into the record, never looked at."""


NO_HINTS = Hints()


@message("routing.profile")
class RequestProfile(Message):
    """All that choosing may know of a request: sizes and needs, never content."""

    model: str
    """The name as the client wrote it."""
    endpoint: str = "chat"
    """``chat``, ``completions`` or ``embeddings``."""
    stream: bool = False
    prompt_tokens: int = 0
    """An estimate: four characters of text to a token."""
    max_tokens: int | None = None
    needs: tuple[str, ...] = ()
    """Capabilities the request needs, sorted: ``chat``, ``tools``, ``vision``, ``json``, ``embeddings``, ``streaming``."""
    tenant: str = ""
    user: str = ""
    hints: Hints = NO_HINTS
    labels: tuple[tuple[str, str], ...] = ()
    """Of the caller's key: (label, value) pairs, sorted."""
    source: str = ""
    """The client's address."""
    agent: str = ""
    """The client's ``User-Agent``, shortened."""
    affinity: str = ""
    """A digest of what a long prompt begins with, or of the client's ``prompt_cache_key``; empty: nothing worth a cache."""


@message("routing.route_query", bounded=True)
class RouteQuery(Message):
    """A courier asks where to send a request (again). Answered by ``RoutePlan`` or ``NoRoute``."""

    query_id: str
    profile: RequestProfile
    deadline: float
    """Monotonic seconds: end of the request's time."""
    arrived_at: float
    """Monotonic seconds; kept over retries."""
    tried: tuple[str, ...] = ()
    """Providers that were called for this request already."""
    refused: tuple[str, ...] = ()
    """Providers that refused the award in this round."""
    may_wait: bool = True
    """False: answer at once, never queue (dry runs)."""
    hedge: bool = False
    """True: the call is under way and overdue, and this asks where to send a second one beside it (``hedge_query_id``)."""
    crashed: tuple[str, ...] = ()
    """Handlers that fell over this request before: providers that were to bid by their ids, others by any name of their own."""


@message("routing.call_for_bids", bounded=True, pure=True)
class CallForBids(Message):
    """The router asks a provider for an offer. Changes nothing. Answered by ``Bid`` or ``NoBid``."""

    query_id: str
    profile: RequestProfile
    model: str
    """The public name after aliases and pins."""

    def unanswered(self, actor: str, fault: str) -> Message:
        """Whoever cannot answer does not bid."""
        return NoBid(actor.removeprefix("provider:"), _SILENCE.get(fault, NoBidReason.OUT), None, "")


_SILENCE: dict[str, NoBidReason] = {
    Fault.CRASHED: NoBidReason.CRASHED,
    Fault.SILENT: NoBidReason.CRASHED,
    Fault.EXPIRED: NoBidReason.TIMEOUT,
    Fault.OVERLOADED: NoBidReason.OVERLOADED,
    Fault.RESTARTING: NoBidReason.CRASHED,
}


@message("routing.bid")
class Bid(Message):
    """A provider's offer for one request, from what it alone owns. Times in seconds, money in USD.

    Made by position on the hot path: the order of the fields is part of its use.
    """

    provider: str
    in_flight: int
    room: int | None
    """Calls it can still take at once; None: no limit."""
    weight: int
    priority: int
    samples: int
    """Calls behind the estimates, decayed; 0: nothing is known."""
    latency_p50_s: float
    latency_p95_s: float
    latency_ewma_s: float
    """Time to first content (streams) or to the whole answer (others); 0 without samples."""
    expected_s: float
    """Expected time of this request here, queueing included, price not."""
    cost_usd: float | None
    """Price of this request if its answer is as long as ``max_tokens`` allows, or as long as is likely where that is not given.
    None: unknown."""
    failure_p: float
    """Chance to fail before content, 0–1, decayed."""
    failure_loss_s: float
    """Seconds a failure costs before it shows."""
    cut_p: float
    """Chance that a stream breaks after content, 0–1, decayed."""
    health: float
    """Health score, 0–1."""
    healthy: bool
    """False: second tier, asked when no healthy one can take the call."""
    trial: bool
    """True: the circuit is half-open and this would be a trial call."""
    exploring: int = 0
    """Calls in flight while nothing is known yet."""
    successes: float = 0.0
    failures: float = 0.0
    """Decayed counts: the evidence of a Beta posterior."""
    tokens: int = 0
    """Prompt and output together, as this provider would reserve them."""
    latency_peak_s: float = 0.0
    """Peak EWMA: rises to a slower sample at once and decays slowly; as ``latency_ewma_s`` otherwise."""
    tokens_per_s: float = 0.0
    """Measured output rate; 0: unknown."""
    surplus: int = 0
    """Capabilities it has that the request does not need."""
    overdue_s: float = 0.0
    """Age at which this request without its first content (without its whole answer, if it is no stream) would be overdue
    here: about p99.4."""
    overdue_early_s: float = 0.0
    """The same at about p95."""
    tight: bool = False
    """Over 80 % of one of its limits is used."""
    unheard_s: float = 0.0
    """Seconds since the last call of this model told anything; a million: none ever did."""
    slowness: float = 1.0
    """Time to first content now as a multiple of what it used to be."""
    likely_usd: float | None = None
    """Price of this request if its answer is as long as answers are here; None: unknown."""
    strain_s: float = 0.0
    """What taking one more from a rate limit that is nearly used up may let others wait, in seconds; 0: there is enough."""
    prefill_s: float = 0.0
    """What it takes here to read this prompt, a part of ``expected_s``; 0: prompts were not seen to make a difference."""


@message("routing.no_bid")
class NoBid(Message):
    """No offer, and why."""

    provider: str
    reason: NoBidReason
    retry_at: float | None = None
    """Monotonic seconds when this may end; None: unknown."""
    detail: str = ""
    exploring: Bid | None = None
    """With an open circuit: the offer to a call that explores."""


@message("routing.gathered")
class Gathered(Message):
    """All answers of a fan-out, in the order of asking: ordinary mail from the runtime to the actor that asked."""

    key: str
    answers: tuple[Any, ...]


@message("routing.choice")
class Choice(Message):
    """One entry of a plan."""

    provider: str
    score: float
    """As the strategy scores: lower is better."""
    expected_s: float
    cost_usd: float | None
    tokens: int = 0
    """What the bid would reserve from the token limit, so that the award reserves the same."""
    overdue_s: float = 0.0
    """Age at which its call is overdue: about p99.4 of what it takes."""


@message("routing.route_plan")
class RoutePlan(Message):
    """The ranked answer to a ``RouteQuery``. The decision record tells the rest."""

    query_id: str
    decision_id: str
    generation: int
    model: str
    """The public name after aliases and pins."""
    strategy: str
    choices: tuple[Choice, ...]
    hedge_after_s: float | None = None
    """Age of the first choice's call from which a second one may be asked for; None: never."""
    explore: Choice | None = None
    """Whom to send a copy at once, to find out how it is doing."""
    is_led: bool = False
    """True: the first choice explores. It fails at once and for next to nothing, if it fails; the next is the strategy's."""
    crashed: tuple[str, ...] = ()
    """Providers that fell over the calls for bids of this query, beyond those it came with."""


@message("routing.left_out")
class LeftOut(Message):
    """A provider that is not in the plan, and why."""

    provider: str
    reason: str
    """A value of ``Exclusion`` or ``NoBidReason``."""
    detail: str = ""
    retry_at: float | None = None


@message("routing.no_route")
class NoRoute(Message):
    """There is no plan."""

    query_id: str
    decision_id: str
    error: RouteError
    detail: str
    left_out: tuple[LeftOut, ...]
    retry_after_s: float | None = None
    """Seconds after which asking again may succeed."""
    reject: str = ""
    """The reason a rule gave for rejecting the request."""
    crashed: tuple[str, ...] = ()
    """As ``RoutePlan``."""


@message("routing.claimed")
class Claimed(Message):
    """The courier has had its answer from a planned provider: the router's count of open plans goes down by one."""

    query_id: str
    provider: str
    granted: bool


@message("routing.withdraw")
class Withdraw(Message):
    """The client left while its query waited."""

    query_id: str


@message("routing.capacity_freed")
class CapacityFreed(Message):
    """Owed by a provider that sent ``NoBid(at_capacity)``: that many calls can be taken again."""

    provider: str
    slots: int
