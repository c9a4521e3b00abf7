"""The words of configuration: one immutable snapshot with a generation, told to all. Credentials never appear here."""

from messages.base import Message, message
from messages.limits import LimitsSpec as LimitsSpec
from messages.policy import PoolSpec, Rule, TenantSpec


@message("control.model_spec")
class ModelSpec(Message):
    """A model as a provider offers it. Prices in USD per million tokens, None: unknown."""

    name: str
    upstream: str
    input_price: float | None = None
    output_price: float | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None


@message("control.circuit_spec")
class CircuitSpec(Message):
    """When a provider's circuit opens and how it closes. Times in seconds."""

    failures: int = 5
    failure_rate: float | None = None
    window_s: float = 60.0
    minimum_calls: int = 10
    open_for_s: float = 30.0
    half_open_calls: int = 1
    open_max_s: float = 600.0
    """The longest wait that doubling leads to."""


@message("control.timeouts_spec")
class TimeoutsSpec(Message):
    """Times of one attempt in seconds. ``first_byte_s`` None: not set, so the default by kind of answer."""

    connect_s: float = 2.0
    first_byte_s: float | None = None
    idle_s: float = 30.0
    total_s: float = 600.0
    min_tokens_per_s: float = 0.0
    """A stream that begins slower is a failure; 0: any rate will do."""


@message("control.probe_spec")
class ProbeSpec(Message):
    """How a provider is probed: ``models`` (its list of models), ``http`` (its base URL), ``chat`` (a model) or ``off``."""

    kind: str = "models"
    interval_s: float = 30.0
    model: str | None = None
    """Public name of the model that ``chat`` calls; None: the cheapest whose price is known."""
    spend_usd_max: float = 0.05
    """What ``chat`` may cost in a day (UTC)."""


@message("control.health_spec")
class HealthSpec(Message):
    """Constants of the health score (FEATURES D5). Times in seconds."""

    min_score: float = 0.7
    ewma_alpha: float = 0.3
    failures: int = 5
    min_success_rate: float = 0.95
    max_p95_s: float | None = None
    window_s: float = 60.0
    decay: float = 0.05
    success_weight: float = 0.5
    """The three weights make 1 together."""
    error_weight: float = 0.2
    latency_weight: float = 0.3
    slow_at: float = 4.0
    """Times the normal latency from which its term is 0; more than 1."""
    failures_factor: float = 0.5
    """What the score is multiplied with while ``failures`` have failed in a row."""
    minimum_calls: int = 20
    """Calls in the window from which ``min_success_rate`` counts: one bad call of three says little."""
    stale_windows: float = 2.0
    """Windows without news after which the score begins to fade."""


@message("control.provider_spec")
class ProviderSpec(Message):
    """A provider as configured, without its secrets."""

    id: str
    kind: str
    endpoint: str
    """Base URL, for people and for identity: a changed one resets health, latency and circuit."""
    credential: str
    """A fingerprint that changes with the key and tells nothing about it."""
    models: tuple[ModelSpec, ...] = ()
    takes_any: bool = False
    """True: its models are not known, so it takes any name."""
    lists_models: bool = False
    """True: the file names no models, so its own list counts once it is known."""
    default_model: str | None = None
    capabilities: tuple[str, ...] = ("chat", "embeddings", "json", "streaming", "tools", "vision")
    weight: int = 1
    priority: int = 0
    region: str | None = None
    zone: str | None = None
    tags: tuple[str, ...] = ()
    trusted: bool = False
    stream_usage: str = "auto"
    """``insert`` or ``estimate``; ``auto`` was resolved by kind when the file was loaded."""
    limits: LimitsSpec = LimitsSpec()
    circuit: CircuitSpec = CircuitSpec()
    timeouts: TimeoutsSpec = TimeoutsSpec()
    probe: ProbeSpec = ProbeSpec()
    enabled: bool = True
    transport: str = "auto"
    """The HTTP client of its calls: ``auto``, ``raw`` or ``aiohttp``."""
    status: str = ""
    """Said by the admin API: ``unavailable`` or ``auth_failed`` takes no calls until it is said otherwise; empty: nothing."""
    status_reason: str = ""


