"""Records that never change, made at the price of plain ones: ``messages/base.py`` tells why, for what is no message."""

from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def fact(cls: type[T]) -> type[T]:
    """Make a slotted dataclass that is frozen to the type checker."""
    made: Any = dataclass(slots=True, unsafe_hash=True)(cls)
    return made  # type: ignore[no-any-return] # the class that came in, with slots
