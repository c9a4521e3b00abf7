"""The tracing the runtime uses: one server span a request, a span for each hop of its mail, one for each call upstream.

Owns: the decision to trace, and how spans hang together.
Always: parents are given, never looked up (actors interleave, so there is no current span); a request that is not sampled
makes no object here, and ``server_request`` answers None for it.
"""

import time
from collections.abc import Callable, Sequence
from random import Random

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracer,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from messages.envelope import TraceContext
from otel import names
from otel.live_spans import AttemptSpan, Clock, ProcessSpan, ServerSpan, Value, bounded, bounded_all
from otel.propagation import IncomingTrace
from otel.sampling import Sampler

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NO_PARENT = Context()


class Tracing:
    """Makes spans for sampled requests. For the thread of the event loop only, but for ``shutdown``.

    ``close`` is given the seconds it may take to deliver what is left; ``clock_ns`` tells Unix nanoseconds.
    """

    __slots__ = ("_clock_ns", "_close", "_is_on", "_sampler", "_tracer", "span_count")

    def __init__(
        self,
        tracer: Tracer,
        sampler: Sampler,
        clock_ns: Clock = time.time_ns,
        close: Callable[[float], None] | None = None,
    ) -> None:
        self._tracer = tracer
        self._sampler = sampler
        self._clock_ns = clock_ns
        self._close = close
        self._is_on = True
        self.span_count = 0
        """Span objects made since start."""

    @staticmethod
    def off() -> "Tracing":
        """Tracing for a daemon that has nowhere to send traces: no request is ever sampled."""
        tracing = Tracing(NoOpTracer(), Sampler(0.0, Random(0)))
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
        attributes: dict[str, Value] = {
            names.HTTP_REQUEST_METHOD: method,
            names.URL_PATH: path or route,
            names.URL_SCHEME: scheme,
        }
        if route:
            attributes[names.HTTP_ROUTE] = route
        parent = _NO_PARENT
        if incoming is not None:
            parent = _parent(_position(incoming.trace_id, incoming.span_id, incoming.tracestate, is_remote=True))
        span = self._start(names.server_span_name(method, route), SpanKind.SERVER, parent, bounded_all(attributes))
        return ServerSpan(span, self._clock_ns)

    def process(self, actor: str, message_name: str, parent: TraceContext, queue_wait_s: float) -> ProcessSpan:
        """Begin an actor's turn with a traced message that has waited ``queue_wait_s`` seconds in its mailbox.

        The sender's span is the parent, so that a request is one readable tree, and is linked too, as consumers of
        messages are by the conventions. The wait is an attribute: the span begins when the actor does.
        """
        template = names.destination_template(actor)
        attributes: dict[str, Value] = {
            names.MESSAGING_SYSTEM: names.ACTOR_SYSTEM,
            names.MESSAGING_OPERATION_NAME: names.PROCESS,
            names.MESSAGING_OPERATION_TYPE: names.PROCESS,
            names.MESSAGING_DESTINATION_NAME: bounded(actor),
            names.MESSAGING_DESTINATION_TEMPLATE: template,
            names.MESSAGE_TYPE: message_name,
            names.MAILBOX_WAIT_MS: queue_wait_s * 1000.0,
        }
        sender = _position(parent.trace_id, parent.span_id, parent.tracestate)
        name = names.process_span_name(template)
        span = self._start(name, SpanKind.CONSUMER, _parent(sender), attributes, (Link(sender),))
        return ProcessSpan(span, self._clock_ns)

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
        if max_tokens is not None:
            attributes[names.GEN_AI_REQUEST_MAX_TOKENS] = max_tokens
        if public_model and public_model != model:
            attributes[names.PUBLIC_MODEL] = public_model
        if server_address:
            attributes[names.SERVER_ADDRESS] = server_address
            if server_port is not None:
                attributes[names.SERVER_PORT] = server_port
        name = str(bounded(names.attempt_span_name(operation, model)))
        sender = _position(parent.trace_id, parent.span_id, parent.tracestate)
        span = self._start(name, SpanKind.CLIENT, _parent(sender), bounded_all(attributes))
        return AttemptSpan(span, self._clock_ns)

    def shutdown(self, timeout_s: float) -> None:
        """Sample nothing more and deliver what is left, in at most ``timeout_s`` seconds. Blocks; never raises.

        Call it in a thread, when the last span has ended. A second call does nothing.
        """
        self._is_on = False
        close, self._close = self._close, None
        if close is not None:
            close(timeout_s)

    def _start(
        self, name: str, kind: SpanKind, parent: Context, attributes: dict[str, Value], links: Sequence[Link] = ()
    ) -> Span:
        self.span_count += 1
        return self._tracer.start_span(name, parent, kind, attributes, links, self._clock_ns())


def _position(trace_id: str, span_id: str, tracestate: str, *, is_remote: bool = False) -> SpanContext:
    state = TraceState.from_header([tracestate]) if tracestate else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, _SAMPLED, state)


def _parent(position: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(position), _NO_PARENT)
