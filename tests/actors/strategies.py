"""Hypothesis strategies for any message class, made from its type hints."""

from enum import Enum
from types import GenericAlias, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from messages.base import TAGS, Message, field_names
from messages.control import Timer
from messages.health import ProbeWish

INTEGERS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
FLOATS = st.floats(allow_nan=False)
"""Infinity travels; not-a-number does too, but equals nothing."""

LEVELS = 3
"""A class that holds itself is nested so deep. Without a bound most would never end, and hypothesis gives up on them late."""

MADE: dict[tuple[type[Any], int], st.SearchStrategy[Any]] = {}
"""Strategies by class and levels: one made twice costs hypothesis its work twice."""


def any_message() -> st.SearchStrategy[Message]:
    return st.sampled_from(sorted(TAGS)).flatmap(lambda tag: of_class(TAGS[tag]))


def of_class(cls: type[Any], levels: int = LEVELS) -> st.SearchStrategy[Any]:
    if (cls, levels) not in MADE:
        hints = get_type_hints(cls)
        itself = GenericAlias(tuple, (cls, ...))
        fields = {name: of_hint(hints[name]) for name in field_names(cls) if hints[name] != itself}
        inside = st.lists(of_class_later(cls, levels - 1), max_size=3).map(tuple) if levels else st.just(())
        fields |= {name: inside for name in field_names(cls) if hints[name] == itself}
        MADE[cls, levels] = st.builds(cls, **fields)
    return MADE[cls, levels]


def of_hint(hint: Any) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return st.one_of([of_hint(part) for part in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(of_hint(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*[of_hint(part) for part in arguments])
    if isinstance(hint, type) and issubclass(hint, Message):
        return of_class_later(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    return PLAIN[hint]


def of_class_later(cls: type[Any], levels: int = LEVELS) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: of_class(cls, levels))


ANYTHING = [st.none(), st.text(max_size=5), INTEGERS, FLOATS, st.booleans(), of_class_later(Timer), of_class_later(ProbeWish)]

PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    int: INTEGERS,
    float: FLOATS,
    bool: st.booleans(),
    type(None): st.none(),
    Any: st.one_of(ANYTHING),
}
