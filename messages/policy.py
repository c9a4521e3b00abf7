"""The words of policy: rules with their conditions and actions, tenants, pools. Configuration, compiled once by the router."""

from enum import StrEnum

from messages.base import Message, message
from messages.limits import NO_LIMITS, LimitsSpec

PRIORITIES = ("low", "normal", "high", "critical")
"""Names of a request's priority; a message carries the position."""
LOW, NORMAL, HIGH, CRITICAL = 0, 1, 2, 3

CONDITION_DEPTH_MAX = 8
"""Conditions nested deeper are refused: nobody could read them, and the codec stops at 32 levels."""


class ConditionKind(StrEnum):
    """What a condition looks at, as the file writes it (CONTRACT)."""

    ALWAYS = "always"
    NEVER = "never"
    ALL = "all"
    ANY = "any"
    NOT = "not"
    MODEL = "model"
    """One of ``names``, as the client wrote it or after aliases and pins."""
    MODEL_PATTERN = "model_pattern"
    """The one of ``names``: with ``*``, ``?`` or ``[`` a glob, between slashes a regular expression, else a substring."""
    TENANT = "tenant"
    USER = "user"
    REGION = "region"
    """The region the request asks for."""
    MIN_PRIORITY = "min_priority"
    """``number`` is a position in ``PRIORITIES``."""
    HAS_TOOLS = "has_tools"
    HAS_VISION = "has_vision"
    TOKEN_COUNT_OVER = "token_count_over"
    """The prompt's estimate, in tokens."""
    TIME_RANGE = "time_range"
    COST_UNDER = "cost_under"
    """USD per 1000 tokens, the mean of input and output price (embeddings: input): looks at each candidate."""
    LATENCY_UNDER = "latency_under"
    """Milliseconds, average: looks at each candidate."""


@message("policy.condition")
class Condition(Message):
    """A node of a condition tree. Which fields count depends on ``kind``."""

    kind: ConditionKind
    parts: tuple["Condition", ...] = ()
    """Of ``all``, ``any`` (none: ``all`` holds, ``any`` does not) and ``not`` (one)."""
    names: tuple[str, ...] = ()
    number: float = 0.0
    start_s: float = 0.0
    """Of ``time_range``: seconds since midnight in ``zone``, from 0 to 86 400."""
    end_s: float = 0.0
    """Not included; at or before ``start_s``: on the next day."""
    zone: str = "UTC"
    """An IANA name."""


ALWAYS = Condition(ConditionKind.ALWAYS)


class ActionKind(StrEnum):
    """What a rule does, as the file writes it (CONTRACT)."""

    PROVIDERS = "providers"
    """Only these, in any order; the file may also write ``provider`` for one."""
    STRATEGY = "strategy"
    PRIORITY = "priority"
    REJECT = "reject"
    REDIRECT = "redirect"


@message("policy.action")
class Action(Message):
    """One step of a rule's chain."""

    kind: ActionKind
    names: tuple[str, ...] = ()
    """Providers; else one name: the strategy, the reason of a reject, the model of a redirect."""
    priority: int = NORMAL
    """Of ``priority``: a position in ``PRIORITIES``."""


@message("policy.rule")
class Rule(Message):
    """If the condition holds, the actions are taken; rules are asked highest ``priority`` first, the first match wins."""

    name: str
    priority: int = 0
    enabled: bool = True
    when: Condition = ALWAYS
    then: tuple[Action, ...] = ()
    allow_fallback: bool = True
    """Candidates the rule does not name may take the call when those it names cannot."""


@message("policy.tenant_spec")
class TenantSpec(Message):
    """What holds of the requests of one tenant."""

    name: str
    allowed_providers: tuple[str, ...] | None = None
    """None: all; empty: none."""
    preferred_providers: tuple[str, ...] = ()
    """In order: a preference, not a cage."""
    max_cost_usd: float | None = None
    """Ceiling for the estimated price of one request."""
    strategy: str = ""
    limits: LimitsSpec = NO_LIMITS
    """Of all its requests together."""


@message("policy.pool_rule")
class PoolRule(Message):
    """What happens to callers whose key has all these labels: denied, or redirected to another model."""

    labels: tuple[tuple[str, str], ...]
    """(label, value) pairs, sorted."""
    deny: bool = False
    redirect: str = ""


@message("policy.chain_step")
class ChainStep(Message):
    """One step of a pool's failover chain: who is asked when nobody of the steps before can take the call."""

    providers: tuple[str, ...] = ()
    """Empty: everybody whom no step names."""
    strategy: str = ""
    """How to choose among them; empty: as in the pool."""


@message("policy.pool_spec")
class PoolSpec(Message):
    """What holds of all requests for one public model name."""

    model: str
    strategy: str = ""
    rules: tuple[PoolRule, ...] = ()
    """The first match wins; none: allowed."""
    chain: tuple[ChainStep, ...] = ()
    """Whom no step has gets nothing of the pool; no steps: all are equal but for the strategy."""
    limits: LimitsSpec = NO_LIMITS
    """Of all requests for it together, whoever serves them."""
