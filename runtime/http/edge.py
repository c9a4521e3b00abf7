"""The edge without its wire: reads a request, sends a courier with it, and knows what is under way.

Owns: the count of requests and the couriers' tasks.
Always: a request is counted from before its body is read until its answer is over, and once by how it ended: by its status if
all of its answer was given to the sink, be the client gone in the next moment; as gone if it left before. While draining
nothing new is taken; at the end of the drain what is left is told so and ended.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from messages.policy import NORMAL, PRIORITIES
from otel import names
from otel.live_spans import ServerSpan
from otel.propagation import IncomingTrace, parse_baggage, parse_traceparent
from otel.spans import Tracing
from runtime.config.settings import ServerSettings
from runtime.courier import problems
from runtime.courier.call import ClientCall, CourierHouse
from runtime.courier.courier import Courier
from runtime.courier.problems import Problem
from runtime.courier.results import STATUS_CLIENT_GONE, Ended
from runtime.courier.words import header_lines
from runtime.dialects.errors import error_body
from runtime.dialects.request import BadRequest, Endpoint, read_request
from runtime.http.errand import Errand, Host
from runtime.http.hints import BadHint, read_hints
from runtime.http.notes import NotedRequest, Notes, noted
from runtime.ports import ClientGone, EdgeRequest, EdgeSink, Headers, ReadySink

log = logging.getLogger("pointsman.edge")

REQUEST_ID_CHARACTERS_MAX = 128
ROUTES: dict[str, Endpoint] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}


Task = asyncio.Task[Any]


class Carrier(Protocol):
    """Who sees to a request."""

    def cancel(self) -> object:
        """End it."""


@dataclass(slots=True)
class _Refusal:
    """A request that cannot be."""

    problem: Problem
    request_id: str
    span: ServerSpan | None


_GONE = Ended(STATUS_CLIENT_GONE, "client_gone")
_BROKEN = Ended(500, "internal_error")


@dataclass(slots=True)
class EdgeCounters:
    """Requests by how they ended, since start."""

    requests: int = 0
    """For the models' endpoints, taken or not."""
    refused: int = 0
    """What was answered without looking for a provider: bad requests, unknown paths, all above ``server.max_requests``."""
    client_gone: int = 0
    fine: int = 0
    """Answered with 200, as most are: a number of its own is counted sooner than one in a map."""
    other: dict[int, int] = field(default_factory=dict)
    """By any other status."""

    @property
    def by_status(self) -> dict[int, int]:
        """What clients were answered with, and how many of them."""
        return {200: self.fine, **self.other} if self.fine else dict(self.other)

    def ended(self, status: int) -> None:
        """A request got ``status``; statuses are few, so the map stays small."""
        if status == 200:
            self.fine += 1
        elif status == STATUS_CLIENT_GONE:
            self.client_gone += 1
        elif 100 <= status <= 599:
            self.other[status] = self.other.get(status, 0) + 1


