"""The fast lane: connections that answer the models' endpoints themselves, and hand over whatever else is asked of them.

Owns: the connections from their first byte until they are handed over; their bounds of size and of patience.
Accepts: bytes. A request for a models' endpoint gets its connection's task, which is with ``Edge`` from before its body is
read. Anything else ends this lane for the connection: whoever serves the rest is given its transport and that request's bytes.
Always: answers come in the order of the requests, one at a time. Nothing is read after a request that was refused.

A client that closes its side, be it only for sending, has left: the answer nobody waits for is not worth its price.
There is one timer for all connections, not one for each: they move ``deadline``, and it looks there.
"""

import asyncio
import logging
from contextlib import suppress
from enum import Enum
from math import inf

from runtime.courier import problems
from runtime.courier.problems import Problem
from runtime.http.edge import ROUTES
from runtime.http.patience import LINGER_S, body_patience_s, too_large, too_slow
from runtime.http.raw_body import END, BadRequest, Body, SizedBody
from runtime.http.raw_lane import RawLane
from runtime.http.raw_request import HEADERS_MAX, TOO_MANY, Head, HeadReader
from runtime.http.raw_sink import CONTINUE, RawSink, problem_answer
from runtime.http.raw_wire import RawWire
from runtime.ports import ClientGone, EdgeRequest

log = logging.getLogger("pointsman.http")

QUEUED_BYTES_MAX = 64 * 1024
"""Of requests sent ahead: with more, the socket is not read until they have their turn."""


class State(Enum):
    """What a connection is about."""

    HEAD = "head"
    """No request, or a part of its head, is here."""
    BODY = "body"
    """A request has its task, and its body is still to come."""
    ANSWERING = "answering"
    """A request is here to its end."""
    CLOSING = "closing"
    """All is said; what comes is dropped."""
    OVER = "over"
    """Closed, or handed over."""


# An enum's member is looked up in two steps, a global in one.
_HEAD, _BODY, _ANSWERING, _CLOSING, _OVER = State.HEAD, State.BODY, State.ANSWERING, State.CLOSING, State.OVER


