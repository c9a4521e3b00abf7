"""The part of the file that says who may go where: rules with their conditions and actions, tenants, pools.

A condition and an action are each a mapping of exactly one key. Both are models with one field per key, so that every error
carries its path; that there is one key is looked at before the rest.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Optional
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue, WithJsonSchema
from pydantic_core import CoreSchema

from actors.patterns import name_test, time_zone
from messages.policy import CONDITION_DEPTH_MAX, PRIORITIES
from runtime.config.schema_provider import Section
from runtime.config.strategies import CHECKED_STRATEGY, KnownStrategy
from runtime.config.values import Label, Real, Whole, plain_text, problem

NAMES_MAX = 1_000
"""Most names or parts of one condition or action."""
RULES_MAX = 10_000
DAY_S = 86_400

_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?|24:00(?::00)?")
_TIME_PATTERN = "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$|^24:00(:00)?$"
_LABEL_LENGTH_MAX = 200


def too_deep(when: Any) -> Iterator[tuple[str | int, ...]]:
    """Where in the raw condition ``when``, the first level, others lie deeper than ``CONDITION_DEPTH_MAX`` levels."""
    yield from _too_deep(when, (), 1)


def _too_deep(when: Any, path: tuple[str | int, ...], level: int) -> Iterator[tuple[str | int, ...]]:
    if not isinstance(when, dict):
        return
    if level > CONDITION_DEPTH_MAX:
        yield path
        return
    yield from _too_deep(when.get("not"), (*path, "not"), level + 1)
    for key in ("all", "any"):
        parts = when.get(key)
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            yield from _too_deep(part, (*path, key, index), level + 1)


def time_of_day_s(text: str) -> int:
    """Seconds since midnight from ``HH:MM`` or ``HH:MM:SS``; ``24:00`` is the midnight at the day's end.

    Raises ``PydanticCustomError`` for anything else.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise problem("expected a time of day such as 22:00 or 06:30:00")
    if match[1] is None:
        return DAY_S
    return int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3] or 0)


def _start_of_range(text: str) -> str:
    if time_of_day_s(text) == DAY_S:
        raise problem("24:00 can only be an end; a range that starts at midnight starts at 00:00")
    return text


def _end_of_range(text: str) -> str:
    time_of_day_s(text)
    return text


def _zone(name: str) -> str:
    try:
        time_zone(name)
    except ValueError:
        if not available_timezones():
            raise problem("cannot be looked up: this machine has no time zone database (install tzdata)") from None
        raise problem("is no known time zone; expected an IANA name such as UTC or Europe/Berlin") from None
    return name


def _pattern(pattern: str) -> str:
    try:
        name_test(pattern)
    except ValueError as error:
        # What the regular expressions' own error says can repeat what was written.
        reason = "what stands between the slashes is no regular expression" if error.__context__ else str(error)
        raise problem(reason) from None
    return pattern


def _one_or_many(value: Any) -> Any:
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        raise problem("expected a name or a list of names")
    if not value:
        raise problem("must not be empty")
    if len(value) > _LABEL_LENGTH_MAX:
        raise problem(f"must have {_LABEL_LENGTH_MAX} or fewer characters")
    return [plain_text(value)]


def _one_or_more_names(names: list[str]) -> list[str]:
    if not names:
        raise problem("must name one at least")
    return names


def _priority(value: Any) -> Any:
    if isinstance(value, str) and value in PRIORITIES:
        return PRIORITIES.index(value)
    if isinstance(value, str) and value in ("0", "1", "2", "3"):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(PRIORITIES):
        raise problem(f"expected {', '.join(PRIORITIES[:-1])} or {PRIORITIES[-1]}, or 0 to {len(PRIORITIES) - 1}")
    return value


def _only_true(value: bool, instead: str) -> bool:
    if not value:
        raise problem(instead)
    return value


def _true_or_never(value: bool) -> bool:
    return _only_true(value, "can only be true; use the other of always and never")


def _true_or_not(value: bool) -> bool:
    return _only_true(value, "can only be true; for the opposite use not: {...}")


def _deny(value: bool) -> bool:
    return _only_true(value, "can only be true; a caller whom no rule denies is allowed")