class Edge:
    """Takes requests for the models' endpoints."""

    def __init__(self, house: CourierHouse, settings: ServerSettings, rng: Random) -> None:
        self._house = house
        self._requests_max = settings.max_requests
        self._under_way: dict[Carrier, ClientCall | None] = {}
        """By who was admitted for it; None while the body is still to come."""
        self._count = 0
        self._own_id, self._own_ids = f"req-{rng.getrandbits(48):012x}-", 0
        """Of requests without an id: chance tells this daemon's from others', a count one from another."""
        self._idle: asyncio.Event | None = None
        self.counters = EdgeCounters()
        self.is_draining = False
        self.is_cut = False
        """Whatever is under way is ended, not finished."""

    @property
    def count(self) -> int:
        """Requests under way."""
        return self._count

    @property
    def tracing(self) -> Tracing:
        """Where spans are made."""
        return self._house.tracing

    def admit(self, carrier: Carrier) -> Problem | None:
        """Count a request in that ``carrier`` sees to, before its body is read. None: taken, and ``leave`` is owed."""
        self.counters.requests += 1
        if self.is_draining:
            self.refused(503)
            return problems.shutting_down()
        if self._count >= self._requests_max:
            self.refused(503)
            text = f"Pointsman has {self._count} requests under way, its limit (server.max_requests)."
            return Problem(503, "overloaded", text, None, 1.0)
        self._count += 1
        self._under_way[carrier] = None
        return None

    def leave(self, carrier: Carrier) -> None:
        """Count a request out."""
        self._count -= 1
        del self._under_way[carrier]
        if self._idle is not None and not self._count:
            self._idle.set()

    def refused(self, status: int) -> None:
        """Count an answer that was given without looking for a provider."""
        self.counters.refused += 1
        self.counters.ended(status)

    def left(self, *, is_here: bool) -> None:
        """Count a request that ended before its body: its client left or, if it ``is_here``, is told that the daemon ends."""
        if self.is_cut and is_here:
            self.refused(503)
        else:
            self.counters.ended(STATUS_CLIENT_GONE)

    def shown(self) -> dict[str, Any]:
        """The counts as ``GET /admin/stats`` shows them."""
        counters = self.counters
        return {
            "requests": counters.requests,
            "refused": counters.refused,
            "client_gone": counters.client_gone,
            "in_flight": self._count,
            "by_status": {str(status): number for status, number in sorted(counters.by_status.items())},
        }

    async def serve(self, request: EdgeRequest, sink: EdgeSink, task: Task) -> None:
        """Answer one request, admitted for ``task``, in it. Raises ``asyncio.CancelledError``, when the client left."""
        opened = self._opened(request)
        if isinstance(opened, ClientCall):
            self._under_way[task] = opened
            await self.carry(Courier(self._house, opened, sink))
            return
        ended = _BROKEN
        try:
            ended = await refuse(sink, opened.problem, opened.request_id)
        except asyncio.CancelledError:
            ended = _GONE
            raise
        finally:
            self.closed(opened.span, ended)

    def errand(self, request: EdgeRequest, sink: ReadySink, host: Host) -> Errand | None:
        """One request, admitted for ``host``, to be started by it. None: it was refused, which the client has been told."""
        opened = self._opened(request)
        if isinstance(opened, ClientCall):
            self._under_way[host] = opened
            return Errand(self._house, opened, sink, self, host)
        ended = _BROKEN
        try:
            ended = refuse_now(sink, opened.problem, opened.request_id)
        finally:
            self.closed(opened.span, ended)
        return None

    async def carry(self, courier: Courier) -> None:
        """Answer a request in the task that runs."""
        call = courier.client
        call.task = asyncio.current_task()
        ended = _BROKEN
        try:
            ended = await courier.carry()
        except asyncio.CancelledError:
            ended = _GONE
            raise
        finally:
            self.closed(call.span, ended)

    def closed(self, span: ServerSpan | None, ended: Ended) -> None:
        """Count a request by how it ended."""
        self.counters.ended(ended.status)
        if span is not None:
            # A client's own 4xx is no error of ours (HTTP conventions); a stream that broke is, whatever its status was.
            span.end(ended.status, None if 400 <= ended.status < 500 else ended.error or None)

    def _opened(self, request: EdgeRequest) -> ClientCall | _Refusal:
        span = None
        tracing = self._house.tracing
        notes = request.notes if isinstance(request, NotedRequest) else noted(request.headers)
        if tracing.is_on:
            span = tracing.server_request(_incoming(notes), request.method, request.path)
        request_id = self._request_id(notes.request_id)
        try:
            found = self._read(request, notes, request_id)
        except BaseException:
            self.closed(span, _BROKEN)
            raise
        if isinstance(found, Problem):
            self.counters.refused += 1
            return _Refusal(found, request_id, span)
        if span is not None:
            found.span, found.trace = span, span.context
            if found.tenant:
                span.set(names.TENANT, found.tenant)
            if found.hints.priority != NORMAL:
                span.set(names.PRIORITY, PRIORITIES[found.hints.priority])
        return found

    def _read(self, request: EdgeRequest, notes: Notes, request_id: str) -> ClientCall | Problem:
        endpoint = ROUTES[request.path]
        try:
            read = read_request(endpoint, request.body)
            said = read_hints(notes)
        except BadRequest as error:
            return Problem(400, "invalid_request", error.message, error.param)
        except BadHint as wrong:
            return Problem(400, "invalid_request", str(wrong), wrong.header)
        now = self._house.clock.now()
        deadline_s = self._house.directory.routing.deadline_s
        if said.deadline_s is not None:
            deadline_s = min(deadline_s, said.deadline_s)
        return ClientCall(
            endpoint,
            request,
            read,
            said.hints,
            self._house.next_query_id(),
            request_id,
            now,
            now + deadline_s,
            said.tenant,
            said.user,
            parse_baggage(notes.baggage) if self._house.tracing.is_on else "",
            said.agent,
            notes.passing,
        )

    def _request_id(self, given: str) -> str:
        """The client's own id if it may stand in a header and a log line, else one of ours."""
        if given and len(given) <= REQUEST_ID_CHARACTERS_MAX and given.isascii() and given.isprintable():
            return given
        self._own_ids += 1
        return self._own_id + str(self._own_ids)

    async def drain(self, within_s: float) -> None:
        """Take nothing new, wait until all is done or ``within_s`` seconds are over, then end what is left.

        Who only waits for a place is told at once: nothing is lost, and the time is for those whose call is under way.
        """
        self.is_draining = True
        self._end(lambda call: call is not None and call.is_waiting)
        await self.settled(within_s)
        self.cut()

    async def settled(self, within_s: float) -> bool:
        """Wait until nothing is under way; False if that took more than ``within_s`` seconds."""
        if self._count:
            self._idle = self._idle or asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), within_s)
        return not self._count

    def cut(self) -> None:
        """End every request under way: streams get the error frame, others a 503."""
        self.is_draining = self.is_cut = True
        self._end(lambda call: True)

    def _end(self, is_due: Callable[[ClientCall | None], bool]) -> None:
        for carrier, call in list(self._under_way.items()):
            if not is_due(call):
                continue
            if call is None:
                carrier.cancel()
            elif not call.is_drained:
                call.is_drained = True
                carrier.cancel()


async def refuse(sink: EdgeSink, problem: Problem, request_id: str) -> Ended:
    """Send an error of our own."""
    try:
        await sink.whole(problem.status, _headers(problem, request_id), _body(problem))
    except ClientGone:
        return _GONE
    return Ended(problem.status, problem.code)


def refuse_now(sink: ReadySink, problem: Problem, request_id: str) -> Ended:
    """Send an error of our own, which is small."""
    try:
        sink.give(problem.status, header_lines(_headers(problem, request_id)), _body(problem))
    except ClientGone:
        return _GONE
    return Ended(problem.status, problem.code)


def _body(problem: Problem) -> bytes:
    return error_body(problem.message, problem.kind, problem.code, problem.param)


def _headers(problem: Problem, request_id: str) -> Headers:
    return [("content-type", "application/json"), *problem.headers(), ("x-request-id", request_id)]


def _incoming(notes: Notes) -> IncomingTrace | None:
    return parse_traceparent(notes.traceparent, notes.tracestate) if notes.traceparent else None
