"""The head of an answer as it came: status line, headers, an empty line, perhaps more. Text is made where it is wanted only.

llhttp has read it, and is strict: lines end with CR LF and nothing else does, none goes on in the next, each has a name.
"""

from runtime.dialects.told import text, value_at

LINE_END = b"\r\n"
HEAD_END = b"\r\n\r\n"
KEPT_BYTES_MAX = 4096
"""So much is kept with whatever comes after the head: to find out where it ends costs more."""
_FIRST_BYTE = ord("H")


def head_after(data: bytes, others: int) -> bytes:
    """What begins with the head that comes after so many ``others`` (100, 103); not much more. ``data`` has all of it."""
    if not others and len(data) <= KEPT_BYTES_MAX and data[0] == _FIRST_BYTE:
        return data
    while True:
        # Empty lines before a head are nothing.
        head = data.lstrip(LINE_END)
        end = head.find(HEAD_END) + len(HEAD_END)
        if not others:
            return head[:end]
        data = head[end:]
        others -= 1


def decoded(head: bytes) -> list[tuple[str, str]]:
    """The headers as pairs of text."""
    pairs: list[tuple[str, str]] = []
    for line in head[: head.find(HEAD_END)].split(LINE_END)[1:]:
        colon = line.find(b":")
        pairs.append((line[:colon].decode("latin-1"), text(value_at(line, colon))))
    return pairs


def values_of(head: bytes, name: str) -> list[str]:
    """The values of the headers called ``name`` (in lower case)."""
    return [value for given, value in decoded(head) if given.lower() == name]


def is_close_delimited(head: bytes) -> bool:
    """Whether nothing tells the length of the body, so that its end is the connection's."""
    return not values_of(head, "content-length") and not values_of(head, "transfer-encoding")


def has_unknown_coding(head: bytes) -> bool:
    """True if the body would have to be decoded before it is one (``Transfer-Encoding: gzip``)."""
    codings = values_of(head, "transfer-encoding")
    return bool(codings) and codings[-1].strip().lower() != "chunked"
