"""Rounds under way: fan-outs whose answers have not come home, by the key they come home with."""

from collections.abc import Iterable, Sequence

from actors.kernel import Context
from actors.router.pending import Pending, State
from actors.router.plans import STALE_S
from actors.router.table import Entry, refs_of
from messages.routing import CallForBids


class _Round:
    """A key, and the query whose round is out under it; None: it is free."""

    __slots__ = ("key", "pending")

    def __init__(self, key: str) -> None:
        self.key = key
        self.pending: Pending | None = None


class Rounds:
    """The fan-outs that are out. Times in monotonic seconds.

    A key is used again once its round has come home, so there are as many as there were rounds out at one moment.
    """

    __slots__ = ("_by_key", "_count", "_free")

    def __init__(self) -> None:
        self._by_key: dict[str, _Round] = {}
        self._free: list[_Round] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._by_key) - len(self._free)

    def begin(self, pending: Pending, entries: Sequence[Entry], within_s: float, context: Context) -> None:
        """Call for the bids of ``entries``; whoever has not answered ``within_s`` later is answered for."""
        begun = self._free.pop() if self._free else self._new()
        begun.pending = pending
        route, query = pending.route, pending.query
        memory, refs = pending.memory, route.refs
        if entries is not route.entries:
            if entries is not memory.asked:
                refs = refs_of(entries)
            else:
                refs = memory.asked_refs = memory.asked_refs or refs_of(entries)
        context.gather(refs, CallForBids(query.query_id, query.profile, route.model), begun.key, pending.slot, within_s)

    def home(self, key: str) -> Pending | None:
        """The query whose answers have come; None if it is not out."""
        begun = self._by_key.get(key)
        if begun is None or begun.pending is None:
            return None
        pending, begun.pending = begun.pending, None
        self._free.append(begun)
        return pending

    def lost(self, now: float) -> list[Pending]:
        """Forget rounds that will never come home, because the turn that began them was dropped; returns those unanswered."""
        out = [(key, begun.pending) for key, begun in self._by_key.items() if begun.pending is not None]
        stale = [(key, pending) for key, pending in out if pending.began_at + STALE_S <= now]
        for key, _ in stale:
            # It is not given out again, for then answers that come all the same would be taken for another's.
            del self._by_key[key]
        return [pending for _, pending in stale if pending.state is not State.DONE]

    def fault(self, queries: Iterable[Pending]) -> str | None:
        """None while every open query that does not wait has a round under way."""
        out = {id(begun.pending) for begun in self._by_key.values()}
        for pending in queries:
            if pending.state is not State.WAITING and id(pending) not in out:
                return f"query {pending.query.query_id} is {pending.state.value} without a round"
        return None

    def _new(self) -> _Round:
        self._count += 1
        begun = self._by_key[str(self._count)] = _Round(str(self._count))
        return begun
