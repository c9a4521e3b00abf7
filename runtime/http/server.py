"""aiohttp behind the edge port: the one file on this side that knows it.

Owns: the wire: reading bodies within their bounds, writing answers at the client's pace, and which path leads where.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from runtime.courier.problems import Problem
from runtime.dialects.errors import error_body
from runtime.http.admin import Admin, AdminError
from runtime.http.catalogue import model_list, openapi
from runtime.http.edge import ROUTES, Edge
from runtime.http.guard import why_not_admin
from runtime.http.page import closed_page, first_page
from runtime.ports import ClientGone, EdgeRequest, Headers

log = logging.getLogger("pointsman.http")

WRITE_HIGH_WATER_BYTES = 64 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AiohttpSink:
    """One answer on its way to an aiohttp client."""

    def __init__(self, request: web.Request, client_idle_s: float) -> None:
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
            self._stream = self.response = web.StreamResponse(status=status, headers=list(headers))
            await self._guarded(self._stream.prepare(self._request))

    async def write(self, chunk: bytes) -> None:
        """Send a chunk, or take the whole body."""
        if self._stream is not None:
            await self._guarded(self._stream.write(chunk))
        else:
            self.response = web.Response(status=self._status, headers=list(self._headers), body=chunk)

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
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises ``OSError`` if the address cannot be had."""
        app = web.Application(client_max_size=0, middlewares=[self._errors])
        for path in ROUTES:
            app.router.add_post(path, self._call)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model:.+}", self._model)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/", self._page)
        for method, path, answer in self._admin_routes():
            app.router.add_route(method, path, self._guarded(answer))
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, keepalive_timeout=75.0, shutdown_timeout=1.0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=1024)
        await site.start()
        address: tuple[Any, ...] = self._runner.addresses[0]
        return int(address[1])

    async def stop_listening(self) -> None:
        """Accept no new connections; those that are open go on."""
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()

    async def stop(self) -> None:
        """Close everything."""
        if self._runner is not None:
            await self._runner.cleanup()

    # The models' endpoints.

    async def _call(self, request: web.Request) -> web.StreamResponse:
        refusal = self._edge.admit()
        if refusal is not None:
            return _problem(refusal)
        try:
            body = await self._body(request)
            if isinstance(body, Problem):
                self._edge.counters.refused += 1
                return _problem(body, close=True)
            sink = AiohttpSink(request, self._idle_s)
            await self._edge.serve(_edge_request(request, body), sink)
        finally:
            self._edge.leave()
        if sink.response is None:
            # The client is gone or was cut: nobody will read this.
            return web.Response(status=499)
        return sink.response

    async def _body(self, request: web.Request) -> bytes | Problem:
        """The body within its bounds: of size, and of patience with a client that stops in the middle."""
        too_large = Problem(413, "request_too_large", f"The body has more than {self._max_body} bytes (server.max_body).")
        if request.content_length is not None and request.content_length > self._max_body:
            return too_large
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

    async def _models(self, request: web.Request) -> web.Response:
        return _json({"object": "list", "data": model_list(self._admin.snapshot)})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        for entry in model_list(self._admin.snapshot):
            if entry["id"] == name:
                return _json(entry)
        return _problem(Problem(404, "model_not_found", f"The model '{name}' does not exist here.", "model"))

    # Health, description, page.

    async def _healthz(self, request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        if self._edge.is_draining:
            return _json({"status": "draining"}, 503)
        if await self._admin.is_ready():
            return _json({"status": "ready"})
        return _json({"status": "no provider can take calls"}, 503)

    async def _openapi(self, request: web.Request) -> web.Response:
        return _json(openapi(self._version))

    async def _page(self, request: web.Request) -> web.Response:
        why = why_not_admin(_edge_request(request, b""), self._admin_key)
        if why is not None:
            text = closed_page(self._version, why)
        else:
            text = first_page(self._version, await self._admin.providers(), await self._admin.decisions(20))
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "Cache-Control": "no-store"}
        return web.Response(text=text, content_type="text/html", headers=headers)

    # The admin API.

    def _admin_routes(self) -> list[tuple[str, str, Callable[[web.Request], Awaitable[Any]]]]:
        async def providers(request: web.Request) -> Any:
            return await self._admin.providers()

        async def stats(request: web.Request) -> Any:
            requests = self._edge.counters
            edge = {
                "requests": requests.requests,
                "refused": requests.refused,
                "client_gone": requests.client_gone,
                "in_flight": self._edge.count,
                "by_status": {str(status): number for status, number in sorted(requests.by_status.items())},
            }
            return await self._admin.stats() | {"edge": edge}

        async def decision(request: web.Request) -> Any:
            return await self._admin.decision(request.match_info["id"])

        async def decisions(request: web.Request) -> Any:
            return {"decisions": await self._admin.decisions(100)}

        async def explain(request: web.Request) -> Any:
            if request.content_type != "application/json":
                raise AdminError(Problem(415, "invalid_request", "The body must be application/json."))
            body = await self._body(request)
            if isinstance(body, Problem):
                raise AdminError(body)
            return await self._admin.explain(body)

        async def probe(request: web.Request) -> Any:
            return await self._admin.probe(request.match_info["id"])

        return [
            ("GET", "/admin/providers", providers),
            ("POST", "/admin/providers/{id}/probe", probe),
            ("GET", "/admin/stats", stats),
            ("GET", "/admin/decisions", decisions),
            ("GET", "/admin/decisions/{id}", decision),
            ("POST", "/admin/explain", explain),
        ]

    def _guarded(self, answer: Callable[[web.Request], Awaitable[Any]]) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            why = why_not_admin(_edge_request(request, b""), self._admin_key)
            if why is not None:
                return _problem(Problem(401 if self._admin_key else 403, "admin_refused", f"Refused: {why}."))
            try:
                return _json(await answer(request))
            except AdminError as error:
                return _problem(error.problem)

        return handler

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """aiohttp's own errors in OpenAI's shape, and nothing of ours but its name."""
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return _problem(Problem(404, "not_found", f"There is no {request.method} {request.path} here."))
        except web.HTTPMethodNotAllowed as error:
            answer = _problem(Problem(405, "method_not_allowed", f"{request.path} does not take {request.method}."))
            answer.headers["Allow"] = error.headers.get("Allow", "")
            return answer
        except web.HTTPException as error:
            return _problem(Problem(error.status, "invalid_request", error.reason))
        except Exception as error:
            log.error("%s %s failed", request.method, request.path, exc_info=error)
            return _problem(Problem(500, "internal_error", "Pointsman failed on this request; its log tells more."))


def _edge_request(request: web.Request, body: bytes) -> EdgeRequest:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    address = str(peer[0]) if isinstance(peer, tuple) else ""
    return EdgeRequest(request.method, request.path, list(request.headers.items()), body, address)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def _problem(problem: Problem, *, close: bool = False) -> web.Response:
    body = error_body(problem.message, problem.kind, problem.code, problem.param)
    answer = web.Response(body=body, status=problem.status, content_type="application/json", headers=dict(problem.headers()))
    if close:
        answer.force_close()
    return answer
