"""The upstream port on aiohttp: one session, its pool of connections, and how a call ends.

Always: a call that is cancelled, or an answer that is closed before its body is whole, cuts its connection at once, and
what is left of it is never used for anybody else. Redirects are not followed, cookies not kept, bodies not decompressed,
``netrc`` not read: none of that belongs to a gateway.

**A stale connection.** A pooled connection may have been closed by the other side just when we send. Then nothing comes back
at all, and the provider never saw the request. Sending it again is right then, but each call is billed, so it is done once at
most, on a fresh connection, and only where all of this holds: the connection had served before; not one byte of an answer
came; it ended by a close or reset, not by a timeout of ours; and it ended within ``STALE_WITHIN_S`` of sending. A provider
that dies later has been working on the request: that is a failure like any other, and the courier decides about it.

Proxies of the environment count, as users expect; not those that speak SOCKS.
"""

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator
from io import BytesIO
from weakref import WeakSet

import aiohttp
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from multidict import CIMultiDict, istr
from yarl import URL

from runtime.dialects.told import Told, told
from runtime.ports import CallFailed, Headers, UpstreamAnswer, UpstreamRequest
from runtime.timely import STALL_S, STALL_UNSEEN_S
from runtime.upstream.failures import Closed, FirstByteTimeout, IdleTimeout, NoConnection, TooLarge, failure_of
from runtime.upstream.proxies import Proxies

STALE_WITHIN_S = 1.0
KEEPALIVE_S = 30.0
CACHED_MAX = 1024
"""URLs and timeouts are few and come from the configuration; the bound is for the day they do not."""

HTTP_SCHEMES = ("http://", "https://")
LARGE_BODY_BYTES = 1024 * 1024
"""Written piece by piece from here on, so that one large request holds up nobody."""

_UNWANTED = frozenset(istr(name) for name in ("Accept", "Accept-Encoding", "Content-Type", "User-Agent"))
"""Headers aiohttp would add by itself."""
_NO_TIMER = TimerNoop()


class _StaleConnection(Exception):
    """A connection that had served before was gone when the request was sent."""


class _Alarm:
    """Cuts a connection on which no answer came in time; whoever waits there is then woken by its end."""

    __slots__ = ("_at", "_loop", "_timer", "connection", "has_rung")

    def __init__(self, connection: Connection, loop: AbstractEventLoop, in_s: float) -> None:
        self.connection = connection
        self.has_rung = False
        self._loop = loop
        self._at = loop.time() + in_s
        self._timer = loop.call_later(in_s, self._ring)

    def cancel(self) -> None:
        """It came."""
        self._timer.cancel()

    def _ring(self) -> None:
        now = self._loop.time()
        late_s = now - self._at
        if late_s >= STALL_S:
            self._at = now + late_s + STALL_UNSEEN_S
            self._timer = self._loop.call_at(self._at, self._ring)
            return
        self.has_rung = True
        _abort(self.connection)


