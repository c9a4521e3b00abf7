"""Where traces go: the standard variables, the configuration, and what is refused."""

from random import Random

import pytest

from otel.queue import QueueLimits
from otel.setup import BadTelemetry, TracingSettings, build_tracing, find_target, queue_limits, resource_attributes
from otel.spans import Tracing

SECRET = "s3cr3t-value"


def built(settings: TracingSettings, environ: dict[str, str]) -> Tracing:
    return build_tracing(settings, environ, rng=Random(1))


def test_without_an_endpoint_anywhere_tracing_is_off() -> None:
    assert not built(TracingSettings(sample_ratio=1.0), {}).is_on


@pytest.mark.parametrize(
    "environ", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_SDK_DISABLED": "TRUE"}, {"OTEL_TRACES_EXPORTER": "none"}]
)
def test_the_standard_switches_turn_tracing_off(environ: dict[str, str]) -> None:
    assert not built(TracingSettings(otlp_endpoint="http://127.0.0.1:4318"), environ).is_on


@pytest.mark.parametrize(
    ("configured", "protocol", "environ", "expected"),
    [
        ("http://c:4318", "http/protobuf", {}, ("http/protobuf", "http://c:4318/v1/traces")),
        ("http://c:4318/", "http/protobuf", {}, ("http/protobuf", "http://c:4318/v1/traces")),
        ("https://c/otlp/v1/traces", "http/protobuf", {}, ("http/protobuf", "https://c/otlp/v1/traces")),
        ("http://c:4317", "grpc", {}, ("grpc", "http://c:4317")),
        ("c:4317", "grpc", {}, ("grpc", "c:4317")),
        (
            "",
            "http/protobuf",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:1/base"},
            ("http/protobuf", "http://e:1/base/v1/traces"),
        ),
        ("", "http/protobuf", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/x"}, ("http/protobuf", "http://t:1/x")),
        (
            "http://c:4318",
            "http/protobuf",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ("http/protobuf", "http://c:4318/v1/traces"),
        ),
        (
            "",
            "http/protobuf",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ("grpc", "http://e:4317"),
        ),
        (
            "",
            "grpc",
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:1",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:2/v1/traces",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ("http/protobuf", "http://t:2/v1/traces"),
        ),
    ],
)
def test_the_endpoint_is_the_configurations_else_that_for_traces_else_that_for_all_signals(
    configured: str, protocol: str, environ: dict[str, str], expected: tuple[str, str]
) -> None:
    target = find_target(TracingSettings(otlp_endpoint=configured, otlp_protocol=protocol), environ)
    assert target is not None
    assert (target.protocol, target.endpoint) == expected


def test_headers_are_read_with_percent_encoding_and_those_for_traces_win() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:1",
        "OTEL_EXPORTER_OTLP_HEADERS": "ignored=1",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "Authorization=Bearer%20abc=, x-team = blue ,",
    }
    target = find_target(TracingSettings(), environ)
    assert target is not None
    assert target.headers == {"authorization": "Bearer abc=", "x-team": "blue"}
    assert "abc" not in repr(target)


@pytest.mark.parametrize("headers", [SECRET, f"a b={SECRET}", f"x=%0d%0a{SECRET}", f"={SECRET}", f"x=ü{SECRET}"])
def test_pain_23_a_bad_header_is_refused_without_showing_it(headers: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:1", "OTEL_EXPORTER_OTLP_HEADERS": f"good=1,{headers}"}
    with pytest.raises(BadTelemetry, match="entry 2") as caught:
        find_target(TracingSettings(), environ)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "ftp://c", "http://", "http://c:99999", "http://[::1", "http://c:0", "not an address"]
)
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(BadTelemetry, match="OTLP endpoint"):
        find_target(TracingSettings(otlp_endpoint=endpoint), {})


@pytest.mark.parametrize("endpoint", [f"https://user:{SECRET}@c", f"https://c/?key={SECRET}"])
def test_pain_23_an_endpoint_may_hold_no_credentials_for_it_gets_into_the_log(endpoint: str) -> None:
    with pytest.raises(BadTelemetry, match="must not hold credentials") as caught:
        find_target(TracingSettings(otlp_endpoint=endpoint), {})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "environ"),
    [
        (TracingSettings(otlp_protocol="http/json"), {}),
        (TracingSettings(), {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}),
        (TracingSettings(), {"OTEL_TRACES_EXPORTER": "zipkin"}),
        (TracingSettings(otlp_endpoint="http://c:1"), {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}),
        (TracingSettings(otlp_endpoint="http://c:1"), {"OTEL_BSP_SCHEDULE_DELAY": "-5"}),
        (TracingSettings(sample_ratio=1.5), {}),
    ],
)
def test_what_is_not_supported_is_refused_and_not_ignored(settings: TracingSettings, environ: dict[str, str]) -> None:
    with pytest.raises(BadTelemetry):
        built(settings, environ)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "configured"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=listed"}, "listed"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=listed", "OTEL_SERVICE_NAME": "named"}, "named"),
    ],
)
def test_the_services_name_is_the_variables_else_the_configurations(environ: dict[str, str], name: str) -> None:
    assert resource_attributes(TracingSettings(service_name="configured"), environ)["service.name"] == name


def test_resource_attributes_are_read_with_percent_encoding() -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=a%2Cb, zone = eu ,broken,=x"}
    assert resource_attributes(TracingSettings(service_version="0.1.0"), environ) == {
        "service.name": "pointsman",
        "service.version": "0.1.0",
        "deployment.environment.name": "a,b",
        "zone": "eu",
    }


def test_what_the_exporter_itself_cannot_take_is_refused_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli")
    with pytest.raises(BadTelemetry, match="cannot be set up"):
        built(TracingSettings(otlp_endpoint="http://127.0.0.1:9", otlp_protocol="grpc"), {})


def test_the_queues_bounds_are_the_standard_variables_else_the_sdks_with_a_shorter_delay() -> None:
    told = {
        "OTEL_BSP_SCHEDULE_DELAY": "250",
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
    }
    assert queue_limits({}) == QueueLimits(delay_s=1.0, spans_max=2048, batch_max=512)
    assert queue_limits(told) == QueueLimits(delay_s=0.25, spans_max=100, batch_max=10)
    assert queue_limits({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}) == QueueLimits(spans_max=100, batch_max=100)


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "many"},
        {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1.5"},
        {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "11"},
    ],
)
def test_bounds_of_the_queue_that_cannot_be_are_refused(environ: dict[str, str]) -> None:
    with pytest.raises(BadTelemetry, match="OTEL_BSP_"):
        built(TracingSettings(otlp_endpoint="http://127.0.0.1:9"), environ)
