"""Traces on the wire: what a real collector gets over HTTP and gRPC, and what a dead one does to us (nothing)."""

import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from random import Random
from time import monotonic

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from messages.calls import Usage
from otel import names
from otel.delivery import translating
from otel.encoding import SpanEncoder
from otel.exporters import Destination, OtlpExporter, grpc_exporter, http_exporter
from otel.live_spans import LiveSpan
from otel.propagation import parse_traceparent
from otel.sampling import Ids, Sampler
from otel.setup import TracingSettings, build_tracing, find_target
from otel.spans import Tracing
from tests.daemon.otlp_receiver import OtlpReceiver, children, one

ROUTE = "/v1/chat/completions"
SERVER = f"POST {ROUTE}"
CLIENT_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT_SPAN = "00f067aa0ba902b7"
ALL = TracingSettings(sample_ratio=1.0, service_version="0.1.0")


@pytest.fixture(params=["http/protobuf", "grpc"])
def collector(request: pytest.FixtureRequest) -> Iterator[OtlpReceiver]:
    with OtlpReceiver.grpc() if request.param == "grpc" else OtlpReceiver.http() as receiver:
        yield receiver


def traced(environ: dict[str, str], settings: TracingSettings = ALL) -> Tracing:
    return build_tracing(settings, environ, rng=Random(11))


def play_one_request(tracing: Tracing) -> None:
    """A request as the runtime traces it: router, bids of three, a failed call, a good one."""
    server = tracing.server_request(None, "POST", ROUTE)
    assert server is not None
    router = tracing.process("router", "RouteQuery", server.context, 0.001)
    for provider in ("a", "b", "c"):
        tracing.process(f"provider:{provider}", "CallForBids", router.context, 0.0005).end()
    router.end()
    server.decision("d1", strategy="adaptive", chosen=("a", "b"), generation=1)
    failed = tracing.attempt(server.context, "chat", "gpt-4o", "openai", provider_id="a", server_address="a.test")
    failed.end("http_503", status=503)
    good = tracing.attempt(server.context, "chat", "gpt-4o", "groq", provider_id="b", attempt=2, stream=True)
    good.response("chatcmpl-1", "gpt-4o", ["stop"])
    good.usage(Usage(12, 34))
    good.end(None, status=200)
    server.end(200)


def test_one_request_is_one_tree_at_the_collector(collector: OtlpReceiver) -> None:
    # Given tracing to a real collector, when a request has been played
    tracing = traced(collector.environ())
    play_one_request(tracing)
    spans = collector.wait_for_names([SERVER, "process router", *["process provider"] * 3, *["chat gpt-4o"] * 2])
    tracing.shutdown(5.0)

    # Then it is one trace with one root
    assert len(spans) == tracing.span_count == 7
    assert len({span["trace_id"] for span in spans}) == 1
    server, router = one(spans, SERVER), one(spans, "process router")
    assert (server["kind"], server["parent"], server["status"]) == ("SERVER", "", "UNSET")
    assert server["resource"]["service.name"] == "pointsman"
    assert server["resource"]["service.version"] == "0.1.0"

    # And the mail hangs under its sender, linked, with its wait
    bids = children(spans, router)
    assert [bid["name"] for bid in bids] == ["process provider"] * 3
    assert [bid["attributes"][names.MESSAGING_DESTINATION_NAME] for bid in bids] == ["provider:a", "provider:b", "provider:c"]
    assert {bid["kind"] for bid in bids} == {"CONSUMER"}
    assert all([link["span_id"] for link in bid["links"]] == [router["span_id"]] for bid in bids)
    assert all(bid["attributes"][names.MAILBOX_WAIT_MS] == 0.5 for bid in bids)

    # And the calls hang under the request, the failed one before the good one
    below = children(spans, server)
    assert [span["name"] for span in below] == ["process router", "chat gpt-4o", "chat gpt-4o"]
    _, failed, good = below
    assert (failed["kind"], failed["status"], failed["attributes"][names.ERROR_TYPE]) == ("CLIENT", "ERROR", "http_503")
    assert (good["kind"], good["status"], good["attributes"][names.HTTP_REQUEST_RESEND_COUNT]) == ("CLIENT", "UNSET", 1)
    assert good["attributes"][names.GEN_AI_USAGE_OUTPUT_TOKENS] == 34
    assert good["attributes"][names.GEN_AI_RESPONSE_FINISH_REASONS] == ["stop"]

    # And the decision is an event of the request
    (event,) = server["events"]
    assert (event["name"], event["attributes"][names.DECISION_CHOSEN]) == (names.ROUTING_DECISION, ["a", "b"])


