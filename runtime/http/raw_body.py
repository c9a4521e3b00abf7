"""Bodies of requests out of bytes: of announced length, or chunked. Sans-I/O.

Always: it is known where a body ends, so that not one byte of the next request is taken for this one's.
"""

from typing import Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

END = b"\r\n\r\n"
HEAD_BYTES_MAX = 64 * 1024
"""Of request line and headers, and of what a chunked body may have besides content."""
BLANK_LINES_MAX = 10_000
"""In a chunked body. Each is looked at by itself, and nobody's JSON has so many."""


class BadRequest(ValueError):
    """What came cannot be taken as a request, nor what comes after it. ``status`` is the answer to it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Message:
    """What llhttp tells about a request as it comes: it calls what begins with ``on_``."""

    __slots__ = ("headers", "is_headed", "is_whole", "pieces", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[str, str]] = []
        self.pieces: list[bytes] = []
        self.is_headed = False
        self.is_whole = False

    def on_url(self, part: bytes) -> None:
        """A part of the target."""
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        # What comes after the body, trailers, nobody asked for.
        if not self.is_headed:
            # What is no UTF-8 goes on with the bytes it had.
            self.headers.append((name.decode("ascii"), value.rstrip(b" \t").decode("utf-8", "surrogateescape")))

    def on_headers_complete(self) -> None:
        """The head ends."""
        self.is_headed = True

    def on_body(self, piece: bytes) -> None:
        """A piece of the body, without its framing."""
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        """The body ends."""
        self.is_whole = True


class Body(Protocol):
    """The reader of one body, which may come in pieces."""

    size: int
    """Bytes of content that came."""

    @property
    def is_whole(self) -> bool:
        """Whether the body is here to its end."""

    def content(self) -> bytes:
        """What came of the body."""

    def feed(self, data: bytes) -> bytes:
        """Take in a part; returns what comes after the body's end. Raises ``BadRequest``."""


class SizedBody:
    """Reads a body whose length was announced."""

    __slots__ = ("_length", "_pieces", "size")

    def __init__(self, length: int) -> None:
        self._length = length
        self._pieces: list[bytes] = []
        self.size = 0

    @property
    def is_whole(self) -> bool:
        """Whether the body is here to its end."""
        return self.size == self._length

    def content(self) -> bytes:
        """What came of the body."""
        return b"".join(self._pieces)

    def feed(self, data: bytes) -> bytes:
        """Take in a part; returns what comes after the body's end."""
        missing = self._length - self.size
        piece = data[:missing]
        self._pieces.append(piece)
        self.size += len(piece)
        return data[missing:]


class ChunkedBody:
    """Reads a chunked body to its end and not one byte further."""

    __slots__ = ("_blank_lines", "_message", "_other_bytes", "_parser", "_tail", "size")

    def __init__(self, message: Message, parser: HttpRequestParser) -> None:
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
