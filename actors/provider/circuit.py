"""The circuit breaker: when a provider (or our key there) gets no calls, and how it comes back.

State machine, one small type per state::

    Closed --N failures in a row, or failure_rate over window_s--> Open
    Open   --good probe after the wait; the wait itself without probes--> HalfOpen
    Open   --bad probe after the wait--> Open, wait doubled (to ``open_max_s``, 10 minutes)
    HalfOpen --a trial shows content or ends well--> Closed, wait forgotten
    HalfOpen --a trial fails--> Open, wait doubled
    HalfOpen --a trial ends and says nothing (cancel, 429, client's error)--> HalfOpen, slot given back

Always: at most ``half_open_calls`` trials are out at once, because the circuit hands them out; every change of state
starts a new epoch, and a ticket of an earlier epoch moves no state; no state is for ever. The last needs two rules of
its own. With probes on, trials are admitted ``open_for_s`` after the wait even if no probe ever reports: a lost prober
must not bench a provider. And once the wait has grown to its longest, even a bad probe admits a trial: a probe asks a
free endpoint, which may be broken where the calls are not.

Source of the pattern: Nygard, "Release It!"; epochs ("generations") as in sony/gobreaker and failsafe-go.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from actors.provider.rate_window import RateWindow
from messages.control import CircuitSpec
from messages.health import CircuitState

WAIT_S_MAX = 600.0
"""The longest wait in s for a model that was not there; that of a circuit is ``CircuitSpec.open_max_s``."""

TRIAL_RECHECK_S = 0.5
"""While all trials are out: after so many s it is worth asking again."""


class Ticket(NamedTuple):
    """What a call carries from its admission to its end."""

    epoch: int
    is_trial: bool


NO_TICKET = Ticket(-1, False)
"""Of a call this incarnation did not admit: it moves no state."""


class Verdict(Enum):
    """What the circuit says to a call."""

    PASS = "pass"
    TRIAL = "trial"
    WAIT = "wait"


@dataclass(slots=True)
class Closed:
    """Calls pass. ``in_a_row`` failures since the last success."""

    in_a_row: int
    recent: RateWindow


@dataclass(slots=True)
class Open:
    """No calls before ``until`` (monotonic s). ``wait_s`` is what the next one doubles."""

    until: float
    wait_s: float


@dataclass(slots=True)
class HalfOpen:
    """Up to ``slots`` trial calls at once, ``trials`` of them out."""

    wait_s: float
    slots: int
    trials: int = 0


class Circuit:
    """One breaker. ``has_probes``: somebody will report probes of it."""

    __slots__ = ("epoch", "has_probes", "is_closed", "passing", "spec", "state")

    def __init__(self, spec: CircuitSpec, has_probes: bool, epoch: int = 0) -> None:
        self.spec = spec
        self.has_probes = has_probes
        self.epoch = epoch
        self.state: Closed | Open | HalfOpen = self._fresh()
        self.is_closed = True
        """Calls pass. The same as the state, to be had for one look: every bid and award asks."""
        self.passing = Ticket(epoch, False)
        """The ticket of all calls that pass in this epoch."""

    def __repr__(self) -> str:
        match self.state:
            case Closed(in_a_row):
                return f"closed, {in_a_row} failures in a row, epoch {self.epoch}"
            case Open(until, wait_s):
                return f"open until {until:.3f} (wait {wait_s:g} s), epoch {self.epoch}"
            case HalfOpen(_, slots, trials):
                return f"half-open, {trials} of {slots} trials out, epoch {self.epoch}"

    @property
    def name(self) -> CircuitState:
        """The state as reports name it."""
        match self.state:
            case Closed():
                return CircuitState.CLOSED
            case Open():
                return CircuitState.OPEN
            case HalfOpen():
                return CircuitState.HALF_OPEN

    @property
    def trials(self) -> int:
        """Trial calls that are out."""
        return self.state.trials if isinstance(self.state, HalfOpen) else 0

    def verdict(self, now: float) -> Verdict:
        """What a call would be told at ``now`` (s). Changes nothing."""
        state = self.state
        match state:
            case Closed():
                return Verdict.PASS
            case Open():
                return Verdict.TRIAL if now >= self._admits_at(state) else Verdict.WAIT
            case HalfOpen(_, slots, trials):
                return Verdict.TRIAL if trials < slots else Verdict.WAIT

    def retry_at(self, now: float) -> float | None:
        """When (s) it is worth asking again after ``Verdict.WAIT``; None where the verdict is another."""
        state = self.state
        match state:
            case Open(until):
                later = until if now < until else self._admits_at(state)
                return later if later > now else None
            case HalfOpen(_, slots, trials):
                return now + TRIAL_RECHECK_S if trials >= slots else None
            case Closed():
                return None

    def room(self) -> int | None:
        """Trials that may still go out; None: the circuit does not limit."""
        match self.state:
            case HalfOpen(_, slots, trials):
                return max(0, slots - trials)
            case Open():
                return self._slots()
            case Closed():
                return None

    def admit(self, now: float) -> Ticket | None:
        """Let a call through and give it its ticket; None: it must wait."""
        if self.is_closed:
            return self.passing
        if self.verdict(now) is Verdict.WAIT:
            return None
        if isinstance(self.state, Open):
            self._half_open(self.state.wait_s)
        if isinstance(self.state, HalfOpen):
            self.state.trials += 1
        return Ticket(self.epoch, True)

    def succeeded(self, ticket: Ticket, now: float) -> bool:
        """A call showed content or ended well. True if that closed the circuit."""
        if ticket.epoch != self.epoch:
            return False
        state = self.state
        if isinstance(state, Closed):
            state.in_a_row = 0
            if self.spec.failure_rate is not None:
                state.recent.record(False, now)
            return False
        if isinstance(state, HalfOpen):
            self._enter(self._fresh())
            return True
        return False

    def failed(self, ticket: Ticket, now: float) -> bool:
        """A call failed by the provider's fault. True if that opened the circuit."""
        if ticket.epoch != self.epoch:
            return False
        match self.state:
            case Closed():
                return self._count_failure(self.state, now)
            case HalfOpen(wait_s):
                self._open(self._doubled(wait_s), now)
                return True
            case Open():
                return False

    def ignored(self, ticket: Ticket) -> bool:
        """A call ended and says nothing about the provider. True if that gave a trial's slot back."""
        if ticket.is_trial and ticket.epoch == self.epoch and isinstance(self.state, HalfOpen):
            self.state.trials -= 1
            return True
        return False

    def probed(self, is_good: bool, now: float) -> bool:
        """A probe reported. True if that admitted trials. Before the wait is over it changes nothing."""
        if not isinstance(self.state, Open) or now < self.state.until:
            return False
        wait_s = self.state.wait_s
        if is_good or wait_s >= self.spec.open_max_s:
            self._half_open(wait_s)
            return True
        self._open(self._doubled(wait_s), now)
        return False

    def wants_probe(self, now: float) -> bool:
        """Open, and the wait is over."""
        return isinstance(self.state, Open) and now >= self.state.until

    def trip(self, now: float) -> None:
        """Open at once, whatever was counted."""
        self._open(self.spec.open_for_s, now)

    def reset(self) -> None:
        """Closed, with nothing counted and the wait forgotten."""
        self._enter(self._fresh())

    def reconfigure(self, spec: CircuitSpec, has_probes: bool) -> None:
        """New constants; the state stays, and a half-open one keeps the slots it began with."""
        if spec.window_s != self.spec.window_s and isinstance(self.state, Closed):
            self.state.recent = RateWindow(spec.window_s)
        self.spec = spec
        self.has_probes = has_probes

    def after_crash(self, stays_closed: bool) -> "Circuit":
        """The circuit of a successor: open stays open with the same wait, else half-open (or closed if ``stays_closed``)."""
        heir = Circuit(self.spec, self.has_probes, self.epoch + 1)
        match self.state:
            case Open(until, wait_s):
                heir._enter(Open(until, wait_s))
            case HalfOpen(wait_s):
                heir._half_open(wait_s)
            case Closed():
                if not stays_closed:
                    heir._half_open(self.spec.open_for_s)
        return heir

    def flaw(self) -> str | None:
        """What is broken, or None."""
        if self.is_closed != isinstance(self.state, Closed):
            return f"closed: {self.is_closed}, state {self.state}"
        if isinstance(self.state, HalfOpen) and not 0 <= self.state.trials <= self.state.slots:
            return f"{self.state.trials} trials out of {self.state.slots}"
        return None

    def _admits_at(self, state: Open) -> float:
        return state.until + (self.spec.open_for_s if self.has_probes else 0.0)

    def _count_failure(self, state: Closed, now: float) -> bool:
        state.in_a_row += 1
        is_over = state.in_a_row >= self.spec.failures
        if self.spec.failure_rate is not None:
            state.recent.record(True, now)
            calls, failures = state.recent.totals(now)
            is_over = is_over or (calls >= self.spec.minimum_calls and failures >= self.spec.failure_rate * calls)
        if is_over:
            self._open(self.spec.open_for_s, now)
        return is_over

    def _fresh(self) -> Closed:
        return Closed(0, RateWindow(self.spec.window_s))

    def _open(self, wait_s: float, now: float) -> None:
        self._enter(Open(now + wait_s, wait_s))

    def _half_open(self, wait_s: float) -> None:
        self._enter(HalfOpen(wait_s, self._slots()))

    def _slots(self) -> int:
        return max(1, self.spec.half_open_calls)

    def _enter(self, state: Closed | Open | HalfOpen) -> None:
        self.state = state
        self.is_closed = isinstance(state, Closed)
        self.epoch += 1
        self.passing = Ticket(self.epoch, False)

    def _doubled(self, wait_s: float) -> float:
        return max(wait_s, min(2.0 * wait_s, self.spec.open_max_s))
