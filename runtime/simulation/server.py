"""A simulated provider as a real HTTP server on the loopback interface.

Owns: the listening socket, and the one connection of each call in flight.
Always: the control API answers whatever fault holds; a caller who leaves ends the call at once; ``stop`` leaves nothing behind.
"""

import asyncio
import socket
import struct
from contextlib import aclosing

import orjson
from aiohttp import web

from runtime.simulation.behaviour import Behaviour, Seed
from runtime.simulation.control import control
from runtime.simulation.faults import Fault, FaultKind
from runtime.simulation.journal import CallRecord
from runtime.simulation.performance import Broken, Performance
from runtime.simulation.provider import ProviderSimulation

BODY_BYTES_MAX = 32 * 1024 * 1024
API_PATH = "/v1"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with a wait of 0: closing sends RST and drops what is still unsent."""


class SimulatedProvider:
    """One provider on ``host:port`` (0: any free port, known after ``start``)."""

    def __init__(self, behaviour: Behaviour, seed: Seed, host: str = "127.0.0.1", port: int = 0) -> None:
        self.behaviour = behaviour
        self.seed = seed
        self.host = host
        self.port = port
        self._simulation: ProviderSimulation | None = None
        self._runner: web.AppRunner | None = None

    @property
    def simulation(self) -> ProviderSimulation:
        """What stands behind the socket. Raises ``RuntimeError`` before ``start``."""
        if self._simulation is None:
            raise RuntimeError(f"{self.behaviour.name} has not been started")
        return self._simulation

    @property
    def address(self) -> str:
        """``http://host:port``."""
        return f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What a client of OpenAI's API is given as base URL."""
        return self.address + API_PATH

    @property
    def control_url(self) -> str:
        """Where the control API is."""
        return f"{self.address}/control"

    def records(self, path: str | None = None) -> list[CallRecord]:
        """The last calls, oldest first; only those of ``path`` (without the base URL's own) if it is given."""
        return self.simulation.journal.records(path)

    def switch_on(self, fault: Fault) -> None:
        """As ``POST /control/faults``."""
        self.simulation.switch_on(fault, asyncio.get_running_loop().time())

    def switch_off(self, kind: FaultKind | None = None) -> None:
        """As ``DELETE /control/faults``."""
        self.simulation.faults.switch_off(kind)

    async def start(self) -> None:
        """Listen. Raises ``OSError`` if the port is taken."""
        self._simulation = ProviderSimulation(self.behaviour, self.seed, asyncio.get_running_loop().time())
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_route("*", "/control{path:(/.*)?}", self._control)
        app.router.add_route("*", API_PATH + "{path:/.*}", self._call)
        # A caller who leaves cancels the handler, which is how the call learns of it.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, keepalive_timeout=3600.0, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.host, self.port, reuse_address=True)
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the socket and every connection; calls in flight are broken off. A second time is ignored."""
        runner, self._runner = self._runner, None
        if runner is not None:
            for call in list(self.simulation.calls.values()):
                call.break_off()
            await runner.cleanup()

    async def __aenter__(self) -> "SimulatedProvider":
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    async def _control(self, request: web.Request) -> web.Response:
        now = asyncio.get_running_loop().time()
        status, data = control(self.simulation, request.method, request.match_info["path"], await request.read(), now)
        return web.Response(status=status, body=orjson.dumps(data), content_type="application/json")

    async def _call(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = tuple(request.headers.items())
        now = asyncio.get_running_loop().time()
        call = self.simulation.arrive(request.method, request.match_info["path"], headers, body, now)
        performance = Performance(self.simulation, call)

        def break_off() -> None:
            performance.break_off()
            # A write to a caller who does not read would notice nothing.
            _close(request.transport, is_reset=True)

        call.break_off = break_off
        try:
            return await self._perform(request, performance)
        except (Broken, ConnectionError) as broken:
            performance.finish()
            _close(request.transport, is_reset=not isinstance(broken, Broken) or broken.is_reset)
            # The lost connection cancels this handler; anything returned or raised instead would be written to it or logged.
            lost: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
            return await lost
        finally:
            performance.finish()

    async def _perform(self, request: web.Request, performance: Performance) -> web.StreamResponse:
        plan = await performance.start()
        response = web.StreamResponse(status=plan.status)
        response.headers.extend(plan.headers)
        if plan.length is not None:
            response.content_length = plan.length
        await response.prepare(request)
        async with aclosing(performance.pieces()) as pieces:
            async for data in pieces:
                await response.write(data)
        performance.complete()
        await response.write_eof()
        return response


def _close(transport: asyncio.Transport | None, is_reset: bool) -> None:
    """Close a connection at once; with a reset, as a process that dies does."""
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if is_reset and connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
