"""One HTTP/1.1 connection to a provider: a request out, its answer in, again and again. asyncio.Protocol and llhttp.

Owns: one transport, its parser, and what has come of the answer and was not yet taken.
Accepts: ``send`` in state RESTING; ``wait``, ``take`` and ``announced_bytes`` until the answer is over; ``rest`` or ``cut``.
Always: not one byte is taken for an answer that nobody asked for: a connection that gets any while RESTING or WHOLE never
serves again. At most one waiter, and whose wait is called off cuts. What came before a break can be taken before it is told.

There is one timer for each connection, not for each call: calls move ``_until``, and the timer looks there when it rings.
"""

import asyncio
import ssl
from math import inf
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from runtime.ports import Listener
from runtime.timely import CLOCK_GRAIN_S, STALL_S, STALL_UNSEEN_S
from runtime.upstream.failures import BrokenAnswer, FirstByteTimeout, IdleTimeout
from runtime.upstream.raw_exchange import Keeper, State
from runtime.upstream.raw_headers import decoded, has_unknown_coding, head_after, is_close_delimited, values_of

HEAD_BYTES_MAX = 64 * 1024
"""Of status line and headers, answers before the real one (100, 103) included; and of what else comes between content."""
BUFFERED_BYTES_HIGH = 256 * 1024
"""From here on the socket is not read until what came is taken. One read of the loop (256 KiB at most) may go beyond."""
JOINED_BYTES_MAX = 64 * 1024
"""Smaller request bodies are written together with their head."""
WRITTEN_BYTES = 256 * 1024
"""Larger ones in pieces of this size, so that one large request holds up nobody."""

FUTURE = asyncio.Future
# An enum's member is looked up in two steps, a global in one.
_RESTING, _HEAD, _BODY, _WHOLE, _BROKEN = State.RESTING, State.HEAD, State.BODY, State.WHOLE, State.BROKEN