class RawConnection(RawWire):
    """See the law above."""

    def __init__(self, lane: RawLane) -> None:
        super().__init__(lane)
        self._state = _HEAD
        self._reader: HeadReader | None = None
        """Of a head that has come in part."""
        self._known: tuple[bytes, Head] = (b"", Head("", "", [], False, False))
        """The last head: clients say the same again."""
        self._body: Body | None = None
        """Of a request whose body has come in part."""
        self._content = b""
        """The body of the request that is to be answered, whole."""
        self._begun_at = 0.0
        """When the head of that request was here."""
        self._problem: Problem | None = None
        """Why the request that is being read is refused."""
        self._queued = bytearray()
        """What was sent ahead."""
        self._task: asyncio.Task[None] | None = None
        """Answers the requests, one after another: to make one for each would cost more than to wake this one."""
        self._next: Head | None = None
        """Of a request the task has not begun with."""
        self._is_serving = False
        self._is_client_last = False

    # -- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._lane.enter(self)
        self._set_deadline(self._lane.keepalive_s)

    def data_received(self, data: bytes) -> None:
        """Take in bytes of a request, or of one after it."""
        state = self._state
        if state is _HEAD:
            self._take_head(data)
        elif state is _BODY:
            self._take_body(data)
        elif state is _ANSWERING:
            self._queue(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed: who waited for an answer has left."""
        self._state = _OVER
        self.is_gone = True
        self.deadline = inf
        self._lane.leave(self)
        self._lane.lines.remove(self)
        if self._is_serving and self._task is not None:
            self._task.cancel()
        else:
            self._wake()

    # -- reading

    def _take_head(self, data: bytes) -> None:
        if self._reader is None:
            end = data.find(END) + len(END)
            known, head = self._known
            if known and data[:end] == known:
                self._begin(head, data[end:], None)
                return
            self._reader = HeadReader()
        reader = self._reader
        try:
            found = reader.feed(data)
        except BadRequest as error:
            self._reader = None
            self._lane.edge.refused(error.status)
            self._refuse(Problem(error.status, "invalid_request", error.message))
            return
        if found is None:
            return
        self._reader = None
        if found.method != "POST" or found.path not in ROUTES or found.is_odd:
            self._hand_over(bytes(reader.raw))
        elif len(found.headers) > HEADERS_MAX:
            self._lane.edge.refused(431)
            self._refuse(Problem(431, "invalid_request", TOO_MANY))
        else:
            if not found.is_chunked:
                self._known = (bytes(reader.raw[: reader.end]), found)
            self._begin(found, bytes(reader.raw[reader.end :]), reader)

    def _begin(self, head: Head, data: bytes, reader: HeadReader | None) -> None:
        """The head is here, and ``data`` came after it. The task begins with it in the loop's next turn."""
        lane = self._lane
        self._is_client_last = head.is_last
        self._problem = None
        self._state = _BODY
        self._next, self._is_serving = head, True
        if self._task is None:
            # As the loop makes it, but with a name that is not made anew for each.
            self._task = asyncio.Task(self._work(), loop=lane.loop, name="requests")
        else:
            self._wake()
        if head.length > lane.max_body_bytes:
            self._spoil(too_large(lane.max_body_bytes))
        elif len(data) >= head.length and not head.is_chunked:
            self._content = data[: head.length]
            self._complete(data[head.length :])
        else:
            self._begun_at = lane.loop.time()
            self._body = reader.chunked_body() if reader is not None and head.is_chunked else SizedBody(head.length)
            self._take_body(data)

    def _take_body(self, data: bytes) -> None:
        body, lane = self._body, self._lane
        assert body is not None
        try:
            rest = body.feed(data)
        except BadRequest as error:
            self._spoil(Problem(error.status, "invalid_request", error.message))
            return
        if body.size > lane.max_body_bytes:
            self._spoil(too_large(lane.max_body_bytes))
        elif body.is_whole:
            self._body = None
            self._content = body.content()
            self._complete(rest)
        else:
            waited_s = lane.loop.time() - self._begun_at
            self._set_deadline(body_patience_s(lane.idle_s, waited_s, body.size))

    def _complete(self, rest: bytes) -> None:
        self._state = _ANSWERING
        self.deadline = inf
        self._wake()
        if rest:
            self._queue(rest)

    def _spoil(self, problem: Problem) -> None:
        """The request will not be had whole: what more comes of it is dropped, and its task says why."""
        self._state = _CLOSING
        self.deadline = inf
        self._body = None
        self._problem = problem
        self._wake()

    def _queue(self, data: bytes) -> None:
        self._queued += data
        if len(self._queued) > QUEUED_BYTES_MAX:
            self._pause()

    # -- answering

    async def _work(self) -> None:
        """Answer requests as they come, until the connection ends or is somebody else's."""
        while self._state is _HEAD or self._next is not None:
            head, self._next = self._next, None
            if head is not None:
                await self._serve(head)
                continue
            with suppress(ClientGone):
                await self._wait()

    async def _serve(self, head: Head) -> None:
        """Answer one request. The same as the other lane does, in the same order."""
        edge = self._lane.edge
        task = self._task
        assert task is not None
        refusal = edge.admit(task)
        if refusal is not None:
            self._is_serving = False
            self._refuse(refusal)
            return
        sink = RawSink(self, head.is_http_10)
        try:
            problem = await self._whole_body(head) if self._state is not _ANSWERING else None
            if problem is not None:
                edge.refused(problem.status)
                self._refuse(problem)
                return
            body, self._content = self._content, b""
            await edge.serve(EdgeRequest(head.method, head.path, head.headers, body, self._peer), sink, task)
        except asyncio.CancelledError:
            if not edge.is_cut:
                self._cut()
                raise
            self._fail(problems.shutting_down(), sink)
            return
        except Exception as error:
            log.error("%s %s failed", head.method, head.path, exc_info=error)
            self._fail(problems.internal_error(), sink)
            return
        finally:
            self._is_serving = False
            edge.leave(task)
        self._answered(sink)

    async def _whole_body(self, head: Head) -> Problem | None:
        """Wait for the body; returns why it is refused, if it is."""
        if self._problem is None:
            if head.expects_continue:
                self.send(CONTINUE)
            self._set_deadline(self._lane.idle_s)
            try:
                await self._wait()
            except asyncio.CancelledError:
                self._lane.edge.left(is_here=not self.is_gone)
                raise
        return self._problem

    def _answered(self, sink: RawSink) -> None:
        if self.is_gone:
            return
        if not sink.is_whole:
            self.break_off()
        elif sink.is_last:
            self._close(is_all_read=not self._queued)
        else:
            self._state = _HEAD
            self._set_deadline(self._lane.keepalive_s)
            if self._queued:
                data = bytes(self._queued)
                self._queued.clear()
                self._resume()
                self._take_head(data)

    def _fail(self, problem: Problem, sink: RawSink) -> None:
        self.break_off() if sink.has_started else self._refuse(problem)

    def _refuse(self, problem: Problem) -> None:
        """Answer with an error of our own, and nothing after it."""
        if self.is_gone:
            return
        self.send(problem_answer(problem))
        self._close(is_all_read=self._state is _ANSWERING and not self._queued)

    def _close(self, *, is_all_read: bool) -> None:
        """Close after what was written. With bytes unread the system would take back what the client did not see yet."""
        transport = self._line
        self._state = _CLOSING
        self._queued.clear()
        if transport.is_closing():
            return
        if is_all_read:
            self._set_deadline(self._lane.idle_s)
            transport.close()
            return
        self._set_deadline(min(LINGER_S, self._lane.idle_s))
        self._resume()
        if transport.can_write_eof():
            # TLS cannot: there the client knows by the answer's length, and ``Connection: close``, that this was all.
            transport.write_eof()

    def _cut(self) -> None:
        self._state = _CLOSING
        if not self.is_gone:
            self._line.abort()

    # -- what an answer needs

    @property
    def is_last(self) -> bool:
        """Whether the connection is to end with this answer."""
        return self._is_client_last or self._lane.is_draining

    def break_off(self) -> None:
        """Close after what was written. A client that does not take it would keep it, and us, for ever: not for long."""
        if not self.is_gone:
            self._state = _CLOSING
            self._set_deadline(self._lane.idle_s)
            self._line.close()

    # -- time, and the end

    def expire(self) -> None:
        """The deadline has passed."""
        if self._state is _BODY:
            self._spoil(too_slow(self._lane.idle_s))
        elif not self._has_taken():
            self.deadline = inf
            self._wake(ClientGone("took no byte in time"))
            self._line.abort()

    def close_if_idle(self) -> None:
        """The daemon ends: close if no request is under way. One that is refused and still comes in is, until ``Lines.cut``."""
        if not self._is_serving and self._state is _HEAD and not self.is_gone:
            self._line.close()

    def _hand_over(self, data: bytes) -> None:
        """``data`` begins a request for somebody else, who gets the connection with it for the rest of its life."""
        lane, transport = self._lane, self._line
        handler = lane.successor()
        self._state = _OVER
        self.deadline = inf
        self._wake()
        transport.set_protocol(handler)
        # Known to the lines under its new name before it loses the old one.
        handler.connection_made(transport)
        lane.leave(self)
        lane.lines.remove(self)
        if self.is_full:
            handler.pause_writing()
        handler.data_received(data)