def _fixed_concurrency(value: object) -> object:
    if value == "auto":
        raise problem("can only be a number: what a tenant or a pool may have at once cannot be learned")
    return value


def _action_alone(value: Any) -> Any:
    if not isinstance(value, dict | list):
        raise problem("expected an action or a list of actions")
    return [value] if isinstance(value, dict) else value


_TRUE = WithJsonSchema({"const": True})
TrueOrNever = Annotated[bool, AfterValidator(_true_or_never), _TRUE]
TrueOrNot = Annotated[bool, AfterValidator(_true_or_not), _TRUE]
_LABEL_SCHEMA = {"type": "string", "minLength": 1, "maxLength": _LABEL_LENGTH_MAX}
_NAMES_SCHEMA = {"anyOf": [_LABEL_SCHEMA, {"type": "array", "items": _LABEL_SCHEMA, "minItems": 1, "maxItems": NAMES_MAX}]}
_PRIORITY_SCHEMA = {"anyOf": [{"enum": list(PRIORITIES)}, {"type": "integer", "minimum": 0, "maximum": len(PRIORITIES) - 1}]}

StrategyName = Annotated[str, CHECKED_STRATEGY, KnownStrategy()]
Names = Annotated[
    list[Label],
    Field(max_length=NAMES_MAX),
    BeforeValidator(_one_or_many),
    AfterValidator(_one_or_more_names),
    WithJsonSchema(_NAMES_SCHEMA),
]
"""One name or a list of them."""
PriorityName = Annotated[int, BeforeValidator(_priority), WithJsonSchema(_PRIORITY_SCHEMA)]
"""A position in ``PRIORITIES``, written as its name or number."""
StartOfRange = Annotated[str, AfterValidator(_start_of_range), WithJsonSchema({"type": "string", "pattern": _TIME_PATTERN})]
EndOfRange = Annotated[str, AfterValidator(_end_of_range), WithJsonSchema({"type": "string", "pattern": _TIME_PATTERN})]
Zone = Annotated[Label, AfterValidator(_zone)]
Conditions = Annotated[list["ConditionEntry"], Field(max_length=NAMES_MAX)]
Pattern = Annotated[Label, AfterValidator(_pattern)]


class OneKey(Section):
    """A mapping of exactly one key, which says what it is."""

    KEYS_ARE: ClassVar[str] = ""
    """What one of the keys is called in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _one_key(cls, value: Any) -> Any:
        one = f"{'an' if cls.KEYS_ARE[0] in 'aeiou' else 'a'} {cls.KEYS_ARE} is a mapping of exactly one key"
        if not isinstance(value, dict):
            raise problem(f"expected a mapping; {one}")
        if len(value) != 1:
            raise problem(f"has {'no key' if not value else f'{len(value)} keys'}; {one}")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if value is None:
            raise problem("must not be empty")
        return value

    @property
    def key(self) -> str:
        """The key that was given, by the name of its field."""
        (name,) = self.model_fields_set
        return name

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """One property, never null."""
        schema = dict(handler.resolve_ref_schema(handler(core_schema)))
        schema["properties"] = {name: _without_null(part) for name, part in schema["properties"].items()}
        return {**schema, "minProperties": 1, "maxProperties": 1}


def _without_null(part: dict[str, Any]) -> dict[str, Any]:
    kept = {name: item for name, item in part.items() if name not in ("default", "anyOf")}
    choices = [choice for choice in part.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        return {**kept, **choices[0]}
    return {**kept, "anyOf": choices} if choices else kept


class TimeRange(Section):
    """From ``start`` until before ``end``, every day; an end at or before the start is on the next day."""

    start: StartOfRange
    end: EndOfRange
    # Not even UTC is known where there is no data.
    zone: Zone = Field("UTC", validate_default=True)


class ConditionEntry(OneKey):
    """When a rule holds."""

    KEYS_ARE: ClassVar[str] = "condition"

    always: TrueOrNever | None = None
    never: TrueOrNever | None = None
    all_: Conditions | None = Field(None, alias="all")
    any_: Conditions | None = Field(None, alias="any")
    not_: Optional["ConditionEntry"] = Field(None, alias="not")
    model: Names | None = None
    model_pattern: Pattern | None = None
    tenant: Names | None = None
    user: Names | None = None
    region: Names | None = None
    min_priority: PriorityName | None = None
    has_tools: TrueOrNot | None = None
    has_vision: TrueOrNot | None = None
    token_count_over: Annotated[Whole, Field(ge=0, le=10**12)] | None = None
    time_range: TimeRange | None = None
    cost_under: Annotated[Real, Field(gt=0, le=1_000_000)] | None = None
    latency_under: Annotated[Real, Field(gt=0, le=10**9)] | None = None


class _OneOrMany:
    """Says in the JSON Schema that what is a list may also be written as its only item."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The item or the list."""
        schema = handler(core_schema)
        return {"anyOf": [schema["items"], schema]}


