"""Headers of an answer as they came: a name, its value, and so on. Text is made of them only where it is wanted."""

from runtime.dialects.told import text


def decoded(headers: list[bytes]) -> list[tuple[str, str]]:
    """As pairs of text."""
    return [(headers[at].decode("latin-1"), text(headers[at + 1])) for at in range(0, len(headers), 2)]


def values_of(headers: list[bytes], name: bytes) -> list[str]:
    """The values of the headers called ``name`` (in lower case)."""
    size = len(name)
    found: list[str] = []
    for at in range(0, len(headers), 2):
        # By far the most are told by their length.
        if len(headers[at]) == size and headers[at].lower() == name:
            found.append(text(headers[at + 1]))
    return found


def size_bytes(headers: list[bytes]) -> int:
    """What they take on the wire."""
    return sum(len(name) + len(value) + 4 for name, value in decoded(headers))


def is_close_delimited(headers: list[bytes]) -> bool:
    """Whether nothing tells the length of the body, so that its end is the connection's."""
    return not values_of(headers, b"content-length") and not values_of(headers, b"transfer-encoding")


def has_unknown_coding(headers: list[bytes]) -> bool:
    """True if the body would have to be decoded before it is one (``Transfer-Encoding: gzip``)."""
    codings = values_of(headers, b"transfer-encoding")
    return bool(codings) and codings[-1].strip().lower() != "chunked"
