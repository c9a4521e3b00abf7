"""Heads of requests out of bytes. llhttp reads them; what it would let pass is refused here. Sans-I/O.

Always: it is known where a message ends, so that not one byte of the next is taken for this one's. llhttp does not tell
where in its input a message ended, but in its strict mode it ends nowhere but after CR LF CR LF: it is fed up to there.
"""

from dataclasses import dataclass

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from runtime.http.notes import Notes
from runtime.http.raw_body import END, HEAD_BYTES_MAX, BadRequest, ChunkedBody, Message

LINE_BYTES_MAX = 8190
"""Of a request target, a header's name, a header's value. What aiohttp has, and Apache."""
HEADERS_MAX = 128
TOO_LONG = f"The request line or a header has more than {LINE_BYTES_MAX} bytes."
TOO_MANY = f"The request has more than {HEADERS_MAX} headers."
TOO_MUCH = f"Request line and headers have more than {HEAD_BYTES_MAX} bytes."
VERSIONS = {"1.0": True, "1.1": False}
"""Those that are spoken, and whether a connection ends with its answer if nothing is said about that."""


@dataclass(slots=True)
class Head:
    """Request line and headers."""

    method: str
    path: str
    """Without the query."""
    headers: list[tuple[str, str]]
    is_http_10: bool
    is_last: bool
    """The client wants no other answer on this connection."""
    length: int = 0
    """Bytes of the body, where its length was announced."""
    is_chunked: bool = False
    expects_continue: bool = False
    is_odd: bool = False
    """It asks for another protocol, or its body is compressed: nothing for the fast lane."""
    notes: Notes | None = None
    """What the gateway wants of the headers, once it was looked for: the same for all requests that begin with these bytes."""


class HeadReader:
    """Reads one head, which may come in pieces. ``feed`` until it gives it."""

    __slots__ = ("_fed", "_message", "_parser", "raw")

    def __init__(self) -> None:
        self._message = Message()
        self._parser = HttpRequestParser(self._message)
        self._fed = 0
        self.raw = bytearray()
        """All that came since the message began: what comes after the head as well."""

    @property
    def end(self) -> int:
        """Where in ``raw`` the head ends, once it is here."""
        return self._fed

    def feed(self, data: bytes) -> Head | None:
        """The head, or None while some of it is still to come. Raises ``BadRequest``, and early: garbage is not waited out."""
        raw = self.raw
        raw += data
        while True:
            end = raw.find(END, max(self._fed - len(END) + 1, 0)) + len(END)
            is_found = end >= len(END)
            if (end if is_found else len(raw)) > HEAD_BYTES_MAX:
                raise BadRequest(431, TOO_MUCH)
            is_odd = self._feed_parser(bytes(raw[self._fed : end if is_found else len(raw)]))
            self._fed = end if is_found else len(raw)
            if not is_found:
                if self._message.is_headed:
                    raise BadRequest(400, "The headers do not end as they should.")
                return None
            # Empty lines before a request are nothing.
            if self._message.is_headed:
                return self._head(is_odd)

    def chunked_body(self) -> ChunkedBody:
        """The reader of the body that this head announced as chunked."""
        return ChunkedBody(self._message, self._parser)

    def _feed_parser(self, piece: bytes) -> bool:
        """Feed llhttp; whether it says that another protocol is asked for."""
        try:
            self._parser.feed_data(piece)
        except HttpParserUpgrade:
            return True
        except HttpParserError as error:
            raise BadRequest(400, "This is not HTTP as it should be.") from error
        return False

    def _head(self, is_odd: bool) -> Head:
        message = self._message
        method = self._parser.get_method().decode("ascii")
        target = message.target.decode("latin-1")
        version = self._parser.get_http_version()
        if version not in VERSIONS:
            raise BadRequest(400, "This is not a version of HTTP that is spoken here.")
        if not names_a_path(method, target):
            raise BadRequest(400, "This is no proxy: a request names a path.")
        headers = message.headers
        if self._fed > LINE_BYTES_MAX:
            _check_lengths(target, headers)
        head = Head(method, target.partition("?")[0], headers, version == "1.0", VERSIONS[version], is_odd=is_odd)
        seen: set[str] = set()
        for name, value in headers:
            if len(name) in _READ_LENGTHS and (lower := name.lower()) in _READ:
                if lower in _ONCE:
                    if lower in seen:
                        raise BadRequest(400, f"The header {lower} is given twice.")
                    seen.add(lower)
                _read_header(head, lower, value)
        if "host" not in seen and not head.is_http_10:
            raise BadRequest(400, "The header host is missing.")
        return head


def names_a_path(method: str, target: str) -> bool:
    """Whether a request is for us, and not to be passed on as by a proxy."""
    return method != "CONNECT" and (target[:1] == "/" or (target, method) == ("*", "OPTIONS"))


def _check_lengths(target: str, headers: list[tuple[str, str]]) -> None:
    if len(target) > LINE_BYTES_MAX:
        raise BadRequest(431, TOO_LONG)
    for name, value in headers:
        if len(name) > LINE_BYTES_MAX or len(value.encode("utf-8", "surrogateescape")) > LINE_BYTES_MAX:
            raise BadRequest(431, TOO_LONG)


_ONCE = frozenset(
    {
        "content-length",
        "content-location",
        "content-range",
        "content-type",
        "etag",
        "host",
        "max-forwards",
        "server",
        "transfer-encoding",
        "user-agent",
    }
)
"""Which of two would count, we and whoever stands before us might see differently. RFC 9110 has them as single."""
_READ = _ONCE | {"connection", "content-encoding", "expect"}
_READ_LENGTHS = frozenset(map(len, _READ))


def _read_header(head: Head, lower: str, value: str) -> None:
    """What a header says about how the message is to be read. llhttp has refused double and contradictory lengths."""
    match lower:
        case "content-length":
            head.length = int(value)
        case "transfer-encoding":
            if value.strip().lower() != "chunked" or head.is_http_10:
                raise BadRequest(400, "A body may be chunked, and nothing else, in HTTP/1.1.")
            head.is_chunked = True
        case "connection":
            words = {word.strip().lower() for word in value.split(",")}
            head.is_last = "close" in words or (head.is_last and "keep-alive" not in words)
        case "expect":
            head.expects_continue = not head.is_http_10
        case "content-encoding":
            head.is_odd = head.is_odd or value.strip().lower() not in ("", "identity")
