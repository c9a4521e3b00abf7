"""A file that says little gets every default of the contract, and what it says arrives."""

from dataclasses import replace

import pytest

from messages.control import (
    AffinitySpec,
    BackoffSpec,
    CircuitSpec,
    ExploreSpec,
    FailoverSpec,
    HealthSpec,
    HedgeSpec,
    LimitsSpec,
    ModelSpec,
    ProbeSpec,
    RoutingSpec,
    TimeoutsSpec,
)
from runtime.config.kinds import BUILT_IN_ALIASES, KINDS
from runtime.config.prices import known_model, priced_model
from runtime.config.settings import ServerSettings, TelemetrySettings
from tests.daemon.config_files import MINIMAL, load


def test_the_server_has_the_defaults_of_the_contract() -> None:
    assert load(MINIMAL).server == ServerSettings(
        host="127.0.0.1",
        port=8080,
        admin_key=None,
        allow_anonymous=False,
        drain_s=30.0,
        max_body_bytes=20 * 1024 * 1024,
        max_requests=10000,
        client_idle_s=60.0,
    )


def test_a_provider_has_the_defaults_of_the_contract() -> None:
    loaded = load(MINIMAL)
    spec = loaded.snapshot.providers[0]
    assert (spec.id, spec.kind, spec.endpoint) == ("main", "openai", "https://api.openai.com/v1")
    assert (spec.models, spec.takes_any, spec.lists_models, spec.default_model) == ((), True, True, None)
    assert spec.capabilities == ("chat", "embeddings", "json", "streaming", "tools", "vision")
    assert (spec.weight, spec.priority, spec.region, spec.zone, spec.tags) == (1, 0, None, None, ())
    assert (spec.trusted, spec.stream_usage, spec.enabled) == (False, "insert", True)
    assert spec.limits == LimitsSpec(None, None, None, None)
    assert spec.circuit == CircuitSpec(5, None, 60.0, 10, 30.0, 1)
    assert spec.timeouts == TimeoutsSpec(connect_s=2.0, first_byte_s=None, idle_s=30.0, total_s=600.0)
    assert spec.probe == ProbeSpec("models", 30.0)
    assert loaded.credentials["main"].call_headers == ()


def test_routing_has_the_defaults_of_the_contract() -> None:
    assert load(MINIMAL).snapshot.routing == RoutingSpec(
        strategy="adaptive",
        seconds_per_usd=100.0,
        fanout=16,
        decision_timeout_s=0.05,
        deadline_s=600.0,
        failover=FailoverSpec(
            enabled=True,
            max_attempts=3,
            on_status=("429", "5xx"),
            backoff=BackoffSpec("exponential", 0.1, 2.0, 5.0, True),
            retry_share=0.2,
        ),
        queue_max_wait_s=10.0,
        queue_max_length=1000,
    )


def test_health_and_telemetry_have_the_defaults_of_the_contract() -> None:
    loaded = load(MINIMAL)
    assert loaded.snapshot.health == HealthSpec(0.7, 0.3, 5, 0.95, None, 60.0, 0.05)
    assert loaded.telemetry == TelemetrySettings("", "http/protobuf", 0.1, "pointsman")


def test_the_first_provider_is_the_default_unless_another_is_named() -> None:
    two = MINIMAL + "  - {id: other, kind: groq}\n"
    assert load(two).snapshot.default_provider == "main"
    assert load(two + "default_provider: other\n").snapshot.default_provider == "other"


def test_sections_left_empty_have_their_defaults() -> None:
    empty = (
        "server:\nrouting:\n  failover:\n  queue:\nhealth:\ntelemetry:\n" + MINIMAL + "    limits:\n    circuit:\n    probe:\n"
    )
    bare = load(MINIMAL)
    loaded = load(empty)
    assert (loaded.server, loaded.telemetry) == (bare.server, bare.telemetry)
    assert loaded.snapshot.routing == bare.snapshot.routing
    assert replace(loaded.snapshot.providers[0], credential="") == replace(bare.snapshot.providers[0], credential="")


