"""The two ports of a courier: the edge (who asked) and the upstream (who answers). Bytes and header pairs, nothing else.

Behind each stand a fast lane of our own and aiohttp; either can be replaced without touching what decides.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Protocol

from messages.base import acyclic
from messages.failures import Failure
from runtime.facts import fact

if TYPE_CHECKING:
    from runtime.dialects.told import Told

Headers = Sequence[tuple[str, str]]
"""Name and value pairs in order; names in any case."""


class ClientGone(Exception):
    """The client left, or took no byte for ``server.client_idle``."""


class CallFailed(Exception):
    """A call upstream failed; ``failure`` says whose fault it is and what can be done."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.detail}")
        self.failure = failure


@acyclic
@fact
class EdgeRequest:
    """A request as it came. ``path`` is without the query."""

    method: str
    path: str
    headers: Headers
    body: bytes
    peer: str

    def header(self, name: str) -> str:
        """The value of the first header called ``name`` (any case), or an empty string."""
        wanted, size = name.lower(), len(name)
        for key, value in self.headers:
            if len(key) == size and key.lower() == wanted:
                return value
        return ""


class EdgeSink(Protocol):
    """Where the answer goes: ``whole``; or, of a stream, ``start``, any number of ``write``, then ``end`` or ``abort``."""

    @property
    def has_started(self) -> bool:
        """Whether status and headers are on their way, so that no other answer can be given."""

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send an answer that is at hand; it counts as given once this has come back. Raises ``ClientGone``."""

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers of a stream. Raises ``ClientGone``."""

    async def write(self, chunk: bytes) -> None:
        """Send a chunk; waits while the client is slow. Raises ``ClientGone``."""

    async def end(self) -> None:
        """The answer is whole, and counts as given once this has come back. Waits for nobody, so that nothing can come between.

        Raises ``ClientGone`` if the client left before.
        """

    def abort(self) -> None:
        """Close the connection at once: the answer is not whole and the client must notice."""


@acyclic
@fact
class UpstreamRequest:
    """One call to make. Times in seconds."""

    method: str
    url: str
    headers: Headers
    body: bytes
    connect_s: float
    headers_s: float
    """Until the status line and headers are here."""
    idle_s: float
    """Longest pause between two reads of the body, counted only while we are ready to read."""
    transport: str = "auto"
    """The client to make it with: ``auto``, ``raw`` or ``aiohttp``."""


class UpstreamAnswer(Protocol):
    """An answer whose status and headers are here. Must be ended with ``close``, whatever happens."""

    __slots__ = ()

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Headers:
        """Headers as they came."""

    @property
    def told(self) -> "Told":
        """What they say that is acted upon: cheaper than to look for it in all of them."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ``CallFailed`` when it breaks, pauses too long, or ends short."""

    def take_whole(self, limit: int) -> bytes | None:
        """What ``read`` would give, if that is known to be here already, so that nobody need wait for it. Raises as it does."""

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises ``CallFailed`` as ``chunks`` does, or if it has more than ``limit`` bytes."""

    def close(self) -> None:
        """Done with it: the connection goes back to the pool if the body was read whole, else it is cut at once."""


GIVEN_BYTES_MAX = 32 * 1024
"""A body so small goes to any client at once, be it slow: its sink has nothing else to send."""


class Listener(Protocol):
    """Who is told of an answer instead of waiting for it in a task."""

    __slots__ = ()

    def answered(self) -> None:
        """What there is to tell: the answer is here, or its beginning, or the call has failed."""


class Sent(Protocol):
    """A call that is on its way. To be ended by ``answer``, by ``answer_at_hand`` where that gives one, or by ``drop``."""

    __slots__ = ()

    def listen(self, listener: Listener, *, to_head: bool) -> None:
        """Tell ``listener``, once, when the answer is whole or will not be; or ``to_head`` when status and headers are here."""

    def answer_at_hand(self) -> UpstreamAnswer | None:
        """What ``answer`` would give without waiting. None: ask that."""

    async def answer(self) -> UpstreamAnswer:
        """Wait for status and headers. Raises as ``Upstream.call`` does. Nobody who listens is told any more."""

    def drop(self) -> None:
        """Nobody wants the answer: cut the connection."""


class Ready(Protocol):
    """What takes small answers without a wait."""

    __slots__ = ()

    def give(self, status: int, lines: str, body: bytes) -> None:
        """As ``whole``, for at most ``GIVEN_BYTES_MAX``. ``lines``: the headers (``header_lines``). Raises ``ClientGone``."""


class ReadySink(EdgeSink, Ready, Protocol):
    """A sink that does."""


class Upstream(Protocol):
    """Makes calls. Cancelling ``call`` cuts the connection at once."""

    def begin(self, request: UpstreamRequest) -> Sent | None:
        """Send ``request`` at once. None: that takes a wait, or cannot be; nothing was sent, and ``call`` will see to it."""

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send ``request`` and wait for status and headers. Raises ``CallFailed``."""

    async def close(self) -> None:
        """Close all connections."""
