"""Messages to msgpack and back to plain data.

A message becomes a map of its fields with its tag under ``$``; nested messages likewise. Maps, not arrays: a field can
be added with a default and an old recording still reads. ``unpack`` gives tagged plain data; building and validating the
classes from it is the frontier's work (``runtime.system.frontier``, with pydantic), for this storey is stdlib and msgpack.
"""

from collections.abc import Callable
from typing import Any

import msgpack

from messages.base import TAGS, Message, field_names, message
from messages.envelope import TraceContext

TAG_KEY = "$"
MAX_BYTES = 16 * 1024 * 1024
"""A longer record is refused: nothing that crosses the frontier is that large."""
MAX_DEPTH = 32
"""Deeper nesting is refused: the deepest message, a recorded fan-out, has less than ten levels."""


class CodecError(ValueError):
    """Bytes that are not a message."""


class UnknownTag(CodecError):
    """A tag no message class has."""


class BadBytes(CodecError):
    """Not msgpack, not a message's map, too long, too deep, or fields that do not fit the class."""


@message("envelope.parcel")
class Parcel(Message):
    """An envelope as it crosses the frontier: without the reply port, which is of this process."""

    message: Any
    sender: str
    deadline: float | None = None
    """Monotonic seconds of the process that packed it; a process that takes it in from elsewhere must translate."""
    trace: TraceContext | None = None


def pack(message: Message) -> bytes:
    """Encode a message.

    Raises ``TypeError`` if a field holds something that is no plain value and no message: an integer beyond 64 bits, text
    with a lone surrogate, a map, bytes, ...
    """
    try:
        packed: bytes = msgpack.packb(_plain(message), use_bin_type=True)
    except (OverflowError, ValueError) as error:
        raise TypeError(f"{message.TAG}: {error}") from error
    return packed


_AS_THEY_ARE = frozenset((type(None), bool, int, float, str))


def _plain(value: Any) -> Any:
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Message):
        plain: dict[str, Any] = {TAG_KEY: value.TAG}
        for name in field_names(type(value)):
            part = getattr(value, name)
            plain[name] = part if type(part) in _AS_THEY_ARE else _plain(part)
        return plain
    raise TypeError(f"a {type(value).__name__} cannot travel in a message")


def unpack(data: bytes, build: Callable[[type[Any], dict[str, Any]], Any]) -> Any:
    """Decode ``data``; ``build(cls, fields)`` makes each message, innermost first.

    Raises ``UnknownTag`` or ``BadBytes``; whatever ``build`` raises as ``ValueError`` or ``TypeError`` becomes ``BadBytes``.
    """
    if len(data) > MAX_BYTES:
        raise BadBytes(f"{len(data)} bytes are more than the {MAX_BYTES} a message may have")
    try:
        plain = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise BadBytes(f"not msgpack: {error}") from error
    if not isinstance(plain, dict) or TAG_KEY not in plain:
        raise BadBytes("not a message: no tag")
    return _built(plain, build, MAX_DEPTH)


def _built(value: Any, build: Callable[[type[Any], dict[str, Any]], Any], depth: int) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if depth == 0:
        raise BadBytes(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return tuple(_built(item, build, depth - 1) for item in value)
    if not isinstance(value, dict):
        raise BadBytes(f"no message holds a {type(value).__name__}")
    tag = value.get(TAG_KEY)
    cls = TAGS.get(tag) if isinstance(tag, str) else None
    if cls is None:
        raise UnknownTag(f"no message has the tag {tag!r}")
    fields = {name: _built(item, build, depth - 1) for name, item in value.items() if name != TAG_KEY}
    try:
        return build(cls, fields)
    except CodecError:
        raise
    except (ValueError, TypeError) as error:
        raise BadBytes(f"{tag}: {error}") from error
