"""Spans as OTLP wants them, at a tenth of what the SDK's encoder takes: that one makes an object for each attribute.

In the wire format of protobuf a message is its fields one after the other, in any order, and a repeated field is that field
several times. So what is the same in many spans (their shape, an attribute with a usual value, the resource) is encoded once
by protobuf's own classes, and its bytes are used again; what differs has a fixed length, all but the texts, which are encoded
by those classes each time.

Source: https://protobuf.dev/programming-guides/encoding/ and opentelemetry/proto/trace/v1/trace.proto.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope as PB2Scope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as PB2Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, SpanFlags, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind

from otel import names
from otel.live_spans import TEXT_LENGTH_MAX, Happening, LiveSpan, Shape, Value

KNOWN_MAX: Final = 4096
"""Encoded attributes that are kept; beyond that all are forgotten."""

PIECE_SPANS: Final = 32
"""Spans that are encoded at a stretch, in about 0.15 ms: meanwhile the thread of the requests has to wait."""

_UNUSUAL: Final = frozenset(
    {
        names.DECISION_ID,
        names.GEN_AI_RESPONSE_ID,
        names.GEN_AI_USAGE_INPUT_TOKENS,
        names.GEN_AI_USAGE_OUTPUT_TOKENS,
        names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
        names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
        names.URL_PATH,
    }
)
"""Attributes whose values hardly ever come again."""

_KINDS: Final = {
    SpanKind.SERVER: Span.SPAN_KIND_SERVER,
    SpanKind.CLIENT: Span.SPAN_KIND_CLIENT,
    SpanKind.CONSUMER: Span.SPAN_KIND_CONSUMER,
    SpanKind.PRODUCER: Span.SPAN_KIND_PRODUCER,
    SpanKind.INTERNAL: Span.SPAN_KIND_INTERNAL,
}

_LOCAL: Final[int] = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE: Final[int] = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_UNSET: Final = Span(status=Status()).SerializeToString()
_ERROR: Final = Span(status=Status(code=Status.STATUS_CODE_ERROR)).SerializeToString()

# A field that has a fixed length is its head, always the same, and the value.
_TRACE_ID: Final = Span(trace_id=bytes(16)).SerializeToString()[:-16]
_SPAN_ID: Final = Span(span_id=bytes(8)).SerializeToString()[:-8]
_PARENT_ID: Final = Span(parent_span_id=bytes(8)).SerializeToString()[:-8]
_TIMES: Final = Struct("<cQcQ")
_START: Final = Span(start_time_unix_nano=1).SerializeToString()[:-8]
_END: Final = Span(end_time_unix_nano=1).SerializeToString()[:-8]
_DOUBLE: Final = Struct("<d")

# A field that has not is its tag, a length, and the content.
_RESOURCE_SPANS: Final = ExportTraceServiceRequest(resource_spans=[ResourceSpans()]).SerializeToString()[:-1]
_SCOPE_SPANS: Final = ResourceSpans(scope_spans=[ScopeSpans()]).SerializeToString()[:-1]
_SPANS: Final = ScopeSpans(spans=[Span()]).SerializeToString()[:-1]

_log = logging.getLogger("pointsman.tracing")


class SpanEncoder:
    """Encodes batches of spans of one resource and one scope. For one thread at a time.

    ``pause`` is called after each 32 spans, to let other threads run: a whole batch at a stretch would hold up every
    request for 3 ms.
    """

    def __init__(self, resource: Resource, scope: InstrumentationScope, pause: Callable[[], None] | None = None) -> None:
        self._pause = pause
        of_resource = PB2Resource(attributes=[_key_value(*pair) for pair in resource.attributes.items()])
        of_scope = PB2Scope(
            name=scope.name,
            version=scope.version or "",
            attributes=[_key_value(*pair) for pair in (scope.attributes or {}).items()],
        )
        self._resource = ResourceSpans(resource=of_resource, schema_url=resource.schema_url).SerializeToString()
        self._scope = ScopeSpans(scope=of_scope, schema_url=scope.schema_url or "").SerializeToString()
        self._in_span = _Attributes(lambda pair: Span(attributes=[pair]).SerializeToString())
        self._in_event = _Attributes(lambda pair: Span.Event(attributes=[pair]).SerializeToString())
        self._states: dict[str, bytes] = {"": b""}

    def encode(self, spans: Sequence[LiveSpan]) -> bytes:
        """An ``ExportTraceServiceRequest``. A span that cannot be encoded is left out and does not cost the others."""
        parts = [self._scope]
        for position, span in enumerate(spans, start=1):
            if self._pause is not None and not position % PIECE_SPANS:
                self._pause()
            try:
                encoded = self._span(span)
            except Exception as error:
                # Only a mistake of ours gets here; its text may hold what a client sent.
                _log.debug("a span could not be encoded: %s", type(error).__name__)
                continue
            parts += (_SPANS, _varint(len(encoded)), encoded)
        scope = b"".join(parts)
        of_resource = b"".join((self._resource, _SCOPE_SPANS, _varint(len(scope)), scope))
        return b"".join((_RESOURCE_SPANS, _varint(len(of_resource)), of_resource))

    def _span(self, span: LiveSpan) -> bytes:
        shape, context, parent = span.shape, span.context, span.parent
        parts = [
            _position(context.trace_id, context.span_id),
            _TIMES.pack(_START, span.start_ns, _END, span.end_ns),
            shape.wire or _shaped(shape),
            self._states.get(context.tracestate) or self._state(context.tracestate),
            _ERROR if span.is_error else _UNSET,
        ]
        if parent is None:
            parts.append(_ROOT)
        else:
            above = _position(parent.trace_id, parent.span_id)
            parts += (_PARENT_ID, above[-8:], _ABOVE[shape.is_parent_remote])
            if shape.is_linked:
                parts += (_LINK[shape.is_parent_remote], above)
        if span.attributes:
            self._in_span.write(span.attributes, parts)
        for happening in span.happenings:
            parts.append(self._event(happening))
        return b"".join(parts)

    def _event(self, happening: Happening) -> bytes:
        parts: list[bytes] = [Span.Event(name=happening.name, time_unix_nano=happening.at_ns).SerializeToString()]
        self._in_event.write(happening.attributes, parts)
        encoded = b"".join(parts)
        return _EVENTS + _varint(len(encoded)) + encoded

    def _state(self, tracestate: str) -> bytes:
        if not tracestate:
            return b""
        if len(self._states) >= KNOWN_MAX // 16:
            self._states.clear()
        encoded: bytes = Span(trace_state=tracestate).SerializeToString()
        self._states[tracestate] = encoded
        return encoded


class _Attributes:
    """Writes attributes into one kind of message: ``wrap`` encodes a pair as that message would hold it."""

    def __init__(self, wrap: Callable[[KeyValue], bytes]) -> None:
        self._wrap = wrap
        self._known: dict[tuple[str, type, Value], bytes] = {}
        self._doubles: dict[str, bytes] = {}
        """The heads of pairs whose value is a float, by name."""

    def write(self, attributes: Mapping[str, Value], parts: list[bytes]) -> None:
        """Append all of them to ``parts``; one that cannot be encoded is left out, as the SDK does."""
        for name, value in attributes.items():
            kind = type(value)
            if kind is float:
                parts += (self._doubles.get(name) or self._double(name), _DOUBLE.pack(value))
            elif kind is list or name in _UNUSUAL:
                parts.append(self._encode(name, value))
            else:
                # By type too, for True is 1 to a dict.
                parts.append(self._known.get((name, kind, value)) or self._learn(name, value))

    def _double(self, name: str) -> bytes:
        if len(self._doubles) >= KNOWN_MAX:
            self._doubles.clear()
        head = self._doubles[name] = self._wrap(_key_value(name, 1.0))[: -_DOUBLE.size]
        return head

    def _learn(self, name: str, value: Value) -> bytes:
        encoded = self._encode(name, value)
        if _is_usual(value):
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[name, type(value), value] = encoded
        return encoded

    def _encode(self, name: str, value: Value) -> bytes:
        try:
            return self._wrap(_key_value(name, value))
        except (TypeError, ValueError):
            return b""


def _is_usual(value: Value) -> bool:
    """Small enough to be kept, and equal only to what has the same encoding."""
    if isinstance(value, tuple):
        return len(value) <= 8 and all(type(item) is str and len(item) <= TEXT_LENGTH_MAX for item in value)
    return not isinstance(value, str) or len(value) <= TEXT_LENGTH_MAX


def _key_value(name: str, value: object) -> KeyValue:
    return KeyValue(key=name, value=_any_value(value))


def _any_value(value: object) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, Sequence):
        return AnyValue(array_value=ArrayValue(values=[_any_value(item) for item in value]))
    raise TypeError(f"no attribute can be a {type(value).__name__}")


def _shaped(shape: Shape) -> bytes:
    """The part of a span that its shape tells, kept in the shape."""
    pairs = []
    for name, value in shape.attributes.items():
        try:
            pairs.append(_key_value(name, value))
        except (TypeError, ValueError):
            continue
    encoded: bytes = Span(name=shape.name, kind=_KINDS[shape.kind], attributes=pairs).SerializeToString()
    shape.wire = encoded
    return encoded


def _position(trace_id: str, span_id: str) -> bytes:
    """Both ids, as a span and a link have them in the same place."""
    of_trace, of_span = bytes.fromhex(trace_id), bytes.fromhex(span_id)
    if len(of_trace) != 16 or len(of_span) != 8:
        raise ValueError("an id has the wrong length")
    return b"".join((_TRACE_ID, of_trace, _SPAN_ID, of_span))


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


_EVENTS: Final[bytes] = Span(events=[Span.Event()]).SerializeToString()[:-1]
_ROOT: Final = Span(flags=_LOCAL).SerializeToString()
_ABOVE: Final = {False: _ROOT, True: Span(flags=_REMOTE).SerializeToString()}


def _link_head(flags: int) -> bytes:
    """A link up to its ids: the flags come first, so that what differs stands at the end."""
    ids = _position("0" * 32, "0" * 16)
    start: bytes = Span.Link(flags=flags).SerializeToString()
    tag: bytes = Span(links=[Span.Link()]).SerializeToString()[:-1]
    return tag + _varint(len(start) + len(ids)) + start


_LINK: Final = {False: _link_head(_LOCAL), True: _link_head(_REMOTE)}
