"""The upstream port on asyncio.Protocol and llhttp: HTTP/1.1, direct, and no more than a gateway needs of it.

Always: a call that is cancelled, or an answer that is closed before its body is whole, cuts its connection at once, and what
is left of it is never used for anybody else. Redirects are not followed, cookies not kept, bodies not decompressed, proxies
not asked: ``choice`` gives what needs one to the other client.

**A stale connection.** The rule is that of ``aiohttp_client``: sent once more, on a fresh connection, only where the first had
served before, not one byte of an answer came, and it ended by a close or reset within ``STALE_WITHIN_S`` of sending.

Neither a task nor a timer is made for a call on a connection that rests: one future for the head, one for each wait for the
body (none for whoever listens), and the connection's own timer.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from runtime.dialects.told import Told, told_raw
from runtime.ports import CallFailed, Headers, Listener, Sent, UpstreamAnswer, UpstreamRequest
from runtime.timely import within
from runtime.upstream.failures import BrokenAnswer, Closed, TooLarge, failure_of
from runtime.upstream.raw_connection import RawConnection
from runtime.upstream.raw_dial import Dialer
from runtime.upstream.raw_exchange import State
from runtime.upstream.raw_headers import decoded
from runtime.upstream.raw_pool import Pool
from runtime.upstream.raw_request import HeadWriter, Origin, parse_url, whole_head

STALE_WITHIN_S = 1.0
CLOSED_WITHIN_S = 5.0
CACHED_MAX = 1024
STARTS_KEPT = 4

_HEAD, _BODY, _WHOLE = State.HEAD, State.BODY, State.WHOLE


class _Start:
    """The start of a head, and what it was made of."""

    __slots__ = ("headers", "method", "start")

    def __init__(self, headers: Headers, method: str, start: bytes) -> None:
        self.headers = headers
        self.method = method
        self.start = start


class _Target:
    """A URL, taken apart, and the starts of the last heads that went there, the latest first."""

    __slots__ = ("origin", "path", "pool", "starts")

    def __init__(self, origin: Origin, path: str, pool: Pool) -> None:
        self.origin = origin
        self.path = path
        self.pool = pool
        self.starts: list[_Start] = []


class RawUpstream:
    """The upstream port. To be used within one event loop: that of its first call."""

    def __init__(self) -> None:
        self._dialer: Dialer | None = None
        self._pools: dict[Origin, Pool] = {}
        self._targets: dict[str, _Target] = {}
        self._heads = HeadWriter()
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """No more calls are made."""
        return self._is_closed

    def begin(self, request: UpstreamRequest) -> "_Exchange | None":
        """Send ``request``, on a connection that rests or is made for it. None: it cannot be, and ``call`` tells why."""
        try:
            return self._begin(request)
        except Exception:
            return None

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send ``request`` and wait for status and headers. Raises ``CallFailed``."""
        try:
            exchange = self._begin(request)
        except Exception as error:
            raise CallFailed(failure_of(error)) from error
        return await exchange.answer()

    def _begin(self, request: UpstreamRequest) -> "_Exchange":
        if self._is_closed:
            raise Closed
        target = self._targets.get(request.url) or self._target(request.url)
        head = whole_head(self._start(request, target), request.method, len(request.body))
        exchange = _Exchange(self, request, target, head)
        connection = target.pool.take()
        if connection is None:
            exchange.connect()
        else:
            exchange.send(connection)
        return exchange

    async def close(self) -> None:
        """Close all connections, and wait until they are. Calls under way fail, and so do those made later."""
        self._is_closed = True
        if self._dialer is not None:
            self._dialer.stop()
        for pool in self._pools.values():
            pool.close()
        with suppress(TimeoutError):
            await within(CLOSED_WITHIN_S, self._emptied())
        self._targets.clear()

    async def _emptied(self) -> None:
        for pool in self._pools.values():
            await pool.emptied()

    async def connected(self, target: _Target, connect_s: float) -> RawConnection:
        """A fresh connection."""
        try:
            connection = await self._dial().dial(target.origin, target.pool.made, connect_s)
        except Exception:
            if self._is_closed:
                raise Closed from None
            raise
        if self._is_closed:
            connection.cut(Closed())
            raise Closed
        return connection

    def _start(self, request: UpstreamRequest, target: _Target) -> bytes:
        """The start of the head. Mostly the headers are the very object of a call before: one for streams, one for others."""
        headers, method = request.headers, request.method
        for kept in target.starts:
            if kept.headers is headers and kept.method == method:
                return kept.start
        start = self._heads.start(method, target.origin, target.path, headers)
        if type(headers) is tuple:
            target.starts = [_Start(headers, method, start), *target.starts[: STARTS_KEPT - 1]]
        return start

    def _dial(self) -> Dialer:
        if self._dialer is None:
            self._dialer = Dialer(asyncio.get_running_loop())
        return self._dialer

    def _target(self, url: str) -> _Target:
        """Raises ``Unsendable``."""
        origin, path = parse_url(url)
        if len(self._targets) >= CACHED_MAX:
            # URLs are few and come from the configuration; this is for the day they do not.
            self._targets.clear()
            self._pools = {origin: pool for origin, pool in self._pools.items() if pool.connections}
        pool = self._pools.get(origin)
        if pool is None:
            on_served = partial(self._dial().keep_session, origin.host) if origin.is_tls else None
            pool = self._pools[origin] = Pool(asyncio.get_running_loop(), on_served)
        target = self._targets[url] = _Target(origin, path, pool)
        return target


