"""A request as long as all goes well: no task waits for it, and whoever knows of its next step takes it.

Most requests need one plan, one permit and one answer. Each is told to the ``Express`` in its turn, and it does what is next at
once: to wake a task, through all the calls that wait on the way there, costs as much as what is done then.

Owns: how far the request is, until it is over or there is a task for it.
Always: whatever is not the best case is left to ``carry``, in a task, and begins where this has come to: nothing is done twice.
It ends exactly once: by ``_over``, or by ``_late`` and then ``carry``.
"""

import asyncio
import logging
from abc import abstractmethod
from enum import Enum
from typing import Any

from messages.envelope import Fault
from messages.routing import RoutePlan
from runtime.courier.attempt import Attempt
from runtime.courier.call import ClientCall, CourierHouse
from runtime.courier.courier import Courier
from runtime.courier.permission import Decided
from runtime.courier.results import STATUS_CLIENT_GONE, Ended, Whole, answer_lines
from runtime.ports import GIVEN_BYTES_MAX, ClientGone, Listener, Ready, ReadySink

log = logging.getLogger("pointsman.courier")


class Way(Enum):
    """How far a request is."""

    ASKED = "asked"
    """The router has the question."""
    PLANNED = "planned"
    """There is a plan, and its winner was asked for a permit."""
    SENT = "sent"
    """The call is out."""
    LATE = "late"
    """There is a task for it."""
    OVER = "over"
    """The client has its answer."""


_ASKED, _PLANNED, _SENT, _LATE, _OVER = Way.ASKED, Way.PLANNED, Way.SENT, Way.LATE, Way.OVER
_DONE = Ended(200, "")


class Express(Courier, Decided, Listener):
    """Carries one request: ``start``, once. ``deadline``: until when (monotonic s) what it waits for may take."""

    __slots__ = ("_ready", "_way")

    def __init__(self, house: CourierHouse, call: ClientCall, sink: ReadySink) -> None:
        super().__init__(house, call, sink)
        self._ready: Ready = sink
        self._way = _ASKED

    @abstractmethod
    def _over(self, ended: Ended) -> None:
        """The request has ended, and there was no task."""

    @abstractmethod
    def _late(self) -> None:
        """Make a task for ``carry``."""

    # -- step by step

    def start(self) -> None:
        """Ask the router. When this returns it may have answered, or there may be a task."""
        house, client = self.house, self.client
        client.is_waiting = True
        quotas = house.directory.tenant_quotas
        if quotas and client.tenant in quotas:
            self._hand_over()
            return
        try:
            asked = self.ask()
        except Exception as error:
            self._break(error)
            return
        if self._routed is None:
            self._asked = asked
            if self._way is _ASKED and not asked.is_open:
                self._hand_over()
                return
            asked.follower = self
        if self._way is _ASKED or self._way is _PLANNED:
            house.system.deadlines.add(self)

    def heard(self, answer: Any) -> None:
        """The router has answered."""
        super().heard(answer)
        if self._way is not _ASKED:
            return
        lead = self._lead
        if lead is None or type(answer) is not RoutePlan or answer.explore is not None:
            self._hand_over()
            return
        self.take(answer)
        # The question knows this courier.
        self._asked, self._routed = None, answer
        self._way = _PLANNED
        lead.follow(self)

    def decided(self) -> None:
        """The winner has answered."""
        if self._way is not _PLANNED:
            return
        try:
            self._send()
        except Exception as error:
            self._break(error)

    def _send(self) -> None:
        plan, lead = self._routed, self._lead
        if plan is None or lead is None or not lead.is_granted:
            self._hand_over()
            return
        self.client.is_waiting = False
        self._plan = None  # The router has been told.
        self.house.budgets.earn(lead.provider)
        self._attempts += 1
        self._is_counted = True
        if not lead.begin():
            self._hand_over()
            return
        self._way = _SENT
        due_at = lead.answer_due_at
        if plan.hedge_after_s is not None and lead.begun_at + plan.hedge_after_s < due_at:
            due_at = lead.begun_at + plan.hedge_after_s
        self.deadline = due_at
        self.house.system.deadlines.add(self)
        sent = lead.sent
        assert sent is not None
        sent.listen(self, to_head=self.client.read.stream)

    def answered(self) -> None:
        """The answer is here, or what there will be of it."""
        if self._way is not _SENT:
            return
        lead = self._lead
        try:
            whole = lead.take() if lead is not None and not self.client.read.stream else None
        except Exception as error:
            self._break(error)
            return
        if lead is None or whole is None or len(whole.body) > GIVEN_BYTES_MAX:
            self._hand_over()
        else:
            self._finish(lead, whole)

    def _finish(self, lead: Attempt, whole: Whole) -> None:
        self._way = _OVER
        self.house.system.deadlines.discard(self)
        self._lead = None
        ended = _DONE if whole.status == 200 else Ended(whole.status, "")
        try:
            lead.end()
            lines = answer_lines(whole, self.client.request_id, lead.label, self._decision_id)
            self._ready.give(whole.status, lines, whole.body)
        except ClientGone:
            ended = Ended(STATUS_CLIENT_GONE, "client_gone")
        except Exception as error:
            log.error("the answer to %s cannot be sent", self.client.query_id, exc_info=error)
            self.sink.abort()
            ended = Ended(500, "internal_error")
        self._over(ended)

    # -- what else may come

    def unanswered(self) -> None:
        """The router, or the winner, has not answered and will not."""
        self._hand_over()

    def expire(self) -> None:
        """It is overdue, or its time is over."""
        self._hand_over()

    def abandon(self, fault: Fault) -> None:
        """The system stops: whoever was asked will not answer."""
        if self._asked is not None:
            self._asked.abandon(fault)
        if self._lead is not None:
            self._lead.abandon(fault)
        self._hand_over()

    def cancel(self) -> None:
        """The client has left, or the daemon's time is up: what ends a task. There has to be one that has begun."""
        task = self.client.task
        if task is not None:
            task.cancel()
        if task is not None or self._way is _OVER:
            return
        self._hand_over()
        asyncio.get_running_loop().call_soon(self.cancel)

    def _break(self, error: Exception) -> None:
        """A mistake of ours, for the task to tell."""
        self._fault = error
        self._hand_over()

    def _hand_over(self) -> None:
        if self._way is _LATE or self._way is _OVER:
            return
        self._way = _LATE
        self.house.system.deadlines.discard(self)
        self._late()
