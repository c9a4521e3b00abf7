"""Server-sent events, cut out of a stream of bytes without changing one of them.

The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end with LF, CR LF or CR, and a
blank line ends an event. Nothing is decoded here, so a character that is split between two chunks is nobody's problem.
"""

import re

EVENT_BYTES_MAX = 1024 * 1024

# Atomic: the CR and LF of one line end must not be taken for two line ends.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLarge(Exception):
    """An event has more than the bytes allowed. The splitter is of no more use; ``pending`` still holds what came."""


class SseSplitter:
    """Collects bytes until whole events are there. Events and ``pending`` together are what was fed, byte for byte."""

    __slots__ = ("_buffer", "_limit", "_seen")

    def __init__(self, limit_bytes: int = EVENT_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._limit = limit_bytes
        self._seen = 0

    @property
    def pending(self) -> bytes:
        """What has come of an event that is not whole yet."""
        return bytes(self._buffer)

    @property
    def has_pending(self) -> bool:
        """True while part of an event is held."""
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk; return the events it completes, each with its blank line. Raises ``EventTooLarge``."""
        if not self._buffer and b"\r" not in chunk:
            return self._feed_plain(chunk)
        self._buffer += chunk
        return self._cut()

    def _feed_plain(self, chunk: bytes) -> list[bytes]:
        """The usual case: nothing held, lines end with LF."""
        events: list[bytes] = []
        start = 0
        while (end := chunk.find(b"\n\n", start)) >= 0:
            events.append(chunk[start : end + 2])
            start = end + 2
        if start < len(chunk):
            self._buffer += chunk[start:] if start else chunk
            self._seen = len(self._buffer)
            self._check()
        return events

    def _cut(self) -> list[bytes]:
        events: list[bytes] = []
        buffer = self._buffer
        start = 0
        # A blank line takes four bytes at most, so no more than three of them were seen before.
        search_from = max(0, self._seen - 3)
        while (match := _BLANK_LINE.search(buffer, search_from)) is not None:
            end = match.end()
            if end == len(buffer) and buffer[-1] == 0x0D:
                # The LF of this CR may be on its way; it would belong to this event.
                break
            events.append(bytes(buffer[start:end]))
            start = search_from = end
        if start:
            del buffer[:start]
        self._seen = len(buffer)
        self._check()
        return events

    def _check(self) -> None:
        if len(self._buffer) > self._limit:
            raise EventTooLarge(f"an event of more than {self._limit} bytes")


def event_data(event: bytes) -> bytes | None:
    """The data of an event, its lines joined with LF; None if it has none (a comment, a bare id)."""
    if event.startswith(b"data:") and b"\r" not in event:
        body = event[5:].rstrip(b"\n")
        if b"\n" not in body:
            return body.removeprefix(b" ")
    lines = [
        line[5:].removeprefix(b" ") if line.startswith(b"data:") else b""
        for line in _LINE_END.split(event.removeprefix(b"\xef\xbb\xbf"))
        if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
