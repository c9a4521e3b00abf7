"""The listener: its address, its two lanes, and where the paths lead that are no model's endpoint.

Connections begin in the fast lane (``raw_edge.py``), which hands over to aiohttp those that ask for anything but a model, or,
where ``server.lane`` says so, with aiohttp (``aiohttp_lane.py``) from their first byte.

Owns: the listening sockets, and both lanes.
Always: every error has OpenAI's shape, and nothing tells what is inside.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote

from runtime.config.settings import ServerSettings
from runtime.config.tls import server_context
from runtime.courier import problems
from runtime.courier.problems import Problem
from runtime.http.admin import Admin
from runtime.http.admin_bodies import AdminError
from runtime.http.admin_routes import BODILESS, AdminCall, AdminHandler, AdminRoutes, must_be_json
from runtime.http.admin_routes import PREFIX as ADMIN
from runtime.http.aiohttp_lane import AiohttpLane
from runtime.http.catalogue import Catalogue, openapi
from runtime.http.edge import ROUTES, Edge
from runtime.http.guard import why_not_admin
from runtime.http.lines import Lines
from runtime.http.page import closed_page, first_page
from runtime.http.plain import Asked, PlainAnswer, error_answer, json_answer
from runtime.http.raw_edge import RawConnection
from runtime.http.raw_lane import RawLane

log = logging.getLogger("pointsman.http")

SHUTDOWN_S = 1.0
HANDSHAKE_S = 10.0
"""A client that speaks TLS has so long for the beginning of it."""
MODELS = "/v1/models/"
Handler = Callable[[Asked, str], Awaitable[PlainAnswer]]
"""Takes the request and the part of its path that a template leaves open, decoded."""


class HttpServer:
    """The listener and its routes."""

    def __init__(self, edge: Edge, admin: Admin, settings: ServerSettings, version: str) -> None:
        self._edge = edge
        self._admin = admin
        self._settings = settings
        self._admin_key = settings.admin_key.get_secret_value() if settings.admin_key is not None else ""
        self._version = version
        self._lines = Lines()
        self._listener: asyncio.Server | None = None
        self._aiohttp: AiohttpLane | None = None
        self._raw: RawLane | None = None
        self._routes: dict[str, dict[str, Handler]] = {path: {"POST": self._elsewhere} for path in ROUTES}
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

    def protocols(self) -> Callable[[], asyncio.Protocol]:
        """Make the lanes; returns what serves a connection. To be called once, within the loop."""
        settings = self._settings
        bounds = (settings.max_body_bytes, settings.client_idle_s)
        self._aiohttp = successor = AiohttpLane(self._edge, self._handle, self._lines, *bounds)
        if settings.lane == "aiohttp":
            return successor
        self._raw = lane = RawLane(self._edge, self._lines, *bounds, successor)
        return lambda: RawConnection(lane)

    async def start(self) -> int:
        """Listen; returns the port. Raises ``OSError`` if the address cannot be had, ``BadTls``."""
        settings = self._settings
        tls = server_context(settings.tls) if settings.tls is not None else None
        handshake_s = HANDSHAKE_S if tls is not None else None
        self._listener = await asyncio.get_running_loop().create_server(
            self.protocols(), settings.host, settings.port, backlog=1024, ssl=tls, ssl_handshake_timeout=handshake_s
        )
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop_listening(self) -> None:
        """Accept no new connections; those that are open go on, until their next answer."""
        if self._listener is not None:
            self._listener.close()
        if self._raw is not None:
            self._raw.is_draining = True
        if self._aiohttp is not None:
            self._aiohttp.is_draining = True

    async def stop(self) -> None:
        """Close everything."""
        await self.stop_listening()
        if self._aiohttp is None:
            return
        # What came before the end has begun to be answered.
        await asyncio.sleep(0)
        if self._raw is not None:
            self._raw.close_idle()
        self._aiohttp.pre_shutdown()
        await self._aiohttp.shutdown(SHUTDOWN_S)
        await self._lines.cut(SHUTDOWN_S)

    # Where a path leads.

    async def _handle(self, asked: Asked) -> PlainAnswer:
        method, path = asked.head.method, asked.head.path
        methods, rest = self._match(path)
        handler = methods.get(method)
        if handler is not None:
            try:
                return await handler(asked, rest)
            except AdminError as error:
                return error_answer(error.problem)
            except Exception as error:
                log.error("%s %s failed", method, path, exc_info=error)
                return error_answer(problems.internal_error())
        if not methods:
            self._edge.refused(404)
            return error_answer(Problem(404, "not_found", f"There is no {_shown(method)} {_shown(path)} here."), is_last=True)
        self._edge.refused(405)
        problem = Problem(405, "method_not_allowed", f"{_shown(path)} does not take {_shown(method)}.")
        return error_answer(problem, [("Allow", ", ".join(methods))], is_last=True)

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
            return lambda asked, rest: self._admin_call(asked, answer, rest)

        return {method: bound(answer) for method, answer in methods.items()}, name

    # The models.

    async def _elsewhere(self, asked: Asked, rest: str) -> PlainAnswer:
        raise AssertionError("the lanes answer the models' endpoints themselves")

    async def _models(self, asked: Asked, rest: str) -> PlainAnswer:
        models = self._catalogue.models(self._admin.snapshot)
        return json_answer({"object": "list", "data": list(models.values())})

    async def _model(self, asked: Asked, rest: str) -> PlainAnswer:
        entry = self._catalogue.models(self._admin.snapshot).get(rest)
        if entry is not None:
            return json_answer(entry)
        self._edge.refused(404)
        return error_answer(Problem(404, "model_not_found", f"The model '{_shown(rest)}' does not exist here.", "model"))

    # Health, description, page.

    async def _healthz(self, asked: Asked, rest: str) -> PlainAnswer:
        return json_answer({"status": "ok"})

    async def _readyz(self, asked: Asked, rest: str) -> PlainAnswer:
        if self._edge.is_draining:
            return json_answer({"status": "draining"}, 503)
        if await self._admin.is_ready():
            return json_answer({"status": "ready"})
        return json_answer({"status": "no provider can take calls"}, 503)

    async def _openapi(self, asked: Asked, rest: str) -> PlainAnswer:
        return json_answer(openapi(self._version))

    async def _page(self, asked: Asked, rest: str) -> PlainAnswer:
        why = why_not_admin(asked.head, self._admin_key)
        if why is not None:
            text = closed_page(self._version, why)
        else:
            text = first_page(self._version, await self._admin.providers(), await self._admin.decisions(20))
        headers = [("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"), ("Cache-Control", "no-store")]
        return PlainAnswer(200, text.encode(), "text/html; charset=utf-8", headers)

    # The admin API.

    async def _admin_call(self, asked: Asked, answer: AdminHandler, name: str) -> PlainAnswer:
        why = why_not_admin(asked.head, self._admin_key)
        if why is not None:
            return error_answer(Problem(401 if self._admin_key else 403, "admin_refused", f"Refused: {why}."))
        said = asked.head.header("content-type")
        if must_be_json(asked.head.method, said, has_body=asked.has_body) and asked.content_type != "application/json":
            return error_answer(Problem(415, "invalid_request", "The body must be application/json."))
        body = await asked.body() if asked.head.method not in BODILESS else b""
        if isinstance(body, Problem):
            return error_answer(body, is_last=True)
        status, data = await answer(AdminCall(name, asked.query, body))
        return json_answer(data, status)


def _shown(text: str) -> str:
    """Something of a request line as it may stand in a message."""
    return "".join(char if char.isprintable() else "?" for char in text[:200])
