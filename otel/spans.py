"""The tracing the runtime uses: one server span a request, a span for each hop of its mail, one for each call upstream.

Owns: the decision to trace, and how spans hang together.
Always: parents are given, never looked up (actors interleave, so there is no current span); a request that is not sampled
makes no object here, and ``server_request`` answers None for it.
"""

import time
from collections.abc import Callable
from random import Random
from typing import Final

from opentelemetry.trace import SpanKind

from messages.envelope import TraceContext
from otel import names
from otel.live_spans import AttemptSpan, Clock, LiveSpan, ProcessSpan, ServerSpan, Shape, Value, bounded
from otel.propagation import IncomingTrace
from otel.sampling import Ids, Sampler

Emit = Callable[[LiveSpan], None]
"""Takes a span that has ended."""

SHAPES_MAX: Final = 2048
"""Shapes that are kept. There is one for each actor and kind of message, route, and way to call a provider: all few. Where
they are not, all are forgotten and made anew, for what a shape holds may come from a client."""


class Tracing:
    """Makes spans for sampled requests. For the thread of the event loop only, but for ``shutdown``.

    ``close`` is given the seconds it may take to deliver what is left; ``clock_ns`` tells Unix nanoseconds.
    """

    __slots__ = ("_clock_ns", "_close", "_emit", "_ids", "_is_on", "_sampler", "_shapes", "span_count")

    def __init__(
        self,
        emit: Emit,
        sampler: Sampler,
        ids: Ids,
        clock_ns: Clock = time.time_ns,
        close: Callable[[float], None] | None = None,
    ) -> None:
        self._emit = emit
        self._sampler = sampler
        self._ids = ids
        self._clock_ns = clock_ns
        self._close = close
        self._is_on = True
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self.span_count = 0
        """Span objects made since start."""

    @staticmethod
    def off() -> "Tracing":
        """Tracing for a daemon that has nowhere to send traces: no request is ever sampled."""
        chance = Random(0)
        tracing = Tracing(lambda span: None, Sampler(0.0, chance), Ids(chance))
        tracing._is_on = False
        return tracing

    @property
    def is_on(self) -> bool:
        """False: no request will be sampled, so a ``traceparent`` need not be read."""
        return self._is_on

    def server_request(
        self,
        incoming: IncomingTrace | None,
        method: str,
        route: str,
        path: str = "",
        *,
        scheme: str = "http",
    ) -> ServerSpan | None:
        """Begin a request, if it is to be traced: the first thing done with it, for this is the decision.

        ``route`` is the template that matched, ``path`` the path as it came if that differs.
        """
        if not self._is_on or not self._sampler.decide(incoming):
            return None
        own: dict[str, Value] = {}
        if path and path != route:
            # Anything may stand in a path, so it must not get into a shape.
            own[names.URL_PATH] = bounded(path)
        shape = self._shapes.get((method, route, scheme, not own))
        if shape is None:
            shape = self._keep((method, route, scheme, not own), _server_shape(method, route, scheme, is_path=not own))
        parent = None
        trace_id, tracestate = f"{self._ids.trace_id():032x}", ""
        if incoming is not None:
            trace_id, tracestate = incoming.trace_id, incoming.tracestate
            parent = TraceContext(trace_id, incoming.span_id, tracestate)
        return ServerSpan(shape, self._position(trace_id, tracestate), parent, own, self._emit, self._clock_ns)

    def process(self, actor: str, message_name: str, parent: TraceContext, queue_wait_s: float) -> ProcessSpan:
        """Begin an actor's turn with a traced message that has waited ``queue_wait_s`` seconds in its mailbox.

        The sender's span is the parent, so that a request is one readable tree, and is linked too, as consumers of
        messages are by the conventions. The wait is an attribute: the span begins when the actor does.
        """
        shape = self._shapes.get((actor, message_name))
        if shape is None:
            shape = self._keep((actor, message_name), _process_shape(actor, message_name))
        own: dict[str, Value] = {names.MAILBOX_WAIT_MS: queue_wait_s * 1000.0}
        return ProcessSpan(shape, self._below(parent), parent, own, self._emit, self._clock_ns)

    def attempt(
        self,
        parent: TraceContext,
        operation: str,
        model: str,
        provider_name: str,
        *,
        provider_id: str,
        attempt: int = 1,
        stream: bool = False,
        max_tokens: int | None = None,
        public_model: str = "",
        server_address: str = "",
        server_port: int | None = None,
    ) -> AttemptSpan:
        """Begin a call upstream, the request's ``attempt``-th (from 1).

        ``operation`` and ``provider_name`` as ``names.operation_name`` and ``names.provider_name`` give them; ``model`` is
        the name it has there, which is sent, and ``public_model`` the one it has here.
        """
        way = (operation, model, provider_name, provider_id, attempt, stream, public_model, server_address, server_port)
        shape = self._shapes.get(way)
        if shape is None:
            shape = self._keep(way, _attempt_shape(*way))
        own: dict[str, Value] = {} if max_tokens is None else {names.GEN_AI_REQUEST_MAX_TOKENS: max_tokens}
        return AttemptSpan(shape, self._below(parent), parent, own, self._emit, self._clock_ns)

    def shutdown(self, timeout_s: float) -> None:
        """Sample nothing more and deliver what is left, in at most ``timeout_s`` seconds. Blocks; never raises.

        Call it in a thread, when the last span has ended. A second call does nothing.
        """
        self._is_on = False
        close, self._close = self._close, None
        if close is not None:
            close(timeout_s)

    def _keep(self, key: tuple[object, ...], shape: Shape) -> Shape:
        if len(self._shapes) >= SHAPES_MAX:
            self._shapes.clear()
        self._shapes[key] = shape
        return shape

    def _position(self, trace_id: str, tracestate: str) -> TraceContext:
        """A new span's place in a trace."""
        self.span_count += 1
        return TraceContext(trace_id, f"{self._ids.span_id():016x}", tracestate)

    def _below(self, parent: TraceContext) -> TraceContext:
        """The place of a new child; where tracing is off there will be no span, and the parent's own place serves."""
        return self._position(parent.trace_id, parent.tracestate) if self._is_on else parent