class RawConnection(asyncio.Protocol):
    """See the law above."""

    __slots__ = (
        "_alarm", "_alarm_at", "_buffered_bytes", "_can_keep", "_has_no_body", "_idle_s", "_interim", "_is_paused",
        "_is_write_paused", "_keeper", "_listener", "_loop", "_overhead_bytes", "_parser", "_pieces", "_read", "_read_before",
        "_time", "_transport", "_unsent", "_until", "_waiter", "error", "has_served", "is_answered", "is_lost", "raw_head",
        "rested_at", "state", "status",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, keeper: Keeper) -> None:
        self._loop = loop
        self._time = loop.time
        self._keeper = keeper
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._listener: Listener | None = None
        self._idle_s = 0.0
        """For how long whoever listens to the end lets the body pause; less than nothing: it listens for the head."""
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = inf
        self._until = inf
        self._pieces: list[bytes] = []
        self._buffered_bytes = 0
        self._overhead_bytes = 0
        self._unsent: memoryview | None = None
        self._is_paused = False
        self._is_write_paused = False
        self._can_keep = False
        self._has_no_body = False
        self.state = State.RESTING
        self.status = 0
        self.raw_head = b""
        self._interim = 0  # Heads before that (100, 103).
        self._read_before: list[bytes] = []
        """What came before the end of the real one, but for what is ..."""
        self._read = b""
        """... in the parser's hands."""
        self.error: Exception | None = None
        self.is_lost = False
        self.is_answered = False
        """At least one byte of an answer came."""
        self.has_served = False
        """It has carried a whole exchange before."""
        self.rested_at = 0.0

    def __repr__(self) -> str:
        return f"RawConnection({self.state.value}, {self.status}, {'lost' if self.is_lost else 'open'})"

    # -- what a call does with it

    def now(self) -> float:
        """The loop's clock (s)."""
        return self._time()

    def send(self, head: bytes, body: bytes, *, has_no_body: bool) -> None:
        """Begin an exchange. ``has_no_body``: the answer ends with its headers whatever they say (HEAD)."""
        transport = self._transport
        assert transport is not None
        assert self.state is _RESTING
        self.raw_head = b""
        self._interim = 0
        self.is_answered = False
        if self.is_lost or not (self.has_served or self.is_ready):
            # It ended between its making and this call; nobody would tell so again. At one that has rested its pool has
            # looked just now.
            self.state = _BROKEN
            self.error = self._cut_short()
            return
        self.state = _HEAD
        self._overhead_bytes = 0
        self._has_no_body = has_no_body
        if len(body) < JOINED_BYTES_MAX:
            transport.write(head + body if body else head)
        else:
            transport.write(head)
            self._unsent = memoryview(body)
            self._write_more()

    def wait(self, limit_s: float) -> asyncio.Future[None]:
        """Until the head is here, a piece of the body is, or it is all over; what of it ``state`` and ``take`` tell."""
        return self.wait_until(self._time() + limit_s)

    def wait_until(self, until: float) -> asyncio.Future[None]:
        """The same, to a time by ``now``. To be awaited; a coroutine would do nothing but await this future."""
        # Of the loop that runs, which is ours: to name it, or to have it make one, costs more.
        waiter = self._waiter = FUTURE()
        self._until = until
        if until < self._alarm_at:
            self._set_alarm(until)
        return waiter

    def listen(self, listener: Listener, until: float, idle_s: float) -> None:
        """Tell ``listener``, once, when it is all over; if ``idle_s`` is less than nothing when the head is here."""
        self._listener = listener
        self._idle_s = idle_s
        if self.state is not _HEAD:
            # It ended before it began; who has just sent is not yet ready to hear of it.
            self._loop.call_soon(self._tell)
            return
        self._until = until
        if until < self._alarm_at:
            self._set_alarm(until)

    def unlisten(self) -> None:
        """Whoever listened waits, or is gone."""
        self._listener = None

    def take(self) -> bytes:
        """What has come of the body and was not yet taken."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._buffered_bytes = 0
        if self._is_paused:
            self._is_paused = False
            if not self.is_lost and self._transport is not None:
                self._transport.resume_reading()
        return data

    def announced_bytes(self) -> int | None:
        """The length of the body as the headers have it."""
        found = values_of(self.raw_head, "content-length")
        return int(found[0]) if found else None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of the answer, as text."""
        return decoded(self.raw_head)

    def rest(self, now: float) -> bool:
        """The exchange is over. False if it left anything behind, or is the last. If it is closing, ``is_ready`` tells."""
        transport = self._transport
        if self.state is not _WHOLE or not self._can_keep or self.is_lost or self._pieces or self._unsent is not None:
            return False
        if transport is None or transport.get_write_buffer_size():
            return False
        if self._has_no_body:
            # Of an answer to HEAD the parser still expects the body.
            self._parser = HttpResponseParser(self)
        self.state = _RESTING
        self.status = 0
        self.has_served = True
        self.rested_at = now
        return True

    def cut(self, error: Exception) -> None:
        """End it at once; whoever waits gets ``error``. What was written and not yet taken by the other side is dropped."""
        self._end(error, is_clean=False)
        if self._transport is not None:
            self._transport.abort()

    def tls(self) -> ssl.SSLObject | None:
        """What the connection is encrypted by, if it is."""
        return self._transport.get_extra_info("ssl_object") if self._transport is not None else None

    @property
    def is_ready(self) -> bool:
        """Whether a request may be sent now."""
        return not self.is_lost and self._transport is not None and not self._transport.is_closing()

    # -- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._keeper.enter(self)

    def data_received(self, data: bytes) -> None:
        """Take in bytes of the answer."""
        state, parser = self.state, self._parser
        if parser is None or (state is not _HEAD and state is not _BODY):
            self.cut(BrokenAnswer("bytes that nobody asked for"))
            return
        self.is_answered = True
        before_bytes = self._buffered_bytes
        if state is _HEAD:
            self._read = data
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._reject(error)
            return
        if self.raw_head is data and self._buffered_bytes:
            # So much of the body came with the head: nobody need look for headers there.
            self.raw_head = data[: -self._buffered_bytes]
        if self.state is _HEAD or (self.state is _BODY and self._buffered_bytes == before_bytes):
            self._overhead_bytes += len(data)
            if self.state is _HEAD:
                self._read_before.append(data)
            if self._overhead_bytes > HEAD_BYTES_MAX:
                self.cut(BrokenAnswer("endless headers, trailers or chunk extensions"))
        elif state is _HEAD and len(data) > HEAD_BYTES_MAX and len(self.raw_head) > HEAD_BYTES_MAX:
            self.cut(BrokenAnswer("endless headers"))
        elif self._overhead_bytes:
            # Content came: a long stream has much framing, and it may come in reads of its own.
            self._overhead_bytes = 0
        if self._buffered_bytes > BUFFERED_BYTES_HIGH and not self._is_paused and not self.is_lost:
            self._is_paused = True
            cast(asyncio.Transport, self._transport).pause_reading()
        if self._listener is not None:
            self._heard()

    def eof_received(self) -> None:
        """The other side has ended. Cut, for a plain close would wait until what we still send is taken."""
        self._end(self._cut_short(), is_clean=True)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._end(self._cut_short(), is_clean=exc is None)
        # The two hold each other.
        self._parser = None
        self._keeper.forget(self)

    def pause_writing(self) -> None:
        """The other side takes a large request more slowly than we can write it."""
        self._is_write_paused = True

    def resume_writing(self) -> None:
        """It has taken what was written."""
        self._is_write_paused = False
        self._write_more()

    # -- what the parser tells

    def on_message_begin(self) -> None:
        """Something begins, be it the answer or what must not follow it."""
        if self.state is not _HEAD:
            raise HttpParserError("bytes after the end of the answer")

    def on_headers_complete(self) -> None:
        """Status and headers are here, unless they are of an answer before the real one."""
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if status < 200:
            if status not in (100, 102, 103):
                raise HttpParserError(f"status {status} was not asked for")
            return
        data, self._read = self._read, b""
        if self._read_before:
            data = b"".join([*self._read_before, data])
            self._read_before.clear()
        self.raw_head = head_after(data, self._interim)
        self._can_keep = parser.should_keep_alive()
        if not self._can_keep and has_unknown_coding(self.raw_head):
            raise HttpParserError("a transfer coding that is not known")
        self.status = status
        self.state = _WHOLE if self._has_no_body else _BODY
        if self._waiter is not None:
            self._wake()

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        if self.state is not _BODY:
            raise HttpParserError("a body where none may be")
        self._pieces.append(piece)
        self._buffered_bytes += len(piece)
        if self._waiter is not None:
            self._wake()

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was one before the real one."""
        if self.state is _HEAD:
            self._interim += 1
            return
        self.state = _WHOLE
        if self._waiter is not None:
            self._wake()

    # -- inside

    def _heard(self) -> None:
        """Bytes came for somebody who listens: tell it, or give the rest its time."""
        state = self.state
        if state is _BODY and self._idle_s >= 0.0 and not self._is_paused:
            self._until = self._time() + self._idle_s
            if self._until < self._alarm_at:
                self._set_alarm(self._until)
        elif state is not _HEAD:
            self._tell()

    def _tell(self) -> None:
        listener, self._listener = self._listener, None
        self._until = inf
        if listener is not None:
            listener.answered()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        # What was waited for is here, though who waited may have its turn only after the timer.
        self._until = inf
        if waiter is not None:
            try:
                waiter.set_result(None)
            except asyncio.InvalidStateError:
                # The wait was called off, as most are not: to look each time would cost more.
                return

    def _end(self, error: Exception, *, is_clean: bool) -> None:
        """No more bytes will come or go. The first reason counts."""
        if self.is_lost:
            return
        self.is_lost = True
        self._unsent = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        state = self.state
        if state is _RESTING:
            self._keeper.take_out(self)
        elif state is _BODY and is_clean and is_close_delimited(self.raw_head):
            self.state = _WHOLE
        elif state is not _WHOLE:
            self.state = _BROKEN
            self.error = error
        self._wake()
        if self._listener is not None:
            self._tell()

    def _cut_short(self) -> BrokenAnswer:
        return BrokenAnswer("the answer ended short" if self.state is _BODY else "the connection was cut")

    def _reject(self, error: Exception) -> None:
        """What came is no answer; or, after a whole one, something that does not belong to it."""
        reason = "it wants to upgrade" if isinstance(error, HttpParserUpgrade) else str(error.__context__ or error)
        self.cut(BrokenAnswer(f"the answer is not HTTP: {reason}"))

    def _write_more(self) -> None:
        transport = cast(asyncio.Transport, self._transport)
        while self._unsent is not None and not self._is_write_paused and not transport.is_closing():
            piece, rest = self._unsent[:WRITTEN_BYTES], self._unsent[WRITTEN_BYTES:]
            self._unsent = rest if len(rest) else None
            transport.write(piece)

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(at, self._ring)
        self._alarm_at = at

    def _ring(self) -> None:
        until, now = self._until, self._time()
        late_s = now - self._alarm_at
        self._alarm = None
        self._alarm_at = inf
        if until == inf:
            return
        if until - now > CLOCK_GRAIN_S:
            self._set_alarm(until)
        elif late_s >= STALL_S:
            self._until = now + late_s + STALL_UNSEEN_S
            self._set_alarm(self._until)
        else:
            self.cut(FirstByteTimeout() if self.state is _HEAD else IdleTimeout())
