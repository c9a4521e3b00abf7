"""The listener, and aiohttp behind the edge port: the one file on this side that knows it.

Connections begin in the fast lane (``raw_edge.py``), which hands over to aiohttp those that ask for anything but a model.

Owns: the wire: reading bodies within their bounds, writing answers at the client's pace, and which path leads where.
Always: every error has OpenAI's shape, also where aiohttp finds that what came is not HTTP; nothing tells what is inside.

aiohttp's low-level server is used, not its application: paths are few and fixed, and a resolver, middlewares and signals
cost time on every request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

import orjson
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import BadHttpMessage

from runtime.courier import problems
from runtime.courier.problems import Problem
from runtime.dialects.errors import error_body
from runtime.http.admin import Admin
from runtime.http.admin_bodies import AdminError
from runtime.http.admin_routes import BODILESS, AdminCall, AdminHandler, AdminRoutes, must_be_json
from runtime.http.admin_routes import PREFIX as ADMIN
from runtime.http.catalogue import Catalogue, openapi
from runtime.http.edge import ROUTES, Edge
from runtime.http.guard import why_not_admin
from runtime.http.lines import Lines
from runtime.http.page import closed_page, first_page
from runtime.http.raw_edge import RawConnection
from runtime.http.raw_lane import KEEPALIVE_SHARE, Lane
from runtime.ports import ClientGone, EdgeRequest, Headers

log = logging.getLogger("pointsman.http")

WRITE_HIGH_WATER_BYTES = 64 * 1024
SHUTDOWN_S = 1.0
MODELS = "/v1/models/"
OnGarbage = Callable[[int], None]
"""Told the status of every answer to what is not HTTP."""
NAME = ("Server", "pointsman")
Handler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
"""Takes the request and the part of its path that a template leaves open, decoded."""


class AiohttpSink:
    """One answer on its way to an aiohttp client."""

    def __init__(self, request: web.BaseRequest, client_idle_s: float) -> None:
        self._request = request
        self._idle_s = client_idle_s
        self._length: int | None = None
        self._status = 0
        self._headers: Headers = ()
        self._stream: web.StreamResponse | None = None
        self.response: web.StreamResponse | None = None
        """What the handler returns: a whole answer that aiohttp is to send, or the stream that was sent."""

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
            await self._guarded(self._stream.prepare(self._request))

    async def write(self, chunk: bytes) -> None:
        """Send a chunk, or take the whole body."""
        if self._stream is not None:
            await self._guarded(self._stream.write(chunk))
        else:
            self.response = web.Response(status=self._status, headers=[*self._headers, NAME], body=chunk)

    async def end(self) -> None:
        """End a stream. A whole answer of some size is sent here and now, at the client's pace but within its bounds."""
        if self._stream is not None:
            await self._guarded(self._stream.write_eof())
        elif self.response is not None and (self._length or 0) > WRITE_HIGH_WATER_BYTES:
            await self._guarded(self.response.prepare(self._request))
            await self._guarded(self.response.write_eof())

    def abort(self) -> None:
        """Close the connection after what was written, without the end that would make it look whole."""
        transport = self._request.transport
        if transport is not None:
            transport.close()
            # A client that does not read would keep it, and what is still to be sent, for ever.
            asyncio.get_running_loop().call_later(self._idle_s, transport.abort)

    async def _guarded(self, writing: Awaitable[Any]) -> None:
        try:
            async with asyncio.timeout(self._idle_s):
                await writing
        except TimeoutError:
            transport = self._request.transport
            if transport is not None:
                transport.abort()
            raise ClientGone("took no byte in time") from None
        except ConnectionError:
            raise ClientGone("closed the connection") from None


class _Protocol(web.RequestHandler):
    """A connection. What is not HTTP is answered like any other error, and logged by nobody: anyone can send it."""

    __slots__ = ("_lines", "_on_garbage")

    def __init__(self, server: "_Server", **settings: Any) -> None:
        super().__init__(server, **settings)
        self._on_garbage = server.on_garbage
        self._lines = server.lines

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lines.add(self, transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lines.remove(self)
        super().connection_lost(exc)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what could not be read as a request, or, which would be our fault, to what a handler raised."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was under way")
        self._on_garbage(status)
        if status >= 500:
            log.error("a request failed", exc_info=exc)
            return _problem(problems.internal_error(), close=True)
        return _problem(Problem(status, "invalid_request", "This is not HTTP as it should be."), close=True)


