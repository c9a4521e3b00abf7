"""The reference lane: connections served by aiohttp, from their first byte or from where the fast lane handed them over.

The one file on this side that knows aiohttp.

aiohttp's low-level server is used, not its application: paths are few and fixed, and a resolver, middlewares and signals
cost time on every request.

Always: what the fast lane refuses is refused here too; nothing is read after a request that was refused; every error has
OpenAI's shape, also where aiohttp finds that what came is not HTTP. ``tests/daemon/test_lanes.py`` holds the two together.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter

from runtime.courier import problems
from runtime.courier.problems import Problem
from runtime.http.edge import ROUTES, Edge
from runtime.http.lines import Lines
from runtime.http.patience import LINGER_S, WRITE_HIGH_WATER_BYTES, Progress, body_patience_s, too_large, too_slow
from runtime.http.plain import Asked, PlainAnswer, error_answer
from runtime.http.raw_body import HEAD_BYTES_MAX
from runtime.http.raw_lane import KEEPALIVE_SHARE
from runtime.http.raw_request import HEADERS_MAX, LINE_BYTES_MAX, TOO_LONG, TOO_MANY, TOO_MUCH, names_a_path
from runtime.http.raw_sink import CONTINUE
from runtime.ports import ClientGone, EdgeRequest, Headers

log = logging.getLogger("pointsman.http")

NAME = ("Server", "pointsman")


class AiohttpSink:
    """One answer on its way to an aiohttp client."""

    def __init__(self, request: web.BaseRequest, lane: "AiohttpLane") -> None:
        self._request = request
        self._lane = lane
        self._stream: web.StreamResponse | None = None
        self.has_started = False
        self.response: web.StreamResponse | None = None
        """What the handler returns: a whole answer that aiohttp is to send, or the stream that was sent."""
        self.is_whole = False

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send an answer that is at hand; a small one once the handler returns it."""
        self.has_started = True
        has_body = bool(body) and status not in (204, 304)
        self.response = answer = web.Response(status=status, headers=[*headers, NAME], body=body if has_body else None)
        if self._lane.ends_with(self._request):
            answer.force_close()
        if has_body and len(body) > WRITE_HIGH_WATER_BYTES:
            # Here and now, at the client's pace but within its bounds.
            await self._guarded(answer.prepare(self._request))
            await self._guarded(answer.write_eof())
        self.is_whole = True

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of a stream."""
        self.has_started = True
        self._stream = self.response = web.StreamResponse(status=status, headers=[*headers, NAME])
        # In HTTP/1.0 a stream has no end but that of its connection.
        if self._lane.ends_with(self._request) or self._request.version == HttpVersion10:
            self._stream.force_close()
        await self._guarded(self._stream.prepare(self._request))

    async def write(self, chunk: bytes) -> None:
        """Send a chunk."""
        if chunk and self._stream is not None:
            await self._guarded(self._stream.write(chunk))

    async def end(self) -> None:
        """Nothing more comes; waits for nobody."""
        try:
            cast(StreamWriter, self._request.writer).set_eof()
        except ConnectionError:
            raise ClientGone("closed the connection") from None
        self.is_whole = True

    async def taken(self) -> None:
        """Wait until the client has taken the most of a stream that has ended, within its bounds."""
        if self._stream is not None:
            with suppress(ClientGone):
                await self._guarded(self._request.writer.drain())

    def abort(self) -> None:
        """Close the connection after what was written, without the end that would make it look whole."""
        transport = self._request.transport
        if transport is not None:
            transport.close()
            # A client that does not read would keep it, and what is still to be sent, for ever.
            asyncio.get_running_loop().call_later(self._lane.idle_s, transport.abort)

    async def _guarded(self, writing: Awaitable[Any]) -> None:
        transport = self._request.transport
        if transport is None:
            raise ClientGone("closed the connection")
        try:
            await Watch(transport, self._lane.idle_s).over(writing)
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


class _Request(web.BaseRequest):
    """A request. It is answered in a version of ours, whichever it names: aiohttp would repeat that."""

    def __init__(self, message: RawRequestMessage, *more: Any) -> None:
        self.is_ours = message.version in (HttpVersion10, HttpVersion11)
        super().__init__(message if self.is_ours else message._replace(version=HttpVersion11), *more)


class _Protocol(web.RequestHandler):
    """A connection. What is not HTTP is answered like any other error, and logged by nobody: anyone can send it."""

    __slots__ = ("_edge", "_lines")

    def __init__(self, server: "AiohttpLane", **settings: Any) -> None:
        super().__init__(server, **settings)
        self._edge = server.edge
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
            self._edge.refused(status)
            log.error("a request failed", exc_info=exc)
            return _response(error_answer(problems.internal_error(), is_last=True))
        text = "This is not HTTP as it should be."
        if isinstance(exc, LineTooLong):
            status, text = 431, TOO_LONG
        elif message is not None and "Too many headers" in message:
            status, text = 431, TOO_MANY
        self._edge.refused(status)
        return _response(error_answer(Problem(status, "invalid_request", text), is_last=True))


class AiohttpLane(web.Server):
    """Makes the connections. ``pages`` answers whatever is not a model's endpoint."""

    def __init__(
        self,
        edge: Edge,
        pages: Callable[[Asked], Awaitable[PlainAnswer]],
        lines: Lines,
        max_body_bytes: int,
        client_idle_s: float,
    ) -> None:
        super().__init__(self._answer, request_factory=self._request, handler_cancellation=True)
        self._settings: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": KEEPALIVE_SHARE * client_idle_s,
            "lingering_time": min(LINGER_S, client_idle_s),
            "max_line_size": LINE_BYTES_MAX,
            "max_field_size": LINE_BYTES_MAX,
            "max_headers": HEADERS_MAX,
        }
        self.edge = edge
        self.lines = lines
        self.max_body_bytes = max_body_bytes
        self.idle_s = client_idle_s
        self._pages = pages
        self.is_draining = False
        """Every answer is its connection's last."""

    def __call__(self) -> web.RequestHandler:
        """What serves one connection."""
        return _Protocol(self, loop=self._loop, **self._settings)

    def _request(self, *given: Any) -> _Request:
        return _Request(*given, self._loop)

    def ends_with(self, request: web.BaseRequest) -> bool:
        """Whether the answer to ``request`` is its connection's last.

        That to a chunked request is: aiohttp (3.14) takes the last trailer of its body for a header of the request after it.
        """
        return self.is_draining or "Transfer-Encoding" in request.headers

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if (problem := _problem_of(request)) is not None:
            self.edge.refused(problem.status)
            return _response(error_answer(problem, is_last=True))
        if request.method == "POST" and request.rel_url.raw_path in ROUTES:
            answer = await self._serve(request)
        else:
            answer = _response(await self._pages(_Asked(request, self)))
        if not answer.prepared and self.ends_with(request):
            answer.force_close()
        return answer

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request for a model. The same as the other lane does, in the same order."""
        edge, task = self.edge, asyncio.current_task()
        assert task is not None
        if (refusal := edge.admit(task)) is not None:
            return _response(error_answer(refusal, is_last=True))
        sink = AiohttpSink(request, self)
        try:
            try:
                body = await _body(request, self.max_body_bytes, self.idle_s)
            except asyncio.CancelledError:
                edge.left(is_here=request.transport is not None)
                raise
            if isinstance(body, Problem):
                edge.refused(body.status)
                return _response(error_answer(body, is_last=True))
            await edge.serve(_edge_request(request, body), sink, task)
        except asyncio.CancelledError:
            if not edge.is_cut:
                raise
            return _response(error_answer(problems.shutting_down(), is_last=True))
        except Exception as error:
            log.error("%s %s failed", request.method, request.rel_url.raw_path, exc_info=error)
            if not sink.has_started:
                return _response(error_answer(problems.internal_error(), is_last=True))
        finally:
            edge.leave(task)
        if sink.is_whole:
            await sink.taken()
        else:
            sink.abort()
        # Without an answer the client is gone or was cut: nobody will read this.
        return sink.response or web.Response(status=499)


class _Asked:
    """See ``Asked``."""

    def __init__(self, request: web.BaseRequest, lane: AiohttpLane) -> None:
        self._request = request
        self._lane = lane
        self.head = _edge_request(request, b"")
        self.query = request.rel_url.raw_query_string
        self.content_type = request.content_type
        self.has_body = request.body_exists

    async def body(self) -> bytes | Problem:
        """The body, or why it is refused."""
        return await _body(self._request, self._lane.max_body_bytes, self._lane.idle_s)


def _problem_of(request: web.BaseRequest) -> Problem | None:
    """Why a request that aiohttp has read is refused all the same: the fast lane would."""
    if not cast(_Request, request).is_ours:
        return Problem(400, "invalid_request", "This is not a version of HTTP that is spoken here.")
    if not names_a_path(request.method, request.raw_path):
        return Problem(400, "invalid_request", "This is no proxy: a request names a path.")
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and (coding.strip().lower() != "chunked" or request.version == HttpVersion10):
        return Problem(400, "invalid_request", "A body may be chunked, and nothing else, in HTTP/1.1.")
    if sum(len(name) + len(value) + 4 for name, value in request.raw_headers) > HEAD_BYTES_MAX:
        return Problem(431, "invalid_request", TOO_MUCH)
    return None


async def _body(request: web.BaseRequest, max_body_bytes: int, idle_s: float) -> bytes | Problem:
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


def _edge_request(request: web.BaseRequest, body: bytes) -> EdgeRequest:
    """The request as the edge takes it."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    address = str(peer[0]) if isinstance(peer, tuple) else ""
    return EdgeRequest(request.method, request.rel_url.raw_path, list(request.headers.items()), body, address)


def _response(answer: PlainAnswer) -> web.Response:
    """``answer`` as aiohttp sends it."""
    headers = [*answer.headers, NAME]
    made = web.Response(body=answer.body, status=answer.status, headers=headers)
    made.headers["Content-Type"] = answer.content_type
    if answer.is_last:
        made.force_close()
    return made
