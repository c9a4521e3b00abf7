"""The reference lane: connections served by aiohttp, from their first byte or from where the fast lane handed them over.

aiohttp's low-level server is used, not its application: paths are few and fixed, and a resolver, middlewares and signals
cost time on every request.

Always: what the fast lane refuses is refused here too; nothing is read after a request that was refused; every error has
OpenAI's shape, also where aiohttp finds that what came is not HTTP. ``tests/daemon/test_lanes.py`` holds the two together.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from runtime.courier import problems
from runtime.courier.problems import Problem
from runtime.dialects.errors import error_body
from runtime.http.lines import Lines
from runtime.http.patience import LINGER_S, WRITE_HIGH_WATER_BYTES, Progress, body_patience_s, too_large, too_slow
from runtime.http.raw_body import HEAD_BYTES_MAX
from runtime.http.raw_lane import KEEPALIVE_SHARE
from runtime.http.raw_request import HEADERS_MAX, LINE_BYTES_MAX, TOO_LONG, TOO_MANY, TOO_MUCH, names_a_path
from runtime.http.raw_sink import CONTINUE
from runtime.ports import ClientGone, EdgeRequest, Headers

log = logging.getLogger("pointsman.http")

NAME = ("Server", "pointsman")
OnGarbage = Callable[[int], None]
"""Told the status of every answer to what is not HTTP."""


class AiohttpSink:
    """One answer on its way to an aiohttp client."""

    def __init__(self, request: web.BaseRequest, client_idle_s: float, lane: "AiohttpLane") -> None:
        self._request = request
        self._idle_s = client_idle_s
        self._lane = lane
        self._length: int | None = None
        self._status = 0
        self._headers: Headers = ()
        self._pieces: list[bytes] = []
        """Of a whole answer."""
        self._stream: web.StreamResponse | None = None
        self.response: web.StreamResponse | None = None
        """What the handler returns: a whole answer that aiohttp is to send, or the stream that was sent."""
        self.is_whole = False

    @property
    def has_started(self) -> bool:
        """Whether an answer was begun."""
        return self._status != 0

    async def start(self, status: int, headers: Headers, length: int | None) -> None:
        """Send the head of a stream; that of a whole answer waits for its body."""
        self._status = status
        self._length = length
        self._headers = headers
        if length is None:
            self._stream = self.response = web.StreamResponse(status=status, headers=[*headers, NAME])
            if self._lane.ends_with(self._request):
                self._stream.force_close()
            await self._guarded(self._stream.prepare(self._request))

    async def write(self, chunk: bytes) -> None:
        """Send a chunk, or take a part of a whole answer."""
        if self._stream is None:
            self._pieces.append(chunk)
        elif chunk:
            await self._guarded(self._stream.write(chunk))

    async def end(self) -> None:
        """Nothing more comes. An answer with more or less than was announced is broken off."""
        if self._stream is not None:
            await self._guarded(self._stream.write_eof())
            self.is_whole = True
            return
        body = b"".join(self._pieces) if self._status not in (204, 304) else b""
        if len(body) != self._length and body:
            self.abort()
            return
        self.response = whole = web.Response(status=self._status, headers=[*self._headers, NAME], body=body or None)
        if self._lane.ends_with(self._request):
            whole.force_close()
        if len(body) > WRITE_HIGH_WATER_BYTES:
            # Here and now, at the client's pace but within its bounds.
            await self._guarded(whole.prepare(self._request))
            await self._guarded(whole.write_eof())
        self.is_whole = True

    def abort(self) -> None:
        """Close the connection after what was written, without the end that would make it look whole."""
        transport = self._request.transport
        if transport is not None:
            transport.close()
            # A client that does not read would keep it, and what is still to be sent, for ever.
            asyncio.get_running_loop().call_later(self._idle_s, transport.abort)

    async def _guarded(self, writing: Awaitable[Any]) -> None:
        transport = self._request.transport
        if transport is None:
            raise ClientGone("closed the connection")
        try:
            await Watch(transport, self._idle_s).over(writing)
        except TimeoutError:
            transport.abort()
            raise ClientGone("took no byte in time") from None
        except ConnectionError:
            raise ClientGone("closed the connection") from None


class Watch:
    """Waits while something is written, as long as the client takes any of it within ``idle_s`` seconds."""

    __slots__ = ("_handle", "_idle_s", "_limit", "_loop", "_progress", "_transport")

    def __init__(self, transport: asyncio.Transport, idle_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._idle_s = idle_s
        self._progress = Progress(transport.get_write_buffer_size())
        self._limit = asyncio.timeout(None)
        self._handle = self._loop.call_later(idle_s, self._look)

    async def over(self, writing: Awaitable[Any]) -> None:
        """Await ``writing``. Raises ``TimeoutError`` if the client takes nothing of it in time."""
        try:
            async with self._limit:
                await writing
        finally:
            self._handle.cancel()

    def _look(self) -> None:
        if self._progress.is_made(self._transport.get_write_buffer_size()):
            self._handle = self._loop.call_later(self._idle_s, self._look)
        else:
            self._limit.reschedule(self._loop.time())


class _Protocol(web.RequestHandler):
    """A connection. What is not HTTP is answered like any other error, and logged by nobody: anyone can send it."""

    __slots__ = ("_lines", "_on_garbage")

    def __init__(self, server: "AiohttpLane", **settings: Any) -> None:
        super().__init__(server, **settings)
        self._on_garbage = server.on_garbage
        self._lines = server.lines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lines.add(self, transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lines.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes. Where they spoil a body, aiohttp's parser in C does not tell the body, which would be waited for."""
        super().data_received(data)
        request = self._current_request
        if request is not None and self._messages:
            self.spoil(request.content)

    def spoil(self, content: StreamReader) -> None:
        """If ``content`` is not whole and yet something stands in the queue behind it, that is the error it ended with."""
        if self._messages and not content.is_eof() and content.exception() is None:
            content.set_exception(BadHttpMessage("a body that is none"))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer. After the last one the client is told that it was, also where more of its request is waited for."""
        finished, is_reset = await super().finish_response(request, resp, start_time)
        transport = self.transport
        if not finished.keep_alive and transport is not None and transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
        return finished, is_reset

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What aiohttp logs here, a body that cannot be unpacked for one, anyone can bring about as often as they like."""
        log.debug(*args, **kw)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what could not be read as a request, or, which would be our fault, to what a handler raised."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was under way")
        if status >= 500:
            self._on_garbage(status)
            log.error("a request failed", exc_info=exc)
            return problem_response(problems.internal_error(), close=True)
        text = "This is not HTTP as it should be."
        if isinstance(exc, LineTooLong):
            status, text = 431, TOO_LONG
        elif message is not None and "Too many headers" in message:
            status, text = 431, TOO_MANY
        self._on_garbage(status)
        return problem_response(Problem(status, "invalid_request", text), close=True)