@message("control.backoff_spec")
class BackoffSpec(Message):
    """Wait between rounds of attempts, in seconds. ``kind``: none, linear, exponential or fibonacci."""

    kind: str = "exponential"
    base_s: float = 0.1
    factor: float = 2.0
    max_s: float = 5.0
    jitter: bool = True


@message("control.failover_spec")
class FailoverSpec(Message):
    """How often and after what another provider is tried."""

    enabled: bool = True
    max_attempts: int = 3
    on_status: tuple[str, ...] = ("429", "5xx")
    """Status codes and classes."""
    backoff: BackoffSpec = BackoffSpec()
    retry_share: float = 0.2
    """Repeats at a provider that has failed the request before, as a share of its first calls."""
    on_rate_limit: bool = True
    """False: a provider at its rate limit is not passed over for one that comes after it by chain or fixed order."""
    with_replacement: bool = False
    """True: after a back-off those that failed for now compete with those not tried."""


@message("control.hedge_spec")
class HedgeSpec(Message):
    """When a second call is made beside one that is overdue. Times in seconds."""

    enabled: bool = True
    after: str = "auto"
    """``auto`` (by the provider's own spread, or earlier where the runner-up would be faster), ``p95`` or ``fixed``."""
    after_s: float = 0.0
    """Of ``fixed``."""
    max_share: float = 0.05
    """Of requests."""


@message("control.affinity_spec")
class AffinitySpec(Message):
    """Whether conversations stay with the provider that has their beginning in its cache. Times in seconds."""

    enabled: bool = True
    ttl_s: float = 300.0
    """So long after its last use a cache is taken to be there."""


@message("control.explore_spec")
class ExploreSpec(Message):
    """How providers that are out of use are found again, by copies of small requests. Times in seconds."""

    enabled: bool = True
    max_share: float = 0.03
    """Of requests."""
    idle_s: float = 10.0
    """Who has had no call for so long is unheard."""


@message("control.routing_spec")
class RoutingSpec(Message):
    """How requests are routed. Times in seconds."""

    strategy: str = "adaptive"
    seconds_per_usd: float = 100.0
    fanout: int = 16
    decision_timeout_s: float = 0.05
    deadline_s: float = 600.0
    failover: FailoverSpec = FailoverSpec()
    queue_max_wait_s: float = 10.0
    queue_max_length: int = 1000
    decisions_kept: int = 1000
    latency_quantile: str = "p50"
    """What ``least_latency`` compares: ``p50`` or ``p95``."""
    hedge: HedgeSpec = HedgeSpec()
    explore: ExploreSpec = ExploreSpec()
    affinity: AffinitySpec = AffinitySpec()


@message("control.config_snapshot")
class ConfigSnapshot(Message):
    """The whole configuration as of one generation."""

    generation: int
    providers: tuple[ProviderSpec, ...]
    default_provider: str
    aliases: tuple[tuple[str, str], ...]
    """(alias, name) pairs, sorted."""
    routing: RoutingSpec = RoutingSpec()
    health: HealthSpec = HealthSpec()
    seed: str = "0"
    """Root of all chance: each actor draws from ``Random(f"{seed}/{name}")``."""
    rules: tuple[Rule, ...] = ()
    """In the order of the file; the router sorts them by priority."""
    tenants: tuple[TenantSpec, ...] = ()
    pools: tuple[PoolSpec, ...] = ()


@message("control.propose")
class Propose(Message):
    """A validated file offered to the registry, which gives it the next generation. Answered by ``Configured``."""

    snapshot: ConfigSnapshot


@message("control.models_learned")
class ModelsLearned(Message):
    """A provider's own list of models became known."""

    provider: str
    models: tuple[ModelSpec, ...]


@message("control.get_snapshot")
class GetSnapshot(Message):
    """Answered by ``Configured``."""


@message("control.configured")
class Configured(Message):
    """The snapshot in force. Told to all who depend on it."""

    snapshot: ConfigSnapshot


@message("control.reconfigure")
class Reconfigure(Message):
    """A provider's part of the snapshot in force."""

    spec: ProviderSpec
    health: HealthSpec
    generation: int


@message("control.drain")
class Drain(Message):
    """Take nothing new; what is in flight runs to its end."""


@message("control.reset")
class Reset(Message):
    """Close the circuit and forget what health has learned."""


@message("control.timer")
class Timer(Message):
    """An actor's own alarm; ``what`` tells which."""

    what: str
