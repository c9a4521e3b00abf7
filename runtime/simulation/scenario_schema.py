"""The scenario file of ``pointsman simulate``: keys, types, defaults and bounds. ``docs/simulation.md`` describes them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from runtime.config.schema_provider import Section
from runtime.config.values import Duration, Label, Name, PositiveDuration, Real, Share, Whole, problem
from runtime.simulation.behaviour import ANSWER_TOKENS_MAX

PROMPT_TOKENS_MAX = 200_000
REQUESTS_MAX = 2_000_000
"""Most requests a scenario may come to, by its rates."""

FaultName = Literal["outage", "slow", "brownout", "rate_limited", "bad_key", "cut", "hang", "garbage", "flapping"]

_TAKES: dict[str, tuple[str, ...]] = {
    "outage": (),
    "slow": ("share", "factor"),
    "brownout": ("share", "status"),
    "rate_limited": ("share", "retry_after"),
    "bad_key": ("share",),
    "cut": ("share",),
    "hang": ("share",),
    "garbage": ("share",),
    "flapping": ("down", "up"),
}
"""What each fault takes beyond ``at`` and ``for``."""


def _number_alone(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"median": value, "sigma": 0} if is_number else value


def _some(shares: dict[str, float]) -> dict[str, float]:
    if shares and not any(shares.values()):
        raise problem("one at least must have a share above 0")
    return shares


Weight = Annotated[Real, Field(ge=0, le=1_000_000)]
Shares = Annotated[dict[Label, Weight], Field(max_length=1_000), AfterValidator(_some)]
"""Shares by name; they need not add up to anything."""
Rate = Annotated[Real, Field(gt=0, le=100_000)]
"""Requests per second."""


class PromptTokens(Section):
    """Lengths of prompts: lognormal around ``median``, never above ``max``. A plain number stands for that length always."""

    median: Real = Field(300, ge=1, le=PROMPT_TOKENS_MAX)
    sigma: Real = Field(0.7, ge=0, le=5)
    max: Whole = Field(PROMPT_TOKENS_MAX, ge=1, le=PROMPT_TOKENS_MAX)


class OutputTokens(Section):
    """Lengths of answers, as those of prompts."""

    median: Real = Field(150, ge=1, le=ANSWER_TOKENS_MAX)
    sigma: Real = Field(0.6, ge=0, le=5)
    max: Whole = Field(4_096, ge=1, le=ANSWER_TOKENS_MAX)


class Burst(Section):
    """More requests than usual for a while. What it leaves out is as in ``load``."""

    at: Duration
    for_: PositiveDuration = Field(alias="for")
    rate: Rate
    """On top of ``load.rate``."""
    tenant: Label | None = None
    model: Label | None = None
    stream_share: Share | None = None


class Load(Section):
    """Who asks what, and how often: requests come by chance, independently of each other and of the answers."""

    rate: Rate = 1.0
    bursts: list[Burst] = Field(default_factory=list, max_length=1_000)
    stream_share: Share = 0.5
    models: Shares = Field(default_factory=dict)
    """Empty: the model that most providers name."""
    tenants: Shares = Field(default_factory=dict)
    prompt_tokens: Annotated[PromptTokens, BeforeValidator(_number_alone)] = PromptTokens()
    output_tokens: Annotated[OutputTokens, BeforeValidator(_number_alone)] = OutputTokens()
    max_tokens: Whole | None = Field(None, ge=1, le=ANSWER_TOKENS_MAX)
    """What requests give as their limit of output; None: they give none."""
    deadline: PositiveDuration | None = None
    """What requests give in ``x-pointsman-deadline``."""


class FaultEntry(Section):
    """One thing that goes wrong with a provider for a while."""

    fault: FaultName
    at: Duration = 0.0
    for_: PositiveDuration | None = Field(None, alias="for")
    """None: to the end."""
    share: Share = 1.0
    factor: Real = Field(10.0, ge=0.001, le=10_000)
    status: Whole = Field(503, ge=500, le=599)
    retry_after: Annotated[Duration, Field(le=3600)] = 1.0
    down: PositiveDuration = 10.0
    up: PositiveDuration = 20.0

    @model_validator(mode="after")
    def _takes_what_it_is_given(self) -> "FaultEntry":
        takes = _TAKES[self.fault]
        foreign = sorted(self.model_fields_set - {"fault", "at", "for_", *takes})
        if foreign:
            given = ", ".join(("at", "for", *takes))
            raise problem(f"{self.fault} does not take '{foreign[0]}'; it takes {given}")
        return self


class ProviderLimits(Section):
    """The limits the provider itself holds us to, whatever our configuration says. None: no limit."""

    requests_per_minute: Real | None = Field(None, gt=0, le=10**9)
    tokens_per_minute: Real | None = Field(None, gt=0, le=10**12)
    burst: PositiveDuration = 3.0
    """Both buckets hold what flows in during so long."""


class ProviderEntry(Section):
    """How one provider behaves."""

    ttfb: Duration = 0.2
    sigma: Real = Field(0.3, ge=0, le=5)
    tokens_per_second: Real = Field(100.0, gt=0, le=1_000_000)
    prefill_tokens_per_second: Real | None = Field(None, gt=0, le=10_000_000)
    """How fast prompts are read before the first byte; None: at once."""
    capacity: Whole = Field(64, ge=1, le=1_000_000)
    limits: ProviderLimits = ProviderLimits()
    error_share: Share = 0.0
    chunk_tokens: Whole = Field(32, ge=1, le=ANSWER_TOKENS_MAX)
    faults: list[FaultEntry] = Field(default_factory=list, max_length=1_000)


class Scenario(Section):
    """The whole file."""

    duration: Annotated[PositiveDuration, Field(le=7 * 86_400)] = 3600.0
    seed: Whole = Field(0, ge=0, le=10**18)
    load: Load = Load()
    providers: dict[Name, ProviderEntry] = Field(default_factory=dict, max_length=1_000)

    @model_validator(mode="after")
    def _can_be_played(self) -> "Scenario":
        burst_s = sum(burst.for_ * burst.rate for burst in self.load.bursts)
        if self.duration * self.load.rate + burst_s > REQUESTS_MAX:
            raise problem(f"this comes to more than {REQUESTS_MAX} requests; make the duration or the rate smaller")
        return self
