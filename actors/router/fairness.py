"""Fair turns between tenants: deficit round robin by tokens, in which a tenant's place in the round grows with its age.

Owns: of one line, the waiters nobody has called yet, sorted by tenant, and what each tenant may still take in its round.
Always: tenants that have somebody waiting all the time get, of any stretch of turns of equal priority, the same tokens but for
a round's allowance and two of the largest requests, whatever the sizes and the number of their requests. A tenant without
waiters leaves nothing behind. Nobody is starved: whoever waits falls behind only those that begin a round sooner than its
priority's head start after it.

Deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): a tenant takes turns while its allowance pays for them, and then
goes behind the others with a new allowance on top of what is left. Behind the others is here a matter of time, so that the law
of priority holds between tenants as it does within one: they stand in the order in which they came, less the head start of
their first in line, and one whose allowance is used up comes anew. So a flood never grows old as a whole.

The allowance is the mean of all that wait here, so that a round is about one request of each tenant at any scale, and no pick
passes more tenants by than there are waiters (k rounds in vain mean that every first costs more than k means). Putting,
picking and cancelling find their place by bisection.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from math import inf

Place = tuple[float, int]
"""Of a waiter: the time (monotonic s) it counts as having come, which is earlier by its head start, and its number."""


@dataclass(slots=True, eq=False)
class Account:
    """A tenant with waiters."""

    tenant: str
    turn: int
    """Who came first of those that came at the same time."""
    left: float
    """Tokens it may still take in this round."""
    came_at: float
    """When its round began: the arrival of its first, or when the allowance before was used up. Monotonic s."""
    is_first_round: bool = True
    tokens: int = 0
    """Of all its waiters."""
    places: list[Place] = field(default_factory=list)
    """Sorted."""
    stand: tuple[float, int] = (inf, 0)
    """Where it stands in the round."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a turn cost its tenant, to be given back if nothing came of it."""

    tokens: int
    came_at: float


@dataclass(frozen=True, slots=True)
class _Waiter:
    account: Account
    tokens: int
    head_start_s: float


class FairQueue:
    """Who is next. Times are monotonic seconds; nothing here knows a clock."""

    __slots__ = ("_accounts", "_round", "_tokens", "_turns", "_waiters")

    def __init__(self) -> None:
        self._waiters: dict[Place, _Waiter] = {}
        self._accounts: dict[str, Account] = {}
        self._round: list[tuple[tuple[float, int], Account]] = []
        """The tenants in order. No two have the same stand, so that accounts are never compared."""
        self._turns = 0
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def __contains__(self, place: Place) -> bool:
        return place in self._waiters

    def put(self, place: Place, tenant: str, tokens: int, head_start_s: float, back: Charge | None = None) -> None:
        """Let somebody wait. ``back``: it had its turn and nothing came of it, so its tenant gets that back."""
        self._tokens += tokens
        allowance = self._tokens / (len(self._waiters) + 1)
        account = self._accounts.get(tenant)
        if account is None:
            self._turns += 1
            account = self._accounts[tenant] = Account(tenant, self._turns, allowance, place[0] + head_start_s)
            if back is not None:
                account.left = max(allowance, back.tokens)
        else:
            self._step_out(account)
            if account.is_first_round:
                account.came_at = min(account.came_at, place[0] + head_start_s)
            if back is not None:
                account.left = min(account.left, allowance) + back.tokens
        if back is not None:
            account.came_at = min(account.came_at, back.came_at)
        self._waiters[place] = _Waiter(account, tokens, head_start_s)
        account.tokens += tokens
        insort(account.places, place)
        self._step_in(account)

    def discard(self, place: Place) -> None:
        """Forget a waiter; one that is not here is ignored. Its tenant pays nothing."""
        waiter = self._waiters.pop(place, None)
        if waiter is None:
            return
        account = waiter.account
        self._step_out(account)
        del account.places[bisect_left(account.places, place)]
        self._tokens -= waiter.tokens
        account.tokens -= waiter.tokens
        if account.places:
            self._step_in(account)
        else:
            del self._accounts[account.tenant]

    def pick(self, now: float) -> tuple[Place, Charge] | None:
        """Take out who is next, and charge its tenant; None: nobody waits."""
        while self._round:
            account = self._round[0][1]
            place = account.places[0]
            tokens = self._waiters[place].tokens
            # A tenant alone owes nobody anything.
            if tokens <= account.left or len(self._round) == 1:
                account.left = max(account.left - tokens, 0.0)
                charge = Charge(tokens, account.came_at)
                self.discard(place)
                return place, charge
            self._step_out(account)
            self._turns += 1
            account.turn = self._turns
            account.left += self._tokens / len(self._waiters)
            account.came_at, account.is_first_round = now, False
            self._step_in(account)
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

    def _step_in(self, account: Account) -> None:
        account.stand = (account.came_at - self._waiters[account.places[0]].head_start_s, account.turn)
        insort(self._round, (account.stand, account))

    def _step_out(self, account: Account) -> None:
        del self._round[bisect_left(self._round, (account.stand,))]