def _server_shape(method: str, route: str, scheme: str, *, is_path: bool) -> Shape:
    """``is_path``: the route is the path as well."""
    attributes: dict[str, Value] = {names.HTTP_REQUEST_METHOD: method, names.URL_SCHEME: scheme}
    if is_path:
        attributes[names.URL_PATH] = route
    if route:
        attributes[names.HTTP_ROUTE] = route
    return Shape(names.server_span_name(method, route), SpanKind.SERVER, attributes)


def _process_shape(actor: str, message_name: str) -> Shape:
    template = names.destination_template(actor)
    attributes: dict[str, Value] = {
        names.MESSAGING_SYSTEM: names.ACTOR_SYSTEM,
        names.MESSAGING_OPERATION_NAME: names.PROCESS,
        names.MESSAGING_OPERATION_TYPE: names.PROCESS,
        names.MESSAGING_DESTINATION_NAME: actor,
        names.MESSAGING_DESTINATION_TEMPLATE: template,
        names.MESSAGE_TYPE: message_name,
    }
    return Shape(names.process_span_name(template), SpanKind.CONSUMER, attributes)


def _attempt_shape(
    operation: str,
    model: str,
    provider_name: str,
    provider_id: str,
    attempt: int,
    stream: bool,
    public_model: str,
    server_address: str,
    server_port: int | None,
) -> Shape:
    attributes: dict[str, Value] = {
        names.GEN_AI_OPERATION_NAME: operation,
        names.GEN_AI_PROVIDER_NAME: provider_name,
        names.GEN_AI_REQUEST_MODEL: model,
        names.GEN_AI_REQUEST_STREAM: stream,
        names.HTTP_REQUEST_METHOD: "POST",
        names.PROVIDER_ID: provider_id,
        names.ATTEMPT: attempt,
    }
    if attempt > 1:
        attributes[names.HTTP_REQUEST_RESEND_COUNT] = attempt - 1
    if public_model and public_model != model:
        attributes[names.PUBLIC_MODEL] = public_model
    if server_address:
        attributes[names.SERVER_ADDRESS] = server_address
        if server_port is not None:
            attributes[names.SERVER_PORT] = server_port
    return Shape(names.attempt_span_name(operation, model), SpanKind.CLIENT, attributes)
