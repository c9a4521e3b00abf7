"""Which client makes a call: the raw one wherever it can, else aiohttp's.

``transport`` says what the configuration wants: ``raw`` is raw and direct, whatever the environment says about proxies;
``aiohttp`` is aiohttp's; ``auto`` is raw unless the URL is to be reached by a proxy of the environment (``HTTP_PROXY``,
``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``, read once) or is none that the raw client takes.
"""

from collections.abc import Coroutine
from typing import Any

from runtime.ports import Sent, Upstream, UpstreamAnswer, UpstreamRequest
from runtime.upstream.aiohttp_client import AiohttpUpstream
from runtime.upstream.failures import Unsendable
from runtime.upstream.proxies import Proxies
from runtime.upstream.raw_client import RawUpstream
from runtime.upstream.raw_request import parse_url

CACHED_MAX = 1024


class ChoosingUpstream(Upstream):
    """The upstream port. To be made and used within one event loop. aiohttp's client is made when it is first needed."""

    def __init__(self) -> None:
        self._raw = RawUpstream()
        self._aiohttp: AiohttpUpstream | None = None
        self._proxies = Proxies()
        self._is_direct: dict[str, bool] = {}
        self._is_closed = False

    def begin(self, request: UpstreamRequest) -> Sent | None:
        """Send ``request`` at once where the raw client can."""
        return self._raw.begin(request) if self._is_raw(request) else None

    def call(self, request: UpstreamRequest) -> Coroutine[Any, Any, UpstreamAnswer]:
        """Send ``request`` and wait for status and headers. Raises ``CallFailed``."""
        if self._is_raw(request) or self._is_closed:
            return self._raw.call(request)
        if self._aiohttp is None:
            self._aiohttp = AiohttpUpstream()
        return self._aiohttp.call(request)

    async def close(self) -> None:
        """Close all connections. Calls made later fail."""
        self._is_closed = True
        await self._raw.close()
        if self._aiohttp is not None:
            await self._aiohttp.close()

    def _is_raw(self, request: UpstreamRequest) -> bool:
        if request.transport != "auto":
            return request.transport == "raw"
        found = self._is_direct.get(request.url)
        if found is None:
            if len(self._is_direct) >= CACHED_MAX:
                self._is_direct.clear()
            found = self._is_direct[request.url] = self._goes_direct(request.url)
        return found

    def _goes_direct(self, url: str) -> bool:
        try:
            origin, _ = parse_url(url)
        except Unsendable:
            return False
        return self._proxies.of(origin.scheme, origin.host, origin.port) is None
