"""The head of an answer as it came: status line and headers. Text is made of them only where it is wanted.

llhttp has read it, and is strict: lines end with CR LF and nothing else does, none goes on in the next, each has a name.
"""

from runtime.dialects.told import LINE_END, text, value_at

HEAD_END = b"\r\n\r\n"
_CR, _LF = ord("\r"), ord("\n")


def head_after(data: bytes, others: int) -> bytes:
    """The head that comes after so many ``others`` (100, 103), to its last header. ``data`` has all of it."""
    at = 0
    while True:
        # Empty lines before a head are nothing.
        while data[at] == _CR or data[at] == _LF:
            at += 1
        end = data.find(HEAD_END, at)
        if not others:
            return data[at:end]
        at = end + len(HEAD_END)
        others -= 1


def decoded(head: bytes) -> list[tuple[str, str]]:
    """The headers as pairs of text."""
    pairs: list[tuple[str, str]] = []
    for line in head.split(LINE_END)[1:]:
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
