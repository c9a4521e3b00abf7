"""A call beside another one of the same request: where it may go, and its way from the permit to its end.

A hedge asks the router first, under an id of its own; a copy has its place in the request's plan. Both are attempts: they
count against ``max_attempts`` and leave whom they tried in the request's record; neither earns nor spends of the budget for
repeats.
"""

from typing import TYPE_CHECKING

from messages.calls import AttemptKind
from messages.routing import Choice, Claimed, RoutePlan, RouteQuery, Withdraw, hedge_query_id
from runtime.courier.race import Finish, Race
from runtime.courier.results import Failed
from runtime.system.replies import AskError

if TYPE_CHECKING:
    from runtime.courier.courier import Courier


async def copy(courier: "Courier", race: Race, plan: RoutePlan, choice: Choice) -> Finish | None:
    """Make the copy that ``plan`` asks for. None: there was no permit for it, or a failed first call may need the attempts."""
    if courier.attempts_left < 2:
        return None
    return await _call(courier, race, plan, choice, AttemptKind.EXPLORE)


async def hedge(courier: "Courier", race: Race) -> Finish | None:
    """Make a second call where the router says. None: there was nobody to make it to, or it is over the share of hedges."""
    if courier.attempts_left < 1 or courier.client.is_odd:
        return None
    plan = await _ask(courier, race)
    return None if plan is None else await _call(courier, race, plan, plan.choices[0], AttemptKind.HEDGE)


async def _ask(courier: "Courier", race: Race) -> RoutePlan | None:
    house, client = courier.house, courier.client
    courier.hedges += 1
    query_id = hedge_query_id(client.query_id, courier.hedges)
    tried = (*courier.tried, *race.providers)
    query = RouteQuery(query_id, client.profile(), client.deadline, client.arrived_at, tried, (), False, True, client.crashed)
    answer = None
    try:
        asked = house.system.put(house.router, query, client.deadline, client.trace, "courier")
        answer = await house.system.wait_for(asked) if asked.is_open else asked.outcome()
    except AskError:
        return None
    finally:
        if answer is None:
            house.system.tell(house.router, Withdraw(query_id), client.trace, "courier")
    client.crashed += answer.crashed
    return answer if isinstance(answer, RoutePlan) else None


async def _call(courier: "Courier", race: Race, plan: RoutePlan, choice: Choice, kind: AttemptKind) -> Finish | None:
    attempt = courier.attempt_at(plan, choice, kind)
    is_granted = False
    try:
        try:
            refusal = await attempt.award()
            is_granted = refusal is None
        finally:
            if kind is AttemptKind.HEDGE:
                claimed = Claimed(plan.query_id, choice.provider, is_granted)
                courier.house.system.tell(courier.house.router, claimed, None, "courier")
        if refusal is not None:
            return None
        headers = courier.granted(plan, attempt)
        race.join(attempt)
        result = await attempt.call(courier.sink, headers, race)
    finally:
        attempt.end()
    if isinstance(result, Failed):
        courier.note_failure(plan, attempt.provider, result.failure)
    return Finish(result, attempt, headers)