def test_unsampled_requests_make_no_span_and_send_nothing(collector: OtlpReceiver) -> None:
    tracing = traced(collector.environ(), TracingSettings(sample_ratio=0.0))
    unsampled = parse_traceparent(f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-00")
    assert unsampled is not None
    assert tracing.is_on
    for incoming in (None, unsampled):
        assert tracing.server_request(incoming, "POST", ROUTE) is None
    tracing.shutdown(5.0)
    assert tracing.span_count == 0
    assert not collector.spans


def test_pain_18_a_sampled_traceparent_is_followed_whatever_the_ratio(collector: OtlpReceiver) -> None:
    tracing = traced(collector.environ(), TracingSettings(sample_ratio=0.0))
    incoming = parse_traceparent(f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01", "vendor=1")
    server = tracing.server_request(incoming, "POST", ROUTE)
    assert server is not None
    server.end(200)
    tracing.shutdown(5.0)

    span = one(collector.spans, SERVER)
    assert (span["trace_id"], span["parent"], span["tracestate"]) == (CLIENT_TRACE, CLIENT_SPAN, "vendor=1")


def test_the_configuration_alone_is_enough(collector: OtlpReceiver) -> None:
    settings = TracingSettings(collector.endpoint, collector.protocol, sample_ratio=1.0, service_name="mine")
    tracing = traced({}, settings)
    play_one_request(tracing)
    tracing.shutdown(5.0)
    assert one(collector.spans, SERVER)["resource"]["service.name"] == "mine"


def exporter_to(collector: OtlpReceiver) -> OtlpExporter:
    make = grpc_exporter if collector.protocol == "grpc" else http_exporter
    encoder = SpanEncoder(Resource({"service.name": "ours"}), InstrumentationScope("pointsman"))
    translate = translating(Resource({"service.name": "the sdk's"}), InstrumentationScope("pointsman"))
    target = find_target(ALL, collector.environ())
    assert target is not None
    return make(Destination(target.endpoint, {}, 5.0), encoder.encode, translate)


def some_spans() -> list[LiveSpan]:
    kept: list[LiveSpan] = []
    play_one_request(Tracing(kept.append, Sampler(1.0, Random(1)), Ids(Random(2))))
    return kept


def test_the_sdks_exporters_have_the_seam_through_which_our_own_encoding_goes(collector: OtlpReceiver) -> None:
    """If this fails, the SDK has changed: tracing still works, at ten times the cost. See ``otel/exporters.py``."""
    exporter = exporter_to(collector)
    assert exporter.has_seam
    assert exporter.export(some_spans())
    exporter.shutdown()
    assert {span["resource"]["service.name"] for span in collector.spans} == {"ours"}
    assert len(collector.spans) == 7


def test_without_the_seam_the_sdks_encoder_sends_the_same(collector: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given what the seam sends
    kept = some_spans()
    with_seam = exporter_to(collector)
    assert with_seam.export(kept)
    with_seam.shutdown()
    before = list(collector.spans)

    # When an SDK has closed it
    monkeypatch.setattr("otel.exporters.SEAM_OF_HTTP", "_not_there")
    monkeypatch.setattr("otel.exporters.SEAM_OF_GRPC", "_not_there")
    without = exporter_to(collector)
    assert not without.has_seam
    assert without.export(kept)
    without.shutdown()

    # Then the collector sees no difference, but for the name given here to tell them apart
    after = collector.spans[len(before) :]
    assert {span["resource"]["service.name"] for span in after} == {"the sdk's"}
    assert [{**span, "resource": {}} for span in after] == [{**span, "resource": {}} for span in before]


def test_the_headers_of_the_standard_variables_are_sent(collector: OtlpReceiver) -> None:
    tracing = traced({**collector.environ(), "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20abc,x-team=blue"})
    play_one_request(tracing)
    tracing.shutdown(5.0)
    assert collector.headers[0]["authorization"] == "Bearer abc"
    assert collector.headers[0]["x-team"] == "blue"


def test_shutdown_delivers_what_is_left(collector: OtlpReceiver) -> None:
    tracing = traced({**collector.environ(), "OTEL_BSP_SCHEDULE_DELAY": "3600000"})
    play_one_request(tracing)
    tracing.shutdown(5.0)
    assert len(collector.spans) == 7
    tracing.shutdown(5.0)


def test_text_that_is_no_text_does_not_cost_the_batch_it_is_in(collector: OtlpReceiver) -> None:
    tracing = traced(collector.environ())
    server = tracing.server_request(None, "POST", ROUTE, "/\udcff")
    assert server is not None
    tracing.attempt(server.context, "chat", "m\ud800", "openai", provider_id="a").end("\udc00")
    server.end(200)
    tracing.shutdown(5.0)
    assert {span["name"] for span in collector.spans} == {SERVER, "chat m?"}


@pytest.fixture(params=["http/protobuf", "grpc"])
def dead(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The variables for a port that nobody listens on, kept from others while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield _environ(request.param, taken.getsockname()[1])


@pytest.fixture(params=["http/protobuf", "grpc"])
def silent(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The variables for a collector that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield _environ(request.param, listening.getsockname()[1])


def _environ(protocol: str, port: int) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }


def test_a_dead_collector_neither_slows_requests_nor_floods_the_log(
    dead: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    tracing = traced(dead)
    started_s = monotonic()
    for _ in range(600):
        play_one_request(tracing)
    spent_s = monotonic() - started_s
    tracing.shutdown(0.2)
    # 4200 spans, twice the queue; the exporter alone would try the first batch for ten seconds.
    assert spent_s < 8.0
    assert len(caplog.records) <= 3


def test_the_sdk_may_repeat_itself_but_the_log_is_told_once(dead: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    traced(dead).shutdown(0.2)
    for number in range(100):
        logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").warning("failed %d", number)
        logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").error("failed %s", "x" * number)
        logging.getLogger("opentelemetry.sdk._shared_internal").warning("dropped %d", number)
    assert len(caplog.records) <= 1


def test_pain_23_a_header_the_sdk_cannot_read_is_not_shown(
    collector: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", 'x-key="s3cr3t;value"')
    tracing = traced({**collector.environ(), "OTEL_EXPORTER_OTLP_HEADERS": 'x-key="s3cr3t;value"'})
    play_one_request(tracing)
    tracing.shutdown(5.0)
    assert collector.headers[0]["x-key"] == '"s3cr3t;value"'
    assert "s3cr3t" not in caplog.text


def test_a_dead_collector_does_not_hold_the_shutdown(dead: dict[str, str]) -> None:
    tracing = traced(dead)
    play_one_request(tracing)
    assert seconds_to_shut_down(tracing, timeout_s=0.2) < 5.0


def test_a_silent_collector_does_not_hold_the_shutdown(silent: dict[str, str]) -> None:
    tracing = traced(silent)
    play_one_request(tracing)
    assert seconds_to_shut_down(tracing, timeout_s=0.2) < 5.0


def seconds_to_shut_down(tracing: Tracing, timeout_s: float) -> float:
    started_s = monotonic()
    tracing.shutdown(timeout_s)
    return monotonic() - started_s


def test_a_process_ends_at_once_though_a_silent_collector_holds_an_export(silent: dict[str, str]) -> None:
    program = (
        "from otel.setup import TracingSettings, build_tracing\n"
        f"tracing = build_tracing(TracingSettings(sample_ratio=1.0), {silent!r})\n"
        "tracing.server_request(None, 'POST', '/').end(200)\n"
        "tracing.shutdown(0.1)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=9.0)


def test_what_is_not_used_is_not_imported() -> None:
    def imported(environ: dict[str, str]) -> str:
        program = (
            "import sys\n"
            "from otel.setup import TracingSettings, build_tracing\n"
            f"build_tracing(TracingSettings(), {environ!r}).shutdown(0)\n"
            "print([name for name in ('grpc', 'requests', 'opentelemetry.sdk') if name in sys.modules])"
        )
        ran = subprocess.run([sys.executable, "-c", program], check=True, timeout=30.0, capture_output=True, text=True)
        return ran.stdout.strip()

    assert imported({}) == "[]"
    assert "grpc" not in imported({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
