"""The words of explanation: what a decision record says, and what the router counts."""

from messages.base import Message, message
from messages.policy import NORMAL
from messages.routing import Bid, LeftOut, RequestProfile


@message("routing.candidate")
class Candidate(Message):
    """One provider in a decision record: its score, or why it was left out."""

    provider: str
    score: float | None
    reason: str
    detail: str
    bid: Bid | None
    stage: str = ""
    """Which stage of the decision left it out; empty: it is in the plan."""


@message("routing.attempt_record")
class AttemptRecord(Message):
    """One call upstream, in a decision record."""

    provider: str
    outcome: str
    code: str
    status: int
    duration_ms: float
    first_content_ms: float | None
    round: int
    """Which decision of the request led to it, from 1."""
    kind: str = "first"
    """``first``, ``failover``, ``hedge`` (beside one that was overdue) or ``explore`` (a copy)."""


@message("routing.decision")
class Decision(Message):
    """Why a request went where it went (the last round) and what became of it (all attempts)."""

    decision_id: str
    query_id: str
    at: float
    """Unix seconds."""
    generation: int
    requested_model: str
    model: str
    strategy: str
    rule: str
    seed: str
    candidates: tuple[Candidate, ...]
    chosen: tuple[str, ...]
    """The winner and the fall-back chain."""
    error: str
    selection_us: float
    round: int
    attempts: tuple[AttemptRecord, ...]
    not_asked: int
    """Candidates beyond the fan-out limit."""
    rest: tuple[tuple[str, int], ...] = ()
    """Of those the record does not list: how many for each reason."""
    profile: RequestProfile | None = None
    """What was known of the request."""
    priority: int = NORMAL
    """The request's, after rules."""
    note: str = ""
    """What else should be known: a strategy that failed and was replaced by ``first``."""
    hedge_after_ms: float | None = None
    """Age of the winner's call from which a second one may be asked for; None: never."""
    explored: str = ""
    """Who got a copy at once."""
    hedges: tuple[str, ...] = ()
    """What was said to each wish for a second call: the provider, or why there was none."""


@message("routing.get_decision")
class GetDecision(Message):
    """Answered by ``DecisionFound``."""

    decision_id: str


@message("routing.recent_decisions")
class RecentDecisions(Message):
    """Answered by ``Decisions``, newest first."""

    limit: int = 20


@message("routing.decision_found")
class DecisionFound(Message):
    """The record, or None if it never was or is no longer kept."""

    decision: Decision | None


@message("routing.decisions")
class Decisions(Message):
    """Records, newest first."""

    decisions: tuple[Decision, ...]


@message("routing.get_reasons")
class GetReasons(Message):
    """A courier whose attempts are spent asks why the other candidates were not called. Answered by ``Reasons``."""

    query_id: str


@message("routing.reasons")
class Reasons(Message):
    """Of the last round of a request: its candidates that were not called, as far as is known to the router."""

    left_out: tuple[LeftOut, ...]
    """Those whose call was called off first: ``late``; then those of the plan, by rank: ``not_called``."""
    more: int = 0
    """Others there are."""


@message("routing.router_stats")
class RouterStats(Message):
    """Answer to ``GetRouterStats``. Times in microseconds."""

    total: int
    succeeded: int
    failed: int
    decision_p50_us: float
    decision_p95_us: float
    decision_p99_us: float
    waiting: int
    rule_hits: tuple[tuple[str, int], ...] = ()
    """Matches by rule since start, sorted by name; rules of the configuration in force."""
    strategy_errors: int = 0
    """Times a strategy of others failed and ``first`` stood in."""


@message("routing.strategy_failed")
class StrategyFailed(Message):
    """The router tells the runtime, for its log, that a strategy of others raised or returned rubbish."""

    strategy: str
    detail: str


@message("routing.get_router_stats")
class GetRouterStats(Message):
    """Answered by ``RouterStats``."""
