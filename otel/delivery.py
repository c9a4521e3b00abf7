"""Delivery of spans to a collector that may be slow, dead or wrong, at no cost to requests, the log, or the shutdown.

The SDK's exporters try one batch for ten seconds and say so each time; while they do, the queue fills and each span more
is a line in the log. So ours rests after a failure: batches that come meanwhile are dropped and counted, at once.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags, TraceState

from messages.envelope import TraceContext
from otel.live_spans import LiveSpan
from otel.queue import Exporter

REST_MIN_S: Final = 1.0
REST_MAX_S: Final = 60.0
SDK_LOG_PERIOD_S: Final = 60.0

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
_ERROR: Final = Status(StatusCode.ERROR)

_log = logging.getLogger("pointsman.tracing")

_SDK_LOGGERS: Final = (
    "opentelemetry.attributes",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace",
    "opentelemetry.sdk.trace.export",
)
_HEADER_LOGGER: Final = "opentelemetry.util.re"
"""It prints the headers it cannot read, and those are secrets. We read them ourselves and say which one is wrong."""


class RestingExporter:
    """Passes batches to ``inner``; after a failure it drops them for 1 s, doubled with each further one up to 60 s.

    ``clock_s`` tells monotonic seconds. Used by the queue's thread.
    """

    def __init__(self, inner: Exporter, target: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._target = target
        self._clock_s = clock_s
        self._rest_s = 0.0
        self._rests_until = float("-inf")
        self._is_shut = False
        self.exported = 0
        """Spans the collector has taken."""
        self.dropped = 0
        """Spans that were not delivered."""

    def export(self, spans: Sequence[LiveSpan]) -> bool:
        """Deliver a batch, or drop it. Never raises."""
        if self._is_shut or self._clock_s() < self._rests_until:
            self.dropped += len(spans)
            return False
        try:
            is_taken = self._inner.export(spans)
        except Exception as error:
            # Whatever a transport raises, the next batch may fare better; its text may hold what it was sent.
            _log.debug("the exporter raised %s", type(error).__name__)
            is_taken = False
        if is_taken:
            self._succeeded(len(spans))
        else:
            self._failed(len(spans))
        return is_taken

    def shutdown(self) -> None:
        """Give up what is under way. A second call does nothing."""
        if not self._is_shut:
            self._is_shut = True
            self._inner.shutdown()

    def _succeeded(self, count: int) -> None:
        self.exported += count
        if self._rest_s:
            _log.info("traces are delivered to %s again; %d spans were dropped so far", self._target, self.dropped)
        self._rest_s = 0.0

    def _failed(self, count: int) -> None:
        self.dropped += count
        if self._is_shut:
            return
        if not self._rest_s:
            _log.warning("traces cannot be delivered to %s; they are dropped until it answers", self._target)
        self._rest_s = min(REST_MAX_S, max(REST_MIN_S, 2 * self._rest_s))
        self._rests_until = self._clock_s() + self._rest_s


class LogThrottle(logging.Filter):
    """Lets one record pass in each period, of all the loggers it is put on."""

    def __init__(self, period_s: float = SDK_LOG_PERIOD_S, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._period_s = period_s
        self._clock_s = clock_s
        self._next = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the record passes."""
        now = self._clock_s()
        if now < self._next:
            return False
        self._next = now + self._period_s
        return True


class _Silence(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return False


_throttle = LogThrottle()
_silence = _Silence()


def quiet_the_sdk() -> None:
    """Bound what the SDK may log. Once is enough, more does no harm."""
    for name in _SDK_LOGGERS:
        logging.getLogger(name).addFilter(_throttle)
    logging.getLogger(_HEADER_LOGGER).addFilter(_silence)


def translating(resource: Resource, scope: InstrumentationScope) -> Callable[[LiveSpan], ReadableSpan]:
    """A function that makes the SDK's span of one of ours that has ended: for exporters that know nothing else."""

    def translate(span: LiveSpan) -> ReadableSpan:
        shape = span.shape
        parent = _position(span.parent, is_remote=shape.is_parent_remote) if span.parent is not None else None
        return ReadableSpan(
            shape.name,
            _position(span.context),
            parent,
            resource,
            {**shape.attributes, **span.attributes},
            [Event(one.name, one.attributes, one.at_ns) for one in span.happenings],
            (Link(parent),) if shape.is_linked and parent is not None else (),
            shape.kind,
            status=_ERROR if span.is_error else _UNSET,
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=scope,
        )

    return translate


def _position(context: TraceContext, *, is_remote: bool = False) -> SpanContext:
    state = TraceState.from_header([context.tracestate]) if context.tracestate else None
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote, _SAMPLED, state)
