"""A quota: what one tenant, or one pool, may use in all, whoever serves it.

Owns
    the buckets of its requests and tokens, and the reservations that are out.
Accepts
    ``QuotaMail``.
Always
    It answers at once: nobody waits for a grant here while holding another. A reservation takes one place, one request and
    its tokens together or nothing, and ends once; an end nobody knows is counted and ignored. What was never sent is given
    back whole, else the tokens are settled to what was used, by the law of ``actors.buckets``. New limits hold for what is
    out and what is in the buckets. After a crash its buckets are empty (or as far in debt as they were) and reservations come
    by ``ReservationsRestored``: a crash never refills a limit.
"""

from typing import assert_never

from actors.buckets import REQUESTS, Drawn, Rates
from actors.kernel import Context, Resident
from messages.limits import LimitsSpec
from messages.quota import (
    GetQuota,
    QuotaReconfigured,
    QuotaRefused,
    QuotaReport,
    ReservationsRestored,
    Reserve,
    Reserved,
    Settle,
)

QuotaMail = Reserve | Settle | ReservationsRestored | QuotaReconfigured | GetQuota
"""What a quota takes."""

CONCURRENCY = "max_concurrency"


class QuotaActor(Resident):
    """One tenant's or pool's quota. Its address is ``quota:`` and its name."""

    def __init__(self, name: str, limits: LimitsSpec, generation: int, predecessor: "QuotaActor | None") -> None:
        if predecessor is not None and predecessor.generation >= generation:
            # The factory's configuration may be older than what the predecessor was told since.
            limits, generation = predecessor.limits, predecessor.generation
        self.name = name
        self.limits: LimitsSpec = limits
        self.generation: int = generation
        self.rates = Rates(limits, 0.0, is_full=predecessor is None)
        self.out: dict[str, Drawn | None] = {}
        """By reservation, what it has drawn; None: nothing but its place was limited."""
        self.unknown_ends: int = predecessor.unknown_ends if predecessor is not None else 0
        self.reserved: int = predecessor.reserved if predecessor is not None else 0
        self.refused: dict[str, int] = dict(predecessor.refused) if predecessor is not None else {}
        """By limit."""
        self._predecessor = predecessor

    def __repr__(self) -> str:
        return f"<quota {self.name}: {len(self.out)} of {self.limits.max_concurrency} out>"

    def start(self, context: Context) -> None:
        """A successor begins with empty buckets, and with the debts of the one before."""
        if self._predecessor is not None:
            self.rates.empty_after(self._predecessor.rates, context.now())
            self._predecessor = None

    def handle(self, message: QuotaMail, context: Context) -> None:
        """Take one message."""
        match message:
            case Reserve():
                context.reply(self._on_reserve(message, context.now()))
            case Settle():
                self._on_settle(message, context.now())
            case ReservationsRestored():
                self._on_restored(message, context.now())
            case QuotaReconfigured():
                self._on_reconfigured(message, context.now())
            case GetQuota():
                context.reply(self._report(context.now()))
            case _:
                assert_never(message)

    def invariant(self) -> str | None:
        """What is broken, or None."""
        return self.rates.flaw()

    def _on_reserve(self, message: Reserve, now: float) -> Reserved | QuotaRefused:
        reservation_id, tokens, limits = message.reservation_id, message.tokens, self.limits
        if reservation_id in self.out:
            return Reserved(reservation_id)
        most = limits.max_concurrency
        if most is not None and len(self.out) >= most:
            self._count_refusal(CONCURRENCY)
            return QuotaRefused(reservation_id, self.name, CONCURRENCY, most)
        late = self.rates.late(tokens, now)
        if late is not None:
            self._count_refusal(late.limit)
            allowed = limits.requests_per_minute if late.limit == REQUESTS else limits.tokens_per_minute
            return QuotaRefused(reservation_id, self.name, late.limit, allowed or 0.0, late.ready_at)
        self.out[reservation_id] = self.rates.draw(tokens, now)
        self.reserved += 1
        return Reserved(reservation_id)

    def _count_refusal(self, limit: str) -> None:
        self.refused[limit] = self.refused.get(limit, 0) + 1

    def _on_settle(self, message: Settle, now: float) -> None:
        if message.reservation_id not in self.out:
            self.unknown_ends += 1
            return
        drawn = self.out.pop(message.reservation_id)
        if drawn is not None:
            drawn.settle(message.tokens, now)

    def _on_restored(self, message: ReservationsRestored, now: float) -> None:
        """Take over the couriers' table: what it does not have has ended, or is about to be asked for again."""
        known = {reservation.reservation_id: reservation.tokens for reservation in message.reservations}
        for reservation_id in [name for name in self.out if name not in known]:
            drawn = self.out.pop(reservation_id)
            if drawn is not None:
                drawn.forget(now)
        for reservation_id, tokens in known.items():
            if reservation_id not in self.out:
                self.out[reservation_id] = self.rates.drawn_before(tokens)

    def _on_reconfigured(self, message: QuotaReconfigured, now: float) -> None:
        if message.generation < self.generation:
            return
        self.limits, self.generation = message.limits, message.generation
        self.rates.resize(self.limits, now)

    def _report(self, now: float) -> QuotaReport:
        requests, tokens = self.rates.requests, self.rates.tokens
        return QuotaReport(
            self.name,
            self.limits,
            len(self.out),
            None if requests is None else requests.level_at(now),
            None if tokens is None else tokens.level_at(now),
            self.reserved,
            tuple(sorted(self.refused.items())),
        )
