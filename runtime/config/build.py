"""From a valid file to what the daemon works with: one snapshot of messages, and settings that never become one."""

from pathlib import Path

from actors.registry.soundness import notes_of
from messages.control import (
    AffinitySpec,
    BackoffSpec,
    CircuitSpec,
    ConfigSnapshot,
    ExploreSpec,
    FailoverSpec,
    HealthSpec,
    HedgeSpec,
    LimitsSpec,
    ModelSpec,
    ProbeSpec,
    ProviderSpec,
    RoutingSpec,
    TimeoutsSpec,
)
from runtime.config.build_policy import pool_spec, rule_of, tenant_spec
from runtime.config.kinds import BUILT_IN_ALIASES, KINDS
from runtime.config.prices import known_model
from runtime.config.schema import File, Health, Hedge, Routing, Server
from runtime.config.schema_provider import AUTO, Model, Provider
from runtime.config.settings import Credential, Loaded, ServerSettings, TelemetrySettings, TlsFiles


def build(file: File, path: Path | None, notes: tuple[str, ...] = ()) -> Loaded:
    """Everything the daemon needs of ``file``, which is valid. The generation is the registry's to give; here it is 0."""
    credentials = {provider.id: credential_of(provider) for provider in file.providers}
    snapshot = ConfigSnapshot(
        generation=0,
        providers=tuple(provider_spec(provider, credentials[provider.id]) for provider in file.providers),
        default_provider=file.default_provider or file.providers[0].id,
        aliases=tuple(sorted({**BUILT_IN_ALIASES, **file.aliases}.items())),
        routing=_routing(file.routing),
        health=_health(file.health),
        rules=tuple(rule_of(rule) for rule in file.rules),
        tenants=tuple(tenant_spec(name, tenant) for name, tenant in file.tenants.items()),
        pools=tuple(pool_spec(model, pool) for model, pool in file.pools.items()),
    )
    telemetry = TelemetrySettings(
        otlp_endpoint=file.telemetry.otlp_endpoint,
        otlp_protocol=file.telemetry.otlp_protocol,
        sample_ratio=file.telemetry.sample_ratio,
        service_name=file.telemetry.service_name,
    )
    return Loaded(snapshot, credentials, _server(file.server, path), telemetry, path, (*notes, *notes_of(snapshot)))


def _base_url(provider: Provider) -> str:
    base_url = provider.base_url or KINDS[provider.kind].base_url
    assert base_url, "a kind without a base URL was refused without one"
    return base_url


def credential_of(provider: Provider) -> Credential:
    """How ``provider``, which is valid, is called."""
    return Credential(
        provider=provider.id,
        kind=provider.kind,
        base_url=_base_url(provider),
        api_key=provider.api_key if provider.api_key and provider.api_key.get_secret_value() else None,
        headers=tuple((name, value.get_secret_value()) for name, value in provider.headers.items()),
        timeouts=_timeouts(provider),
    )


def _timeouts(provider: Provider) -> TimeoutsSpec:
    timeouts = provider.timeouts
    return TimeoutsSpec(timeouts.connect, timeouts.first_byte, timeouts.idle, timeouts.total, timeouts.min_tokens_per_second)


def provider_spec(provider: Provider, credential: Credential) -> ProviderSpec:
    """``provider``, which is valid, as a message."""
    kind = KINDS[provider.kind]
    stream_usage = provider.stream_usage
    if stream_usage == "auto":
        stream_usage = "insert" if kind.includes_usage else "estimate"
    return ProviderSpec(
        id=provider.id,
        kind=provider.kind,
        endpoint=credential.base_url,
        credential=credential.fingerprint(),
        models=tuple(_model(provider.kind, credential.base_url, model) for model in provider.models or ()),
        takes_any=provider.models is None,
        lists_models=provider.models is None,
        default_model=provider.default_model,
        capabilities=tuple(sorted(set(provider.capabilities or kind.capabilities))),
        weight=provider.weight,
        priority=provider.priority,
        region=provider.region,
        zone=provider.zone,
        tags=tuple(dict.fromkeys(provider.tags)),
        trusted=provider.trusted,
        stream_usage=stream_usage,
        limits=_limits(provider),
        circuit=_circuit(provider),
        timeouts=credential.timeouts,
        probe=_probe(provider),
        enabled=provider.enabled,
        transport=provider.transport,
    )


