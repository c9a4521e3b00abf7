"""One sampled request is one trace at a real collector: edge, router, the providers' bids, and one call span per attempt."""

import asyncio
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from otel.setup import TracingSettings, tracing_into
from runtime.config.loading import load_bytes
from runtime.config.settings import ServerSettings
from runtime.daemon import House
from runtime.http.server import HttpServer
from runtime.system.clock import real_clock
from runtime.upstream.aiohttp_client import AiohttpUpstream
from tests.daemon.gateway import Answer, Client, Gateway, eventually, provider
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers, error, event, hangs, replies, streams
from tests.daemon.otlp_receiver import OtlpReceiver, SpanDict, children, one, outline

SERVER = "POST /v1/chat/completions"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1", "baggage": "user=42"}


def configuration(upstream: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    """Three providers for ``m``, of which the first fails; two for ``t``, the second trusted; a stream that breaks."""
    upstream.scripts.update(
        a=replies(503, error("down", None, "server_error")),
        b=answers,
        c=answers,
        cut=streams(event({"content": "half"}), cut=True),
        untrusted=replies(503, error("down", None, "server_error")),
        trusted=answers,
    )
    model = {"name": "m", "upstream": "m-2024"}
    return {
        "providers": [
            provider("a", upstream.base_url("a"), [model], kind="groq", circuit={"failures": 1000}),
            provider("b", upstream.base_url("b"), [model]),
            provider("c", upstream.base_url("c"), [model]),
            provider("cut", upstream.base_url("cut"), ["cut"]),
            provider("untrusted", upstream.base_url("untrusted"), ["t"]),
            provider("trusted", upstream.base_url("trusted"), ["t"], trusted=True),
        ],
        "routing": {"strategy": "first"},
        **more,
    }


@pytest.fixture(scope="module")
def collector(lane: str) -> Iterator[OtlpReceiver]:
    with OtlpReceiver.http() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream, collector: OtlpReceiver) -> Iterator[Gateway]:
    telemetry = {"sample_ratio": 1.0, "service_name": "gateway-under-test"}
    with Gateway(configuration(upstream, telemetry=telemetry), collector.environ()) as found:
        yield found


@pytest.fixture(autouse=True)
def _fresh(upstream: ScriptedUpstream) -> None:
    upstream.forget()


def trace_of(collector: OtlpReceiver, answer: Answer) -> list[SpanDict]:
    """The whole trace of a request: known by its decision, complete when its root is there."""
    decision = answer.header("x-pointsman-decision")

    def root(spans: list[SpanDict]) -> SpanDict | None:
        roots = [span for span in spans if span["kind"] == "SERVER"]
        return next((s for s in roots if any(decision in e["attributes"].values() for e in s["events"])), None)

    spans = collector.wait_for(lambda spans: root(spans) is not None)
    found = root(spans)
    assert found is not None
    return [span for span in spans if span["trace_id"] == found["trace_id"]]


