"""A simulated client: it takes its answer as fast as it comes, and remembers when what came. Times in virtual seconds."""

import asyncio

import orjson

from runtime.ports import Headers

ERROR_BYTES_MAX = 64 << 10
BROKEN = "stream_broken"
"""The code of a stream that broke after content had come."""


class Visitor:
    """The sink of one request."""

    __slots__ = (
        "_body",
        "_loop",
        "at",
        "done_at",
        "first_at",
        "is_stream",
        "is_whole",
        "provider",
        "status",
        "tenant",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, tenant: str, is_stream: bool) -> None:
        self._loop = loop
        self._body = b""
        self.tenant = tenant
        self.is_stream = is_stream
        self.at = loop.time()
        self.status = 0
        self.provider = ""
        self.first_at: float | None = None
        """When the first content came; of an answer in one piece, when it was there."""
        self.done_at = self.at
        self.is_whole = False

    @property
    def is_answered(self) -> bool:
        """Whether it has a whole answer that is no error."""
        return self.status == 200 and self.is_whole

    @property
    def code(self) -> str:
        """What went wrong, in one word; empty if nothing did."""
        if self.is_answered:
            return ""
        if self.status == 200:
            return BROKEN
        try:
            return str(orjson.loads(self._body)["error"]["code"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return "no_code"

    def refuse(self, status: int, code: str) -> None:
        """It was not even let in."""
        self.status, self.is_whole = status, True
        self._body = orjson.dumps({"error": {"code": code}})

    @property
    def has_started(self) -> bool:
        """Whether status and headers have come."""
        return self.status != 0

    async def start(self, status: int, headers: Headers) -> None:
        """Take status and headers; a stream's come with its first content."""
        self.status = status
        for name, value in headers:
            if name.lower() == "x-pointsman-provider":
                self.provider = value
        if status == 200:
            self.first_at = self._loop.time()

    async def write(self, chunk: bytes) -> None:
        """Take a chunk; only that of an error is read."""
        if self.status != 200 and len(self._body) < ERROR_BYTES_MAX:
            self._body += chunk

    async def end(self) -> None:
        """The answer is whole."""
        self.is_whole = True
        self.done_at = self._loop.time()

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Take an answer at once."""
        await self.start(status, headers)
        await self.write(body)
        await self.end()

    def abort(self) -> None:
        """The answer has broken off."""
        self.done_at = self._loop.time()
