"""The fast lane: connections that answer the models' endpoints themselves, and hand over whatever else is asked of them.

Owns: the connections from their first byte until they are handed over; their bounds of size and of patience.
Accepts: bytes. A request for a models' endpoint is with ``Edge`` from before its body is read. Anything else ends this lane
for the connection: whoever serves the rest is given its transport and all bytes of that request.
Always: answers come in the order of the requests, one at a time. Nothing is read after a request that was refused.

A task is dear: one is made for a request only if its errand asks for it, as most do not.

A client that closes its side, be it only for sending, has left: the answer nobody waits for is not worth its price.
There is one timer for all connections, not one for each: they move ``deadline``, and it looks there.
"""

import asyncio
import logging
from enum import Enum
from math import inf

from runtime.courier import problems
from runtime.courier.problems import Problem
from runtime.http.edge import ROUTES
from runtime.http.errand import Errand, Host
from runtime.http.notes import NotedRequest, noted
from runtime.http.patience import LINGER_S, body_patience_s, too_large, too_slow
from runtime.http.raw_body import BadRequest, Body, SizedBody
from runtime.http.raw_lane import RawLane
from runtime.http.raw_request import HEADERS_MAX, TOO_MANY, Head, HeadReader
from runtime.http.raw_sink import CONTINUE, RawSink, problem_answer
from runtime.http.raw_wire import RawWire
from runtime.ports import ClientGone

log = logging.getLogger("pointsman.http")

QUEUED_BYTES_MAX = 64 * 1024
"""Of requests sent ahead: with more, the socket is not read until they have their turn."""


class State(Enum):
    """What a connection is about."""

    HEAD = "head"
    """No request, or a part of its head, is here."""
    BODY = "body"
    """A request is counted, and its body is still to come."""
    ANSWERING = "answering"
    """A request is here to its end."""
    AHEAD = "ahead"
    """It has its answer, and the next one is here already."""
    CLOSING = "closing"
    """All is said; what comes is dropped."""
    OVER = "over"
    """Closed, or handed over."""


# An enum's member is looked up in two steps, a global in one.
_HEAD, _BODY, _ANSWERING, _AHEAD = State.HEAD, State.BODY, State.ANSWERING, State.AHEAD
_CLOSING, _OVER = State.CLOSING, State.OVER