def test_a_failed_attempt_and_a_good_one_are_one_tree(
    gateway: Gateway, collector: OtlpReceiver, upstream: ScriptedUpstream
) -> None:
    # Given three providers of which the first fails, when a request comes without a trace of its own
    answer = gateway.chat("m", {"x-pointsman-exclude": "cut"}, max_tokens=7)
    spans = trace_of(collector, answer)

    # Then its root is the edge's span
    server = one(spans, SERVER)
    assert (server["kind"], server["parent"], server["status"]) == ("SERVER", "", "UNSET"), outline(spans)
    assert server["attributes"]["http.request.method"] == "POST"
    assert server["attributes"]["http.route"] == "/v1/chat/completions"
    assert server["attributes"]["http.response.status_code"] == 200
    assert server["resource"]["service.name"] == "gateway-under-test"

    # And below it are two rounds of the router and the two calls, in their order
    below = [span for span in children(spans, server) if span["name"] == "process router"]
    queries = [span for span in below if span["attributes"]["pointsman.message.type"] == "RouteQuery"]
    assert len(queries) == 2, outline(spans)
    failed, good = [span for span in children(spans, server) if span["kind"] == "CLIENT"]

    # And the first round asked all three providers, the second those that were left
    for query, asked in zip(queries, (["a", "b", "c"], ["b", "c"]), strict=True):
        assert query["kind"] == "CONSUMER"
        bids = [span for span in children(spans, query) if span["name"] == "process provider"]
        assert [bid["attributes"]["messaging.destination.name"] for bid in bids] == [f"provider:{name}" for name in asked]
        for bid in bids:
            assert bid["kind"] == "CONSUMER"
            assert bid["attributes"]["messaging.system"] == "actor"
            assert bid["attributes"]["messaging.operation.type"] == "process"
            assert bid["attributes"]["messaging.destination.template"] == "provider"
            assert bid["attributes"]["pointsman.message.type"] == "CallForBids"
            assert bid["attributes"]["pointsman.mailbox.wait_ms"] >= 0
            assert [link["span_id"] for link in bid["links"]] == [query["span_id"]]

    # And the failed call tells why, the good one what it used
    assert failed["name"] == good["name"] == "chat m-2024"
    assert failed["status"] == "ERROR"
    told = failed["attributes"]
    assert (told["error.type"], told["http.response.status_code"], told["pointsman.provider.id"]) == ("http_503", 503, "a")
    assert (told["gen_ai.operation.name"], told["gen_ai.provider.name"]) == ("chat", "groq")
    assert (told["server.address"], told["server.port"]) == ("127.0.0.1", upstream.port)
    told = good["attributes"]
    assert good["status"] == "UNSET"
    assert (told["pointsman.provider.id"], told["pointsman.attempt"], told["http.request.resend_count"]) == ("b", 2, 1)
    assert (told["gen_ai.request.model"], told["pointsman.model"], told["gen_ai.response.model"]) == ("m-2024", "m", "u")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (2, 3)
    assert (told["gen_ai.request.max_tokens"], told["gen_ai.request.stream"]) == (7, False)
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert told["gen_ai.response.id"] == "c1"

    # And the decisions are events of the root
    first, second = [item for item in server["events"] if item["name"] == "gateway.routing.decision"]
    assert first["attributes"]["gateway.routing.chosen"] == ["a", "b", "c"]
    assert second["attributes"]["gateway.routing.chosen"] == ["b", "c"]

    # And every span has its parent in the trace, and lies within its time
    known = {span["span_id"]: span for span in spans}
    for span in spans:
        assert span is server or span["parent"] in known, outline(spans)
        assert server["start_ns"] <= span["start_ns"] <= span["end_ns"]
    assert len({span["trace_id"] for span in spans}) == 1


def test_a_stream_tells_when_its_first_content_came(gateway: Gateway, collector: OtlpReceiver) -> None:
    spans = trace_of(collector, gateway.chat("m", {"x-pointsman-exclude": "a"}, stream=True))

    call = one(spans, "chat m-2024")
    assert call["attributes"]["gen_ai.request.stream"] is True
    assert 0 < call["attributes"]["gen_ai.response.time_to_first_chunk"] < 10
    assert call["attributes"]["pointsman.usage.estimated"] is True
    assert "http.request.resend_count" not in call["attributes"]


