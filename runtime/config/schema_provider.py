"""The part of the file that describes one provider: keys, types, defaults and bounds as CONTRACT has them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue, WithJsonSchema
from pydantic_core import CoreSchema

from runtime.config.kinds import EVERYTHING, KINDS, UNSUPPORTED_KINDS
from runtime.config.values import (
    Duration,
    Label,
    Name,
    PositiveDuration,
    Real,
    Url,
    Whole,
    checked_header_value,
    problem,
)

_HEADER_NAME_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_HEADERS_OF_OURS = frozenset(
    ("connection", "content-length", "content-type", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)


class Section(BaseModel):
    """A mapping in the file. Unknown keys are errors; a section left empty has its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, value: Any) -> Any:
        return {} if value is None else value


def checked_secret(secret: SecretStr) -> SecretStr:
    """``secret``, if it can stand in a header: printable ASCII without spaces. Raises ``PydanticCustomError``."""
    if any(not "!" <= character <= "~" for character in secret.get_secret_value()):
        raise problem("must be printable ASCII without spaces or line breaks")
    return secret


def _checked_kind(kind: str) -> str:
    if kind in UNSUPPORTED_KINDS:
        raise problem(f"kind '{kind}' is not supported by this version")
    if kind not in KINDS:
        raise problem(f"unknown kind; known are: {', '.join(KINDS)}")
    return kind


def _checked_capability(capability: str) -> str:
    if capability not in EVERYTHING:
        raise problem(f"unknown capability; known are: {', '.join(EVERYTHING)}")
    return capability


def _checked_header_name(name: str) -> str:
    if not name or not _HEADER_NAME_CHARACTERS.issuperset(name):
        raise problem("is no name for a header")
    if name.lower() in _HEADERS_OF_OURS:
        raise problem("this header is set by the gateway itself")
    return name


def _checked_header(value: SecretStr) -> SecretStr:
    checked_header_value(value.get_secret_value())
    return value


def _concurrency(value: object) -> object:
    if value == "auto":
        raise problem("max_concurrency 'auto' is not supported by this version; give a number or leave it out")
    return value


def _no_token_rate(value: float) -> float:
    if value:
        raise problem("a minimum other than 0 is not supported by this version")
    return value


def _name_alone(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Secret = Annotated[SecretStr, AfterValidator(checked_secret)]
KindName = Annotated[str, AfterValidator(_checked_kind), WithJsonSchema({"type": "string", "enum": list(KINDS)})]
Capability = Annotated[str, AfterValidator(_checked_capability), WithJsonSchema({"type": "string", "enum": list(EVERYTHING)})]
HeaderName = Annotated[str, AfterValidator(_checked_header_name)]
HeaderValue = Annotated[SecretStr, AfterValidator(_checked_header)]


class Model(Section):
    """A model a provider offers; a plain name stands for the mapping with only ``name``. Prices: USD per million tokens."""

    name: Label
    upstream: Label | None = None
    input_price: Real | None = Field(None, ge=0, le=1_000_000)
    output_price: Real | None = Field(None, ge=0, le=1_000_000)
    context_window: Whole | None = Field(None, ge=1, le=10**12)
    max_output_tokens: Whole | None = Field(None, ge=1, le=10**12)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The mapping or the plain name."""
        mapping = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"type": "string", "minLength": 1}, dict(mapping)]}


class Limits(Section):
    """What a provider may be given. None: no limit."""

    requests_per_minute: Real | None = Field(None, gt=0, le=10**9)
    tokens_per_minute: Real | None = Field(None, gt=0, le=10**12)
    max_concurrency: Annotated[Whole | None, BeforeValidator(_concurrency)] = Field(None, ge=1, le=1_000_000)
    burst: Real | None = Field(None, ge=1, le=10**9)


class Circuit(Section):
    """When a provider's circuit opens and how it closes."""

    failures: Whole = Field(5, ge=1, le=1_000_000)
    failure_rate: Real | None = Field(None, gt=0, le=1)
    window: PositiveDuration = 60.0
    minimum_calls: Whole = Field(10, ge=1, le=1_000_000)
    open_for: PositiveDuration = 30.0
    half_open_calls: Whole = Field(1, ge=1, le=1_000)
    open_max: PositiveDuration = 600.0


class Timeouts(Section):
    """Times of one attempt. ``first_byte`` left out: 60 s for a stream, ``total`` for other answers."""

    connect: PositiveDuration = 2.0
    first_byte: PositiveDuration | None = None
    idle: PositiveDuration = 30.0
    total: PositiveDuration = 600.0
    min_tokens_per_second: Annotated[Real, AfterValidator(_no_token_rate)] = Field(0.0, ge=0)


class Probe(Section):
    """How a silent provider is asked for a sign of life."""

    kind: Literal["models", "chat", "http", "off"] = "models"
    interval: Duration = 30.0
    model: Label | None = None
    max_spend_per_day: Real = Field(0.05, ge=0, le=1_000_000)

    @model_validator(mode="after")
    def _not_without_pause(self) -> "Probe":
        if self.interval < 1:
            raise problem("an interval must be 1s at least")
        return self


class Provider(Section):
    """One provider. What concerns several keys or several providers is looked at in ``checks``."""

    id: Name
    kind: KindName
    base_url: Url | None = None
    api_key: Secret | None = None
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, max_length=64)
    models: list[Annotated[Model, BeforeValidator(_name_alone)]] | None = Field(None, min_length=1, max_length=10_000)
    default_model: Label | None = None
    capabilities: list[Capability] | None = Field(None, min_length=1)
    weight: Whole = Field(1, ge=0, le=1000)
    priority: Whole = Field(0, ge=-1_000_000, le=1_000_000)
    region: Label | None = None
    zone: Label | None = None
    tags: list[Label] = Field(default_factory=list, max_length=100)
    trusted: bool = False
    transport: Literal["auto", "raw", "aiohttp"] = "auto"
    stream_usage: Literal["auto", "insert", "estimate"] = "auto"
    limits: Limits = Limits()
    circuit: Circuit = Circuit()
    timeouts: Timeouts = Timeouts()
    probe: Probe = Probe()
    enabled: bool = True
