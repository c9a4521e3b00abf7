"""Our encoding says what the SDK's says, for every span there can be; it is only cheaper."""

import logging
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind

from messages.calls import Usage
from messages.envelope import TraceContext
from messages.routing import LeftOut
from otel import encoding, names
from otel.delivery import translating
from otel.encoding import PIECE_SPANS, SpanEncoder
from otel.live_spans import Happening, LiveSpan, Shape, Value
from otel.propagation import IncomingTrace
from otel.sampling import Ids, Sampler
from otel.spans import SHAPES_MAX, Tracing

RESOURCE = Resource({"service.name": "pointsman", "zone": "eü"}, "https://opentelemetry.io/schemas/1.0.0")
SCOPE = InstrumentationScope("pointsman", "0.1.0")

NAMES = st.one_of(st.sampled_from([names.URL_PATH, names.DECISION_ID, names.ERROR_TYPE, "a"]), st.text(min_size=1, max_size=8))
TEXTS = st.one_of(st.text(max_size=20), st.text(max_size=3).map(lambda text: text * 400))
INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES: st.SearchStrategy[Value] = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-1, 1),
    INTEGERS,
    st.sampled_from([0.0, -0.0, 1.0, float("inf")]),
    st.floats(allow_nan=False),
    st.lists(TEXTS, max_size=4),
    st.lists(TEXTS, max_size=40).map(tuple),
)
ATTRIBUTES = st.dictionaries(NAMES, VALUES, max_size=6)
TIMES = st.integers(0, 2**64 - 1)


def hex_id(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


CONTEXTS = st.builds(TraceContext, hex_id(32), hex_id(16), st.sampled_from(["", "vendor=1", "a=1,b=2"]))
HAPPENINGS = st.lists(st.builds(Happening, TEXTS, ATTRIBUTES, TIMES), max_size=3)


@st.composite
def spans(draw: st.DrawFn) -> LiveSpan:
    """Any span that has ended."""
    shape = Shape(draw(TEXTS), draw(st.sampled_from(list(SpanKind))), draw(ATTRIBUTES))
    own = {name: value for name, value in draw(ATTRIBUTES).items() if name not in shape.attributes}
    start_ns = draw(TIMES)
    span = LiveSpan(shape, draw(CONTEXTS), draw(st.none() | CONTEXTS), own, lambda span: None, lambda: start_ns)
    span.end_ns = draw(TIMES)
    span.is_error = draw(st.booleans())
    span.happenings = draw(HAPPENINGS)
    return span


def decoded(encoder: SpanEncoder, batch: list[LiveSpan]) -> ExportTraceServiceRequest:
    """What a collector gets of our bytes."""
    request = ExportTraceServiceRequest()
    request.ParseFromString(encoder.encode(batch))
    return request


def by_the_sdk(batch: list[LiveSpan]) -> ExportTraceServiceRequest:
    translate = translating(RESOURCE, SCOPE)
    return encode_spans([translate(span) for span in batch])


def found(request: ExportTraceServiceRequest) -> list[Span]:
    return [span for group in request.resource_spans for scope in group.scope_spans for span in scope.spans]


@given(st.lists(spans(), min_size=1, max_size=4))
def test_any_spans_are_to_a_collector_what_the_sdks_encoder_makes_of_them(batch: list[LiveSpan]) -> None:
    encoder = SpanEncoder(RESOURCE, SCOPE)
    assert decoded(encoder, batch) == by_the_sdk(batch)
    # And again, now that all there is to be kept is kept.
    assert decoded(encoder, batch) == by_the_sdk(batch)


def played(tracing: Tracing, decision_id: str) -> None:
    """A request as the runtime traces it, with everything a span of ours may say."""
    incoming = IncomingTrace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=True, tracestate="vendor=1")
    server = tracing.server_request(incoming, "POST", "/v1/chat/completions")
    assert server is not None
    router = tracing.process("router", "RouteQuery", server.context, 0.001)
    for provider in ("a", "b", "c"):
        tracing.process(f"provider:{provider}", "CallForBids", router.context, 0.0005).end()
    router.end("KeyError")
    server.decision(decision_id, strategy="adaptive", chosen=("a", "b"), generation=1, left_out=[LeftOut("c", "tags")])
    failed = tracing.attempt(server.context, "chat", "gpt-4o", "openai", provider_id="a", server_address="a.test")
    failed.end("http_503", status=503)
    good = tracing.attempt(server.context, "chat", "gpt-4o", "groq", provider_id="b", attempt=2, stream=True, max_tokens=9)
    good.first_chunk(0.125)
    good.response("chatcmpl-1", "gpt-4o", ["stop"])
    good.usage(Usage(12, 34, cache_read_tokens=5))
    good.end(None, status=200)
    server.end(200)
    other = tracing.server_request(None, "GET", "", "/über/all")
    assert other is not None
    other.end(503)


def a_tracing(kept: list[LiveSpan]) -> Tracing:
    return Tracing(kept.append, Sampler(1.0, Random(1)), Ids(Random(2)))


