"""Values as people write them: durations, sizes, URLs, names. Everything here is pure text work.

Messages of the errors never repeat what was written: it could be a secret in the wrong place.
"""

import ipaddress
import math
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

DURATION_S_MAX = 30 * 86_400.0
"""Longest duration taken, in seconds: 30 days."""
SIZE_BYTES_MAX = 1 << 40
"""Largest size taken, in bytes: 1 TiB."""

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h)?", re.ASCII)
_DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?(B|KB|MB|GB|KiB|MiB|GiB)?", re.ASCII)
_SIZE_UNITS_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def problem(message: str) -> PydanticCustomError:
    """An error whose text is ``message`` as it stands."""
    return PydanticCustomError("pointsman", "{text}", {"text": message})


def parse_duration_s(value: object) -> float:
    """Seconds from ``250ms``, ``30s``, ``5m``, ``2h`` or a plain number of seconds.

    Raises ``PydanticCustomError`` for anything else, for negative values and for more than 30 days.
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise problem("expected a duration such as 250ms, 30s, 5m or 2h")
        seconds = float(match[1])
        if match[2] == "ms":
            seconds /= 1000  # Divided, not multiplied, so that what duration_text wrote comes back to the last bit.
        else:
            seconds *= _DURATION_UNITS_S[match[2] or "s"]
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise problem("expected a duration such as 250ms, 30s, 5m or 2h")
    else:
        seconds = float(value) if abs(value) <= DURATION_S_MAX else math.inf
    if not 0 <= seconds <= DURATION_S_MAX:
        raise problem("a duration must be between 0 and 720h")
    return seconds


def duration_text(seconds: float) -> str:
    """A duration as people write it; ``parse_duration_s`` gives it back exactly for whole milliseconds."""
    if seconds and seconds % 3600 == 0:
        return f"{seconds / 3600:.0f}h"
    if seconds and seconds % 60 == 0:
        return f"{seconds / 60:.0f}m"
    if seconds == int(seconds):
        return f"{seconds:.0f}s"
    milliseconds = f"{seconds * 1000:.6f}".rstrip("0").rstrip(".")
    return f"{milliseconds}ms"


def parse_size_bytes(value: object) -> int:
    """Bytes from ``20MiB``, ``64KiB``, ``1MB`` or a plain number of bytes.

    Raises ``PydanticCustomError`` for anything else, for parts of a byte and for more than 1 TiB.
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise problem("expected a size such as 64KiB, 20MiB or 1MB")
        size = float(match[1]) * _SIZE_UNITS_BYTES[match[2] or "B"]
    elif isinstance(value, bool) or not isinstance(value, int):
        raise problem("expected a size such as 64KiB, 20MiB or 1MB")
    else:
        size = float(value) if abs(value) <= SIZE_BYTES_MAX else math.inf
    if not 0 <= size <= SIZE_BYTES_MAX:
        raise problem("a size must be between 0 and 1024GiB")
    if size != int(size):
        raise problem("a size must be a whole number of bytes")
    return int(size)


def size_text(size: int) -> str:
    """A size as people write it; ``parse_size_bytes`` gives it back exactly."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS_BYTES[unit] == 0:
            return f"{size // _SIZE_UNITS_BYTES[unit]}{unit}"
    return f"{size}B"


def is_loopback(host: str) -> bool:
    """Whether a server bound to ``host`` can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def checked_url(url: str) -> str:
    """``url`` without a slash at its end. Raises ``PydanticCustomError`` unless it is a plain http or https URL."""
    if _CONTROL.search(url) or any(character.isspace() for character in url) or not url.isascii():
        raise problem("a URL must not contain spaces, control characters or letters outside ASCII")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise problem("expected a URL such as https://api.example.com/v1") from None
    if parts.scheme not in ("http", "https"):
        raise problem("a URL must begin with http:// or https://")
    if "@" in parts.netloc:
        raise problem("a URL must not contain a user name or password; use api_key or headers")
    if not parts.hostname:
        raise problem("a URL needs a host")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise problem("a URL must not contain a query or fragment")
    return url.rstrip("/")


def checked_header_value(value: str) -> str:
    """``value``, if it can stand in a header. Raises ``PydanticCustomError``: no control characters, Latin-1 only."""
    if _CONTROL.search(value):
        raise problem("must not contain a line break, NUL or another control character")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise problem("must not contain characters outside Latin-1") from None
    return value


def _checked_name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise problem("must be 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit")
    return value


def plain_text(value: str) -> str:
    """``value``, if it has no control characters but tabs. Raises ``PydanticCustomError``."""
    # Names are printed, logged and sent in headers.
    if _CONTROL.search(value):
        raise problem("must not contain a line break or another control character")
    return value


def _not_bool(value: Any) -> Any:
    # To pydantic true is the number 1; in a configuration it is a slip.
    if isinstance(value, bool):
        raise problem("expected a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise problem("expected a finite number")
    return value


def _positive(value: float) -> float:
    if value <= 0:
        raise problem("must be longer than 0")
    return value


_DURATION_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h)?$"}]}
_SIZE_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d+)? ?([KMG]i?B|B)?$"}]}

Duration = Annotated[float, BeforeValidator(parse_duration_s), WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds, 0 or more."""
PositiveDuration = Annotated[
    float, BeforeValidator(parse_duration_s), AfterValidator(_positive), WithJsonSchema(_DURATION_SCHEMA)
]
"""Seconds, more than 0."""
Size = Annotated[int, BeforeValidator(parse_size_bytes), WithJsonSchema(_SIZE_SCHEMA)]
"""Bytes."""
Whole = Annotated[int, BeforeValidator(_not_bool)]
Real = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(_not_bool), Field(ge=0, le=1, allow_inf_nan=False)]
"""A part of the whole, 0 to 1."""
Name = Annotated[str, AfterValidator(_checked_name), WithJsonSchema({"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]*$"})]
Label = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(plain_text)]
"""A name people choose: of a model, region, tag."""
Url = Annotated[str, AfterValidator(checked_url), WithJsonSchema({"type": "string", "format": "uri"})]