class AiohttpUpstream:
    """The upstream port. To be made and used within one event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._is_closed = False
        self._targets: dict[str, tuple[URL, URL | None]] = {}
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}
        self._proxies = Proxies()
        self._used: WeakSet[object] = WeakSet()
        """Protocols of connections that have carried an answer before."""

    def begin(self, request: UpstreamRequest) -> None:
        """It is always to be waited for."""

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send ``request`` and wait for status and headers. Raises ``CallFailed``."""
        try:
            response = await self._send(request)
        except Exception as error:
            raise CallFailed(failure_of(error)) from error
        return _Answer(response, request.idle_s)

    async def close(self) -> None:
        """Close all connections. Calls made later fail."""
        self._is_closed = True
        for session in (self._session, self._fresh):
            if session is not None:
                await session.close()
        self._session = self._fresh = None

    async def _send(self, request: UpstreamRequest) -> aiohttp.ClientResponse:
        if self._is_closed:
            raise Closed
        if self._session is None:
            self._session = _session(is_pooled=True)
        try:
            return await self._exchange(self._session, request)
        except (_StaleConnection, aiohttp.ClientConnectionResetError):
            # The second: the connection was closing before the first byte was written.
            if self._is_closed:
                raise Closed from None
            if self._fresh is None:
                self._fresh = _session(is_pooled=False)
            return await self._exchange(self._fresh, request)

    async def _exchange(self, session: aiohttp.ClientSession, request: UpstreamRequest) -> aiohttp.ClientResponse:
        """One request on one connection, up to the headers of its answer.

        What ``ClientSession.request`` does besides (cookies, redirects, a timer for the whole) is of no use here and costs a
        fifth of a call's time, so its parts are used directly.
        """
        loop = asyncio.get_running_loop()
        connection = await self._connect(session, request, made := self._made(session, request, loop))
        protocol = connection.protocol
        assert protocol is not None
        is_reused = protocol in self._used
        protocol.set_response_params(timer=_NO_TIMER, read_until_eof=True, auto_decompress=False)
        sent_at = loop.time()
        alarm = _Alarm(connection, loop, request.headers_s)
        response = None
        try:
            response = await made.send(connection)
            await response.start(connection)
        except BaseException as error:
            _abort(connection)
            if response is not None:
                response.close()
            connection.close()
            if alarm.has_rung and isinstance(error, Exception):
                raise FirstByteTimeout from error
            if is_reused and loop.time() - sent_at <= STALE_WITHIN_S and _is_silent_end(error):
                raise _StaleConnection from error
            raise
        finally:
            alarm.cancel()
        if not is_reused:
            self._used.add(protocol)
        return response

    async def _connect(
        self, session: aiohttp.ClientSession, request: UpstreamRequest, made: aiohttp.ClientRequest
    ) -> Connection:
        timeout = self._timeouts.get(request.connect_s) or self._timeout(request.connect_s)
        connector = session.connector
        if connector is None:
            raise Closed
        try:
            return await connector.connect(made, [], timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error

    def _made(self, session: aiohttp.ClientSession, request: UpstreamRequest, loop: AbstractEventLoop) -> aiohttp.ClientRequest:
        url, proxy = self._targets.get(request.url) or self._target(request.url)
        return aiohttp.ClientRequest(
            request.method,
            url,
            headers=CIMultiDict(request.headers),
            skip_auto_headers=_UNWANTED,
            data=_data(request.body),
            loop=loop,
            proxy=proxy,
            proxy_headers=CIMultiDict() if proxy is not None else None,
            timer=_NO_TIMER,
            session=session,
            ssl=True,
        )

    def _target(self, url: str) -> tuple[URL, URL | None]:
        """The parsed URL and the proxy to reach it by. Raises ``ValueError``, ``NoConnection``."""
        if len(self._targets) >= CACHED_MAX:
            self._targets.clear()
        parsed = URL(url)
        proxy = self._proxies.of(parsed.scheme, parsed.raw_host, parsed.port or 0) if parsed.raw_host else None
        if proxy is not None and not proxy.startswith(HTTP_SCHEMES):
            raise NoConnection("the environment names a proxy that does not speak HTTP")
        target = self._targets[url] = (parsed, URL(proxy) if proxy else None)
        return target

    def _timeout(self, connect_s: float) -> aiohttp.ClientTimeout:
        if len(self._timeouts) >= CACHED_MAX:
            self._timeouts.clear()
        timeout = aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=None, sock_read=None)
        self._timeouts[connect_s] = timeout
        return timeout