class ActionEntry(OneKey):
    """One step of what a rule does."""

    KEYS_ARE: ClassVar[str] = "action"

    provider: Label | None = None
    providers: Annotated[list[Label], Field(max_length=NAMES_MAX), AfterValidator(_one_or_more_names)] | None = None
    strategy: StrategyName | None = None
    priority: PriorityName | None = None
    reject: Label | None = None
    redirect: Label | None = None


class RuleEntry(Section):
    """If ``when`` holds, ``then`` is done; the rule of the highest priority that holds is the only one."""

    name: Label
    priority: Whole = Field(0, ge=-1_000_000, le=1_000_000)
    enabled: bool = True
    when: ConditionEntry = Field(default_factory=lambda: ConditionEntry(always=True))
    then: Annotated[
        list[ActionEntry],
        Field(max_length=NAMES_MAX),
        BeforeValidator(_action_alone),
        _OneOrMany(),
    ] = Field(default_factory=list)
    allow_fallback: bool = True


class QuotaLimits(Section):
    """What a tenant or a pool may use in all. None: no limit."""

    requests_per_minute: Real | None = Field(None, gt=0, le=10**9)
    tokens_per_minute: Real | None = Field(None, gt=0, le=10**12)
    max_concurrency: Annotated[Whole | None, BeforeValidator(_fixed_concurrency)] = Field(None, ge=1, le=1_000_000)
    burst: Real | None = Field(None, ge=1, le=10**9)

    @field_validator("burst")
    @classmethod
    def _sizes_a_bucket(cls, value: float | None, info: ValidationInfo) -> float | None:
        # A number of requests that is wrong itself is not among the data.
        if value is not None and info.data.get("requests_per_minute", value) is None:
            raise problem("needs requests_per_minute, whose bucket it sizes")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> "QuotaLimits":
        if self.requests_per_minute is None and self.tokens_per_minute is None and self.max_concurrency is None:
            raise problem("says nothing; give it a limit, or leave it out")
        return self


class TenantEntry(Section):
    """What holds of the requests of one tenant."""

    allowed_providers: Annotated[list[Label], Field(max_length=NAMES_MAX)] | None = None
    preferred_providers: list[Label] = Field(default_factory=list, max_length=NAMES_MAX)
    max_cost_per_request: Annotated[Real, Field(gt=0, le=1_000_000)] | None = None
    strategy: StrategyName | None = None
    limits: QuotaLimits | None = None


class PoolRuleEntry(Section):
    """What happens to callers whose key has all these labels."""

    labels: dict[Label, Label] = Field(max_length=100)
    deny: Annotated[bool, AfterValidator(_deny), _TRUE] | None = None
    redirect: Label | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "PoolRuleEntry":
        if not self.labels:
            raise problem("needs one label at least")
        if (self.deny is None) == (self.redirect is None):
            raise problem("needs one of deny: true and redirect, and not both")
        return self


class PoolEntry(Section):
    """What holds of all requests for one public model name."""

    strategy: StrategyName | None = None
    rules: list[PoolRuleEntry] = Field(default_factory=list, max_length=NAMES_MAX)
    limits: QuotaLimits | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "PoolEntry":
        if self.strategy is None and not self.rules and self.limits is None:
            raise problem("says nothing; give it a strategy, rules or limits, or leave it out")
        return self
