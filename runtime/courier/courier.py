"""A courier carries one request along its plan: route, award, call, fail over, settle.

Owns: one request's tries, its attempt in progress, its open plan at the router.
Always: the client gets exactly one answer. A refused award is no attempt. A failed attempt goes on to a fresh choice among
those not tried; when all were, those that failed for now come back after their wait, within attempts, deadline and budget.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from messages.calls import AttemptKind, RefusalReason
from messages.envelope import AGAIN
from messages.failures import DEADLINE, Failure, Retry
from messages.routing import Choice, LeftOut, NoRoute, RouteError, RoutePlan, Withdraw
from runtime.courier import beside, problems, reasons
from runtime.courier.asking import Asking
from runtime.courier.attempt import Attempt
from runtime.courier.permission import claimed
from runtime.courier.problems import Problem
from runtime.courier.race import Finish, Race
from runtime.courier.reservations import Reservations, tokens_wanted
from runtime.courier.results import STATUS_CLIENT_GONE, Ended, Failed, Relayed, Whole, answer_headers
from runtime.courier.retries import WAITED_S
from runtime.dialects.errors import error_body
from runtime.ports import ClientGone
from runtime.system.replies import ActorGone, DeadlineExceeded, Overloaded

log = logging.getLogger("pointsman.courier")

_FIRST, _FAILOVER, _EXPLORE = AttemptKind.FIRST, AttemptKind.FAILOVER, AttemptKind.EXPLORE
_PASSING = (RouteError.AT_CAPACITY, RouteError.RATE_LIMITED, RouteError.ALL_UNHEALTHY)
"""What may end by itself while a request waits."""


_DONE = Ended(200, "")
FINAL_STRATEGY = "priority"
"""Under it nobody is asked twice for one request: its order would only lead back to who has just failed (FEATURES B5)."""


class Courier(Asking):
    """Carries one request. ``carry`` once."""

    __slots__ = ()

    async def carry(self) -> Ended:
        """Answer the client, whatever happens. Raises only ``asyncio.CancelledError``, when the client left."""
        try:
            try:
                if self._fault is not None:
                    raise self._fault
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
        quota = house.directory.tenant_quotas.get(self.client.tenant) if self._routed is None else None
        if quota is not None and (problem := await self._reserve(quota, tokens_wanted(self.client))) is not None:
            return await self._answer(problem)
        while True:
            attempts_before, awards_before = self._attempts, self._awards
            asked_at = clock.now() if self._refused is not None else 0.0
            routed: RoutePlan | NoRoute | Problem | None = self._routed
            if routed is None:
                self.client.is_waiting = True
                routed = await self._route()
            else:
                # This round was begun before anybody waited.
                self._routed, attempts_before, awards_before = None, 0, 0
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
        for is_last in (False, True):
            asked, self._asked = self._asked or self.ask(), None
            try:
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
        assert isinstance(answer, RoutePlan | NoRoute)
        self.take(answer)
        return answer

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
                    if not self._is_counted:
                        if not is_repeat:
                            self.house.budgets.earn(provider)
                        self._attempts += 1
                    self._is_counted = False
                    headers = self.headers(plan, attempt)
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
