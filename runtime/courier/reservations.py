"""What a request holds of the quotas of its tenant and its pool, and the couriers' table of all that is held.

Owns: every reservation from before its ``Reserve`` is told until its one ``Settle``.
Always: a reservation is *noted*, then perhaps *held*, then gone. A restarted quota is told those that are held. Whatever a
request holds is given back when it ends, in reverse: whole if nothing was sent upstream, else settled to what was used.
"""

from typing import TYPE_CHECKING, Any

from actors.usage import tokens_used
from messages.calls import Outcome, Usage
from messages.envelope import AGAIN
from messages.failures import Failure
from messages.quota import QuotaRefused, Reservation, Reserve, Reserved, Settle
from runtime.courier import problems
from runtime.courier.problems import Problem
from runtime.system.replies import ActorGone, DeadlineExceeded, Heard, Overloaded

if TYPE_CHECKING:
    from runtime.courier.call import ClientCall, CourierHouse

OUTPUT_TOKENS = 1000
"""Reserved for an output of which the request says no ``max_tokens`` and no provider has made a bid yet."""


def tokens_wanted(call: "ClientCall") -> int:
    """An estimate of the prompt and the output of a request together, before anybody has bid for it."""
    read = call.read
    if call.endpoint == "embeddings":
        return read.prompt_tokens
    return read.prompt_tokens + (OUTPUT_TOKENS if read.max_tokens is None else read.max_tokens)


class ReservationTable:
    """Reservations by quota, in the order in which they were noted. The truth about which are out."""

    def __init__(self) -> None:
        self._noted: dict[str, dict[str, Reservation]] = {}
        self._held: dict[str, None] = {}

    def __len__(self) -> int:
        return sum(len(noted) for noted in self._noted.values())

    def note(self, quota: str, reservation: Reservation) -> None:
        """Before its ``Reserve`` is told."""
        self._noted.setdefault(quota, {})[reservation.reservation_id] = reservation

    def hold(self, reservation_id: str) -> None:
        """Its ``Reserved`` has been seen."""
        self._held[reservation_id] = None

    def end(self, quota: str, reservation_id: str) -> None:
        """It was refused, or its ``Settle`` is about to be told."""
        noted = self._noted.get(quota)
        if noted is not None and noted.pop(reservation_id, None) is not None:
            self._held.pop(reservation_id, None)
            if not noted:
                del self._noted[quota]

    def has_any(self, quota: str) -> bool:
        """Whether a quota owes or is owed anything."""
        return quota in self._noted

    def held_of(self, quota: str) -> tuple[Reservation, ...]:
        """What is out of a quota."""
        noted = self._noted.get(quota)
        return tuple(found for found in noted.values() if found.reservation_id in self._held) if noted else ()


class Reservations:
    """What one request holds. ``take`` as often as need be, ``spent`` for each call upstream, ``give_back`` once."""

    __slots__ = ("_call", "_house", "_quotas", "_used")

    def __init__(self, house: "CourierHouse", call: "ClientCall") -> None:
        self._house = house
        self._call = call
        self._quotas: dict[str, str] = {}
        """Quota by reservation, in the order in which they were asked; those that may be out."""
        self._used: int | None = None
        """Tokens; None: nothing was sent."""

    async def take(self, quota: str, tokens: int) -> Problem | None:
        """Reserve ``tokens`` of ``quota``, unless this request has done so before. A problem: it may not have them."""
        house, call = self._house, self._call
        reservation_id = f"{call.query_id}/{quota}"
        if reservation_id in self._quotas:
            return None
        house.reservations.note(quota, Reservation(reservation_id, tokens))
        self._quotas[reservation_id] = quota
        question = Reserve(quota, reservation_id, tokens)

        def see(answer: Any) -> None:
            if type(answer) is Reserved:
                house.reservations.hold(reservation_id)

        for is_last in (False, True):
            try:
                asked = house.system.put(f"quota:{quota}", question, call.deadline, call.trace, "courier", Heard(see))
                answer = await house.system.wait_for(asked) if asked.is_open else asked.outcome()
            except (DeadlineExceeded, Overloaded):
                return Problem(504, "deadline_exceeded", f"Whether {quota} is within its limits was not known in time.")
            except ActorGone as gone:
                if gone.fault not in AGAIN:
                    return problems.shutting_down()
                if call.has_felled(f"quota {quota}", gone.fault) or is_last:
                    return problems.internal_error()
                continue
            if isinstance(answer, QuotaRefused):
                house.reservations.end(quota, reservation_id)
                del self._quotas[reservation_id]
                return problems.over_quota(answer, house.clock.now())
            break
        return None

    def spent(self, outcome: Outcome, usage: Usage | None, failure: Failure | None, reserved: int) -> None:
        """A call upstream has ended: what it used, ``reserved`` where nobody can tell, nothing if it was never sent."""
        used = tokens_used(outcome, usage, failure, reserved)
        if used is not None:
            self._used = (self._used or 0) + used

    def give_back(self) -> None:
        """The end of all that is held. Never waits; a second call does nothing."""
        house = self._house
        while self._quotas:
            reservation_id, quota = self._quotas.popitem()
            house.reservations.end(quota, reservation_id)
            house.system.tell(f"quota:{quota}", Settle(reservation_id, self._used), self._call.trace, "courier")
