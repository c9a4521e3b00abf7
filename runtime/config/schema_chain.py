"""The part of a pool that says where a request fails over to: a chain of selectors (FEATURES D8)."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from runtime.config.schema_provider import Section
from runtime.config.strategies import CHECKED_STRATEGY, KnownStrategy
from runtime.config.values import Label, problem

STEPS_MAX = 100


def _any_alone(value: Any) -> Any:
    return {"any": True} if value == "any" else value


def _any(value: bool) -> bool:
    if not value:
        raise problem("can only be true")
    return value


class StepEntry(Section):
    """One step: a provider, several, or everybody whom no other step names. ``any`` stands for the mapping with only that."""

    provider: Label | None = None
    providers: Annotated[list[Label], Field(min_length=1, max_length=1000)] | None = None
    any: Annotated[bool, AfterValidator(_any)] | None = None
    strategy: Annotated[str, CHECKED_STRATEGY, KnownStrategy()] | None = None

    @model_validator(mode="after")
    def _one_selector(self) -> "StepEntry":
        if len([said for said in (self.provider, self.providers, self.any) if said is not None]) != 1:
            raise problem("needs one of provider, providers and any, and not more")
        return self


class PoolFailover(Section):
    """Where the requests of a pool fail over to."""

    chain: list[Annotated[StepEntry, BeforeValidator(_any_alone)]] = Field(min_length=1, max_length=STEPS_MAX)
