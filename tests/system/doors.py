"""What stands where the fast lane does, under virtual time: the door of a request, and calls that tell of their answers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from runtime.dialects.told import Told
from runtime.http.edge import Edge
from runtime.http.errand import Errand
from runtime.ports import CallFailed, EdgeRequest, Headers, Listener, ReadySink, Upstream, UpstreamAnswer, UpstreamRequest
from runtime.simulation.in_process import SimulatedUpstream

READ_BYTES_MAX = 1 << 30


class Door:
    """The connection of one request, as its errand and the edge know it."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._errand: Errand | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        """If the errand has asked for one."""

    async def serve(self, request: EdgeRequest, sink: ReadySink) -> None:
        """Until the request, which is admitted, is over. Cancelled: its client leaves."""
        self._errand = errand = self._edge.errand(request, sink, self)
        if errand is None:
            return
        errand.start()
        try:
            await asyncio.shield(self._over)
        except asyncio.CancelledError:
            if not self._over.done():
                errand.cancel()
                await asyncio.wait([self._over])
            raise
        finally:
            # The two know each other.
            self._errand = None

    def cancel(self) -> None:
        assert self._errand is not None
        self._errand.cancel()

    def over(self) -> None:
        self._over.set_result(None)

    def late(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self._carry())

    async def _carry(self) -> None:
        assert self._errand is not None
        try:
            await self._errand.carry_on()
        except asyncio.CancelledError:
            self._over.set_result(None)
        except Exception as error:
            self._over.set_exception(error)
        else:
            self._over.set_result(None)


class Begun:
    """A call on its way that is waited for beside whoever sent it. One that is listened to is read to its end."""

    def __init__(self, upstream: SimulatedUpstream, request: UpstreamRequest) -> None:
        self._listener: Listener | None = None
        self._reads = False
        self._task = asyncio.get_running_loop().create_task(self._call(upstream, request))
        self._task.add_done_callback(self._tell)

    async def _call(self, upstream: Upstream, request: UpstreamRequest) -> UpstreamAnswer:
        answer = await upstream.call(request)
        if not self._reads:
            return answer
        try:
            return Read(answer, await answer.read(READ_BYTES_MAX), None)
        except CallFailed as error:
            return Read(answer, b"", error)

    def _tell(self, task: object) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.answered()

    def listen(self, listener: Listener, *, to_head: bool) -> None:
        self._listener, self._reads = listener, not to_head

    def answer_at_hand(self) -> UpstreamAnswer | None:
        task = self._task
        return task.result() if task.done() and not task.cancelled() and task.exception() is None else None

    async def answer(self) -> UpstreamAnswer:
        self._listener = None
        return await self._task

    def drop(self) -> None:
        self._listener = None
        self._task.cancel()


class Read:
    """An answer that was read already."""

    def __init__(self, answer: UpstreamAnswer, body: bytes, error: CallFailed | None) -> None:
        self._answer, self._body, self._error = answer, body, error

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> Headers:
        return self._answer.headers

    @property
    def told(self) -> Told:
        return self._answer.told

    async def chunks(self) -> AsyncIterator[bytes]:
        yield await self.read(READ_BYTES_MAX)

    def take_whole(self, limit: int) -> Any:
        if self._error is not None:
            raise self._error
        return self._body

    async def read(self, limit: int) -> bytes:
        body: bytes = self.take_whole(limit)
        return body

    def close(self) -> None:
        self._answer.close()
