"""Requests out of bytes: the head, and a chunked body. llhttp reads them; what it would let pass is refused here. Sans-I/O.

Always: it is known where a message ends, so that not one byte of the next is taken for this one's. llhttp does not tell
where in its input a message ended, but in its strict mode it ends nowhere but after CR LF CR LF: it is fed up to there.
"""

from dataclasses import dataclass

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

END = b"\r\n\r\n"
HEAD_BYTES_MAX = 64 * 1024
"""Of request line and headers, and of what a chunked body may have besides content."""
HEADERS_MAX = 128
BLANK_LINES_MAX = 10_000
"""In a chunked body. Each is looked at by itself, and nobody's JSON has so many."""
VERSIONS = {"1.0": True, "1.1": False}
"""Those that are spoken, and whether a connection ends with its answer if nothing is said about that."""


class BadRequest(ValueError):
    """What came cannot be taken as a request, nor what comes after it. ``status`` is the answer to it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


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


class _Message:
    """What llhttp tells about a request as it comes."""

    __slots__ = ("headers", "is_headed", "is_whole", "pieces", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[str, str]] = []
        self.pieces: list[bytes] = []
        self.is_headed = False
        self.is_whole = False

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after the body, trailers, nobody asked for.
        if not self.is_headed:
            # What is no UTF-8 goes on with the bytes it had.
            self.headers.append((name.decode("ascii"), value.decode("utf-8", "surrogateescape")))

    def on_headers_complete(self) -> None:
        self.is_headed = True

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.is_whole = True


class HeadReader:
    """Reads one head, which may come in pieces. ``feed`` until it gives it."""

    __slots__ = ("_fed", "_message", "_parser", "raw")

    def __init__(self) -> None:
        self._message = _Message()
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
                raise BadRequest(431, f"Request line and headers have more than {HEAD_BYTES_MAX} bytes.")
            is_odd = self._feed_parser(bytes(raw[self._fed : end if is_found else len(raw)]))
            self._fed = end if is_found else len(raw)
            if not is_found:
                if self._message.is_headed:
                    raise BadRequest(400, "The headers do not end as they should.")
                return None
            # Empty lines before a request are nothing.
            if self._message.is_headed:
                return self._head(is_odd)

    def chunked_body(self) -> "ChunkedBody":
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
        if method == "CONNECT" or (target[:1] != "/" and (target, method) != ("*", "OPTIONS")):
            raise BadRequest(400, "This is no proxy: a request names a path.")
        headers = message.headers
        head = Head(method, target.partition("?")[0], headers, version == "1.0", VERSIONS[version], is_odd=is_odd)
        for name, value in headers:
            if len(name) in _READ_LENGTHS and (lower := name.lower()) in _READ:
                _read_header(head, lower, value)
        return head


_READ = frozenset({"connection", "content-encoding", "content-length", "expect", "transfer-encoding"})
_READ_LENGTHS = frozenset(map(len, _READ))


def _read_header(head: Head, lower: str, value: str) -> None:
    """What a header says about how the message is to be read. llhttp has refused double and contradictory lengths."""
    match lower:
        case "content-length":
            head.length = int(value)
        case "transfer-encoding":
            if value.strip().lower() != "chunked" or head.is_chunked or head.is_http_10:
                raise BadRequest(400, "A body may be chunked, and nothing else, in HTTP/1.1.")
            head.is_chunked = True
        case "connection":
            words = {word.strip().lower() for word in value.split(",")}
            head.is_last = "close" in words or (head.is_last and "keep-alive" not in words)
        case "expect":
            head.expects_continue = not head.is_http_10
        case "content-encoding":
            head.is_odd = head.is_odd or value.strip().lower() not in ("", "identity")


class ChunkedBody:
    """Reads a chunked body to its end and not one byte further."""

    __slots__ = ("_blank_lines", "_message", "_other_bytes", "_parser", "_tail", "size")

    def __init__(self, message: _Message, parser: HttpRequestParser) -> None:
        self._message = message
        self._parser = parser
        self._tail = b""
        """The last bytes that were fed: an end may have begun in them."""
        self._other_bytes = 0
        self._blank_lines = 0
        self.size = 0
        """Bytes of content that came."""

    @property
    def is_whole(self) -> bool:
        """Whether the body is here to its end."""
        return self._message.is_whole

    def content(self) -> bytes:
        """What came of the body."""
        return b"".join(self._message.pieces)

    def feed(self, data: bytes) -> bytes:
        """Take in a part; returns what comes after the body's end. Raises ``BadRequest``."""
        view, at, pieces = memoryview(data), 0, self._message.pieces
        count = len(pieces)
        while at < len(data) and not self._message.is_whole:
            end = self._next_end(data, at)
            self._blank_lines += end < len(data)
            if self._blank_lines > BLANK_LINES_MAX:
                raise BadRequest(400, f"The chunked body has more than {BLANK_LINES_MAX} blank lines.")
            try:
                self._parser.feed_data(view[at:end])
            except (HttpParserError, HttpParserUpgrade) as error:
                raise BadRequest(400, "The chunks of the body are not as they should be.") from error
            self._tail = (self._tail + data[max(at, end - 3) : end])[-3:]
            at = end
        came = sum(len(piece) for piece in pieces[count:])
        self.size += came
        self._other_bytes += at - came
        if self._other_bytes > HEAD_BYTES_MAX + self.size * 8:
            raise BadRequest(400, "The body has more framing than content.")
        return data[at:]

    def _next_end(self, data: bytes, at: int) -> int:
        """The next place after ``at`` where the body may end, or the end of ``data``."""
        begun = (self._tail + data[at : at + 3]).find(END)
        if begun >= 0:
            return at + begun + len(END) - len(self._tail)
        found = data.find(END, at)
        return found + len(END) if found >= 0 else len(data)
