"""The one place where the configuration asks which strategies there are."""

from dataclasses import dataclass

from pydantic import AfterValidator, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from runtime.config.kinds import SUPPORTED_STRATEGIES
from runtime.config.values import problem

ANY_STRATEGY = {"any_strategy": True}
"""A validation context in which the name of a strategy is taken unseen."""


def known_strategies() -> tuple[str, ...]:
    """The names of all strategies, sorted."""
    return SUPPORTED_STRATEGIES


def checked_strategy(strategy: str, info: ValidationInfo) -> str:
    """``strategy``, if there is one of that name. Raises ``PydanticCustomError``."""
    if not (info.context and info.context.get("any_strategy")) and strategy not in known_strategies():
        raise problem(f"unknown strategy; known are: {', '.join(known_strategies())}")
    return strategy


@dataclass(frozen=True, slots=True)
class KnownStrategy:
    """Marks a text as the name of a strategy, in the JSON Schema too. Asked late, because plugins bring names of their own."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """An enumeration of what is known now."""
        return {"type": "string", "enum": list(known_strategies())}


CHECKED_STRATEGY = AfterValidator(checked_strategy)
