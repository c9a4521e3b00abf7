"""A client's request as its courier has it, and what all couriers share."""

from asyncio import Task
from dataclasses import dataclass, field
from random import Random
from typing import Any

from actors.kernel import Ref
from messages.envelope import FALLEN, TraceContext
from messages.routing import CRASHES_MAX, Hints, RequestProfile
from otel.live_spans import ServerSpan
from otel.spans import Tracing
from runtime.courier.directory import Directory
from runtime.courier.permits import PermitTable
from runtime.courier.reservations import Reservations, ReservationTable
from runtime.courier.retries import RetryBudgets
from runtime.dialects.affinity import affinity_of
from runtime.dialects.request import Endpoint, ReadRequest
from runtime.ports import EdgeRequest, Headers, Upstream
from runtime.system.clock import Clock
from runtime.system.system import ActorSystem


@dataclass(slots=True)
class CourierHouse:
    """What all couriers share."""

    system: ActorSystem
    upstream: Upstream
    directory: Directory
    permits: PermitTable
    budgets: RetryBudgets
    tracing: Tracing
    clock: Clock
    rng: Random
    router: Ref[Any] = field(default_factory=lambda: Ref[Any]("router"))
    aggregator: Ref[Any] = field(default_factory=lambda: Ref[Any]("aggregator"))
    reservations: ReservationTable = field(default_factory=ReservationTable)
    serial: int = 0
    """Of the last query."""

    def next_query_id(self) -> str:
        """An id no other request of this daemon has."""
        self.serial += 1
        return "q" + str(self.serial)


@dataclass(slots=True)
class ClientCall:
    """One request, read and understood. Times in monotonic seconds."""

    endpoint: Endpoint
    request: EdgeRequest
    read: ReadRequest
    hints: Hints
    query_id: str
    request_id: str
    arrived_at: float
    deadline: float
    tenant: str = ""
    user: str = ""
    baggage: str = ""
    agent: str = ""
    """The client's ``User-Agent``, shortened."""
    passing: Headers = ()
    """Headers of the client's that may go upstream."""
    span: ServerSpan | None = None
    trace: TraceContext | None = None
    """The position of ``span``, if the request is sampled."""
    task: Task[Any] | None = None
    """The one that carries it."""
    is_waiting: bool = False
    """For a decision, a place or a pause before a repeat: nothing is under way upstream."""
    is_drained: bool = False
    """Set before the task is cancelled at the end of the drain, so that the end is told as what it is."""
    holds: Reservations | None = None
    """Of the quotas of its tenant and pool; None where neither has limits."""
    known: RequestProfile | None = None
    """What ``profile`` has made."""
    crashed: tuple[str, ...] = ()
    """The handlers that fell over it: a provider once for all its calls for bids, others each time."""

    @property
    def is_odd(self) -> bool:
        """Whether as many handlers have fallen over it as may: it is tried no further."""
        return len(self.crashed) >= CRASHES_MAX

    def has_felled(self, handler: str, fault: str) -> bool:
        """A question of it was not answered: note if ``handler`` fell over it. Whether it ``is_odd`` now."""
        if fault in FALLEN:
            self.crashed += (handler,)
        return self.is_odd

    def profile(self) -> RequestProfile:
        """What routing may know. Made once, for every round asks for it."""
        known = self.known
        if known is None:
            read = self.read
            known = self.known = RequestProfile(
                read.model,
                self.endpoint,
                read.stream,
                read.prompt_tokens,
                read.max_tokens,
                read.needs,
                self.tenant,
                self.user or read.user,
                self.hints,
                (),
                self.request.peer,
                self.agent,
                affinity_of(self.endpoint, read.parsed, read.prompt_tokens),
            )
        return known
