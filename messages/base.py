"""How a message is made: a slotted dataclass with a stable tag, immutable to the type checker, cheap at run time.

Owns: the table of all message classes by tag.
Always: a tag names one class for ever; a field once released keeps its name and meaning.

A frozen dataclass costs twice what a plain one does to make (it sets every field through ``object.__setattr__``). So
messages are declared frozen to the type checker only; ``freeze_messages`` makes them write-once for real, and the test
suite switches it on for every test.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, ClassVar, TypeVar, dataclass_transform

M = TypeVar("M")

TAGS: dict[str, type[Any]] = {}
"""Every message class by its tag, in order of definition."""


_FIELD_NAMES: dict[type[Any], tuple[str, ...]] = {}
"""Kept, for every message that is encoded asks for them."""


def acyclic(cls: type[M]) -> type[M]:
    """Say that no object of the class becomes part of a circle of references that is left behind.

    Then the compiled build spares it the garbage collector, which halves the price of making and ending one. Messages need not
    say it: nothing they are made of can know them.
    """
    return cls


@acyclic
class Message:
    """The base of all messages. Subclasses are made with ``@message``."""

    __slots__ = ()

    TAG: ClassVar[str] = ""
    BOUNDED: ClassVar[bool] = False
    """True: counts against the mailbox's bound and is shed when that is reached."""

    PURE: ClassVar[bool] = False
    """True: handling it changes no state, so a crash in it restarts nobody."""

    def unanswered(self, actor: str, fault: "str") -> "Message":
        """The answer the runtime gives for ``actor`` when it cannot: ``fault`` is a value of ``Fault``."""
        from messages.envelope import Undelivered

        return Undelivered(actor, fault)


@dataclass_transform(frozen_default=True)
def message(tag: str, *, bounded: bool = False, pure: bool = False) -> Callable[[type[M]], type[M]]:
    """Make a class a message known to the codec as ``tag``.

    Raises ``ValueError`` if the tag is taken by another class.
    """

    def make(cls: type[M]) -> type[M]:
        # Hashed by value, which is safe for what never changes, and lets a message be the default of a field.
        made: Any = dataclass(slots=True, unsafe_hash=True)(cls)
        register(made, tag, bounded, pure)
        return made  # type: ignore[no-any-return] # the class that came in, with slots

    return make


def register(cls: Any, tag: str, bounded: bool = False, pure: bool = False) -> None:
    """Enter a message class. Raises ``ValueError`` if the tag is taken by another class."""
    if tag in TAGS:
        raise ValueError(f"message tag {tag!r} is taken by {TAGS[tag].__name__}")
    cls.TAG = tag
    cls.BOUNDED = bounded
    cls.PURE = pure
    TAGS[tag] = cls


def freeze_messages() -> None:
    """Make every message class write-once from now on: a second assignment to a field raises ``AttributeError``."""
    for cls in TAGS.values():
        cls.__init__ = _init_of_frozen(cls)
        cls.__setattr__ = _write_once  # type: ignore[assignment] # a guard on a class made by dataclass()


def _init_of_frozen(cls: type[Any]) -> Callable[..., None]:
    """How a frozen dataclass of the same fields is made: past the guard, which would take four times as long."""
    same = [(f.name, f.type, field(default=f.default, default_factory=f.default_factory)) for f in fields(cls)]
    twin: Any = make_dataclass(cls.__name__, same, frozen=True)
    return twin.__init__  # type: ignore[no-any-return] # dataclass() wrote it


def _write_once(self: object, name: str, value: object) -> None:
    if hasattr(self, name):
        raise AttributeError(f"{type(self).__name__}.{name} is a fact and cannot change")
    object.__setattr__(self, name, value)


def field_names(cls: type[Any]) -> tuple[str, ...]:
    """The names of a message's fields, in order."""
    names = _FIELD_NAMES.get(cls)
    if names is None:
        names = _FIELD_NAMES[cls] = tuple(f.name for f in fields(cls))
    return names