FULL = """
server: {host: "::1", port: 0, admin_key: boss, drain: 5s, max_body: 64KiB, max_requests: 7, client_idle: 250ms}
providers:
  - id: a.b-c_1
    kind: openai_compatible
    base_url: http://127.0.0.1:9000/v1/
    api_key: sk-1
    headers: {OpenAI-Organization: acme, X-Team: "blue green"}
    models:
      - plain
      - {name: public, upstream: private, input_price: 2.5, output_price: 10, context_window: 128000, max_output_tokens: 16384}
    default_model: plain
    capabilities: [tools, chat]
    weight: 3
    priority: -2
    region: eu
    zone: eu-1
    tags: [fast, cheap]
    trusted: true
    transport: aiohttp
    stream_usage: insert
    limits: {requests_per_minute: 60, tokens_per_minute: 1000, max_concurrency: 4, burst: 2}
    circuit: {failures: 2, failure_rate: 0.5, window: 10s, minimum_calls: 3, open_for: 1s, half_open_calls: 2, open_max: 1m}
    timeouts: {connect: 1s, first_byte: 2s, idle: 3s, total: 4s, min_tokens_per_second: 5}
    probe: {kind: off, interval: 5m}
    enabled: false
default_provider: a.b-c_1
aliases: {quick: plain, gpt4: public}
routing:
  strategy: least_latency
  adaptive: {seconds_per_usd: 0}
  least_latency: {quantile: p95}
  fanout: 4
  decision_timeout: 20ms
  deadline: 1m
  strict: false
  failover:
    enabled: false
    max_attempts: 5
    on_status: [408, 5XX, "429"]
    on_rate_limit: false
    with_replacement: true
    retry_share: 0.5
    backoff: {kind: linear, base: 1s, factor: 3, max: 2s, jitter: false}
  queue: {max_wait: 0, max_length: 0}
  hedge: {enabled: false, after: 2s, max_share: 0.1}
  explore: {enabled: false, max_share: 0.2, idle: 1m}
  affinity: {enabled: false, ttl: 2m}
health:
  {min_score: 0.5, ewma_alpha: 1, failures: 3, min_success_rate: 0.9, max_p95: 2s, window: 30s, decay: 0.1, slow_at: 3,
   weights: {success: 0.6, errors: 0.3, latency: 0.1}, failures_factor: 0.25, minimum_calls: 5, stale_windows: 1}
telemetry: {otlp_endpoint: "http://localhost:4317", otlp_protocol: grpc, sample_ratio: 1, service_name: gate}
"""


def test_D1_every_supported_key_arrives() -> None:
    loaded = load(FULL)
    spec, routing = loaded.snapshot.providers[0], loaded.snapshot.routing
    assert spec.models == (
        ModelSpec("plain", "plain"),
        ModelSpec("public", "private", 2.5, 10.0, 128000, 16384),
    )
    assert (spec.endpoint, spec.default_model, spec.capabilities) == ("http://127.0.0.1:9000/v1", "plain", ("chat", "tools"))
    assert (spec.takes_any, spec.lists_models, spec.enabled, spec.trusted) == (False, False, False, True)
    assert (spec.weight, spec.priority, spec.region, spec.zone, spec.tags) == (3, -2, "eu", "eu-1", ("fast", "cheap"))
    assert (spec.limits, spec.circuit) == (LimitsSpec(60, 1000, 4, 2), CircuitSpec(2, 0.5, 10, 3, 1, 2, 60))
    assert (spec.timeouts, spec.probe, spec.stream_usage) == (TimeoutsSpec(1, 2, 3, 4, 5), ProbeSpec("off", 300), "insert")
    assert routing == RoutingSpec(
        "least_latency", 0, 4, 0.02, 60,
        FailoverSpec(False, 5, ("408", "5xx", "429"), BackoffSpec("linear", 1, 3, 2, False), 0.5, False, True), 0, 0,
        latency_quantile="p95", hedge=HedgeSpec(False, "fixed", 2, 0.1), explore=ExploreSpec(False, 0.2, 60),
        affinity=AffinitySpec(False, 120),
    )  # fmt: skip
    assert loaded.snapshot.health == HealthSpec(0.5, 1, 3, 0.9, 2, 30, 0.1, 0.6, 0.3, 0.1, 3, 0.25, 5, 1)
    assert loaded.telemetry == TelemetrySettings("http://localhost:4317", "grpc", 1, "gate")
    server = loaded.server
    assert (server.host, server.port, server.drain_s, server.max_body_bytes) == ("::1", 0, 5, 65536)
    assert (server.max_requests, server.client_idle_s) == (7, 0.25)
    assert server.admin_key is not None
    assert server.admin_key.get_secret_value() == "boss"
    assert loaded.credentials["a.b-c_1"].call_headers == (
        ("Authorization", "Bearer sk-1"),
        ("OpenAI-Organization", "acme"),
        ("X-Team", "blue green"),
    )


