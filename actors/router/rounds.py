"""Rounds under way: fan-outs whose answers have not come home, by the key they come home with."""

from collections.abc import Iterable, Sequence

from actors.kernel import Context
from actors.router.pending import Pending, State
from actors.router.plans import STALE_S
from actors.router.table import Entry, refs_of
from messages.routing import CallForBids


class Rounds:
    """The fan-outs that are out. Times in monotonic seconds."""

    __slots__ = ("_by_key", "_count")

    def __init__(self) -> None:
        self._by_key: dict[str, Pending] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def begin(self, pending: Pending, entries: Sequence[Entry], within_s: float, context: Context) -> None:
        """Call for the bids of ``entries``; whoever has not answered ``within_s`` later is answered for."""
        self._count += 1
        key = str(self._count)
        self._by_key[key] = pending
        route, query = pending.route, pending.query
        memory, refs = pending.memory, route.refs
        if entries is not route.entries:
            asked = memory.asked_refs if entries is memory.asked else None
            refs = asked or refs_of(entries)
        context.gather(refs, CallForBids(query.query_id, query.profile, route.model), key, pending.slot, within_s)

    def home(self, key: str) -> Pending | None:
        """The query whose answers have come; None if it is not out."""
        pending = self._by_key.get(key)
        if pending is not None:
            del self._by_key[key]
        return pending

    def lost(self, now: float) -> list[Pending]:
        """Forget rounds that will never come home, because the turn that began them was dropped; returns those unanswered."""
        stale = [key for key, pending in self._by_key.items() if pending.began_at + STALE_S <= now]
        found = [self._by_key.pop(key) for key in stale]
        return [pending for pending in found if pending.state is not State.DONE]

    def fault(self, queries: Iterable[Pending]) -> str | None:
        """None while every open query that does not wait has a round under way."""
        out = {id(pending) for pending in self._by_key.values()}
        for pending in queries:
            if pending.state is not State.WAITING and id(pending) not in out:
                return f"query {pending.query.query_id} is {pending.state.value} without a round"
        return None
