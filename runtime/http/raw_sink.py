"""Answers into bytes, and onto a connection at the client's pace.

Always: nothing in a header can begin another, and an answer that is not whole never looks so.
"""

from email.utils import formatdate
from http import HTTPStatus
from math import floor
from time import time

from runtime.courier.problems import Problem
from runtime.courier.words import header_lines
from runtime.dialects.errors import error_body
from runtime.http.raw_wire import RawWire
from runtime.ports import ClientGone, Headers, Ready

JOINED_BYTES_MAX = 64 * 1024
"""Smaller bodies are written together with their head."""
UNWAITED_BYTES_MAX = 64 * 1024
"""So much may be written after the last wait for the client without another: a last frame is not held up by a full buffer."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class _Preambles:
    """The first lines of answers by status, without the last one's end: once a second their date changes."""

    def __init__(self) -> None:
        self._until = 0.0
        """When their second is over (Unix s)."""
        self._lines: dict[int, str] = {}

    def line(self, status: int) -> str:
        now = CLOCK()
        # A clock that was set back makes them anew as well.
        if not self._until - 1.0 <= now < self._until:
            self._until = floor(now) + 1.0
            self._lines.clear()
        found = self._lines.get(status)
        if found is None:
            phrase = HTTPStatus(status).phrase if status in _STATUSES else ""
            date = formatdate(self._until - 1.0, usegmt=True)
            found = self._lines[status] = f"HTTP/1.1 {status} {phrase}\r\nServer: pointsman\r\nDate: {date}"
        return found


# A constant is at hand, a module's function is looked up.
CLOCK = time
_STATUSES = frozenset(status.value for status in HTTPStatus)
_PREAMBLES = _Preambles()


def answer_head(status: int, headers: Headers, framing: str) -> bytes:
    """Status line and headers to the empty line. ``framing``: more lines, of connection and length."""
    return _head(status, header_lines(headers), framing, None)


def _head(status: int, lines: str, framing: str, length: int | None) -> bytes:
    """The same, of headers that are lines already, and with the body's length where it is known."""
    preamble = _PREAMBLES.line(status)
    if length is None:
        whole = f"{preamble}{lines}\r\n{framing}\r\n"
    else:
        whole = f"{preamble}{lines}\r\nContent-Length: {length}\r\n{framing}\r\n"
    try:
        return whole.encode("utf-8")
    except UnicodeEncodeError:
        return _escaped(whole)


def _escaped(text: str) -> bytes:
    """Text with bytes in it that are no UTF-8, as it came."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def problem_answer(problem: Problem) -> bytes:
    """A whole answer with an error of our own, the last on its connection."""
    body = error_body(problem.message, problem.kind, problem.code, problem.param)
    headers = [("Content-Type", "application/json"), *problem.headers()]
    return _head(problem.status, header_lines(headers), "Connection: close\r\n", len(body)) + body


class RawSink(Ready):
    """One answer on its way. See ``EdgeSink``."""

    __slots__ = (
        "_has_no_body", "_is_chunked", "_is_http_10", "_unwaited_bytes", "_wire", "has_started", "is_last", "is_whole",
    )  # fmt: skip

    def __init__(self, wire: RawWire, is_http_10: bool) -> None:
        self._wire = wire
        self._is_http_10 = is_http_10
        self._is_chunked = False
        self._has_no_body = False
        self._unwaited_bytes = 0
        self.has_started = False
        self.is_last = False
        """The connection ends with this answer, and the client was told."""
        self.is_whole = False

    def give(self, status: int, lines: str, body: bytes) -> None:
        """Send a small answer that is at hand; never waits."""
        head = self._head(status, lines, len(body))
        self._give(head if self._has_no_body else head + body)
        self.is_whole = True

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send an answer that is at hand. A small body goes with its head."""
        head = self._head(status, header_lines(headers), len(body))
        if self._has_no_body:
            data = head
        elif len(body) <= JOINED_BYTES_MAX:
            data = head + body
        else:
            self._give(head)
            data = body
        if self._is_to_wait(data):
            await self._wire.drained()
        self.is_whole = True

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of a stream."""
        if self._is_to_wait(self._head(status, header_lines(headers), None)):
            await self._wire.drained()

    async def write(self, chunk: bytes) -> None:
        """Send a chunk."""
        # An empty chunk would look like the last one.
        if not chunk or self._has_no_body:
            return
        if self._is_to_wait(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._is_chunked else chunk):
            await self._wire.drained()

    async def end(self) -> None:
        """Nothing more comes; waits for nobody."""
        if self._is_chunked:
            self._give(LAST_CHUNK)
        self.is_whole = True

    def _head(self, status: int, lines: str, length: int | None) -> bytes:
        """Settle how the answer is framed; gives its head. ``length``: None, of a stream."""
        self.has_started = True
        self.is_last = is_last = self._wire.is_last or (length is None and self._is_http_10)
        framing = ""
        if status in (204, 304):
            self._has_no_body, length = True, None
        elif length is None and not self._is_http_10:
            self._is_chunked = True
            framing = "Transfer-Encoding: chunked\r\n"
        if is_last:
            framing += "Connection: close\r\n"
        elif self._is_http_10:
            framing += "Connection: keep-alive\r\n"
        head = _head(status, lines, framing, length)
        return head.replace(b"HTTP/1.1", b"HTTP/1.0", 1) if self._is_http_10 else head

    def abort(self) -> None:
        """Close after what was written, without the end that would make it look whole."""
        self._wire.break_off()

    def _give(self, data: bytes) -> None:
        """Send without waiting."""
        if self._wire.is_gone:
            raise ClientGone("closed the connection")
        self._wire.send(data)

    def _is_to_wait(self, data: bytes) -> bool:
        """Send. True if it is time to wait for the client: who sends does so itself, for each step of waiting has its price."""
        self._give(data)
        self._unwaited_bytes += len(data)
        if self._unwaited_bytes <= UNWAITED_BYTES_MAX:
            return False
        self._unwaited_bytes = 0
        return self._wire.is_full
