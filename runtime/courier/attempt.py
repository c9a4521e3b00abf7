"""One attempt: a permit, one call upstream, the relay of its answer, and the permit's one end.

Owns: one permit, from its note in the table to its ``CallEnded``.
Always: ``end`` tells exactly one ``CallEnded`` for a permit that may have been granted, without waiting, however the attempt
went; none for one that was refused. Before the commit nothing has gone to the client.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from messages.calls import AttemptKind, CallEnded, ContentStarted, Granted, LimitsSeen, Outcome, Usage
from messages.control import TimeoutsSpec
from messages.failures import DEADLINE, Blame, Failure, Retry, Scope
from messages.routing import Choice, RoutePlan
from runtime.courier.call import ClientCall, CourierHouse
from runtime.courier.directory import Track
from runtime.courier.limit import Limit
from runtime.courier.outgoing import Outgoing
from runtime.courier.pace import allowed_s, tokens_held
from runtime.courier.relay import StreamRelay
from runtime.courier.results import Failed, Relayed, Whole
from runtime.dialects.answer import encoded, read_body
from runtime.dialects.errors import classify
from runtime.dialects.told import Told
from runtime.ports import CallFailed, ClientGone, EdgeSink, Headers, UpstreamAnswer
from runtime.timely import within

if TYPE_CHECKING:
    from runtime.courier.race import Race

ANSWER_BYTES_MAX = 256 * 1024 * 1024
ERROR_BYTES_MAX = 1024 * 1024
DRAIN_WRITE_S = 1.0
"""A client that does not take the last frame within this time at shutdown is cut without it."""

_DEADLINE = Failure(Blame.CLIENT, Scope.NONE, Retry.NEVER, DEADLINE)
"""The request's own time is over: says nothing about the provider but that it took at least so long."""
_NOT_SENT, _SUCCESS, _LOST_HEDGE = Outcome.NOT_SENT, Outcome.SUCCESS, Outcome.LOST_HEDGE
"""A global is read faster than a member of an enum."""


class Attempt(Outgoing):
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
        super().__init__(house, call, plan, choice, number, permit_id, kind)
        self._race: Race | None = None
        self.cut_as = Outcome.CANCELLED
        """What it is if it is called off."""
        self._failure: Failure | None = None
        self._usage: Usage | None = None
        self._cost_nusd: int | None = None
        self._limits: LimitsSeen | None = None
        self._status = 0
        self._ended_at: float | None = None
        self._content_s: float | None = None
        """How long the first content took, which may be held for a while yet."""
        self._first_content_s: float | None = None
        """Told once it is the client's."""
        self._late: Failure | None = None
        """What it means if the stream does not show its rate in time."""
        self._relay: StreamRelay | None = None
        self._result: Whole | Failed | None = None
        """Of a call that is over, though nobody has waited for it."""

    @property
    def is_drained(self) -> bool:
        """The daemon's time is up: who is cancelled has not left."""
        return self._client.is_drained

    async def call(self, sink: EdgeSink, headers: Headers, race: "Race | None" = None) -> Whole | Relayed | Failed:
        """Make the call and relay a stream to ``sink`` with our own ``headers``; other answers are returned.

        In a ``race`` the first content of a stream wins it. Raises ``ClientGone``, and ``asyncio.CancelledError`` as it comes.
        """
        self._race = race
        if self._result is not None:
            return self._result
        track = self._track or self._house.directory.track_of_call(self.provider)
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
            self._broke(error)
            raise
        return await self._drained()

    def _broke(self, error: Exception) -> None:
        """A mistake of ours, for which the provider is not to blame."""
        self._fail(Failure(Blame.US, Scope.NONE, Retry.NEVER, "internal_error", 0, None, type(error).__name__))

    def take(self) -> Whole | None:
        """The answer to a call that was begun, if all of it is here and a success. None: ``call``, which goes on from here.

        Raises what ``call`` would raise for a mistake of ours.
        """
        try:
            return self._take()
        except Exception as error:
            self._broke(error)
            raise

    def _take(self) -> Whole | None:
        track, answer = self._track, None if self.sent is None else self.sent.answer_at_hand()
        if answer is None or track is None or not 200 <= answer.status < 300:
            return None
        try:
            body = answer.take_whole(ANSWER_BYTES_MAX)
        except CallFailed as error:
            self.sent, self._result = None, self._fail(error.failure)
            return None
        if body is None:
            return None
        self.sent = None
        self._status, told = answer.status, answer.told
        self._limits = told.limits()
        result = self._result = self._whole(track, told, body)
        return result if isinstance(result, Whole) else None

    async def _send(self, track: Track, granted: Granted, sink: EdgeSink, headers: Headers) -> Whole | Relayed | Failed:
        client, times, deadlines = self._client, track.spec.timeouts, self._house.system.deadlines
        sent, self.sent = self.sent, None
        if sent is None:
            request = self._prepared(track, granted)
            self._note_begin()
        # Only calls beside the first one have a task of their own.
        task = client.task if self._race is None or self._race.is_first(self) else None
        left_s, limit_s = client.deadline - self._begun_at, self.limit_s(track)
        limited = Limit(deadlines, self._begun_at + limit_s, task, client.deadline)
        if sent is not None:
            limited.began(self._stalled_s)
        try:
            with limited as limit:
                answer = await (self._house.upstream.call(request) if sent is None else sent.answer())
                try:
                    self._status = answer.status
                    told = answer.told
                    self._limits = told.limits()
                    if not 200 <= self._status < 300:
                        return await self._refused_upstream(answer)
                    if not client.read.stream:
                        body = answer.take_whole(ANSWER_BYTES_MAX)
                        return self._whole(track, told, await answer.read(ANSWER_BYTES_MAX) if body is None else body)
                    begun, committed = partial(self._content_begun, limit, times), partial(self._committed, limit, times)
                    self._relay = StreamRelay(answer, sink, self._mode, headers, begun, committed, tokens_held(times))
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
            return Whole(answer.status, answer.told.passing, body)
        return self._fail(failure)

    def _whole(self, track: Track, told: Told, body: bytes) -> Whole | Failed:
        client, status = self._client, self._status
        understood = encoded(status) if told.is_encoded else read_body(client.endpoint, status, body, client.read.prompt_tokens)
        if isinstance(understood, Failure):
            return self._fail(understood)
        self._succeed(track, understood.usage)
        if self._span is not None:
            self._span.response(understood.response_id, understood.model, understood.finish_reasons)
        return Whole(status, told.passing, body, self._cost_nusd)

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
        started = ContentStarted(self.permit_id, first_s)
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
        house.permits.end(self.permit_id)
        # They know this attempt: with a ring of them a request would live, body and all, until the collector comes round.
        self._race, self._relay = None, None
        if self.sent is not None:
            self.sent.drop()
            self.sent = None
        self._forget_question()
        if not self._owes_end:
            return
        self._owes_end = False
        ended_at = self._ended_at if self._ended_at is not None else house.clock.now()
        ended = CallEnded(
            self.permit_id,
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