def test_an_authorization_header_stands_in_place_of_a_key() -> None:
    loaded = load(MINIMAL + "    headers: {authorization: Basic abc}\n")
    assert loaded.credentials["main"].call_headers == (("authorization", "Basic abc"),)


def test_A7_nine_aliases_are_built_in_and_the_file_overrides_them() -> None:
    assert len(BUILT_IN_ALIASES) == 9
    assert dict(load(MINIMAL).snapshot.aliases)["gpt4"] == "openai:gpt-4o"
    aliases = dict(load(FULL).snapshot.aliases)
    assert aliases == {**BUILT_IN_ALIASES, "quick": "plain", "gpt4": "public"}
    assert list(aliases) == sorted(aliases)


@pytest.mark.parametrize(("kind", "usage"), [("openai", "insert"), ("mistral", "estimate"), ("vllm", "insert")])
def test_usage_of_streams_is_asked_for_only_where_the_kind_is_known_to_take_that(kind: str, usage: str) -> None:
    assert load(f"providers: [{{id: a, kind: {kind}}}]").snapshot.providers[0].stream_usage == usage


def test_every_kind_but_openai_compatible_knows_where_it_is() -> None:
    for kind in KINDS:
        url = ", base_url: http://localhost:1" if kind == "openai_compatible" else ""
        endpoint = load(f"providers: [{{id: a, kind: {kind}{url}}}]").snapshot.providers[0].endpoint
        assert endpoint.startswith(("https://", "http://localhost:"))


def test_prices_and_context_window_come_from_the_price_library_where_the_file_has_none() -> None:
    listed = MINIMAL + "    models: [gpt-4o, {name: mine, upstream: gpt-4o-mini, input_price: 99}, nobodys-model]\n"
    gpt, mine, unknown = load(listed).snapshot.providers[0].models
    assert gpt.input_price is not None
    assert gpt.output_price is not None
    assert 0 < gpt.input_price < gpt.output_price
    assert gpt.context_window == 128000
    assert mine.input_price == 99
    assert mine.output_price is not None
    assert (unknown.input_price, unknown.output_price, unknown.context_window) == (None, None, None)


def test_a_local_server_is_never_taken_for_the_vendor_of_its_models() -> None:
    assert known_model("ollama", "http://localhost:11434/v1", "gpt-4o").input_price is None
    assert known_model("openai_compatible", "http://localhost:1/v1", "gpt-4o").input_price is None
    assert known_model("openai_compatible", "http://10.0.0.7:1/v1", "gpt-4o").input_price is None
    assert known_model("openai_compatible", "http://[::1]:1/v1", "gpt-4o").input_price is None
    assert known_model("openai_compatible", "https://api.openai.com/v1", "gpt-4o").input_price is not None


def test_a_model_that_a_provider_lists_itself_is_priced_too() -> None:
    assert priced_model("openai", "https://api.openai.com/v1", "gpt-4o").input_price is not None
    assert priced_model("vllm", "http://localhost:8000/v1", "x") == ModelSpec("x", "x")


def test_an_embedding_model_is_priced_though_it_puts_nothing_out() -> None:
    known = known_model("openai", "https://api.openai.com/v1", "text-embedding-3-small")
    assert known.input_price is not None
    assert known.output_price == 0


def test_the_fingerprint_changes_with_key_and_headers_and_holds_neither() -> None:
    def fingerprint(more: str) -> str:
        return load(MINIMAL + more).snapshot.providers[0].credential

    plain, key, other = fingerprint(""), fingerprint("    api_key: sk-1\n"), fingerprint("    api_key: sk-2\n")
    header = fingerprint("    headers: {X-A: sk-1}\n")
    assert len({plain, key, other, header}) == 4
    assert fingerprint("    api_key: sk-1\n") == key
    assert all(len(mark) == 12 for mark in (plain, key, other, header))


def test_the_same_key_has_another_fingerprint_in_another_process() -> None:
    credential = load(MINIMAL + "    api_key: sk-1\n").credentials["main"]
    assert credential.fingerprint(b"one salt") != credential.fingerprint(b"another salt")
