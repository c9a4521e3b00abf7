"""Connections that are none, for both lanes: what a client says goes to a protocol, and what it is told is kept and read."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Literal

import orjson

LaneName = Literal["raw", "aiohttp"]
LANES: tuple[LaneName, ...] = ("raw", "aiohttp")


class Line(asyncio.Transport):
    """A transport that keeps what it is given, and closes as a real one does: in the loop's next turn."""

    def __init__(self) -> None:
        super().__init__()
        self.said = bytearray()
        self.protocol: Any = None
        self.is_closed = False
        self.is_ended = False
        self._is_reading = True
        self._unread: list[bytes] = []

    def write(self, data: Any) -> None:
        if not self.is_closed:
            assert not self.is_ended, "written after the end"
            self.said += bytes(data)

    def write_eof(self) -> None:
        self.is_ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(lambda: self.protocol.connection_lost(None))

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.is_closed

    def is_reading(self) -> bool:
        return self._is_reading

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        asyncio.get_running_loop().call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def give(self, data: bytes) -> None:
        """Bytes of the client's."""
        self._unread.append(data)
        self._deliver()

    def _deliver(self) -> None:
        while self._unread and self._is_reading and not self.is_closed:
            self.protocol.data_received(self._unread.pop(0))


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, as far as the lanes must agree."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_whole: bool = True


_UNCOMPARED = frozenset({"content-length", "date", "transfer-encoding"})


def replies(said: bytes | bytearray) -> list[Reply]:
    """The answers in what was said, their headers in one order and spelling, without the date and what frames them.

    A refused request is answered in words of each lane's own, and by aiohttp, where it cannot read it, in HTTP/1.0: that it is
    refused, with which status and code, is the same.
    """
    found = []
    rest = bytes(said)
    while rest:
        head, separator, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/([01]\.[019]) (\d{3}) .*", first)
        assert match, said
        assert separator, said
        status = int(match[2])
        pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if status == 100:
            # It may be left out where the body is here already.
            continue
        body, rest, is_whole = _body(dict(pairs), rest)
        if status in (400, 431):
            pairs = [pair for pair in pairs if pair[0] != "connection"]
            error = orjson.loads(body)["error"]
            body = orjson.dumps({**error, "message": ""})
        shown = {name: value for name, value in pairs if name not in _UNCOMPARED}
        if match[1] == "1.0" and shown.get("connection") == "close":
            # It goes without saying there.
            del shown["connection"]
        shown["http"] = match[1] if status not in (400, 431) else ""
        found.append(Reply(status, tuple(sorted(shown.items())), body, is_whole))
    return found


def _body(headers: dict[str, str], rest: bytes) -> tuple[bytes, bytes, bool]:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            body += rest[:length]
            rest = rest[length + 2 :]
            if not length:
                return body, rest, True
        return body, rest, False
    if "content-length" not in headers:
        return rest, b"", True
    length = int(headers["content-length"])
    return rest[:length], rest[length:], len(rest) >= length