class _Exchange(Sent, UpstreamAnswer):
    """A call on its way, and its answer once the head is here; iterating over it gives its chunks."""

    __slots__ = (
        "_connection", "_dial", "_error", "_head", "_listener", "_raw_head", "_request", "_sent_at", "_status",
        "_target", "_to_head", "_told", "_upstream",
    )  # fmt: skip

    def __init__(self, upstream: RawUpstream, request: UpstreamRequest, target: _Target, head: bytes) -> None:
        self._upstream = upstream
        self._request = request
        self._target = target
        self._connection: RawConnection | None = None
        self._dial: asyncio.Task[RawConnection] | None = None
        """A connection that is being made."""
        self._listener: Listener | None = None
        self._to_head = False
        self._head = head
        self._sent_at = 0.0
        self._status = 0
        self._raw_head = b""
        self._told: Told | None = None
        self._error: Exception | None = None

    def connect(self) -> None:
        """Make a connection, then send."""
        dial = self._dial = asyncio.ensure_future(self._upstream.connected(self._target, self._request.connect_s))
        dial.add_done_callback(self._connected)

    def _connected(self, dial: asyncio.Task[RawConnection]) -> None:
        """The connection is made, or cannot be. Told by the loop; and before that by ``answer``, if that comes first."""
        made = None if dial.cancelled() or dial.exception() is not None else dial.result()
        if dial is not self._dial:
            if made is not None and made is not self._connection:
                made.cut(Closed())
            return
        listener, self._listener = self._listener, None
        if made is not None:
            self._dial = None
            with suppress(Exception):  # Its connection is broken then, which ``answer`` tells.
                self.send(made)
            if listener is not None:
                self.listen(listener, to_head=self._to_head)
        elif listener is not None:
            listener.answered()

    def send(self, connection: RawConnection) -> None:
        """Send the request."""
        self._connection = connection
        self._sent_at = connection.now()
        try:
            connection.send(self._head, self._request.body, has_no_body=self._request.method == "HEAD")
        except BaseException:
            connection.cut(Closed())
            raise

    def listen(self, listener: Listener, *, to_head: bool) -> None:
        """As the port says."""
        connection, request = self._connection, self._request
        if connection is None:
            self._listener, self._to_head = listener, to_head
        else:
            connection.listen(listener, self._sent_at + request.headers_s, -1.0 if to_head else request.idle_s)

    def answer_at_hand(self) -> "_Exchange | None":
        """As the port says."""
        connection = self._connection
        if connection is None or not connection.status:
            return None
        self._has_begun(connection)
        return self

    async def answer(self) -> "_Exchange":
        """As the port says. A stale connection's request is sent once more."""
        self._listener = None
        try:
            dial = self._dial
            if dial is not None:
                await dial
                self._connected(dial)
            while True:
                connection = self._connection
                assert connection is not None
                connection.unlisten()
                if connection.state is _HEAD:
                    await connection.wait_until(self._sent_at + self._request.headers_s)
                if connection.status:
                    self._has_begun(connection)
                    return self
                if not self._is_stale(connection):
                    raise connection.error or BrokenAnswer("the connection was cut")
                # Once more: a new connection is never stale.
                self.send(await self._upstream.connected(self._target, self._request.connect_s))
        except BaseException as error:
            self.drop()
            if isinstance(error, Exception):
                raise CallFailed(failure_of(error)) from error
            raise

    def drop(self) -> None:
        """As the port says."""
        dial, self._dial = self._dial, None
        connection, self._connection = self._connection, None
        if dial is not None:
            dial.cancel()
        if connection is not None:
            connection.unlisten()
            connection.cut(Closed())

    def _has_begun(self, connection: RawConnection) -> None:
        self._status = connection.status
        self._raw_head = connection.raw_head

    def _is_stale(self, connection: RawConnection) -> bool:
        """Whether a connection that failed had ended before the request, as far as one can tell: see above."""
        if not isinstance(connection.error, BrokenAnswer) or connection.is_answered or not connection.has_served:
            return False
        return connection.now() - self._sent_at <= STALE_WITHIN_S and not self._upstream.is_closed

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._status

    @property
    def headers(self) -> Headers:
        """Headers as they came."""
        return decoded(self._raw_head)

    @property
    def told(self) -> Told:
        """What they say that is acted upon."""
        if self._told is None:
            self._told = told_raw(self._raw_head)
        return self._told

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        connection = self._connection
        if connection is not None:
            chunk = connection.take()
            if not chunk and connection.state is _BODY:
                await connection.wait(self._request.idle_s)
                chunk = connection.take()
            if chunk:
                return chunk
            self._end(connection)
        if self._error is not None:
            raise CallFailed(failure_of(self._error, self._status)) from self._error
        raise StopAsyncIteration

    def take_whole(self, limit: int) -> bytes | None:
        """The whole body, where its end has come already."""
        connection = self._connection
        if connection is None or connection.state is not _WHOLE:
            return None
        data = connection.take()
        if len(data) > limit:
            self._refuse(limit)
        self._end(connection)
        return data

    async def read(self, limit: int) -> bytes:
        """The whole body."""
        connection = self._connection
        if connection is None:
            raise CallFailed(failure_of(self._error or BrokenAnswer("the answer was read or closed before"), self._status))
        if connection.state is _BODY and (connection.announced_bytes() or 0) > limit:
            self._refuse(limit)
        data = connection.take()
        if connection.state is not _WHOLE:
            data = await self._collect(connection, data, limit)
        if len(data) > limit:
            self._refuse(limit)
        self._end(connection)
        if self._error is not None:
            raise CallFailed(failure_of(self._error, self._status)) from self._error
        return data

    async def _collect(self, connection: RawConnection, data: bytes, limit: int) -> bytes:
        """What comes until the end, the break, or the limit is passed."""
        pieces, length = [data], len(data)
        while connection.state is _BODY and length <= limit:
            await connection.wait(self._request.idle_s)
            piece = connection.take()
            length += len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Done with it. A body that is not whole takes its connection with it."""
        connection = self._connection
        if connection is not None:
            self._end(connection)

    def _end(self, connection: RawConnection) -> None:
        self._connection = None
        if connection.state is _WHOLE:
            self._target.pool.give_back(connection)
            return
        connection.cut(BrokenAnswer("the answer was closed before its end"))
        self._error = connection.error

    def _refuse(self, limit: int) -> None:
        self.close()
        self._error = TooLarge(f"the answer has more than {limit} bytes")
        raise CallFailed(failure_of(self._error, self._status))
