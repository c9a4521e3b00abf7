"""Simulated providers behind the ``Upstream`` port, without sockets: for tests of whole daemons under virtual time.

Always: the clock is the running loop's; the answers are those of the HTTP servers byte for byte; whoever leaves frees the
place in that instant. A place is held until the answer is read to its end or closed.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from math import isfinite
from urllib.parse import urlsplit

from messages.failures import Blame, Failure, Retry, Scope
from runtime.dialects.told import Told, told
from runtime.ports import CallFailed, Headers, UpstreamRequest
from runtime.simulation.behaviour import Behaviour, Seed
from runtime.simulation.performance import Broken, Performance
from runtime.simulation.plan import AnswerPlan
from runtime.simulation.provider import ProviderSimulation
from runtime.upstream.failures import Closed, FirstByteTimeout, IdleTimeout, TooLarge, failure_of


class SimulatedUpstream:
    """The providers by base URL (``http://swift.test/v1``). A call to any other address fails to connect."""

    def __init__(self, behaviours: Mapping[str, Behaviour], seed: Seed) -> None:
        self._behaviours = {url.rstrip("/"): behaviour for url, behaviour in behaviours.items()}
        self._seed = seed
        self._simulations: dict[str, ProviderSimulation] = {}
        self._is_closed = False

    def simulation(self, base_url: str) -> ProviderSimulation:
        """The provider at ``base_url``; it starts when it is first asked for. Raises ``KeyError``; needs a running loop."""
        url = base_url.rstrip("/")
        if url not in self._simulations:
            now = asyncio.get_running_loop().time()
            self._simulations[url] = ProviderSimulation(self._behaviours[url], self._seed, now)
        return self._simulations[url]

    def begin(self, request: UpstreamRequest) -> None:
        """It is always to be waited for."""

    async def call(self, request: UpstreamRequest) -> "SimulatedAnswer":
        """As the port says. Raises ``CallFailed``; cancelling it frees the place at once."""
        if self._is_closed:
            raise CallFailed(failure_of(Closed()))
        base_url = self._base_url(request.url)
        if base_url is None:
            raise CallFailed(Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, "connect", detail="nobody listens there"))
        simulation = self.simulation(base_url)
        path = urlsplit(request.url[len(base_url) :]).path
        now = asyncio.get_running_loop().time()
        performance = Performance(
            simulation, simulation.arrive(request.method, path, tuple(request.headers), request.body, now)
        )
        try:
            async with _timeout(request.headers_s):
                plan = await performance.start()
        except TimeoutError:
            performance.finish()
            raise CallFailed(failure_of(FirstByteTimeout())) from None
        except Broken as broken:
            performance.finish()
            raise CallFailed(failure_of(ConnectionResetError())) from broken
        except BaseException:
            performance.finish()
            raise
        return SimulatedAnswer(plan, performance, request.idle_s)

    async def close(self) -> None:
        """Break off every call in flight. Calls made later fail."""
        self._is_closed = True
        for simulation in self._simulations.values():
            for call in list(simulation.calls.values()):
                call.break_off()

    def _base_url(self, url: str) -> str | None:
        fitting = [base for base in self._behaviours if url == base or url.startswith((base + "/", base + "?"))]
        return max(fitting, key=len, default=None)


class SimulatedAnswer:
    """An answer whose status and headers are here."""

    def __init__(self, plan: AnswerPlan, performance: Performance, idle_s: float) -> None:
        length: Headers = () if plan.length is None else (("Content-Length", str(plan.length)),)
        self._headers: Headers = (*plan.headers, *length)
        self._status = plan.status
        self._performance = performance
        self._idle_s = idle_s

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._status

    @property
    def headers(self) -> Headers:
        """Headers as the provider sends them."""
        return self._headers

    @property
    def told(self) -> Told:
        """What they say that is acted upon."""
        return told(self._headers)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; to be read once. Raises ``CallFailed`` when it breaks or pauses longer than ``idle_s``."""
        try:
            async with aclosing(self._performance.pieces(self._idle_s)) as pieces:
                async for data in pieces:
                    if data:
                        yield data
            self._performance.complete()
        except TimeoutError:
            raise CallFailed(failure_of(IdleTimeout(), self._status)) from None
        except Broken as broken:
            raise CallFailed(failure_of(ConnectionResetError(), self._status)) from broken
        finally:
            self._performance.finish()

    def take_whole(self, limit: int) -> None:
        """It is always to be waited for."""

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises ``CallFailed`` as ``chunks`` does, or if it has more than ``limit`` bytes."""
        body = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    raise CallFailed(failure_of(TooLarge(f"the answer has more than {limit} bytes"), self._status))
        return bytes(body)

    def close(self) -> None:
        """Done with it: if it was not read whole, the provider sees the caller leave. A second time is ignored."""
        self._performance.finish()


def _timeout(seconds: float) -> asyncio.Timeout:
    return asyncio.timeout(seconds if isfinite(seconds) else None)
