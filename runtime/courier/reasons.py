"""Why the other candidates of a request were not called: asked of the router when a client is to be told that nobody could."""

from actors.router.verdict import LATE, NOT_CALLED
from messages.decisions import GetReasons, Reasons
from messages.routing import Exclusion, LeftOut, RoutePlan
from runtime.courier.call import ClientCall, CourierHouse
from runtime.courier.retries import Refusals, Tries
from runtime.system.replies import AskError

_REFUSED = Exclusion.REFUSED


async def of_others(
    house: CourierHouse, client: ClientCall, tries: Tries, refusals: Refusals | None, plan: RoutePlan
) -> tuple[list[LeftOut], int]:
    """The candidates that did not fail, with reasons, and how many there are besides.

    ``plan`` is the last one: where the router does not answer in time, those of it are named.
    """
    found = await _asked(house, client) or Reasons(tuple(not_called(plan, tries)))
    refused = refusals.providers if refusals is not None else ()
    failed = {attempt.provider for attempt in tries.failed}
    told: list[LeftOut] = []
    for left in found.left_out:
        if left.reason == LATE or left.provider not in failed:
            is_refusal = left.reason == NOT_CALLED and left.provider in refused
            told.append(LeftOut(left.provider, _REFUSED) if is_refusal else left)
    return told, found.more


def not_called(plan: RoutePlan, tries: Tries) -> list[LeftOut]:
    """Those of a plan that were not called: what is known without the router."""
    failed = {attempt.provider for attempt in tries.failed}
    return [LeftOut(choice.provider, NOT_CALLED) for choice in plan.choices if choice.provider not in failed]


async def _asked(house: CourierHouse, client: ClientCall) -> Reasons | None:
    """What the router knows; None: nothing, or it does not answer before a decision or the request would be over."""
    until = min(house.clock.now() + house.directory.routing.decision_timeout_s, client.deadline)
    try:
        asked = house.system.put(house.router, GetReasons(client.query_id), until, None, "courier")
        answer = await house.system.wait_for(asked) if asked.is_open else asked.outcome()
    except AskError:
        return None
    return answer if isinstance(answer, Reasons) and answer.left_out else None
