"""Where messages leave and enter the process: bytes out, and bytes in with every field checked by pydantic.

Used for what comes from elsewhere (a recording, another process), never on in-process hops. Whatever the bytes are,
decoding gives a message or raises ``UnknownTag`` or ``BadBytes``, nothing else.

Strict: a text is no number, a number no flag, and a field the class does not have is an error; a field that is missing
takes its default, so that what an older version wrote can still be read. Only an integer may stand where a float is due,
and an enum is written as its value.
"""

from enum import Enum
from functools import reduce
from operator import or_
from types import GenericAlias, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, InstanceOf, Strict, TypeAdapter, ValidationError

from messages import codec
from messages.base import Message, field_names
from messages.codec import BadBytes, Parcel
from messages.envelope import Envelope


def encode(message: Message) -> bytes:
    """The bytes of ``message``. Raises ``TypeError`` if it holds something that cannot travel."""
    return codec.pack(message)


def decode(data: bytes) -> Message:
    """The message of ``data``. Raises ``UnknownTag`` or ``BadBytes``."""
    message = codec.unpack(data, _build)
    assert isinstance(message, Message)
    return message


def encode_envelope(envelope: Envelope) -> bytes:
    """The bytes of message, sender, deadline and trace. Who waits for the answer stays behind."""
    return codec.pack(Parcel(envelope.message, envelope.sender, envelope.deadline, envelope.trace))


def decode_envelope(data: bytes) -> Envelope:
    """The envelope of ``data``, with nobody waiting for an answer. Raises ``UnknownTag`` or ``BadBytes``."""
    parcel = decode(data)
    if not isinstance(parcel, Parcel) or not isinstance(parcel.message, Message):
        raise BadBytes("not an envelope with a message in it")
    return Envelope(parcel.message, parcel.sender, parcel.deadline, parcel.trace)


_INSTANCE_OF: Any = InstanceOf
"""To the type checker ``InstanceOf[X]`` is a type; here it is made at run time."""

_ADAPTERS: dict[type[Any], dict[str, TypeAdapter[Any]]] = {}
"""What checks each field, by message class; made when the first such message comes."""


def _adapters_of(cls: type[Any]) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(cls)
    return {name: _adapter(hints[name]) for name in field_names(cls)}


def _adapter(hint: Any) -> TypeAdapter[Any]:
    # pydantic takes no configuration for a dataclass; for one alone there is nothing to be strict about but its class.
    is_message = isinstance(hint, type) and issubclass(hint, Message)
    return TypeAdapter(_strict(hint), config=None if is_message else ConfigDict(strict=True))


def _strict(hint: Any) -> Any:
    """The type pydantic checks for ``hint``: nested messages are built already, and an enum comes as its value."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return reduce(or_, (_strict(part) for part in get_args(hint)))
    if origin is tuple:
        return GenericAlias(tuple, tuple(part if part is Ellipsis else _strict(part) for part in get_args(hint)))
    if isinstance(hint, type) and issubclass(hint, Message):
        return _INSTANCE_OF[hint]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Annotated[hint, Strict(False)]
    return hint


def _build(cls: type[Any], fields: dict[str, Any]) -> Any:
    adapters = _ADAPTERS.get(cls)
    if adapters is None:
        adapters = _ADAPTERS[cls] = _adapters_of(cls)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in adapters:
            raise ValueError(f"it has no field {name!r}")
        try:
            values[name] = adapters[name].validate_python(value)
        except ValidationError as error:
            raise ValueError(f"{name}: {error.errors(include_url=False)[0]['msg']}") from error
    return cls(**values)