class AiohttpLane(web.Server):
    """Makes the connections; ``handler`` answers the requests that may be answered."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        client_idle_s: float,
        lines: Lines,
        on_garbage: OnGarbage,
    ) -> None:
        super().__init__(self._answer, handler_cancellation=True)
        self._settings: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": KEEPALIVE_SHARE * client_idle_s,
            "lingering_time": min(LINGER_S, client_idle_s),
            "max_line_size": LINE_BYTES_MAX,
            "max_field_size": LINE_BYTES_MAX,
            "max_headers": HEADERS_MAX,
        }
        self._handler = handler
        self.on_garbage = on_garbage
        self.lines = lines
        self.is_draining = False
        """Every answer is its connection's last."""

    def __call__(self) -> web.RequestHandler:
        """What serves one connection."""
        return _Protocol(self, loop=self._loop, **self._settings)

    def ends_with(self, request: web.BaseRequest) -> bool:
        """Whether the answer to ``request`` is its connection's last.

        That to a chunked request is: aiohttp (3.14) takes the last trailer of its body for a header of the request after it.
        """
        return self.is_draining or "Transfer-Encoding" in request.headers

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        problem = _problem_of(request)
        if problem is None:
            answer = await self._handler(request)
            if not answer.prepared and self.ends_with(request):
                answer.force_close()
            return answer
        self.on_garbage(problem.status)
        return problem_response(problem, close=True)


def _problem_of(request: web.BaseRequest) -> Problem | None:
    """Why a request that aiohttp has read is refused all the same: the fast lane would."""
    if request.version not in (HttpVersion10, HttpVersion11):
        return Problem(400, "invalid_request", "This is not a version of HTTP that is spoken here.")
    if not names_a_path(request.method, request.raw_path):
        return Problem(400, "invalid_request", "This is no proxy: a request names a path.")
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and (coding.strip().lower() != "chunked" or request.version == HttpVersion10):
        return Problem(400, "invalid_request", "A body may be chunked, and nothing else, in HTTP/1.1.")
    if sum(len(name) + len(value) + 4 for name, value in request.raw_headers) > HEAD_BYTES_MAX:
        return Problem(431, "invalid_request", TOO_MUCH)
    return None


async def read_body(request: web.BaseRequest, max_body_bytes: int, idle_s: float) -> bytes | Problem:
    """The body within its bounds: of size, and of patience with a client that stops, or drips, in the middle."""
    if request.content_length is not None and request.content_length > max_body_bytes:
        return too_large(max_body_bytes)
    if "Expect" in request.headers and request.version == HttpVersion11:
        await request.writer.write(CONTINUE)
        # So much for what was sent on behalf of no answer yet: later errors can still be told.
        request.writer.output_size = 0
    loop = asyncio.get_running_loop()
    begun_at = loop.time()
    chunks: list[bytes] = []
    size = 0
    content = request.content
    cast(_Protocol, request.protocol).spoil(content)
    try:
        while not content.at_eof():
            if content.is_eof() or content.total_bytes > size:
                chunk = await content.readany()
            else:
                async with asyncio.timeout(body_patience_s(idle_s, loop.time() - begun_at, size)):
                    chunk = await content.readany()
            size += len(chunk)
            if size > max_body_bytes:
                return too_large(max_body_bytes)
            chunks.append(chunk)
    except TimeoutError:
        return too_slow(idle_s)
    except (ConnectionError, BadHttpMessage, web.RequestPayloadError) as error:
        return Problem(400, "invalid_request", f"The body did not come whole: {type(error).__name__}.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def edge_request(request: web.BaseRequest, body: bytes) -> EdgeRequest:
    """The request as the edge takes it."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    address = str(peer[0]) if isinstance(peer, tuple) else ""
    return EdgeRequest(request.method, request.rel_url.raw_path, list(request.headers.items()), body, address)


def problem_response(problem: Problem, *, close: bool = False) -> web.Response:
    """An error of our own. ``close``: the connection ends with it."""
    body = error_body(problem.message, problem.kind, problem.code, problem.param)
    headers = [*problem.headers(), NAME]
    answer = web.Response(body=body, status=problem.status, content_type="application/json", headers=headers)
    if close:
        answer.force_close()
    return answer
