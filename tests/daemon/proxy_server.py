"""A proxy as companies have them: it passes requests on, and opens tunnels (CONNECT). It notes what it is asked."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """One connection at a time to wherever is asked, or to ``leads_to`` whatever is asked: then names need not resolve."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """Method and target of each request, tunnels as well; not what passes through a tunnel."""
        self.heads: list[bytes] = []
        self.leads_to: int | None = None
        self.open = 0
        self.is_silent = False
        """It takes requests and says nothing."""
        self.port = 0
        self.changed = asyncio.Condition()

    async def until_left(self) -> None:
        """Wait until nobody is connected any more."""
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: self.open == 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        onward: asyncio.StreamWriter | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            self.asked.append(f"{method} {target}")
            self.heads.append(head)
            if self.is_silent:
                await reader.read()
                return
            place = urlsplit(f"//{target}" if method == "CONNECT" else target)
            back, onward = await asyncio.open_connection("127.0.0.1", self.leads_to or place.port)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                onward.write(head.replace(target.encode(), (place.path or "/").encode(), 1))
            await asyncio.gather(_pass(reader, onward), _pass(back, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for one in (writer, onward):
                if one is not None:
                    one.close()
            self.open -= 1
            async with self.changed:
                self.changed.notify_all()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def proxying(tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """The proxy, until the block is left; by then nobody may be connected to it any more."""
    made = Proxy()
    listener = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    made.port = listener.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listener.close()
        await made.until_left()