def test_requests_as_we_trace_them_are_too_and_each_shape_is_encoded_once() -> None:
    kept: list[LiveSpan] = []
    tracing = a_tracing(kept)
    for number in range(3):
        played(tracing, f"d{number}")
    assert decoded(SpanEncoder(RESOURCE, SCOPE), kept) == by_the_sdk(kept)
    assert len(kept) == 24
    assert len({id(span.shape) for span in kept}) == 8


def test_a_value_that_another_type_calls_equal_keeps_its_own_type() -> None:
    encoder = SpanEncoder(RESOURCE, SCOPE)
    values: list[Value] = [True, 1, 1.0, False, 0, 0.0, -0.0, "1", ("1",)]
    batch = [a_span({"a": value}) for value in values]
    assert decoded(encoder, batch) == by_the_sdk(batch)
    assert [repr(value) for value in told(decoded(encoder, batch))] == [repr(value) for value in told(by_the_sdk(batch))]


def told(request: ExportTraceServiceRequest) -> Iterable[object]:
    return [span.attributes[0].value for span in found(request)]


def a_span(attributes: dict[str, Value], trace_id: str = "1" * 32) -> LiveSpan:
    shape = Shape("one", SpanKind.SERVER, {})
    span = LiveSpan(shape, TraceContext(trace_id, "2" * 16), None, attributes, lambda span: None, lambda: 1)
    span.end_ns = 2
    return span


def test_a_span_that_cannot_be_encoded_does_not_cost_the_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bad = [a_span({}, "secret"), a_span({}, "11"), a_span({})]
    bad[2].end_ns = -1
    sent = found(decoded(SpanEncoder(RESOURCE, SCOPE), [*bad, a_span({"good": True})]))
    assert [span.attributes[0].key for span in sent] == ["good"]
    assert "secret" not in caplog.text


def test_others_may_run_after_each_piece_of_a_batch() -> None:
    pauses: list[int] = []
    encoder = SpanEncoder(RESOURCE, SCOPE, lambda: pauses.append(1))
    encoder.encode([a_span({})] * (3 * PIECE_SPANS + 1))
    assert len(pauses) == 3


def test_an_attribute_that_cannot_be_encoded_does_not_cost_its_span() -> None:
    batch = [a_span({"huge": 2**70, "broken": "\ud800", "good": True})]
    (span,) = found(decoded(SpanEncoder(RESOURCE, SCOPE), batch))
    assert [pair.key for pair in span.attributes] == ["good"]


def test_what_the_encoder_keeps_is_bounded_and_goes_on_to_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "KNOWN_MAX", 32)
    encoder = SpanEncoder(RESOURCE, SCOPE)
    batch = [a_span({"text": f"t{number}", f"double{number}": 0.5, "long": "x" * 10_000}) for number in range(100)]
    assert decoded(encoder, batch) == by_the_sdk(batch)
    kept = encoder._in_span
    assert len(kept._known) <= 32
    assert len(kept._doubles) <= 32
    assert all(len(encoded) < 1000 for encoded in kept._known.values())


def test_tracestates_that_are_kept_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "KNOWN_MAX", 160)
    encoder = SpanEncoder(RESOURCE, SCOPE)
    batch = [a_span({}) for _ in range(100)]
    for number, span in enumerate(batch):
        span.context = TraceContext("1" * 32, "2" * 16, f"vendor={number}" if number % 2 else "")
    assert decoded(encoder, batch) == by_the_sdk(batch)
    assert len(encoder._states) <= 10


def test_shapes_are_bounded_and_no_path_gets_into_one() -> None:
    kept: list[LiveSpan] = []
    tracing = a_tracing(kept)
    server = tracing.server_request(None, "GET", "")
    assert server is not None
    for number in range(SHAPES_MAX + 10):
        tracing.process(f"provider:{number}", "CallForBids", server.context, 0.0)
    assert len(tracing._shapes) <= SHAPES_MAX
    paths = [tracing.server_request(None, "GET", "", f"/{number}") for number in range(10)]
    assert len({id(span.shape) for span in paths if span is not None}) == 1


def test_what_the_shape_says_already_can_be_said_anew_and_other_spans_of_it_do_not_change() -> None:
    kept: list[LiveSpan] = []
    tracing = a_tracing(kept)
    first, second = (tracing.server_request(None, "POST", "/v1/chat/completions") for _ in range(2))
    assert first is not None
    assert second is not None
    first.set(names.HTTP_ROUTE, "/other")
    first.end(200)
    second.end(200)
    assert decoded(SpanEncoder(RESOURCE, SCOPE), kept) == by_the_sdk(kept)
    routes = [
        [pair.value.string_value for pair in span.attributes if pair.key == names.HTTP_ROUTE]
        for span in found(decoded(SpanEncoder(RESOURCE, SCOPE), kept))
    ]
    assert routes == [["/other"], ["/v1/chat/completions"]]
