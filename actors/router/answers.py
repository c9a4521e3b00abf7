"""What the router answers, put together: the plan, or why there is none. Each goes with its line in the record."""

from collections.abc import Iterable

from actors.kernel import Context
from actors.router.decision import CHOICES_MAX
from actors.router.pending import REQUIREMENTS, Pending
from actors.router.recorder import Recorder
from actors.router.strategies.base import Ranked
from actors.router.strategies.guard import guarded_learn
from actors.router.table import RoutingTable
from actors.router.verdict import judge
from messages.routing import Bid, Choice, Exclusion, NoRoute, RouteError, RoutePlan, RouteQuery


def plan_of(pending: Pending, decision_id: str, way: Ranked, copy: Bid | None = None) -> RoutePlan:
    """The plan: who is to be called, in order, when a second call may be asked for, and who gets a ``copy`` at once."""
    query_id, hedge_after_s = pending.query.query_id, pending.hedge_after_s
    model, strategy = pending.route.model, pending.strategy.name
    chosen = way if len(way) <= CHOICES_MAX else way[:CHOICES_MAX]
    # A generator and no list: compiled, it fills the tuple itself.
    choices = tuple(
        Choice(bid.provider, score, bid.expected_s, bid.cost_usd, bid.tokens, bid.overdue_s) for score, bid in chosen
    )
    copied = None if copy is None else Choice(copy.provider, 0.0, copy.expected_s, copy.cost_usd, copy.tokens, copy.overdue_s)
    generation, is_led, crashed = pending.generation, pending.is_led, pending.crashed
    return RoutePlan(query_id, decision_id, generation, model, strategy, choices, hedge_after_s, copied, is_led, crashed)


def teach(pending: Pending, ranked: Ranked) -> None:
    """Tell the strategy of a query what was planned."""
    strategy = pending.strategy
    if strategy.is_foreign:
        pending.failure = pending.failure or guarded_learn(strategy, pending.memory, ranked)
    elif strategy.learn is not None:
        strategy.learn(pending.memory, ranked)


def no_route(
    pending: Pending, record: Recorder, context: Context, error: RouteError | None, note: str, wait_s: float | None
) -> NoRoute:
    """There is no plan. ``error`` overrides what the reasons amount to; ``note`` goes to the record only.

    ``wait_s`` is how long the queue would take, where it knows.
    """
    now = context.now()
    reasons, course = pending.reasons(), pending.course
    left_out = pending.by_first_stage(reasons)
    # Nobody has what is needed: then it is no matter whom policy leaves out. Else those count for what they were not asked for.
    counted = left_out if all(left.reason in REQUIREMENTS or left.reason == Exclusion.PIN for left in left_out) else reasons
    detail = course.detail if error is course.error else ""
    verdict = judge(pending.route.model, left_out, now, error, detail, wait_s, counted)
    decision_id = record.refusal(pending, note or verdict.error, now, context)
    query_id, error, detail, wait_s = pending.query.query_id, verdict.error, verdict.detail, verdict.retry_after_s
    return NoRoute(query_id, decision_id, error, detail, left_out, wait_s, course.reject, pending.crashed)


def no_start(
    query: RouteQuery,
    record: Recorder,
    table: RoutingTable,
    strategy: str,
    strategies: Iterable[str],
    error: RouteError,
    context: Context,
) -> NoRoute:
    """Nothing can be made of a query: nobody has its model, or there is no such ``strategy``."""
    route, detail = None, f"no provider has a model {query.profile.model!r}"
    if error is RouteError.STRATEGY_NOT_FOUND:
        route, detail = table.find(query.profile.model), f"no strategy {strategy!r}; there are {', '.join(strategies)}"
    decision_id = record.no_start(query, strategy, table, route, error, context)
    return NoRoute(query.query_id, decision_id, error, detail, ())
