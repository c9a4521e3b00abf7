"""A request of the fast lane: an express that tells its edge and its connection."""

from typing import TYPE_CHECKING, Protocol

from runtime.courier.call import ClientCall, CourierHouse
from runtime.courier.express import Express
from runtime.courier.results import Ended
from runtime.ports import ReadySink

if TYPE_CHECKING:
    from runtime.http.edge import Edge


class Host(Protocol):
    """Who asks for a client: its connection. What it is admitted as, and told by."""

    __slots__ = ()

    def cancel(self) -> None:
        """End the request: the daemon's time is up, or nothing may wait any more."""

    def over(self) -> None:
        """The request has had its answer, if it was there to have it."""

    def late(self) -> None:
        """There must be a task for the rest: for ``Errand.carry_on``."""


class Errand(Express):
    """One request. ``start``; then either its host is told that it is over, or asked for a task and waits for that."""

    __slots__ = ("_edge", "_host")

    def __init__(self, house: CourierHouse, call: ClientCall, sink: ReadySink, edge: "Edge", host: Host) -> None:
        super().__init__(house, call, sink)
        self._edge = edge
        self._host = host

    async def carry_on(self) -> None:
        """What is left of it, in the task that its host has made. Raises as ``Edge.serve`` does."""
        await self._edge.carry(self)

    def _over(self, ended: Ended) -> None:
        self._edge.closed(self.client.span, ended)
        self._host.over()

    def _late(self) -> None:
        self._host.late()
