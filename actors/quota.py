"""A quota: what one tenant, or one pool, may use in all, whoever serves it.

Owns
    the buckets of its requests and tokens, and the reservations that are out.
Accepts
    ``QuotaMail``.
Always
    It answers at once: nobody waits for a grant here while holding another. A reservation takes one place, one request and
    its tokens together or nothing, and ends once; an end nobody knows is counted and ignored. What was never sent is given
    back whole, else the tokens are settled to what was used. No window admits more than limit x window + burst, by any
    interleaving. New limits hold for what is out and what is in the buckets. After a crash its buckets are empty (or as far
    in debt as they were) and reservations come by ``ReservationsRestored``: a crash never refills a limit.
"""

from typing import assert_never

from actors.buckets import Bucket, request_bucket, resized, token_bucket
from actors.kernel import Context
from messages.limits import LimitsSpec
from messages.quota import (
    QuotaReconfigured,
    QuotaRefused,
    ReservationsRestored,
    Reserve,
    Reserved,
    Settle,
)

QuotaMail = Reserve | Settle | ReservationsRestored | QuotaReconfigured
"""What a quota takes."""

REQUESTS, TOKENS, CONCURRENCY = "requests_per_minute", "tokens_per_minute", "max_concurrency"


class QuotaActor:
    """One tenant's or pool's quota. Its address is ``quota:`` and its name."""

    def __init__(self, name: str, limits: LimitsSpec, generation: int, predecessor: "QuotaActor | None") -> None:
        if predecessor is not None and predecessor.generation >= generation:
            # The factory's configuration may be older than what the predecessor was told since.
            limits, generation = predecessor.limits, predecessor.generation
        self.name = name
        self.limits: LimitsSpec = limits
        self.generation: int = generation
        is_full = predecessor is None
        self.requests: Bucket | None = request_bucket(limits, 0.0, is_full)
        self.tokens: Bucket | None = token_bucket(limits, 0.0, is_full)
        self.out: dict[str, int] = {}
        """Tokens reserved, by reservation."""
        self.unknown_ends: int = predecessor.unknown_ends if predecessor is not None else 0
        self._predecessor = predecessor

    def __repr__(self) -> str:
        return f"<quota {self.name}: {len(self.out)} of {self.limits.max_concurrency} out>"

    def start(self, context: Context) -> None:
        """A successor begins with empty buckets, and with the debts of the one before."""
        before, self._predecessor = self._predecessor, None
        if before is not None:
            now = context.now()
            for bucket, old in ((self.requests, before.requests), (self.tokens, before.tokens)):
                if bucket is not None:
                    bucket.lower_to(0.0, now)
                    if old is not None and old.flaw() is None:
                        bucket.lower_to(old.level_at(now), now)

    def handle(self, message: QuotaMail, context: Context) -> None:
        """Take one message."""
        match message:
            case Reserve():
                context.reply(self._on_reserve(message, context.now()))
            case Settle():
                self._on_settle(message, context.now())
            case ReservationsRestored():
                self.out = {reservation.reservation_id: reservation.tokens for reservation in message.reservations}
            case QuotaReconfigured():
                self._on_reconfigured(message, context.now())
            case _:
                assert_never(message)

    def invariant(self) -> str | None:
        """What is broken, or None."""
        for name, bucket in ((REQUESTS, self.requests), (TOKENS, self.tokens)):
            if bucket is not None and (flaw := bucket.flaw()) is not None:
                return f"{name}: {flaw}"
        return None

    def _on_reserve(self, message: Reserve, now: float) -> Reserved | QuotaRefused:
        reservation_id, tokens = message.reservation_id, message.tokens
        if reservation_id in self.out:
            return Reserved(reservation_id)
        most = self.limits.max_concurrency
        if most is not None and len(self.out) >= most:
            return QuotaRefused(reservation_id, self.name, CONCURRENCY, most)
        # Both are asked before either is taken from; the later one tells when to come back.
        found: QuotaRefused | None = None
        for limit, allowed, bucket, amount in (
            (REQUESTS, self.limits.requests_per_minute, self.requests, 1.0),
            (TOKENS, self.limits.tokens_per_minute, self.tokens, float(tokens)),
        ):
            if bucket is None or allowed is None:
                continue
            ready = bucket.ready_at(amount, now)
            if ready is None or (ready > now and (found is None or ready > (found.retry_at or now))):
                found = QuotaRefused(reservation_id, self.name, limit, allowed, ready)
        if found is not None:
            return found
        if self.requests is not None:
            self.requests.take(1.0, now)
        if self.tokens is not None:
            self.tokens.take(float(tokens), now)
        self.out[reservation_id] = tokens
        return Reserved(reservation_id)

    def _on_settle(self, message: Settle, now: float) -> None:
        reserved = self.out.pop(message.reservation_id, None)
        if reserved is None:
            self.unknown_ends += 1
            return
        used = message.tokens
        if used is None and self.requests is not None:
            self.requests.give(1.0, now)
        if self.tokens is None:
            return
        unused = reserved - (used or 0)
        if unused > 0:
            self.tokens.give(float(unused), now)
        elif unused < 0:
            self.tokens.take(float(-unused), now)

    def _on_reconfigured(self, message: QuotaReconfigured, now: float) -> None:
        if message.generation < self.generation:
            return
        self.limits, self.generation = message.limits, message.generation
        self.requests = resized(self.requests, request_bucket(self.limits, now, is_full=True), now)
        self.tokens = resized(self.tokens, token_bucket(self.limits, now, is_full=True), now)
