"""The spans of a request: which there are, how they hang together, what they say. Virtual time, spans kept in memory."""

from random import Random

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from messages.calls import Usage
from messages.envelope import TraceContext
from messages.routing import LeftOut
from otel import names
from otel.live_spans import ServerSpan
from otel.propagation import IncomingTrace
from otel.setup import TracingSettings, tracing_into
from otel.spans import Tracing

ROUTE = "/v1/chat/completions"
INCOMING = IncomingTrace("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=True, tracestate="vendor=1")
MS = 1_000_000


class World:
    """Tracing under virtual time, every request sampled unless ``ratio`` says else."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.now_ns = 1_800_000_000_000_000_000
        self.kept = InMemorySpanExporter()
        settings = TracingSettings(sample_ratio=ratio)
        self.tracing = tracing_into(self.kept, settings, rng=Random(5), clock_ns=lambda: self.now_ns)

    def request(self, incoming: IncomingTrace | None = None) -> ServerSpan:
        span = self.tracing.server_request(incoming, "POST", ROUTE)
        assert span is not None
        return span

    def only(self) -> ReadableSpan:
        (span,) = self.kept.get_finished_spans()
        return span


def attributes(span: ReadableSpan) -> dict[str, object]:
    assert span.attributes is not None
    return dict(span.attributes)


def span_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def parent_id(span: ReadableSpan) -> str:
    return f"{span.parent.span_id:016x}" if span.parent is not None else ""


@pytest.fixture
def world() -> World:
    return World()


def test_a_request_is_a_server_span_named_by_method_and_route(world: World) -> None:
    server = world.request()
    world.now_ns += 25 * MS
    server.end(200)

    span = world.only()
    assert (span.name, span.kind, span.status.status_code) == (f"POST {ROUTE}", SpanKind.SERVER, StatusCode.UNSET)
    assert (span.end_time or 0) - (span.start_time or 0) == 25 * MS
    assert attributes(span) == {
        names.HTTP_REQUEST_METHOD: "POST",
        names.HTTP_ROUTE: ROUTE,
        names.URL_PATH: ROUTE,
        names.URL_SCHEME: "http",
        names.HTTP_RESPONSE_STATUS_CODE: 200,
    }
    assert span.parent is None


def test_a_request_without_a_route_is_named_by_its_method_alone(world: World) -> None:
    server = world.tracing.server_request(None, "GET", "", "/anything/at/all")
    assert server is not None
    server.end(404)
    assert world.only().name == "GET"
    assert attributes(world.only())[names.URL_PATH] == "/anything/at/all"


def test_an_unsampled_request_makes_no_span_object() -> None:
    world = World(ratio=0.0)
    unsampled = IncomingTrace(INCOMING.trace_id, INCOMING.span_id, sampled=False)
    for incoming in (None, unsampled) * 50:
        assert world.tracing.server_request(incoming, "POST", ROUTE) is None
    assert world.tracing.span_count == 0
    assert not world.kept.get_finished_spans()


def test_span_count_tells_how_many_span_objects_were_made(world: World) -> None:
    server = world.request()
    world.tracing.process("router", "RouteQuery", server.context, 0.0)
    world.tracing.attempt(server.context, "chat", "m", "openai", provider_id="a")
    assert world.tracing.span_count == 3


def test_pain_18_the_clients_trace_goes_on_in_ours() -> None:
    world = World(ratio=0.0)
    server = world.request(INCOMING)
    attempt = world.tracing.attempt(server.context, "chat", "m", "openai", provider_id="a")
    attempt.end()
    server.end(200)

    call, request = world.kept.get_finished_spans()
    assert server.context.trace_id == attempt.context.trace_id == INCOMING.trace_id
    assert parent_id(request) == INCOMING.span_id
    assert request.parent is not None
    assert request.parent.is_remote
    assert parent_id(call) == span_id(request) == server.context.span_id
    assert server.context.tracestate == attempt.context.tracestate == "vendor=1"


def test_each_request_of_its_own_is_a_trace_of_its_own(world: World) -> None:
    first, second = world.request(), world.request()
    assert first.context.trace_id != second.context.trace_id
    assert len(first.context.trace_id) == 32
    assert len(first.context.span_id) == 16


def test_the_same_seed_gives_the_same_ids() -> None:
    assert World().request().context == World().request().context


@pytest.mark.parametrize(
    ("status", "error_type", "kind", "told"),
    [
        (200, None, StatusCode.UNSET, None),
        (404, None, StatusCode.UNSET, None),
        (503, None, StatusCode.ERROR, "503"),
        (502, "upstream_error", StatusCode.ERROR, "upstream_error"),
        (200, "stream_cut", StatusCode.ERROR, "stream_cut"),
        (0, "client_gone", StatusCode.ERROR, "client_gone"),
    ],
)
def test_a_request_is_an_error_by_our_fault_not_by_the_clients(
    world: World, status: int, error_type: str | None, kind: StatusCode, told: str | None
) -> None:
    world.request().end(status, error_type)
    span = world.only()
    assert span.status.status_code is kind
    assert attributes(span).get(names.ERROR_TYPE) == told
    assert attributes(span).get(names.HTTP_RESPONSE_STATUS_CODE, 0) == status


def test_pain_19_the_decision_is_an_event_of_the_request_with_who_was_left_out(world: World) -> None:
    server = world.request()
    world.now_ns += MS
    left_out = [LeftOut("slow", "circuit_open"), LeftOut("full", "at_capacity")]
    server.decision("d1", strategy="adaptive", chosen=("fast", "other"), generation=3, left_out=left_out)
    server.end(200)

    (event,) = world.only().events
    assert (event.name, event.timestamp) == ("gateway.routing.decision", world.now_ns)
    assert dict(event.attributes or {}) == {
        names.DECISION_ID: "d1",
        names.DECISION_STRATEGY: "adaptive",
        names.CONFIGURATION_GENERATION: 3,
        names.DECISION_CHOSEN: ("fast", "other"),
        names.DECISION_LEFT_OUT: ("slow: circuit_open", "full: at_capacity"),
        names.DECISION_LEFT_OUT_COUNT: 2,
    }


def test_the_list_of_those_left_out_is_bounded_and_its_true_length_told(world: World) -> None:
    server = world.request()
    server.decision("d1", left_out=[LeftOut(f"p{n}", "tags") for n in range(1000)], error="all_filtered")
    server.end(403)
    told = dict(world.only().events[0].attributes or {})
    listed = told[names.DECISION_LEFT_OUT]
    assert isinstance(listed, tuple)
    assert len(listed) == 32
    assert told[names.DECISION_LEFT_OUT_COUNT] == 1000
    assert told[names.DECISION_ERROR] == "all_filtered"


def test_an_actors_turn_is_a_consumer_span_under_its_sender_and_linked_to_it(world: World) -> None:
    server = world.request()
    turn = world.tracing.process("provider:openai-eu", "CallForBids", server.context, queue_wait_s=0.0025)
    turn.end()

    span = world.only()
    assert (span.name, span.kind, span.status.status_code) == ("process provider", SpanKind.CONSUMER, StatusCode.UNSET)
    assert parent_id(span) == server.context.span_id
    assert [f"{link.context.span_id:016x}" for link in span.links] == [server.context.span_id]
    assert turn.context == TraceContext(server.context.trace_id, span_id(span))
    assert attributes(span) == {
        names.MESSAGING_SYSTEM: "actor",
        names.MESSAGING_OPERATION_NAME: "process",
        names.MESSAGING_OPERATION_TYPE: "process",
        names.MESSAGING_DESTINATION_NAME: "provider:openai-eu",
        names.MESSAGING_DESTINATION_TEMPLATE: "provider",
        names.MESSAGE_TYPE: "CallForBids",
        names.MAILBOX_WAIT_MS: 2.5,
    }


def test_the_wait_in_the_mailbox_is_no_part_of_the_turns_duration(world: World) -> None:
    turn = world.tracing.process("router", "RouteQuery", world.request().context, queue_wait_s=5.0)
    world.now_ns += MS
    turn.end()
    span = world.only()
    assert (span.end_time or 0) - (span.start_time or 0) == MS


def test_a_handler_that_raised_is_an_error(world: World) -> None:
    world.tracing.process("router", "RouteQuery", world.request().context, 0.0).end("KeyError")
    span = world.only()
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)[names.ERROR_TYPE] == "KeyError"


def test_spans_of_interleaved_requests_keep_to_their_own(world: World) -> None:
    first, second = world.request(), world.request()
    in_second = world.tracing.process("router", "RouteQuery", second.context, 0.0)
    in_first = world.tracing.process("router", "RouteQuery", first.context, 0.0)
    assert in_second.context.trace_id == second.context.trace_id
    assert in_first.context.trace_id == first.context.trace_id


def test_a_call_upstream_is_a_client_span_with_what_was_asked_and_answered(world: World) -> None:
    server = world.request()
    attempt = world.tracing.attempt(
        server.context,
        names.operation_name("chat"),
        "gpt-4o-2024-11-20",
        names.provider_name("azure"),
        provider_id="azure-eu",
        attempt=2,
        stream=True,
        max_tokens=64,
        public_model="gpt-4o",
        server_address="eu.example.com",
        server_port=443,
    )
    attempt.first_chunk(0.125)
    attempt.response("chatcmpl-1", "gpt-4o-2024-11-20", ["stop"])
    attempt.usage(Usage(10, 20, cache_read_tokens=4, reasoning_tokens=5, estimated=True))
    attempt.end(None, status=200)

    span = world.only()
    assert (span.name, span.kind, span.status.status_code) == ("chat gpt-4o-2024-11-20", SpanKind.CLIENT, StatusCode.UNSET)
    assert parent_id(span) == server.context.span_id
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "gpt-4o-2024-11-20",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.response.time_to_first_chunk": 0.125,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "gpt-4o-2024-11-20",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "http.request.method": "POST",
        "http.request.resend_count": 1,
        "http.response.status_code": 200,
        "server.address": "eu.example.com",
        "server.port": 443,
        "pointsman.provider.id": "azure-eu",
        "pointsman.attempt": 2,
        "pointsman.model": "gpt-4o",
        "pointsman.usage.estimated": True,
    }


def test_a_failed_call_is_an_error_with_its_code_and_a_first_one_is_no_resend(world: World) -> None:
    attempt = world.tracing.attempt(world.request().context, "chat", "m", "openai", provider_id="a")
    attempt.end("http_503", status=503)
    span = world.only()
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)[names.ERROR_TYPE] == "http_503"
    assert names.HTTP_REQUEST_RESEND_COUNT not in attributes(span)


@pytest.mark.parametrize(
    ("endpoint", "operation"), [("chat", "chat"), ("completions", "text_completion"), ("embeddings", "embeddings")]
)
def test_operations_have_the_names_of_the_genai_conventions(endpoint: str, operation: str) -> None:
    assert names.operation_name(endpoint) == operation


@pytest.mark.parametrize(
    ("kind", "name"),
    [("openai", "openai"), ("groq", "groq"), ("mistral", "mistral_ai"), ("xai", "x_ai"), ("ollama", "ollama")],
)
def test_providers_have_their_well_known_names_or_stand_for_themselves(kind: str, name: str) -> None:
    assert names.provider_name(kind) == name


def test_a_span_that_has_ended_takes_nothing_more(world: World, caplog: pytest.LogCaptureFixture) -> None:
    server = world.request()
    server.end(200)
    server.set("late", 1)
    server.event("late", {})
    server.end(500)
    span = world.only()
    assert attributes(span)[names.HTTP_RESPONSE_STATUS_CODE] == 200
    assert "late" not in attributes(span)
    assert not span.events
    assert not caplog.records


def test_text_from_outside_is_bounded_and_made_valid(world: World) -> None:
    server = world.tracing.server_request(None, "POST", ROUTE, "/\udcff" + "x" * 10_000)
    assert server is not None
    server.set("items", ["\ud800"] * 1000)
    server.end(200)
    told = attributes(world.only())
    path, items = told[names.URL_PATH], told["items"]
    assert isinstance(path, str)
    assert path == "/?" + "x" * 254
    assert items == ("?",) * 32


def test_tracing_that_is_off_samples_nothing_not_even_what_the_client_wants() -> None:
    tracing = Tracing.off()
    assert not tracing.is_on
    assert tracing.server_request(INCOMING, "POST", ROUTE) is None
    assert tracing.span_count == 0
    tracing.shutdown(1.0)


def test_a_message_that_comes_with_a_trace_does_tracing_that_is_off_no_harm() -> None:
    tracing = Tracing.off()
    sender = TraceContext(INCOMING.trace_id, INCOMING.span_id)
    turn = tracing.process("router", "RouteQuery", sender, 0.1)
    turn.end("KeyError")
    assert turn.context == sender


def test_nothing_is_sampled_after_shutdown(world: World) -> None:
    server = world.request()
    world.tracing.shutdown(1.0)
    assert world.tracing.server_request(INCOMING, "POST", ROUTE) is None
    server.end(200)