def _model(kind: str, base_url: str, model: Model) -> ModelSpec:
    upstream = model.upstream or model.name
    known = known_model(kind, base_url, upstream)
    return ModelSpec(
        name=model.name,
        upstream=upstream,
        input_price=model.input_price if model.input_price is not None else known.input_price,
        output_price=model.output_price if model.output_price is not None else known.output_price,
        context_window=model.context_window if model.context_window is not None else known.context_window,
        max_output_tokens=model.max_output_tokens,
    )


def _limits(provider: Provider) -> LimitsSpec:
    limits, concurrency = provider.limits, provider.limits.max_concurrency
    return LimitsSpec(
        limits.requests_per_minute,
        limits.tokens_per_minute,
        None if concurrency == AUTO else concurrency,
        limits.burst,
        adaptive=concurrency == AUTO,
    )


def _probe(provider: Provider) -> ProbeSpec:
    probe = provider.probe
    return ProbeSpec(probe.kind, probe.interval, probe.model, probe.max_spend_per_day)


def _circuit(provider: Provider) -> CircuitSpec:
    circuit = provider.circuit
    return CircuitSpec(
        failures=circuit.failures,
        failure_rate=circuit.failure_rate,
        window_s=circuit.window,
        minimum_calls=circuit.minimum_calls,
        open_for_s=circuit.open_for,
        half_open_calls=circuit.half_open_calls,
        open_max_s=circuit.open_max,
    )


def _routing(routing: Routing) -> RoutingSpec:
    failover, backoff = routing.failover, routing.failover.backoff
    return RoutingSpec(
        strategy=routing.strategy,
        seconds_per_usd=routing.adaptive.seconds_per_usd,
        fanout=routing.fanout,
        decision_timeout_s=routing.decision_timeout,
        deadline_s=routing.deadline,
        failover=FailoverSpec(
            enabled=failover.enabled,
            max_attempts=failover.max_attempts,
            on_status=tuple(dict.fromkeys(failover.on_status)),
            backoff=BackoffSpec(backoff.kind, backoff.base, backoff.factor, backoff.max, backoff.jitter),
            retry_share=failover.retry_share,
            on_rate_limit=failover.on_rate_limit,
            with_replacement=failover.with_replacement,
        ),
        queue_max_wait_s=routing.queue.max_wait,
        queue_max_length=routing.queue.max_length,
        latency_quantile=routing.least_latency.quantile,
        hedge=_hedge(routing.hedge),
        explore=ExploreSpec(routing.explore.enabled, routing.explore.max_share, routing.explore.idle),
        affinity=AffinitySpec(routing.affinity.enabled, routing.affinity.ttl),
    )


def _hedge(hedge: Hedge) -> HedgeSpec:
    after = hedge.after
    if isinstance(after, str):
        return HedgeSpec(hedge.enabled, after, 0.0, hedge.max_share)
    return HedgeSpec(hedge.enabled, "fixed", after, hedge.max_share)


def _health(health: Health) -> HealthSpec:
    return HealthSpec(
        min_score=health.min_score,
        ewma_alpha=health.ewma_alpha,
        failures=health.failures,
        min_success_rate=health.min_success_rate,
        max_p95_s=health.max_p95,
        window_s=health.window,
        decay=health.decay,
        success_weight=health.weights.success,
        error_weight=health.weights.errors,
        latency_weight=health.weights.latency,
        slow_at=health.slow_at,
        failures_factor=health.failures_factor,
        minimum_calls=health.minimum_calls,
        stale_windows=health.stale_windows,
    )


def _server(server: Server, path: Path | None) -> ServerSettings:
    # Files are named as seen from the one that names them.
    folder = path.parent if path is not None else Path()
    tls = TlsFiles(folder / server.tls.certificate, folder / server.tls.key) if server.tls is not None else None
    return ServerSettings(
        host=server.host,
        port=server.port,
        admin_key=server.admin_key if server.admin_key and server.admin_key.get_secret_value() else None,
        allow_anonymous=server.allow_anonymous,
        drain_s=server.drain,
        max_body_bytes=server.max_body,
        max_requests=server.max_requests,
        client_idle_s=server.client_idle,
        lane=server.lane,
        tls=tls,
    )
