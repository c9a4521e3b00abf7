"""Fair turns between tenants: deficit round robin by tokens, in which priority counts as it does within a tenant.

Owns: of one line, the waiters nobody has called yet, sorted by tenant, and what each tenant may still take in its round.
Always: tenants of which somebody waits all the time get the same tokens in any stretch of turns, but for an allowance, two
of the largest requests, and once the head start of a priority. Nobody is starved: whoever waits for its first turn
falls behind only those that come before its head start is over. A tenant without waiters leaves nothing behind.

Deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): a tenant takes turns while its allowance pays for them, and then
goes behind the others with a new one on top of what is left. Where a tenant stands is a time here, so that the law of
priority holds between tenants as it does within one: it joins where its first in line stands by arrival and head start,
and behind the others is where the last of them stands, but no later than if that first came now. So a flood is not the
older for being long, and who is more urgent goes first until the others have waited as long as its head start is.

The allowance is the mean of all that wait here, so that a round is about one request of each tenant at any scale, and no pick
passes more tenants by than there are waiters (k rounds in vain mean that every first costs more than k means). Putting,
picking and cancelling find their place by bisection.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

OVERDRAFT = 0.25
"""Of an allowance a tenant may take ahead, so that requests of about the same size take turns one by one."""

Place = tuple[float, int]
"""Of a waiter: the time (monotonic s) it counts as having come, which is earlier by its head start, and its number."""


@dataclass(slots=True, eq=False)
class Account:
    """A tenant with waiters."""

    tenant: str
    stand: Place
    """Where it stands in the round: a time as of a waiter, and a number that tells those of the same time apart."""
    early_s: float
    """The head start of its first, which is part of that."""
    left: float
    """Tokens it may still take in this round."""
    is_first_round: bool = True
    tokens: int = 0
    """Of all its waiters."""
    places: list[Place] = field(default_factory=list)
    """Sorted."""

    def start(self) -> Place:
        """When its round began, monotonic s, and its number: where it stands without its head start."""
        return self.stand[0] + self.early_s, self.stand[1]


@dataclass(slots=True)
class Charge:
    """What a turn cost its tenant, to be given back if nothing came of it."""

    tokens: float
    """Taken from the allowance; nothing if the tenant was alone and had used it up."""
    start: Place
    """Of the round it was taken in."""


@dataclass(slots=True)
class _Waiter:
    account: Account
    tokens: int
    early_s: float


class FairQueue:
    """Who is next. Times are monotonic seconds; nothing here knows a clock."""

    __slots__ = ("_accounts", "_count", "_round", "_tokens", "_waiters")

    def __init__(self) -> None:
        self._waiters: dict[Place, _Waiter] = {}
        self._accounts: dict[str, Account] = {}
        self._round: list[tuple[Place, Account]] = []
        """The tenants in order. No two have the same stand, so that accounts are never compared."""
        self._count = 0
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def __contains__(self, place: Place) -> bool:
        return place in self._waiters

    def put(self, place: Place, tenant: str, tokens: int, early_s: float, back: Charge | None = None) -> None:
        """Let somebody wait, with a head start of ``early_s``. ``back``: its turn came to nothing and is to cost nothing."""
        self._tokens += tokens
        allowance = self._tokens / (len(self._waiters) + 1)
        account = self._accounts.get(tenant)
        is_new = account is None
        if account is None:
            self._count += 1
            account = self._accounts[tenant] = Account(tenant, (place[0], self._count), early_s, allowance)
            if back is not None:
                account.left = max(allowance, back.tokens)
        elif back is not None:
            account.left = min(account.left, allowance) + back.tokens
        self._waiters[place] = _Waiter(account, tokens, early_s)
        account.tokens += tokens
        insort(account.places, place)
        if is_new:
            insort(self._round, (account.stand, account))
        start = account.start()
        if account.is_first_round:
            start = min(start, (place[0] + early_s, start[1]))
        self._move(account, start if back is None else min(start, back.start))

    def discard(self, place: Place) -> None:
        """Forget a waiter; one that is not here is ignored. Its tenant pays nothing."""
        waiter = self._waiters.pop(place, None)
        if waiter is None:
            return
        account = waiter.account
        del account.places[bisect_left(account.places, place)]
        self._tokens -= waiter.tokens
        account.tokens -= waiter.tokens
        if account.places:
            self._move(account, account.start())
        else:
            self._step_out(account)
            del self._accounts[account.tenant]

    def pick(self, now: float) -> tuple[Place, Charge] | None:
        """Take out who is next, and charge its tenant; None: nobody waits."""
        while self._round:
            account = self._round[0][1]
            place = account.places[0]
            tokens = self._waiters[place].tokens
            allowance = self._tokens / len(self._waiters)
            # A tenant alone owes nobody anything.
            if tokens <= account.left + OVERDRAFT * allowance or len(self._round) == 1:
                left = max(account.left - tokens, min(account.left, -OVERDRAFT * allowance))
                charge = Charge(account.left - left, account.start())
                account.left = left
                self.discard(place)
                return place, charge
            account.left += allowance
            self._go_behind(account, now)
        return None

    def ahead_of(self, tenant: str, tokens: int) -> int:
        """Tokens that would be served before somebody of ``tenant`` who came now were, its own ``tokens`` included.

        Of each other tenant that is what it gets while this one gets as much.
        """
        account = self._accounts.get(tenant)
        own = tokens if account is None else account.tokens + tokens
        return own + sum(min(other.tokens, own) for name, other in self._accounts.items() if name != tenant)

    def fault(self) -> str | None:
        """None while waiters, tenants and round agree."""
        if sorted(self._waiters) != sorted(place for account in self._accounts.values() for place in account.places):
            return "the waiters are not those of the tenants"
        if [account for _, account in self._round] != sorted(self._accounts.values(), key=lambda account: account.stand):
            return f"{len(self._round)} tenants in the round, {len(self._accounts)} with waiters"
        return None

    def _go_behind(self, account: Account, now: float) -> None:
        """Begin a new round for a tenant."""
        self._step_out(account)
        self._count += 1
        last = min(self._round[-1][0][0], now - account.early_s)
        account.stand = (max(account.stand[0], last), self._count)
        account.is_first_round = False
        insort(self._round, (account.stand, account))

    def _move(self, account: Account, start: Place) -> None:
        """Put a tenant where it stands if its round began at ``start``, by the head start of who is its first now."""
        early_s = self._waiters[account.places[0]].early_s
        if early_s != account.early_s or start < account.start():
            self._step_out(account)
            account.stand, account.early_s = (start[0] - early_s, start[1]), early_s
            insort(self._round, (account.stand, account))

    def _step_out(self, account: Account) -> None:
        del self._round[bisect_left(self._round, (account.stand,))]
