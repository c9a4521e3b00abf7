"""One attempt: a permit, one call upstream, the relay of its answer, and the permit's one end.

Owns: one permit, from its note in the table to its ``CallEnded``.
Always: ``end`` tells exactly one ``CallEnded`` for a permit that may have been granted, without waiting, however the attempt
went; none for one that was refused. Before the commit nothing has gone to the client.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from messages.calls import (
    AttemptKind,
    CallEnded,
    ContentStarted,
    Granted,
    LimitsSeen,
    Outcome,
    Usage,
)
from messages.control import TimeoutsSpec
from messages.failures import DEADLINE, Blame, Failure, Retry, Scope
from messages.routing import Choice, RoutePlan
from otel import names
from otel.live_spans import AttemptSpan
from otel.propagation import outgoing_headers
from runtime.courier.call import ClientCall, CourierHouse
from runtime.courier.directory import Track
from runtime.courier.limit import Limit
from runtime.courier.pace import allowed_s, tokens_held
from runtime.courier.permission import Permission
from runtime.courier.relay import StreamRelay
from runtime.courier.results import Failed, Relayed, Whole
from runtime.dialects.answer import read_answer
from runtime.dialects.errors import classify
from runtime.dialects.headers import request_headers, response_headers
from runtime.dialects.limits import limits_seen
from runtime.dialects.splice import insert_include_usage, replace_model
from runtime.dialects.stream import UsageMode
from runtime.ports import CallFailed, ClientGone, EdgeSink, Headers, UpstreamAnswer, UpstreamRequest
from runtime.timely import within

if TYPE_CHECKING:
    from runtime.courier.race import Race

ANSWER_BYTES_MAX = 256 * 1024 * 1024
ERROR_BYTES_MAX = 1024 * 1024
DRAIN_WRITE_S = 1.0
"""A client that does not take the last frame within this time at shutdown is cut without it."""
STREAM_FIRST_BYTE_S = 60.0
"""CONTRACT's default for ``timeouts.first_byte`` of streams."""

_DEADLINE = Failure(Blame.CLIENT, Scope.NONE, Retry.NEVER, DEADLINE)
"""The request's own time is over: says nothing about the provider but that it took at least so long."""
_NOT_SENT, _FAILED, _SUCCESS, _LOST_HEDGE = Outcome.NOT_SENT, Outcome.FAILED, Outcome.SUCCESS, Outcome.LOST_HEDGE
_FIRST, _EXPLORE = AttemptKind.FIRST, AttemptKind.EXPLORE
_REQUESTED, _ESTIMATE = UsageMode.REQUESTED, UsageMode.ESTIMATE
"""A global is read faster than a member of an enum."""


