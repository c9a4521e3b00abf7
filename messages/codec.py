"""Messages to msgpack and back to plain data.

A message becomes a map of its fields with its tag under ``$``; nested messages likewise. Maps, not arrays: a field can
be added with a default and an old recording still reads. ``unpack`` gives tagged plain data; building and validating the
classes from it is the frontier's work (``runtime.system.frontier``, with pydantic), for this storey is stdlib and msgpack.
"""

from collections.abc import Callable
from typing import Any

import msgpack

from messages.base import TAGS, Message, field_names

TAG_KEY = "$"
MAX_BYTES = 16 * 1024 * 1024
"""A longer record is refused: nothing that crosses the frontier is that large."""


class CodecError(ValueError):
    """Bytes that are not a message."""


class UnknownTag(CodecError):
    """A tag no message class has."""


class BadBytes(CodecError):
    """Not msgpack, not a message's map, too long, or fields that do not fit the class."""


def pack(message: Message) -> bytes:
    """Encode a message. Raises ``TypeError`` if a field holds something that is no plain value and no message."""
    packed: bytes = msgpack.packb(_plain(message), use_bin_type=True)
    return packed


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        plain: dict[str, Any] = {TAG_KEY: value.TAG}
        for name in field_names(type(value)):
            plain[name] = _plain(getattr(value, name))
        return plain
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str(value)
    return value


def unpack(data: bytes, build: Callable[[type[Any], dict[str, Any]], Any]) -> Any:
    """Decode ``data``; ``build(cls, fields)`` makes each message, innermost first.

    Raises ``UnknownTag`` or ``BadBytes``; whatever ``build`` raises as ``ValueError`` or ``TypeError`` becomes ``BadBytes``.
    """
    if len(data) > MAX_BYTES:
        raise BadBytes(f"{len(data)} bytes are more than the {MAX_BYTES} a message may have")
    try:
        plain = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise BadBytes(f"not msgpack: {error}") from error
    if not isinstance(plain, dict) or TAG_KEY not in plain:
        raise BadBytes("not a message: no tag")
    return _built(plain, build)


def _built(value: Any, build: Callable[[type[Any], dict[str, Any]], Any]) -> Any:
    if isinstance(value, list):
        return tuple(_built(item, build) for item in value)
    if not isinstance(value, dict):
        return value
    tag = value.get(TAG_KEY)
    cls = TAGS.get(tag) if isinstance(tag, str) else None
    if cls is None:
        raise UnknownTag(f"no message has the tag {tag!r}")
    fields = {name: _built(item, build) for name, item in value.items() if name != TAG_KEY}
    try:
        return build(cls, fields)
    except (ValueError, TypeError) as error:
        if isinstance(error, CodecError):
            raise
        raise BadBytes(f"{tag}: {error}") from error