def test_a_hedge_is_in_the_trace_beside_the_call_that_lost_to_it(upstream: ScriptedUpstream) -> None:
    with OtlpReceiver.http() as collector:
        routing = {"strategy": "first", "hedge": {"after": "50ms", "max_share": 1}, "explore": {"enabled": False}}
        config = configuration(upstream, telemetry={"sample_ratio": 1.0}, routing=routing)
        upstream.scripts["a"] = hangs
        with Gateway(config, collector.environ()) as gateway:
            answer = gateway.chat("m")
            assert answer.header("x-pointsman-provider") == "b"
            spans = trace_of(collector, answer)

    lost, won = sorted(
        (span["attributes"] for span in children(spans, one(spans, SERVER)) if span["kind"] == "CLIENT"),
        key=lambda told: told["pointsman.provider.id"],
    )
    assert (lost["pointsman.provider.id"], lost["error.type"], lost["pointsman.usage.estimated"]) == ("a", "lost_hedge", True)
    assert "pointsman.attempt.kind" not in lost
    assert (won["pointsman.provider.id"], won["pointsman.attempt.kind"]) == ("b", "hedge")
    assert "error.type" not in won


def test_a_cut_stream_is_an_error_in_its_trace_though_its_status_was_200(gateway: Gateway, collector: OtlpReceiver) -> None:
    with gateway.opened("POST", "/v1/chat/completions", b'{"model":"cut","messages":[],"stream":true}') as response:
        answer = Answer(response.status, tuple(response.getheaders()), b"")
        with pytest.raises(IncompleteRead):
            response.read()
    spans = trace_of(collector, answer)

    server, call = one(spans, SERVER), one(spans, "chat cut")
    assert (server["status"], server["attributes"]["http.response.status_code"]) == ("ERROR", 200)
    assert (call["status"], call["attributes"]["error.type"], call["attributes"]["http.response.status_code"]) == (
        "ERROR",
        "broken",
        200,
    )


def test_a_clients_own_mistake_is_no_error_of_ours(gateway: Gateway, collector: OtlpReceiver) -> None:
    answer = gateway.chat("nobody-has-this", SAMPLED | {"traceparent": f"00-{'c' * 32}-{SPAN}-01"})
    assert answer.status == 404

    spans = collector.wait_for(lambda spans: any(s["trace_id"] == "c" * 32 and s["kind"] == "SERVER" for s in spans))
    server = next(s for s in spans if s["trace_id"] == "c" * 32 and s["kind"] == "SERVER")
    assert (server["status"], server["attributes"]["http.response.status_code"]) == ("UNSET", 404)
    (decision,) = server["events"]
    assert decision["attributes"]["gateway.routing.error"] == "model_not_supported"


def test_D9_pain_18_the_clients_trace_is_taken_over_and_goes_on_to_trusted_providers_only(
    gateway: Gateway, collector: OtlpReceiver, upstream: ScriptedUpstream
) -> None:
    # When a client with a trace of its own is served by a provider we trust, after one we do not
    answer = gateway.chat("t", SAMPLED)
    assert answer.header("x-pointsman-provider") == "trusted"
    spans = trace_of(collector, answer)

    # Then ours goes on below the client's span
    server = one(spans, SERVER)
    assert (server["trace_id"], server["parent"], server["tracestate"]) == (TRACE, SPAN, "vendor=1")

    # And the trusted one gets our call's span as its parent, with what came along; the other gets nothing
    (untrusted,), (trusted,) = upstream.requests("untrusted"), upstream.requests("trusted")
    call = next(span for span in spans if span["kind"] == "CLIENT" and span["attributes"]["pointsman.provider.id"] == "trusted")
    assert trusted.header("traceparent") == f"00-{TRACE}-{call['span_id']}-01"
    assert trusted.header("tracestate") == "vendor=1"
    assert trusted.header("baggage") == "user=42"
    for name in ("traceparent", "tracestate", "baggage"):
        assert untrusted.header(name) is None