class Attempt(Permission):
    """One attempt at one provider. ``award``, then ``call`` if granted, and ``end`` in any case."""

    def __init__(
        self,
        house: CourierHouse,
        call: ClientCall,
        plan: RoutePlan,
        choice: Choice,
        number: int,
        permit_id: str,
        kind: AttemptKind = AttemptKind.FIRST,
    ) -> None:
        super().__init__(house, call, plan, choice, permit_id, kind)
        self._number = number
        self._race: Race | None = None
        self.cut_as = Outcome.CANCELLED
        """What it is if it is called off."""
        self._outcome = _NOT_SENT
        self._failure: Failure | None = None
        self._usage: Usage | None = None
        self._cost_nusd: int | None = None
        self._limits: LimitsSeen | None = None
        self._status = 0
        self._stalled_s = house.system.deadlines.stalled_s
        self._ended_at: float | None = None
        self._content_s: float | None = None
        """How long the first content took, which may be held for a while yet."""
        self._first_content_s: float | None = None
        """Told once it is the client's."""
        self._late: Failure | None = None
        """What it means if the stream does not show its rate in time."""
        self._span: AttemptSpan | None = None
        self._relay: StreamRelay | None = None

    @property
    def is_drained(self) -> bool:
        """The daemon's time is up: who is cancelled has not left."""
        return self._client.is_drained

    async def call(self, sink: EdgeSink, headers: Headers, race: "Race | None" = None) -> Whole | Relayed | Failed:
        """Make the call and relay a stream to ``sink`` with our own ``headers``; other answers are returned.

        In a ``race`` the first content of a stream wins it. Raises ``ClientGone``, and ``asyncio.CancelledError`` as it comes.
        """
        self._race = race
        track = self._house.directory.track_of_call(self.provider)
        if track is None or self._granted is None:
            return self._fail(Failure(Blame.US, Scope.NONE, Retry.ELSEWHERE, "provider_removed"))
        try:
            return await self._send(track, self._granted, sink, headers)
        except ClientGone:
            self._called_off(track, Outcome.CANCELLED)
            raise
        except asyncio.CancelledError:
            if self.cut_as is _LOST_HEDGE or not self._client.is_drained:
                self._called_off(track, self.cut_as)
                raise
            self._called_off(track, Outcome.DRAINED)
        except Exception as error:
            self._fail(Failure(Blame.US, Scope.NONE, Retry.NEVER, "internal_error", 0, None, type(error).__name__))
            raise
        return await self._drained()

    async def _send(self, track: Track, granted: Granted, sink: EdgeSink, headers: Headers) -> Whole | Relayed | Failed:
        client, clock = self._client, self._house.clock
        if client.trace is not None:
            self._span = self._open_span(track, granted)
        times = track.spec.timeouts
        is_stream = client.read.stream
        first_s = (times.first_byte_s or STREAM_FIRST_BYTE_S) if is_stream else (times.first_byte_s or times.total_s)
        request, mode = self._request(track, granted, first_s)
        deadlines, begun_at = self._house.system.deadlines, clock.now()
        self._begun_at, self._stalled_s = begun_at, deadlines.stalled_until(begun_at)
        self._outcome = _FAILED
        # Only calls beside the first one have a task of their own.
        task = client.task if self._race is None or self._race.is_first(self) else None
        left_s = client.deadline - begun_at
        limit_s = min(times.total_s, left_s)
        if is_stream and first_s < limit_s:
            limit_s = first_s
        try:
            with Limit(deadlines, begun_at + limit_s, task, client.deadline) as limit:
                answer = await self._house.upstream.call(request)
                try:
                    self._status = answer.status
                    self._limits = limits_seen(answer.headers)
                    if not 200 <= answer.status < 300:
                        return await self._refused_upstream(answer)
                    if not is_stream:
                        return self._whole(track, answer, await answer.read(ANSWER_BYTES_MAX))
                    begun, committed = partial(self._content_begun, limit, times), partial(self._committed, limit, times)
                    self._relay = StreamRelay(answer, sink, mode, headers, begun, committed, tokens_held(times))
                    return self._relayed(track, self._relay, await self._relay.run())
                finally:
                    answer.close()
        except TimeoutError:
            failure = self._timeout_failure(left_s, limit_s, has_content=self._first_content_s is not None)
        except CallFailed as error:
            failure = error.failure
        if self._relay is not None and self._relay.is_committed:
            await self._relay.break_off(failure)
            return self._relayed(track, self._relay, failure)
        return self._fail(failure)

    def _open_span(self, track: Track, granted: Granted) -> AttemptSpan:
        client = self._client
        trace, read = client.trace, client.read
        assert trace is not None
        span = self._house.tracing.attempt(
            trace,
            names.operation_name(client.endpoint),
            granted.upstream_model,
            track.system,
            provider_id=self.provider,
            attempt=self._number,
            stream=read.stream,
            max_tokens=read.max_tokens,
            public_model=self._plan.model,
            server_address=track.host,
            server_port=track.port,
        )
        if self._kind is not _FIRST:
            span.kind(self._kind)
        return span

    async def _drained(self) -> Relayed:
        """The daemon's time is up: a stream that has begun is told so; anything else is the courier's to answer."""
        if self._relay is None or not self._relay.is_committed:
            raise asyncio.CancelledError
        failure = Failure(Blame.US, Scope.NONE, Retry.NEVER, "shutting_down", 0, None, "Pointsman is shutting down")
        try:
            await within(DRAIN_WRITE_S, self._relay.break_off(failure))
        except TimeoutError:
            raise ClientGone("took no byte of the last frame") from None
        return Relayed(failure)

    def _request(self, track: Track, granted: Granted, first_s: float) -> tuple[UpstreamRequest, UsageMode]:
        client = self._client
        read = client.read
        body = replace_model(read.body, read.parsed, granted.upstream_model, read.outline)
        mode = _REQUESTED if read.wants_usage else _ESTIMATE
        if read.stream and not read.has_stream_options and track.spec.stream_usage == "insert":
            body = insert_include_usage(body, read.parsed)
            mode = UsageMode.INSERTED
        trace: Headers = ()
        if track.spec.trusted:
            trace = outgoing_headers(self._span.context if self._span is not None else None, client.baggage)
        headers = track.stream_headers if read.stream else track.whole_headers
        if client.passing or trace:
            headers = request_headers(track.headers, client.passing, is_stream=read.stream, trace=trace)
        times = track.spec.timeouts
        url = track.urls[client.endpoint]
        transport = track.spec.transport
        return UpstreamRequest("POST", url, headers, body, times.connect_s, first_s, times.idle_s, transport), mode

    async def _refused_upstream(self, answer: UpstreamAnswer) -> Whole | Failed:
        try:
            body = await answer.read(ERROR_BYTES_MAX)
        except CallFailed as error:
            if error.failure.code != "too_large":
                raise
            body = b""
        on_status = self._house.directory.routing.failover.on_status
        failure = classify(answer.status, answer.headers, body, on_status, self._house.clock.wall())
        if failure.blame is Blame.CLIENT and failure.retry is Retry.NEVER:
            self._fail(failure)
            return Whole(answer.status, response_headers(answer.headers), body)
        return self._fail(failure)

    def _whole(self, track: Track, answer: UpstreamAnswer, body: bytes) -> Whole | Failed:
        client = self._client
        understood = read_answer(client.endpoint, answer.status, answer.headers, body, client.read.prompt_tokens)
        if isinstance(understood, Failure):
            return self._fail(understood)
        self._succeed(track, understood.usage)
        if self._span is not None:
            self._span.response(understood.response_id, understood.model, understood.finish_reasons)
        return Whole(answer.status, response_headers(answer.headers), body, self._cost_nusd)

    def _relayed(self, track: Track, relay: StreamRelay, failure: Failure | None) -> Relayed:
        reader = relay.reader
        usage = reader.usage(self._client.read.prompt_tokens)
        if failure is None:
            self._succeed(track, usage)
        else:
            self._fail(failure)
            self._note_usage(track, usage)
        if self._span is not None:
            self._span.response(reader.response_id, reader.model, reader.finish_reasons)
        return Relayed(failure)

    def _content_begun(self, limit: Limit, times: TimeoutsSpec) -> None:
        """The first content is here. If it is held, the stream has so much time to show its rate."""
        now = self._house.clock.now()
        self._content_s = self._took_s(now)
        rate_s = allowed_s(times)
        if rate_s is None:
            return
        total_at, deadline = self._begun_at + times.total_s, self._client.deadline
        limit.move(min(now + rate_s, total_at, deadline))
        if now + rate_s < min(total_at, deadline):
            detail = f"fewer than {times.min_tokens_per_s:g} tokens/s"
            self._late = Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.ELSEWHERE, "too_slow", self._status, None, detail)
        else:
            self._late = _DEADLINE if deadline <= total_at else self._silence("total_timeout", times.total_s)

    def _committed(self, limit: Limit, times: TimeoutsSpec) -> None:
        """The commit: the time until the first content is over, a race is won, and only the attempt's whole time counts."""
        if self._race is not None:
            self._race.win(self)
        first_s = self._first_content_s = self._took_s(self._house.clock.now()) if self._content_s is None else self._content_s
        limit.move(self._begun_at + times.total_s)
        started = ContentStarted(self._permit_id, first_s)
        self._house.system.tell(self._address, started, self._client.trace, "courier")
        if self._span is not None:
            self._span.first_chunk(first_s)

    def _took_s(self, at: float) -> float:
        """Seconds from sending until ``at``, without those in which the daemon itself stood still."""
        return max(0.0, at - self._begun_at - self._house.system.deadlines.stalled_until(at) + self._stalled_s)

    def _timeout_failure(self, left_s: float, limit_s: float, *, has_content: bool) -> Failure:
        if self._relay is not None and self._relay.is_writing:
            detail = "the client took the answer more slowly than its time allows"
            return Failure(Blame.CLIENT, Scope.NONE, Retry.NEVER, "client_too_slow", self._status, None, detail)
        if has_content:
            return Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.NEVER, "total_timeout", self._status)
        if self._late is not None:
            return self._late
        if left_s <= limit_s or self._house.clock.now() >= self._client.deadline:
            return _DEADLINE
        return self._silence("first_byte_timeout" if self._client.read.stream else "total_timeout", limit_s)

    def _silence(self, code: str, limit_s: float) -> Failure:
        # It has had the request and may bill it, so it is not asked again.
        detail = f"nothing within {limit_s:g} s"
        return Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.ELSEWHERE, code, self._status, None, detail)

    def _succeed(self, track: Track, usage: Usage) -> None:
        self._outcome = _SUCCESS
        self._ended_at = self._house.clock.now()
        self._note_usage(track, usage)

    def _note_usage(self, track: Track, usage: Usage) -> None:
        self._usage = usage
        self._cost_nusd = track.cost_nusd(self._plan.model, usage.input_tokens, usage.output_tokens)

    def _called_off(self, track: Track, outcome: Outcome) -> None:
        """It goes no further. What is paid for it nobody tells: the prompt, and what was read of the answer."""
        self._outcome = outcome
        prompt_tokens = self._client.read.prompt_tokens
        unread = Usage(prompt_tokens, 0, estimated=True)
        self._note_usage(track, self._relay.reader.usage(prompt_tokens) if self._relay is not None else unread)

    def _fail(self, failure: Failure) -> Failed:
        self._failure = failure
        self._ended_at = self._house.clock.now()
        return Failed(failure)

    def end(self) -> None:
        """The permit's one end. Never waits, never raises; a second call does nothing."""
        house = self._house
        house.permits.end(self._permit_id)
        # They know this attempt: with a ring of them a request would live, body and all, until the collector comes round.
        self._race, self._relay = None, None
        self._forget_question()
        if not self._owes_end:
            return
        self._owes_end = False
        ended_at = self._ended_at if self._ended_at is not None else house.clock.now()
        ended = CallEnded(
            self._permit_id,
            self._client.query_id,
            self.provider,
            self._plan.model,
            self._outcome,
            self._client.read.stream,
            self._took_s(ended_at),
            self._first_content_s,
            self._failure,
            self._usage,
            self._cost_nusd,
            self._limits,
            self._number,
            self._failure is not None and self._first_content_s is not None,
            self._status,
            self._kind,
        )
        if self._client.holds is not None:
            self._client.holds.spent(self._outcome, self._usage, self._failure, self._tokens)
        trace, is_sent = self._client.trace, self._outcome is not _NOT_SENT
        if is_sent and trace is None:
            house.system.tell_all((self._address, house.router, house.aggregator), ended, "courier")
        else:
            house.system.tell(self._address, ended, trace, "courier")
            if is_sent:
                # Bookkeeping, no part of the request's way: not traced.
                house.system.tell_all((house.router, house.aggregator), ended, "courier")
        if self._span is not None:
            if self._usage is not None:
                self._span.usage(self._usage)
            error = self._failure.code if self._failure is not None else self._outcome.value
            self._span.end(None if self._outcome is _SUCCESS else error, self._status)
