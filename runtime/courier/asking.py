"""What a courier knows of its request, and what it says to the router about it.

Owns: the plan that is open at the router, and the attempt at its winner.
Always: the winner's permit is asked for in the very turn in which the plan is made, whoever waits for it; unless a quota is to
be asked before.
"""

from typing import Any

from messages.calls import AttemptKind
from messages.routing import Choice, NoRoute, RoutePlan, RouteQuery
from runtime.courier.attempt import Attempt
from runtime.courier.call import ClientCall, CourierHouse
from runtime.courier.results import label_headers
from runtime.courier.retries import Refusals, Tries, last_word_at
from runtime.ports import EdgeSink
from runtime.system.deadlines import Expiring
from runtime.system.replies import Ask, Hearer

_FIRST, _FAILOVER, _EXPLORE = AttemptKind.FIRST, AttemptKind.FAILOVER, AttemptKind.EXPLORE
_FIRST_AWARD = "/1"
"""What most permits' ids end in: to put two strings together is quicker than to write out a number."""


class Asking(Expiring, Hearer):
    """One request on its way to a provider. Without a task, what it waits for may take until ``deadline`` (monotonic s)."""

    __slots__ = (
        "_asked", "_attempts", "_awards", "_decision_id", "_failed", "_fault", "_has_rested", "_is_counted",
        "_is_known_to_router", "_lead", "_must_wait", "_plan", "_queue_until", "_refused", "_routed", "_status", "client",
        "hedges", "house", "sink",
    )  # fmt: skip

    def __init__(self, house: CourierHouse, call: ClientCall, sink: EdgeSink) -> None:
        super().__init__(call.deadline)
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
        self._asked: Ask | None = None
        """A question that is at the router, if it was put before anybody could wait for it; ..."""
        self._routed: RoutePlan | None = None
        """... the plan that was its answer; ..."""
        self._is_counted = False
        """... whether the winner's permit was granted and the call counts; ..."""
        self._fault: Exception | None = None
        """... and what broke meanwhile."""
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

    def ask(self) -> Ask:
        """Ask the router where the request may go."""
        house, client = self.house, self.client
        refused = self._refused.providers if self._refused is not None else ()
        may_wait, until = self._failed is None or self._must_wait, client.deadline
        if self._failed is None:
            self._queue_until = until = last_word_at(until, house.clock.now())
        elif self._must_wait and self._queue_until is not None and self._queue_until < until:
            until = self._queue_until
        profile, arrived_at = client.profile(), client.arrived_at
        query = RouteQuery(client.query_id, profile, until, arrived_at, self.tried, refused, may_wait, False, client.crashed)
        self._is_known_to_router = True
        hearer = self if self._failed is None else None
        return house.system.put(house.router, query, client.deadline, client.trace, "courier", hearer)

    def take(self, answer: RoutePlan | NoRoute) -> None:
        """Note what the router has answered."""
        client = self.client
        self._is_known_to_router, self._decision_id = False, answer.decision_id
        if answer.crashed:
            client.crashed += answer.crashed
        if isinstance(answer, RoutePlan):
            self._plan = answer
            if client.span is not None:
                chosen = tuple(choice.provider for choice in answer.choices)
                client.span.decision(answer.decision_id, strategy=answer.strategy, chosen=chosen, generation=answer.generation)
        elif client.span is not None:
            client.span.decision(answer.decision_id, left_out=answer.left_out, error=answer.error.value)

    def heard(self, answer: Any) -> None:
        """The router's answer, in the turn it was given: the winner's permit is asked for at once, unless a quota is."""
        quotas = self.house.directory.pool_quotas
        if isinstance(answer, RoutePlan) and not (quotas and answer.model in quotas):
            self._plan = answer
            self._lead = lead = self._attempt_of(answer, answer.choices[0])
            lead.ask()

    def _attempt_of(self, plan: RoutePlan, choice: Choice) -> Attempt:
        is_lead = plan.is_led and choice is plan.choices[0]
        attempt = self.attempt_at(plan, choice, _EXPLORE if is_lead else _FAILOVER if self._attempts else _FIRST)
        attempt.claims = self._plan is not None
        return attempt

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
        permit_id = self.client.query_id + (_FIRST_AWARD if self._awards == 1 else f"/{self._awards}")
        return Attempt(self.house, self.client, plan, choice, self._attempts + 1, permit_id, kind)

    def granted(self, plan: RoutePlan, attempt: Attempt) -> list[tuple[str, str]]:
        """An attempt has its permit: it counts. Gives the headers that an answer of its goes with."""
        self._attempts += 1
        return self.headers(plan, attempt)

    def headers(self, plan: RoutePlan, attempt: Attempt) -> list[tuple[str, str]]:
        """Those that an answer goes with to the attempt that was the last to count."""
        return [
            ("x-request-id", self.client.request_id),
            *label_headers(attempt.provider, plan.model, plan.strategy, self._attempts),
            ("x-pointsman-decision", plan.decision_id),
        ]