@pytest.mark.parametrize("bad", ["nonsense", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}"])
def test_a_traceparent_that_is_none_begins_a_new_trace(gateway: Gateway, collector: OtlpReceiver, bad: str) -> None:
    spans = trace_of(collector, gateway.chat("m", {"traceparent": bad, "x-pointsman-exclude": "a"}))

    server = one(spans, SERVER)
    assert server["parent"] == ""
    assert server["trace_id"] != TRACE


def test_no_content_and_no_key_gets_into_a_trace(gateway: Gateway, collector: OtlpReceiver) -> None:
    secret = "the-secret-content"
    headers = {"authorization": f"Bearer {secret}", "x-pointsman-exclude": "a"}
    answer = gateway.chat("m", headers, messages=[{"role": "user", "content": secret}])

    assert secret not in str(trace_of(collector, answer))


def test_the_same_tree_comes_over_grpc(upstream: ScriptedUpstream) -> None:
    with OtlpReceiver.grpc() as collector:
        telemetry = {"sample_ratio": 1.0, "otlp_endpoint": collector.endpoint, "otlp_protocol": "grpc"}
        with Gateway(configuration(upstream, telemetry=telemetry), {"OTEL_BSP_SCHEDULE_DELAY": "50"}) as gateway:
            spans = trace_of(collector, gateway.chat("m"))

    server = one(spans, SERVER)
    calls = [span for span in children(spans, server) if span["kind"] == "CLIENT"]
    assert [call["attributes"]["pointsman.provider.id"] for call in calls] == ["a", "b"]
    assert sum(span["name"] == "process provider" for span in spans) >= 5


def test_what_is_under_way_at_the_end_is_still_delivered(upstream: ScriptedUpstream) -> None:
    with OtlpReceiver.http() as collector:
        environ = collector.environ() | {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        with Gateway(configuration(upstream, telemetry={"sample_ratio": 1.0}), environ) as gateway:
            assert gateway.chat("m").status == 200
        assert one(collector.spans, SERVER)


def test_unsampled_requests_export_nothing_unless_the_client_samples(upstream: ScriptedUpstream) -> None:
    with OtlpReceiver.http() as collector:
        with Gateway(configuration(upstream, telemetry={"sample_ratio": 0}), collector.environ()) as gateway:
            for headers in ({}, {"traceparent": f"00-{TRACE}-{SPAN}-00"}):
                assert gateway.chat("t", headers).status == 200
                # The client's own position is no business of a provider, not even of a trusted one, where we take no part.
                assert upstream.requests("trusted")[-1].header("traceparent") is None
            assert gateway.chat("t", SAMPLED).status == 200
        spans = collector.spans

    assert {span["trace_id"] for span in spans} == {TRACE}


class NoExport:
    """An exporter that only counts."""

    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: Any) -> Any:
        self.count += len(spans)

    def shutdown(self) -> None:
        """Nothing to end."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


@pytest.mark.parametrize(("ratio", "made"), [(0.0, False), (1.0, True)])
async def test_unsampled_requests_make_no_span_objects(upstream: ScriptedUpstream, ratio: float, made: bool) -> None:
    # Given a whole house in this process, with tracing on and this share of requests sampled
    exporter: Any = NoExport()
    tracing = tracing_into(exporter, TracingSettings(sample_ratio=ratio), rng=Random(1))
    loaded = load_bytes(orjson.dumps(configuration(upstream)), Path("test.yaml"), {})
    house = House(loaded, AiohttpUpstream(), tracing, real_clock(), "seed", fails)
    http = HttpServer(house.edge, house.admin, ServerSettings(port=0), "0")
    await house.start()
    try:
        client = Client(await http.start())

        # When requests come, good and bad, streamed and not
        def ask() -> list[int]:
            asked: list[tuple[str, dict[str, Any]]] = [("m", {}), ("m", {"stream": True}), ("nobody-has-this", {})]
            return [client.chat(model, **fields).status for model, fields in asked]

        assert await asyncio.to_thread(ask) == [200, 200, 404]
        await asyncio.to_thread(eventually, lambda: client.stats()["edge"]["in_flight"] == 0, "all is over")
    finally:
        await http.stop()
        await house.stop()

    # Then spans were made for the sampled ones only
    assert (tracing.span_count > 0) is made
    assert (exporter.count > 0) is made


def fails(reason: str) -> None:
    raise AssertionError(reason)