class RawConnection(RawWire, Host):
    """See the law above."""

    def __init__(self, lane: RawLane) -> None:
        super().__init__(lane)
        self._state = _HEAD
        self._reader: HeadReader | None = None
        """Of a head that has come in part."""
        self._known = b""
        """The bytes of ``_head``, if they can be known again: clients say the same again and again."""
        self._head = Head("", "", [], False, False)
        """Of the last request."""
        self._body: Body | None = None
        """Of a request whose body has come in part."""
        self._content = b""
        """The body of the request that is to be answered, whole."""
        self._begun_at = 0.0
        """When the head of that request was here."""
        self._queued = bytearray()
        """What was sent ahead."""
        self._sink: RawSink | None = None
        """Of the request that is answered, until it is over: the two know each other; ..."""
        self._errand: Errand | None = None
        """... and what sees to it."""

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
        elif state is _ANSWERING or state is _AHEAD:
            self._queue(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed: who waited for an answer has left."""
        state, self._state = self._state, _OVER
        self.is_gone = True
        self.deadline = inf
        self._lane.leave(self)
        self._lane.lines.remove(self)
        if self._errand is not None:
            self._errand.cancel()
        elif state is _BODY:
            self._lane.edge.left(is_here=False)
            self._lane.edge.leave(self)

    # -- reading

    def _take_head(self, data: bytes) -> None:
        if self._reader is None:
            known = self._known
            if known and data.startswith(known):
                self._begin(self._head, data[len(known) :], None)
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
            self._known = bytes(reader.raw[: reader.end]) if not found.is_chunked else b""
            self._begin(found, bytes(reader.raw[reader.end :]), reader)

    def _begin(self, head: Head, data: bytes, reader: HeadReader | None) -> None:
        """The head is here, and ``data`` came after it."""
        lane = self._lane
        self._head = head
        self._is_client_last = head.is_last
        is_whole = head.length <= len(data) and head.length <= lane.max_body_bytes and not head.is_chunked
        self._state = _ANSWERING if is_whole else _BODY
        refusal = lane.edge.admit(self)
        if refusal is not None:
            self._refuse(refusal)
        elif is_whole:
            is_all = len(data) == head.length
            self._content = data if is_all else data[: head.length]
            self._complete(b"" if is_all else data[head.length :])
        elif head.length > lane.max_body_bytes:
            self._spoil(too_large(lane.max_body_bytes))
        else:
            if head.expects_continue:
                self.send(CONTINUE)
            self._set_deadline(lane.idle_s)
            self._begun_at = lane.time()
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
            waited_s = lane.time() - self._begun_at
            self._set_deadline(body_patience_s(lane.idle_s, waited_s, body.size))

    def _complete(self, rest: bytes) -> None:
        self._state = _ANSWERING
        self.deadline = inf
        if rest:
            self._queue(rest)
        self._answer()

    def _spoil(self, problem: Problem) -> None:
        """The request will not be had whole: what more comes of it is dropped."""
        self._body = None
        self._lane.edge.refused(problem.status)
        self._lane.edge.leave(self)
        self._refuse(problem)

    def _queue(self, data: bytes) -> None:
        self._queued += data
        if len(self._queued) > QUEUED_BYTES_MAX:
            self._pause()

    # -- answering

    def _answer(self) -> None:
        """A request is here. The same as the other lane does, in the same order."""
        edge, head = self._lane.edge, self._head
        sink = self._sink = RawSink(self, head.is_http_10)
        try:
            # Handed on at once: between two requests nothing of the last may be kept.
            errand = self._errand = edge.errand(self._request(head), sink, self)
        except Exception as error:
            edge.leave(self)
            self._broke(error)
            return
        if errand is None:
            self.over()
        else:
            errand.start()

    def over(self) -> None:
        """The errand is done: the answer has been given, if anybody was there to have it."""
        self._errand = None
        self._lane.edge.leave(self)
        self._answered()

    def late(self) -> None:
        """The errand needs a task, which begins in the loop's next turn."""
        # As the loop makes it, but with a name that is not made anew for each.
        asyncio.Task(self._carry(), loop=self._lane.loop, name="request")

    async def _carry(self) -> None:
        errand = self._errand
        assert errand is not None
        try:
            await errand.carry_on()
        except asyncio.CancelledError:
            # Not raised: the task would keep it and all that it passed, which knows the task: a ring, body and all.
            self._fail(problems.shutting_down()) if self._lane.edge.is_cut else self._cut()
            return
        except Exception as error:
            self._broke(error)
            return
        finally:
            self._errand = None
            self._lane.edge.leave(self)
        self._answered()

    def cancel(self) -> None:
        """The daemon's time is up."""
        if self._errand is not None:
            self._errand.cancel()
        elif self._state is _BODY:
            self._lane.edge.left(is_here=True)
            self._lane.edge.leave(self)
            self._refuse(problems.shutting_down())

    def _request(self, head: Head) -> NotedRequest:
        content, self._content = self._content, b""
        notes = head.notes
        if notes is None:
            notes = head.notes = noted(head.headers)
        return NotedRequest(head.method, head.path, head.headers, content, self._peer, notes)

    def _answered(self) -> None:
        sink, self._sink = self._sink, None
        if self.is_gone or sink is None:
            return
        if not sink.is_whole:
            self.break_off()
        elif sink.is_last:
            self._close(is_all_read=not self._queued)
        elif not self._queued:
            self._state = _HEAD
            self._set_deadline(self._lane.keepalive_s)
        else:
            # What was sent ahead waits for its turn among the others.
            self._state = _AHEAD
            self._lane.loop.call_soon(self._take_queued)

    def _take_queued(self) -> None:
        if self._state is _AHEAD:
            self._state = _HEAD
            self._set_deadline(self._lane.keepalive_s)
            data = bytes(self._queued)
            self._queued.clear()
            self._resume()
            self._take_head(data)

    def _broke(self, error: Exception) -> None:
        log.error("%s %s failed", self._head.method, self._head.path, exc_info=error)
        self._fail(problems.internal_error())

    def _fail(self, problem: Problem) -> None:
        sink, self._sink = self._sink, None
        self.break_off() if sink is not None and sink.has_started else self._refuse(problem)

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
        self._sink = None
        if not self.is_gone:
            self._line.abort()

    # -- what an answer needs

    def break_off(self) -> None:
        """Close after what was written."""
        if not self.is_gone:
            self._state = _CLOSING
        super().break_off()

    # -- time, and the end

    def expire(self) -> None:
        """The deadline has passed."""
        if self._state is _BODY:
            self.deadline = inf
            self._spoil(too_slow(self._lane.idle_s))
        elif not self._has_taken():
            self.deadline = inf
            self._wake(ClientGone("took no byte in time"))
            self._line.abort()

    def close_if_idle(self) -> None:
        """The daemon ends: close if no request is under way. One that is refused and still comes in is, until ``Lines.cut``."""
        if self._state is _HEAD and not self.is_gone:
            self._line.close()

    def _hand_over(self, data: bytes) -> None:
        """``data`` begins a request for somebody else, who gets the connection with it for the rest of its life."""
        lane, transport = self._lane, self._line
        handler = lane.successor()
        self._state = _OVER
        self.deadline = inf
        transport.set_protocol(handler)
        # Known to the lines under its new name before it loses the old one.
        handler.connection_made(transport)
        lane.leave(self)
        lane.lines.remove(self)
        if self.is_full:
            handler.pause_writing()
        handler.data_received(data)
