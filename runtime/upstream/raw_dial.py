"""From an origin to a connected socket: names, several addresses at once (RFC 8305), TLS.

Owns: what names resolved to, for ``RESOLVED_S``, and the TLS context with the last session of each host.
Always: one look-up at a time for each name, however many wait for it. A name none of whose addresses took us is looked up
anew next time.
"""

import asyncio
import socket
import ssl
from asyncio.staggered import staggered_race
from collections.abc import Callable
from functools import partial
from itertools import chain, zip_longest
from typing import Any, TypeVar

from runtime.upstream.failures import ConnectTimeout, NoConnection
from runtime.upstream.raw_connection import RawConnection
from runtime.upstream.raw_request import Origin
from runtime.upstream.raw_tls import ClientContext

RESOLVED_S = 30.0
RESOLVED_MAX = 1024
HAPPY_EYEBALLS_S = 0.25
"""How long one address has before the next is tried beside it."""

Address = tuple[socket.AddressFamily, Any]
P = TypeVar("P", bound=asyncio.Protocol)


class Dialer:
    """Makes connections. To be used within one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._resolved: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._resolving: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}
        self._dialling: dict[asyncio.Timeout, None] = {}
        self._context: ClientContext | None = None

    async def dial(self, origin: Origin, protocol_factory: Callable[[], P], connect_s: float) -> P:
        """A new connection; the transport is the protocol's. Raises ``NoConnection``, ``ConnectTimeout``, ``ssl.SSLError``."""
        limit = asyncio.timeout(connect_s)
        self._dialling[limit] = None
        try:
            async with limit:
                return await self._connect(origin, protocol_factory)
        except socket.gaierror as error:
            raise NoConnection("the host name does not resolve") from error
        except TimeoutError as error:
            raise ConnectTimeout from error
        except ssl.SSLError:
            self._tls().forget(origin.host)
            raise
        except OSError as error:
            self._resolved.pop((origin.host, origin.port), None)
            raise NoConnection(f"no connection: {error.strerror or 'failed'}") from error
        finally:
            del self._dialling[limit]
            # It knows its task, which keeps what it ended with, which knows this frame: a ring with all that stood on the way.
            del limit

    def keep_session(self, host: str, connection: RawConnection) -> None:
        """A TLS connection to ``host`` has served for the first time: the next one goes on with its session."""
        tls = connection.tls()
        if tls is not None:
            self._tls().keep(host, tls)

    def stop(self) -> None:
        """End what is under way; those who wait get ``ConnectTimeout``."""
        # The limits first: who waits for a name is to see a timeout, not the cancelled look-up.
        for limit in self._dialling:
            if not limit.expired():
                limit.reschedule(self._loop.time())
        for task in self._resolving.values():
            task.cancel()

    async def _connect(self, origin: Origin, protocol_factory: Callable[[], P]) -> P:
        addresses = await self._addresses(origin.host, origin.port)
        sock = await self._socket(addresses)
        context = self._tls() if origin.is_tls else None
        name = origin.host if origin.is_tls else None
        # From here on the loop closes the socket, whatever happens.
        _, protocol = await self._loop.create_connection(protocol_factory, sock=sock, ssl=context, server_hostname=name)
        return protocol

    async def _socket(self, addresses: list[Address]) -> socket.socket:
        if len(addresses) == 1:
            return await self._try(addresses[0])
        attempts = [partial(self._try, address) for address in addresses]
        sock: socket.socket | None
        sock, _, errors = await staggered_race(attempts, HAPPY_EYEBALLS_S)
        if sock is None:
            raise next(error for error in errors if error is not None)
        return sock

    async def _try(self, address: Address) -> socket.socket:
        family, place = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # A small request must not wait for the acknowledgement of the one before it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(sock, place)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _addresses(self, host: str, port: int) -> list[Address]:
        found = self._resolved.get((host, port))
        if found is not None and found[0] > self._loop.time():
            return found[1]
        task = self._resolving.get((host, port))
        if task is None:
            task = self._resolving[host, port] = self._loop.create_task(self._resolve(host, port))
            task.add_done_callback(partial(self._resolved_or_not, host, port))
        return await asyncio.shield(task)

    async def _resolve(self, host: str, port: int) -> list[Address]:
        infos = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return _interleaved([(family, place) for family, _, _, _, place in infos])

    def _resolved_or_not(self, host: str, port: int, task: asyncio.Task[list[Address]]) -> None:
        del self._resolving[host, port]
        if task.cancelled() or task.exception() is not None:
            return
        if len(self._resolved) >= RESOLVED_MAX:
            self._resolved.clear()
        self._resolved[host, port] = (self._loop.time() + RESOLVED_S, task.result())

    def _tls(self) -> ClientContext:
        if self._context is None:
            self._context = ClientContext.made()
        return self._context


def _interleaved(addresses: list[Address]) -> list[Address]:
    """The families by turns, beginning with that of the first, so that a broken one costs one delay only."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return [address for address in chain.from_iterable(zip_longest(first, others)) if address is not None]