class _Answer:
    """An answer under way; iterating over it gives its chunks."""

    __slots__ = (
        "_content",
        "_idle_s",
        "_is_idle_out",
        "_loop",
        "_lost",
        "_response",
        "_rings_at",
        "_timer",
        "_waiting_since",
        "headers",
        "status",
    )

    def __init__(self, response: aiohttp.ClientResponse, idle_s: float) -> None:
        self.status = response.status
        self.headers: Headers = tuple(response.headers.items())
        self._response = response
        self._content = response.content
        self._idle_s = idle_s
        self._loop: AbstractEventLoop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._waiting_since: float | None = None
        self._is_idle_out = False
        self._lost: asyncio.Future[None] | None = None
        """The end of the connection, once a chunk was waited for."""

    @property
    def told(self) -> Told:
        """What the headers say that is acted upon."""
        return told(self.headers)

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next()
        if not chunk:
            self.close()
            raise StopAsyncIteration
        return chunk

    async def _next(self) -> bytes:
        """What has come, or what comes next; nothing at the end."""
        content = self._content
        try:
            chunk = content.read_nowait()
            if not chunk and not content.at_eof():
                chunk = await self._wait()
        except Exception as error:
            self.close()
            raise CallFailed(failure_of(IdleTimeout() if self._is_idle_out else error, self.status)) from error
        return chunk

    def take_whole(self, limit: int) -> None:
        """It is always to be waited for."""

    async def read(self, limit: int) -> bytes:
        """The whole body."""
        announced = self._response.content_length
        if announced is not None and announced > limit:
            self._refuse(limit)
        pieces: list[bytes] = []
        length = 0
        while chunk := await self._next():
            length += len(chunk)
            if length > limit:
                self._refuse(limit)
            pieces.append(chunk)
            if self._content.at_eof():
                break
        self.close()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Done with it. A body that is not whole takes its connection with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lost is not None:
            self._lost.remove_done_callback(self._on_lost)
        response = self._response
        connection = response.connection
        if connection is not None:
            # At its end a body gives its connection back by itself; this one has not ended.
            _abort(connection)
            response.close()

    async def _wait(self) -> bytes:
        """The next chunk, or nothing at the end. One timer serves many waits: it looks when the current one began."""
        self._waiting_since = self._loop.time()
        if self._lost is None:
            self._watch()
        if self._timer is None:
            self._set_timer(self._waiting_since + self._idle_s)
        try:
            return await self._content.readany()
        finally:
            self._waiting_since = None

    def _watch(self) -> None:
        connection = self._response.connection
        self._lost = connection.protocol.closed if connection is not None and connection.protocol is not None else None
        if self._lost is not None:
            self._lost.add_done_callback(self._on_lost)
        else:
            self._on_lost(None)

    def _on_lost(self, ended: asyncio.Future[None] | None) -> None:
        """Of some broken bodies aiohttp's parser in C tells nobody who reads them: they would be waited for."""
        error = ended.exception() if ended is not None and not ended.cancelled() else None
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(error or aiohttp.ClientPayloadError("the connection ended before the answer"))

    def _set_timer(self, at: float) -> None:
        self._rings_at = at
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._waiting_since is None:
            return
        until, now = self._waiting_since + self._idle_s, self._loop.time()
        late_s = now - self._rings_at
        if until <= now and late_s >= STALL_S:
            until = now + late_s + STALL_UNSEEN_S
        if until > now:
            self._set_timer(until)
            return
        self._is_idle_out = True
        self.close()

    def _refuse(self, limit: int) -> None:
        self.close()
        raise CallFailed(failure_of(TooLarge(f"the answer has more than {limit} bytes"), self.status))


def _session(is_pooled: bool) -> aiohttp.ClientSession:
    if is_pooled:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
    else:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


def _data(body: bytes) -> bytes | BytesIO | None:
    if len(body) >= LARGE_BODY_BYTES:
        return BytesIO(body)
    return body or None


def _is_silent_end(error: BaseException) -> bool:
    """True if the connection ended and not one byte of an answer had come.

    Where part of a status line or of headers had come, aiohttp has that as the error's message.
    """
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)
    return isinstance(error, aiohttp.ClientOSError)


def _abort(connection: Connection) -> None:
    """Cut at once. A plain close would first wait until what we have written is taken."""
    transport = connection.transport
    if transport is not None:
        transport.abort()
