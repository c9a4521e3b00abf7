"""A call on its way out: what is sent, when, and within what time it is to be answered.

Owns: the request of one permit's call, and the call while it is on its way.
Always: it is sent once. A call that was begun without waiting is gone on with by whoever waits for it, from where it is.
"""

from messages.calls import AttemptKind, Granted, Outcome
from messages.routing import Choice, RoutePlan
from otel import names
from otel.live_spans import AttemptSpan
from otel.propagation import outgoing_headers
from runtime.courier.call import ClientCall, CourierHouse
from runtime.courier.directory import Track
from runtime.courier.permission import Permission
from runtime.dialects.headers import request_headers
from runtime.dialects.splice import insert_include_usage, replace_model
from runtime.dialects.stream import UsageMode
from runtime.ports import Headers, Sent, UpstreamRequest

STREAM_FIRST_BYTE_S = 60.0
"""CONTRACT's default for ``timeouts.first_byte`` of streams."""

_NOT_SENT, _FAILED = Outcome.NOT_SENT, Outcome.FAILED
_FIRST = AttemptKind.FIRST
_REQUESTED, _ESTIMATE = UsageMode.REQUESTED, UsageMode.ESTIMATE
"""A global is read faster than a member of an enum."""


class Outgoing(Permission):
    """One call, up to its answer. ``begin``, for whoever is told of it; else it is sent where it is waited for."""

    def __init__(
        self,
        house: CourierHouse,
        call: ClientCall,
        plan: RoutePlan,
        choice: Choice,
        number: int,
        permit_id: str,
        kind: AttemptKind,
    ) -> None:
        super().__init__(house, call, plan, choice, permit_id, kind)
        self._number = number
        self._outcome = _NOT_SENT
        self._stalled_s = house.system.deadlines.stalled_s
        self._span: AttemptSpan | None = None
        self._mode = _ESTIMATE
        self._first_s = 0.0
        """Until status and headers must be here, from sending."""
        self._track: Track | None = None
        """Of a call that is under way: its provider may be removed meanwhile."""
        self.sent: Sent | None = None
        """A call that was begun without waiting for it."""

    def begin(self) -> bool:
        """Make the call, without waiting. False: not possible, nothing was sent."""
        track = self._house.directory.track_of_call(self.provider)
        if track is None or self._granted is None:
            return False
        request = self._prepared(track, self._granted)
        self._note_begin()
        self.sent = self._house.upstream.begin(request)
        if self.sent is None:
            self._outcome = _NOT_SENT
            return False
        self._track = track
        return True

    @property
    def begun_at(self) -> float:
        """When the call was sent (monotonic s)."""
        return self._begun_at

    @property
    def label(self) -> str:
        """What the client is told of the way of its answer (``Track.label``), of a request's first call that was begun."""
        track, plan = self._track, self._plan
        return track.label(plan.model, plan.strategy) if track is not None else ""

    def limit_s(self, track: Track) -> float:
        """Within what time of sending there must be an answer or, of a stream, its first content."""
        total_s = min(track.spec.timeouts.total_s, self._client.deadline - self._begun_at)
        return self._first_s if self._client.read.stream and self._first_s < total_s else total_s

    @property
    def answer_due_at(self) -> float:
        """When the time of a call that was begun is over (monotonic s)."""
        track = self._track
        return self._begun_at + (self.limit_s(track) if track is not None else 0.0)

    def _prepared(self, track: Track, granted: Granted) -> UpstreamRequest:
        client, times = self._client, track.spec.timeouts
        if client.trace is not None and self._span is None:
            self._span = self._open_span(track, granted)
        self._first_s = times.first_byte_s or (STREAM_FIRST_BYTE_S if client.read.stream else times.total_s)
        request, self._mode = self._request(track, granted, self._first_s)
        return request

    def _note_begin(self) -> None:
        begun_at = self._begun_at = self._house.clock.now()
        self._stalled_s = self._house.system.deadlines.stalled_until(begun_at)
        self._outcome = _FAILED

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
