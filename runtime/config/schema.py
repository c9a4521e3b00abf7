"""The file as a whole: keys, types, defaults and bounds as CONTRACT has them, as far as this version goes.

Nothing here is read on the way of a request: ``build`` turns a valid file into messages and settings once.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic.json_schema import WithJsonSchema

from runtime.config.schema_policy import RULES_MAX, PoolEntry, RuleEntry, StrategyName, TenantEntry
from runtime.config.schema_provider import Provider, Secret, Section
from runtime.config.values import (
    Duration,
    Label,
    PositiveDuration,
    Real,
    Share,
    Size,
    Whole,
    checked_url,
    parse_duration_s,
    plain_text,
    problem,
)

UNSUPPORTED_KEYS = frozenset(
    (
        "budgets",
        "cache",
        "keys",
        "ledger",
        "pools.*.keys",
        "pools.*.trusted",
        "tenants.*.budget",
        "tenants.*.budgets",
        "tenants.*.keys",
    )
)
"""Keys of later versions: refused by name, so that nobody takes them for a typing error. ``*`` is any name."""


_WEIGHTS_OFF_MAX = 1e-6
"""How far from 1 the sum of weights may be."""


def _only_false(value: bool) -> bool:
    if value:
        raise problem("true is not supported by this version")
    return value


def _status(value: Any) -> Any:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and len(text) == 3 and text[0] in "345":
        rest = text[1:].lower()
        if rest == "xx" or (rest.isascii() and rest.isdecimal()):
            return text.lower()
    raise problem("expected a status from 300 to 599 or a class such as 5xx")


def _url_or_empty(url: str) -> str:
    return checked_url(url) if url else url


OptionalUrl = Annotated[str, AfterValidator(_url_or_empty)]
PathText = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(plain_text)]
OnlyFalse = Annotated[bool, AfterValidator(_only_false), WithJsonSchema({"const": False})]
Status = Annotated[
    str,
    BeforeValidator(_status),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 300, "maximum": 599}, {"type": "string", "pattern": "^[345](xx|[0-9]{2})$"}]}
    ),
]


class Tls(Section):
    """Who the gateway is to clients that speak TLS."""

    certificate: PathText
    key: PathText


class Server(Section):
    """Where the gateway listens and what it takes."""

    host: Label = "127.0.0.1"
    port: Whole = Field(8080, ge=0, le=65535)
    admin_key: Secret = SecretStr("")
    allow_anonymous: bool = False
    drain: Duration = 30.0
    max_body: Size = Field(20 << 20, ge=1024)
    max_requests: Whole = Field(10_000, ge=1, le=1_000_000)
    client_idle: PositiveDuration = 60.0
    lane: Literal["raw", "aiohttp"] = "raw"
    tls: Tls | None = None


class Backoff(Section):
    """The wait before tried providers are tried again."""

    kind: Literal["none", "linear", "exponential", "fibonacci"] = "exponential"
    base: Duration = 0.1
    factor: Real = Field(2.0, ge=1, le=100)
    max: Duration = 5.0
    jitter: bool = True

    @model_validator(mode="after")
    def _grows(self) -> "Backoff":
        if self.kind != "none" and self.max < self.base:
            raise problem("max must not be shorter than base")
        return self


class Failover(Section):
    """How often and after what another provider is tried."""

    enabled: bool = True
    max_attempts: Whole = Field(3, ge=1, le=100)
    on_status: list[Status] = Field(default=["429", "5xx"], max_length=100)
    on_rate_limit: bool = True
    with_replacement: bool = False
    retry_share: Share = 0.2
    backoff: Backoff = Backoff()


class Queue(Section):
    """How long and how many requests wait while all providers are busy."""

    max_wait: Duration = 10.0
    max_length: Whole = Field(1000, ge=0, le=1_000_000)


class Adaptive(Section):
    """What ``adaptive`` weighs."""

    seconds_per_usd: Real = Field(100.0, ge=0, le=10**9)


class LeastLatency(Section):
    """What ``least_latency`` compares."""

    quantile: Literal["p50", "p95"] = "p50"


def _hedge_after(value: Any) -> Any:
    if value in ("auto", "p95"):
        return value
    if isinstance(value, str) and not value[:1].isdigit():
        raise problem("expected auto, p95 or a duration such as 2s")
    return parse_duration_s(value)


HedgeAfter = Annotated[
    Literal["auto", "p95"] | PositiveDuration,
    BeforeValidator(_hedge_after),
    WithJsonSchema({"type": ["string", "number"]}),
]


class Hedge(Section):
    """A second call beside one that is overdue."""

    enabled: bool = True
    after: HedgeAfter = "auto"
    max_share: Share = 0.05


class Explore(Section):
    """Copies of small requests to providers that are out of use."""

    enabled: bool = True
    max_share: Share = 0.03
    idle: PositiveDuration = 10.0


class Affinity(Section):
    """Conversations that stay with the provider that has their beginning in its cache."""

    enabled: bool = True
    ttl: PositiveDuration = 300.0


class Routing(Section):
    """How requests are routed."""

    strategy: StrategyName = "adaptive"
    adaptive: Adaptive = Adaptive()
    least_latency: LeastLatency = LeastLatency()
    fanout: Whole = Field(16, ge=1, le=1000)
    decision_timeout: PositiveDuration = 0.05
    deadline: PositiveDuration = 600.0
    strict: OnlyFalse = False
    failover: Failover = Failover()
    queue: Queue = Queue()
    hedge: Hedge = Hedge()
    explore: Explore = Explore()
    affinity: Affinity = Affinity()


class HealthWeights(Section):
    """What the three terms of the health score weigh."""

    success: Share = 0.5
    errors: Share = 0.2
    latency: Share = 0.3

    @model_validator(mode="after")
    def _make_one(self) -> "HealthWeights":
        if abs(self.success + self.errors + self.latency - 1.0) > _WEIGHTS_OFF_MAX:
            raise problem("success, errors and latency must make 1 together")
        return self


class Health(Section):
    """The constants of the health score."""

    min_score: Share = 0.7
    ewma_alpha: Real = Field(0.3, ge=0.01, le=1)
    failures: Whole = Field(5, ge=1, le=1_000_000)
    min_success_rate: Share = 0.95
    max_p95: PositiveDuration | None = None
    window: PositiveDuration = 60.0
    decay: Share = 0.05
    weights: HealthWeights = HealthWeights()
    slow_at: Real = Field(4.0, gt=1, le=1000)
    failures_factor: Share = 0.5
    minimum_calls: Whole = Field(20, ge=1, le=1_000_000)
    stale_windows: Real = Field(2.0, ge=0, le=10_000)


class Telemetry(Section):
    """Where traces and metrics go."""

    otlp_endpoint: OptionalUrl = ""
    otlp_protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    sample_ratio: Share = 0.1
    service_name: Label = "pointsman"
    capture_content: OnlyFalse = False


class File(Section):
    """The whole file."""

    server: Server = Server()
    providers: list[Provider] = Field(min_length=1, max_length=10_000)
    default_provider: Label | None = None
    aliases: dict[Label, Label] = Field(default_factory=dict, max_length=10_000)
    routing: Routing = Routing()
    pools: dict[Label, PoolEntry] = Field(default_factory=dict, max_length=10_000)
    rules: list[RuleEntry] = Field(default_factory=list, max_length=RULES_MAX)
    tenants: dict[Label, TenantEntry] = Field(default_factory=dict, max_length=10_000)
    health: Health = Health()
    telemetry: Telemetry = Telemetry()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file for editors. Numbers and booleans may also be written as ``${VARIABLE}``."""
    schema = {name: _or_variable(part) for name, part in File.model_json_schema().items()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Configuration of Pointsman"}


_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _or_variable(part: Any) -> Any:
    if isinstance(part, list):
        return [_or_variable(item) for item in part]
    if not isinstance(part, dict):
        return part
    if part.get("type") in ("integer", "number", "boolean"):
        about = {name: part[name] for name in ("title", "description", "default") if name in part}
        # Where a value may also be null, pydantic leaves its own names of the bounds.
        value = {_BOUNDS.get(name, name): item for name, item in part.items() if name not in about}
        return {**about, "anyOf": [value, {"type": "string", "pattern": r"\$\{"}]}
    return {name: _or_variable(item) for name, item in part.items()}
