"""A courier carries one request along its plan: route, award, call, fail over, settle.

Owns: one request's tries, its attempt in progress, its open plan at the router.
Always: the client gets exactly one answer. A refused award is no attempt. A failed attempt goes on to a fresh choice among
those not tried; when all were, those that failed for now come back after their wait, within attempts, deadline and budget.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from messages.calls import AttemptKind, RefusalReason
from messages.envelope import AGAIN
from messages.failures import DEADLINE, Failure, Retry
from messages.routing import Choice, LeftOut, NoRoute, RouteError, RoutePlan, RouteQuery, Withdraw
from runtime.courier import beside, problems, reasons
from runtime.courier.attempt import Attempt
from runtime.courier.call import ClientCall, CourierHouse
from runtime.courier.permission import claimed
from runtime.courier.problems import Problem
from runtime.courier.race import Finish, Race
from runtime.courier.reservations import Reservations, tokens_wanted
from runtime.courier.results import STATUS_CLIENT_GONE, Ended, Failed, Relayed, Whole, answer_headers
from runtime.courier.retries import WAITED_S, Refusals, Tries, last_word_at
from runtime.courier.words import header_safe
from runtime.dialects.errors import error_body
from runtime.ports import ClientGone, EdgeSink
from runtime.system.replies import ActorGone, DeadlineExceeded, Overloaded

log = logging.getLogger("pointsman.courier")

_FIRST, _FAILOVER, _EXPLORE = AttemptKind.FIRST, AttemptKind.FAILOVER, AttemptKind.EXPLORE
_PASSING = (RouteError.AT_CAPACITY, RouteError.RATE_LIMITED, RouteError.ALL_UNHEALTHY)
"""What may end by itself while a request waits."""


_DONE = Ended(200, "")
FINAL_STRATEGY = "priority"
"""Under it nobody is asked twice for one request: its order would only lead back to who has just failed (FEATURES B5)."""


class Courier:
    """Carries one request. ``carry`` once."""

    __slots__ = (
        "_attempts", "_awards", "_decision_id", "_failed", "_has_rested", "_is_known_to_router", "_lead", "_must_wait", "_plan",
        "_queue_until", "_refused", "_status", "client", "hedges", "house", "sink",
    )  # fmt: skip

    def __init__(self, house: CourierHouse, call: ClientCall, sink: EdgeSink) -> None:
        self.house = house
        self.client = call
        self.sink = sink
        self._failed: Tries | None = None
        """None until a first call has failed, as most never do."""
        self._attempts = 0
        self._awards = 0
        self.hedges = 0
        """Times the router was asked where to make a call beside one that is overdue."""
        self._plan: RoutePlan | None = None
        """A plan the router counts as open: its winner has not been claimed yet."""
        self._lead: Attempt | None = None
        """At that plan's winner; its permit was asked for in the very turn the plan was made."""
        self._is_known_to_router = False
        self._refused: Refusals | None = None
        """None until a first award was refused."""
        self._must_wait = False
        """True: others were tried, and this round is to wait in the queue for whoever was not ..."""
        self._queue_until: float | None = None
        """... until then (monotonic s), when another is as good as its word; None: as long as may be. At first the deadline."""
        self._has_rested = False
        """True: the back-off is over, and whoever was not tried is asked once more before who failed."""
        self._decision_id = ""
        """Of the last round."""
        self._status = 200
        """What the client is told, if it is told anything; a stream is begun with nothing else."""

    @property
    def _tries(self) -> Tries:
        if self._failed is None:
            self._failed = Tries(self.house.directory.routing.failover)
        return self._failed

    @property
    def refusals(self) -> Refusals:
        """Awards that were refused."""
        if self._refused is None:
            self._refused = Refusals()
        return self._refused

    async def carry(self) -> Ended:
        """Answer the client, whatever happens. Raises only ``asyncio.CancelledError``, when the client left."""
        try:
            try:
                return await self._walk()
            except ClientGone:
                raise
            except asyncio.CancelledError:
                if not self.client.is_drained:
                    raise
                problem = problems.shutting_down()
            except Exception as error:
                log.error("the courier of %s failed", self.client.query_id, exc_info=error)
                problem = problems.internal_error()
            return await self._answer(problem)
        except ClientGone:
            return Ended(STATUS_CLIENT_GONE, "client_gone")
        finally:
            if self._lead is not None:
                self._lead.end()
            if self._plan is not None or self._is_known_to_router:
                self.house.system.tell(self.house.router, Withdraw(self.client.query_id), self.client.trace, "courier")
            if self.client.holds is not None:
                self.client.holds.give_back()

    async def _walk(self) -> Ended:
        house, clock = self.house, self.house.clock
        quota = house.directory.tenant_quotas.get(self.client.tenant)
        if quota is not None and (problem := await self._reserve(quota, tokens_wanted(self.client))) is not None:
            return await self._answer(problem)
        while True:
            self.client.is_waiting = True
            attempts_before, awards_before = self._attempts, self._awards
            asked_at = clock.now() if self._refused is not None else 0.0
            routed = await self._route()
            if self._refused is not None and clock.now() - asked_at >= WAITED_S:
                self._refused.waited()
            if isinstance(routed, Problem):
                return await self._answer(routed)
            if isinstance(routed, NoRoute):
                if (problem := await self._wait_or_give_up(routed)) is not None:
                    return await self._answer(problem)
                continue
            quota = house.directory.pool_quotas.get(routed.model)
            if quota is not None and (problem := await self._reserve(quota, routed.choices[0].tokens)) is not None:
                return await self._answer(problem)
            self.client.is_waiting = False
            if (ended := await self._follow(routed)) is not None:
                return ended
            if self._attempts > attempts_before:
                if self._refused is not None:
                    self._refused.granted()
                continue
            max_wait_s = house.directory.routing.queue_max_wait_s
            if self._awards == awards_before or self.refusals.have_lasted(max_wait_s, clock.now()):
                return await self._answer(await self._spent(routed))

    async def _reserve(self, quota: str, tokens: int) -> Problem | None:
        """Take what a request needs of its tenant's or pool's limits, once. A problem: they do not let it through."""
        client = self.client
        if client.holds is None:
            client.holds = Reservations(self.house, client)
        return await client.holds.take(quota, tokens)

    async def _route(self) -> RoutePlan | NoRoute | Problem:
        """Ask the router. A question it crashed on is put once more, then the request has failed."""
        house, client = self.house, self.client
        refused = self._refused.providers if self._refused is not None else ()
        may_wait, until = self._failed is None or self._must_wait, client.deadline
        if self._failed is None:
            self._queue_until = until = last_word_at(until, house.clock.now())
        elif self._must_wait and self._queue_until is not None and self._queue_until < until:
            until = self._queue_until
        query_id, profile, arrived_at, tried = client.query_id, client.profile(), client.arrived_at, self.tried
        on_answer = self._see_plan if self._failed is None else None
        for is_last in (False, True):
            query = RouteQuery(query_id, profile, until, arrived_at, tried, refused, may_wait, False, client.crashed)
            try:
                self._is_known_to_router = True
                asked = house.system.put(house.router, query, client.deadline, client.trace, "courier", on_answer)
                answer = await house.system.wait_for(asked) if asked.is_open else asked.outcome()
                break
            except DeadlineExceeded:
                return self._out_of_time()
            except Overloaded:
                return Problem(503, "overloaded", "Too many requests wait for a decision.", None, 1.0)
            except ActorGone as gone:
                if client.has_felled("the router", gone.fault) or is_last:
                    return problems.internal_error()
                if gone.fault not in AGAIN:
                    return problems.shutting_down()
        self._is_known_to_router, self._decision_id = False, answer.decision_id
        client.crashed += answer.crashed
        if isinstance(answer, RoutePlan):
            self._plan = answer
            if client.span is not None:
                chosen = tuple(choice.provider for choice in answer.choices)
                client.span.decision(answer.decision_id, strategy=answer.strategy, chosen=chosen, generation=answer.generation)
            return answer
        assert isinstance(answer, NoRoute)
        if client.span is not None:
            client.span.decision(answer.decision_id, left_out=answer.left_out, error=answer.error.value)
        return answer

    def _see_plan(self, answer: Any) -> None:
        """The router's answer, in the turn it was given: the winner's permit is asked for at once, unless a quota is."""
        if isinstance(answer, RoutePlan) and answer.model not in self.house.directory.pool_quotas:
            self._plan = answer
            self._lead = lead = self._attempt_of(answer, answer.choices[0])
            lead.ask()

    def _attempt_of(self, plan: RoutePlan, choice: Choice) -> Attempt:
        is_lead = plan.is_led and choice is plan.choices[0]
        attempt = self.attempt_at(plan, choice, _EXPLORE if is_lead else _FAILOVER if self._attempts else _FIRST)
        attempt.claims = self._plan is not None
        return attempt

    async def _wait_or_give_up(self, routed: NoRoute) -> Problem | None:
        """Nobody can take it now. None: it goes on, in the queue or with some that failed before, whichever is sooner."""
        house, now = self.house, self.house.clock.now()
        if not self._tries.failed:
            is_late = self._queue_until is not None and now >= self._queue_until
            return self._out_of_time(routed.left_out) if is_late else problems.no_route(routed)
        if self.client.is_odd:
            return problems.internal_error()
        if self._has_rested:
            self._has_rested = False
            self._tries.wake(now)
            return None
        if self._may_be_sooner_in_queue(routed, now):
            self._must_wait, self._queue_until = True, self._tries.named_at(house.budgets)
            return None
        self._must_wait = False
        wait_s = self._tries.rest(now, house.budgets, house.rng)
        if wait_s is None or now + wait_s >= self.client.deadline:
            return problems.attempts_spent(self.client.read.model, self._tries, now, routed.left_out)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
            self._has_rested = routed.error in _PASSING
        if not self._has_rested:
            self._tries.wake(house.clock.now())
        return None

    def _may_be_sooner_in_queue(self, routed: NoRoute, now: float) -> bool:
        """Whether somebody who was not tried may be able to before those who were may be tried again.

        A place comes free at any moment, and one that has not failed is worth waiting for until one of the others may be asked
        again by its own word; other waits tell their end.
        """
        if self._must_wait or not self._tries.may_go_on or routed.error not in _PASSING:
            return False
        if routed.error is RouteError.AT_CAPACITY:
            return True
        again_s = self._tries.soonest_s(now)
        return again_s is None or (routed.retry_after_s or 0.0) < again_s

    async def _follow(self, plan: RoutePlan) -> Ended | None:
        """Walk a plan until an award is granted. None: nothing has gone to the client yet."""
        self._must_wait = self._has_rested = False
        for choice in plan.choices:
            provider = choice.provider
            is_repeat = self._failed is not None and self._failed.is_repeat(provider)
            # Paid before it is asked for: others ask at the same time.
            if is_repeat and not self.house.budgets.spend(provider):
                continue
            is_owed = is_repeat
            attempt, self._lead = self._lead or self._attempt_of(plan, choice), None
            finish: Finish | None = None
            try:
                refusal = attempt.refusal() if attempt.is_decided else await attempt.award()
                self._claim(attempt, is_granted=refusal is None)
                if refusal is None:
                    is_owed = False
                    if not is_repeat:
                        self.house.budgets.earn(provider)
                    headers = self.granted(plan, attempt)
                    if plan.hedge_after_s is not None or plan.explore is not None:
                        race = self._race(plan, choice, attempt)
                        hedged = partial(beside.hedge, self, race)
                        copied = None if plan.explore is None else partial(beside.copy, self, race, plan, plan.explore)
                        finish = await race.run(self.sink, headers, hedged, copied)
                    else:
                        finish = Finish(await attempt.call(self.sink, headers), attempt, headers)
            finally:
                attempt.end()
                if is_owed:
                    self.house.budgets.give_back(provider)
            if finish is not None:
                result = finish.result
                if not isinstance(result, Whole):
                    return await self._conclude(result, plan, finish.attempt.provider)
                self._status = result.status
                await self.sink.whole(result.status, answer_headers(result, finish.headers), result.body)
                return (
                    _DONE if result.status == 200 else Ended(result.status, "" if result.status < 400 else str(result.status))
                )
            self.refusals.add(provider, self.house.clock.now())
            if self.client.is_odd:
                return await self._answer(problems.internal_error())
            if refusal is RefusalReason.RATE_LIMITED and not self.house.directory.routing.failover.on_rate_limit:
                break
        self._claim(None, is_granted=False)
        return None

    def _race(self, plan: RoutePlan, choice: Choice, first: Attempt) -> Race:
        """For the first call, and others beside it when it is overdue or a copy is due."""
        overdue_s = plan.hedge_after_s
        if overdue_s is not None and choice is not plan.choices[0] and choice.overdue_s > overdue_s:
            overdue_s = choice.overdue_s
        return Race(self.house.clock, self.house.system.deadlines, self.client.task, first, overdue_s)

    @property
    def tried(self) -> tuple[str, ...]:
        """Providers that have failed the request and must not be asked now."""
        return self._failed.tried if self._failed is not None else ()

    @property
    def attempts_left(self) -> int:
        """Calls upstream that the request may still make."""
        spec = self.house.directory.routing.failover
        return spec.max_attempts - self._attempts if spec.enabled else 0

    def attempt_at(self, plan: RoutePlan, choice: Choice, kind: AttemptKind) -> Attempt:
        """An attempt with a permit id of its own."""
        self._awards += 1
        permit_id = f"{self.client.query_id}/{self._awards}"
        return Attempt(self.house, self.client, plan, choice, self._attempts + 1, permit_id, kind)

    def granted(self, plan: RoutePlan, attempt: Attempt) -> list[tuple[str, str]]:
        """An attempt has its permit: it counts. Gives the headers that an answer of its goes with."""
        self._attempts += 1
        return [
            ("x-request-id", self.client.request_id),
            ("x-pointsman-provider", attempt.provider),
            ("x-pointsman-model", header_safe(plan.model)),
            ("x-pointsman-strategy", plan.strategy),
            ("x-pointsman-attempts", str(self._attempts)),
            ("x-pointsman-decision", plan.decision_id),
        ]

    def note_failure(self, plan: RoutePlan, provider: str, failure: Failure) -> None:
        """A call has failed: its provider is tried no more in this round, and where ``plan`` is final never again."""
        self._tries.add(provider, failure, self.house.clock.now(), is_final=plan.strategy == FINAL_STRATEGY)

    def _claim(self, attempt: Attempt | None, *, is_granted: bool) -> None:
        """See that the router hears what came of its plan's winner, once: it counts the plan no longer."""
        plan, self._plan = self._plan, None
        if plan is not None and (attempt is None or attempt.claims):
            self.house.system.tell(self.house.router, claimed(plan, is_granted), None, "courier")

    async def _conclude(self, result: Relayed | Failed, plan: RoutePlan, provider: str) -> Ended | None:
        """After a stream, or a failure. None: nothing has gone to the client yet."""
        if isinstance(result, Relayed):
            return Ended(200, result.failure.code) if result.failure is not None else _DONE
        self.note_failure(plan, provider, result.failure)
        if result.failure.code == DEADLINE:
            # The router is not asked any more: there is no time to wait for it.
            return await self._answer(self._out_of_time(reasons.not_called(plan, self._tries)))
        if result.failure.retry is Retry.NEVER or not self._tries.may_go_on or self.client.is_odd:
            return await self._answer(await self._spent(plan))
        await self._let_back()
        return None

    async def _let_back(self) -> None:
        """``with_replacement``: pause, and let those that failed for now compete with those not tried."""
        house, now = self.house, self.house.clock.now()
        wait_s = self._tries.replacement_s(now, house.budgets, house.rng)
        if wait_s is not None and now + wait_s < self.client.deadline:
            self.client.is_waiting = True
            await asyncio.sleep(wait_s)
            self._tries.wake(house.clock.now())

    async def _spent(self, plan: RoutePlan) -> Problem:
        """Nothing is left to try."""
        if self.client.is_odd:
            return problems.internal_error()
        model = self.client.read.model
        left_out, more = await reasons.of_others(self.house, self.client, self._tries, self._refused, plan)
        if not self._tries.failed:
            return problems.all_refused(model, left_out, more)
        return problems.attempts_spent(model, self._tries, self.house.clock.now(), left_out, more)

    def _out_of_time(self, left_out: Sequence[LeftOut] = ()) -> Problem:
        client = self.client
        return problems.deadline_exceeded(client.read.model, client.deadline - client.arrived_at, self._tries, left_out)

    async def _answer(self, problem: Problem) -> Ended:
        """Send an error of our own, or cut the connection if the client has been told otherwise already."""
        if self.sink.has_started:
            self.sink.abort()
            return Ended(self._status, problem.code)
        body = error_body(problem.message, problem.kind, problem.code, problem.param)
        headers = [("content-type", "application/json"), *problem.headers(), ("x-request-id", self.client.request_id)]
        if self._attempts:
            headers.append(("x-pointsman-attempts", str(self._attempts)))
        if self._decision_id:
            headers.append(("x-pointsman-decision", self._decision_id))
        self._status = problem.status
        await self.sink.whole(problem.status, headers, body)
        return Ended(problem.status, problem.code)