class _Server(web.Server):
    """Makes the connections."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], keepalive_s: float, on_garbage: OnGarbage
    ) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._settings: dict[str, Any] = {"access_log": None, "keepalive_timeout": keepalive_s}
        self.on_garbage = on_garbage
        self.lines = Lines()

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._settings)


class HttpServer:
    """The listener and its routes."""

    def __init__(
        self, edge: Edge, admin: Admin, admin_key: str, max_body_bytes: int, client_idle_s: float, version: str
    ) -> None:
        self._edge = edge
        self._admin = admin
        self._admin_key = admin_key
        self._max_body = max_body_bytes
        self._idle_s = client_idle_s
        self._version = version
        self._listener: asyncio.Server | None = None
        self._server: _Server | None = None
        self._lane: Lane | None = None
        self._routes: dict[str, dict[str, Handler]] = {path: {"POST": self._call} for path in ROUTES}
        for path, handler in (
            ("/v1/models", self._models),
            ("/healthz", self._healthz),
            ("/readyz", self._readyz),
            ("/openapi.json", self._openapi),
            ("/", self._page),
        ):
            self._routes[path] = {"GET": handler, "HEAD": handler}
        self._catalogue = Catalogue()
        self._admin_routes = AdminRoutes(admin, edge.shown)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises ``OSError`` if the address cannot be had."""
        self._server = server = _Server(self._handle, KEEPALIVE_SHARE * self._idle_s, self._edge.refused)
        self._lane = lane = Lane(self._edge, server.lines, self._max_body, self._idle_s, server)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: RawConnection(lane), host, port, backlog=1024)
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop_listening(self) -> None:
        """Accept no new connections; those that are open go on, until their next answer of the fast lane."""
        if self._listener is not None:
            self._listener.close()
        if self._lane is not None:
            self._lane.is_draining = True

    async def stop(self) -> None:
        """Close everything."""
        await self.stop_listening()
        if self._server is None or self._lane is None:
            return
        # What came before the end has begun to be answered.
        await asyncio.sleep(0)
        self._lane.close_idle()
        self._server.pre_shutdown()
        await self._server.shutdown(SHUTDOWN_S)
        await self._server.lines.cut(SHUTDOWN_S)

    # Where a path leads.

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        methods, rest = self._match(path)
        handler = methods.get(request.method)
        if handler is not None:
            try:
                return await handler(request, rest)
            except AdminError as error:
                return _problem(error.problem)
            except Exception as error:
                log.error("%s %s failed", request.method, path, exc_info=error)
                return _problem(problems.internal_error())
        problem = Problem(404, "not_found", f"There is no {_shown(request.method)} {_shown(path)} here.")
        if methods:
            problem = Problem(405, "method_not_allowed", f"{_shown(path)} does not take {_shown(request.method)}.")
        self._edge.refused(problem.status)
        answer = _problem(problem, close=True)
        if methods:
            answer.headers["Allow"] = ", ".join(methods)
        return answer

    def _match(self, path: str) -> tuple[Mapping[str, Handler], str]:
        """The methods of a path and the part of it that is open, decoded."""
        methods = self._routes.get(path)
        if methods is not None:
            return methods, ""
        if path.startswith(ADMIN):
            return self._admin_match(path)
        if path.startswith(MODELS) and len(path) > len(MODELS):
            return {"GET": self._model, "HEAD": self._model}, unquote(path[len(MODELS) :], errors="replace")
        return {}, ""

    def _admin_match(self, path: str) -> tuple[Mapping[str, Handler], str]:
        methods, name = self._admin_routes.match(path)

        def bound(answer: AdminHandler) -> Handler:
            return lambda request, rest: self._admin_call(request, answer, rest)

        return {method: bound(answer) for method, answer in methods.items()}, name

    # The models' endpoints.

    async def _call(self, request: web.BaseRequest, rest: str) -> web.StreamResponse:
        edge = self._edge
        refusal = edge.admit()
        if refusal is not None:
            return _problem(refusal, close=True)
        try:
            body = await self._body(request)
            if isinstance(body, Problem):
                edge.refused(body.status)
                return _problem(body, close=True)
            sink = AiohttpSink(request, self._idle_s)
            await edge.serve(_edge_request(request, body), sink)
        except asyncio.CancelledError:
            if not edge.is_cut:
                raise
            return _problem(problems.shutting_down(), close=True)
        finally:
            edge.leave()
        if sink.response is None:
            # The client is gone or was cut: nobody will read this.
            return web.Response(status=499)
        return sink.response

    async def _body(self, request: web.BaseRequest) -> bytes | Problem:
        """The body within its bounds: of size, and of patience with a client that stops in the middle."""
        too_large = Problem(413, "request_too_large", f"The body has more than {self._max_body} bytes (server.max_body).")
        if request.content_length is not None and request.content_length > self._max_body:
            return too_large
        if "Expect" in request.headers and request.version == HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # So much for what was sent on behalf of no answer yet: later errors can still be told.
            request.writer.output_size = 0
        chunks: list[bytes] = []
        size = 0
        content = request.content
        try:
            while not content.at_eof():
                if content.is_eof() or content.total_bytes > size:
                    chunk = await content.readany()
                else:
                    async with asyncio.timeout(self._idle_s):
                        chunk = await content.readany()
                size += len(chunk)
                if size > self._max_body:
                    return too_large
                chunks.append(chunk)
        except TimeoutError:
            return Problem(408, "request_timeout", f"No byte of the body came within {self._idle_s:g} s (server.client_idle).")
        except (ConnectionError, BadHttpMessage, web.RequestPayloadError) as error:
            return Problem(400, "invalid_request", f"The body did not come whole: {type(error).__name__}.")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _models(self, request: web.BaseRequest, rest: str) -> web.Response:
        models = self._catalogue.models(self._admin.snapshot)
        return _json({"object": "list", "data": list(models.values())})

    async def _model(self, request: web.BaseRequest, rest: str) -> web.Response:
        entry = self._catalogue.models(self._admin.snapshot).get(rest)
        if entry is not None:
            return _json(entry)
        self._edge.refused(404)
        return _problem(Problem(404, "model_not_found", f"The model '{_shown(rest)}' does not exist here.", "model"))

    # Health, description, page.

    async def _healthz(self, request: web.BaseRequest, rest: str) -> web.Response:
        return _json({"status": "ok"})

    async def _readyz(self, request: web.BaseRequest, rest: str) -> web.Response:
        if self._edge.is_draining:
            return _json({"status": "draining"}, 503)
        if await self._admin.is_ready():
            return _json({"status": "ready"})
        return _json({"status": "no provider can take calls"}, 503)

    async def _openapi(self, request: web.BaseRequest, rest: str) -> web.Response:
        return _json(openapi(self._version))

    async def _page(self, request: web.BaseRequest, rest: str) -> web.Response:
        why = why_not_admin(_edge_request(request, b""), self._admin_key)
        if why is not None:
            text = closed_page(self._version, why)
        else:
            text = first_page(self._version, await self._admin.providers(), await self._admin.decisions(20))
        headers = [("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"), ("Cache-Control", "no-store")]
        return web.Response(text=text, content_type="text/html", headers=[*headers, NAME])

    # The admin API.

    async def _admin_call(self, request: web.BaseRequest, answer: AdminHandler, name: str) -> web.StreamResponse:
        why = why_not_admin(_edge_request(request, b""), self._admin_key)
        if why is not None:
            return _problem(Problem(401 if self._admin_key else 403, "admin_refused", f"Refused: {why}."))
        if must_be_json(request.method, has_body=request.body_exists) and request.content_type != "application/json":
            return _problem(Problem(415, "invalid_request", "The body must be application/json."))
        body = await self._body(request) if request.method not in BODILESS else b""
        if isinstance(body, Problem):
            return _problem(body, close=True)
        status, data = await answer(AdminCall(name, request.rel_url.raw_query_string, body))
        return _json(data, status)


def _edge_request(request: web.BaseRequest, body: bytes) -> EdgeRequest:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    address = str(peer[0]) if isinstance(peer, tuple) else ""
    return EdgeRequest(request.method, request.rel_url.raw_path, list(request.headers.items()), body, address)


def _shown(text: str) -> str:
    """Something of a request line as it may stand in a message."""
    return "".join(char if char.isprintable() else "?" for char in text[:200])


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json", headers=[NAME])


def _problem(problem: Problem, *, close: bool = False) -> web.Response:
    body = error_body(problem.message, problem.kind, problem.code, problem.param)
    headers = [*problem.headers(), NAME]
    answer = web.Response(body=body, status=problem.status, content_type="application/json", headers=headers)
    if close:
        answer.force_close()
    return answer
