"""What must hold in every run of the whole house, whatever happens in it: permits, limits, circuits.

It knows the mail and the answers to awards, and counts for itself; of the actors it believes only which limits they were
given when, and in which epoch a circuit is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from actors.kernel import Actor
from actors.provider.actor import ProviderActor
from actors.provider.circuit import Circuit, Open
from actors.usage import tokens_used
from messages.calls import Award, CallEnded, Granted, Outcome, Refused
from messages.control import LimitsSpec, ProviderSpec, Reconfigure
from messages.envelope import Envelope
from runtime.daemon import House
from runtime.system.replies import Ask, Heard


@dataclass
class Permit:
    """One permit as it went through the mail. Times in virtual seconds."""

    provider: str
    awarded_at: float
    granted_at: float | None = None
    refusal: str = ""
    ended_at: float | None = None
    outcome: Outcome | None = None
    ends: int = 0


@dataclass
class Draw:
    """Tokens that one call was admitted with. Times in virtual seconds."""

    at: float
    reserved: int
    number: int
    """In the order of grants and ends at its provider."""
    size: float
    """What the bucket could hold then."""
    used: int = 0
    settled: float = inf
    """The number of its end, as far as its provider saw it; until then what was reserved counts."""

    def charge(self, number: int) -> int:
        """What it counts for when ``number`` is admitted."""
        return self.used if self.settled < number else self.reserved


@dataclass
class Terms:
    """Limits of one provider over time."""

    since: list[tuple[float, LimitsSpec]] = field(default_factory=list)

    @classmethod
    def always(cls, limits: LimitsSpec) -> "Terms":
        """The same from the beginning on."""
        return cls([(0.0, limits)])

    def change(self, now: float, limits: LimitsSpec) -> None:
        """From ``now`` on (virtual s) others hold."""
        if not self.since or self.since[-1][1] != limits:
            self.since.append((now, limits))

    def begin_anew(self, now: float) -> None:
        """Another actor of the name begins, with full buckets: no window reaches over this moment."""
        if self.since:
            self.since.append((now, LimitsSpec()))

    def most(self, since: float, until: float) -> float:
        """Requests that may be admitted within a window: what a bucket can hold at its start, and what flows in."""
        ends = [at for at, _ in self.since[1:]] + [inf]
        held = [(limits, at, end) for (at, limits), end in zip(self.since, ends, strict=True) if end >= since and at <= until]
        if any(limits.requests_per_minute is None for limits, _, _ in held):
            return inf
        flow = sum((min(end, until) - max(at, since)) * (limits.requests_per_minute or 0.0) / 60.0 for limits, at, end in held)
        return flow + max((burst_of(limits) for limits, at, _ in held if at <= since), default=inf)

    def of_tokens(self) -> "Terms":
        """The same terms in tokens."""
        return Terms([(at, in_tokens(limits)) for at, limits in self.since])


class PermitWatch:
    """Follows every permit, and keeps what breaks a law."""

    def __init__(self, specs: Sequence[ProviderSpec], now: Callable[[], float]) -> None:
        self._now = now
        self._limits = {spec.id: spec.limits for spec in specs}
        """In force, by provider."""
        self._terms: dict[str, Terms] = {}
        self._trials: dict[tuple[str, str, int], dict[str, None]] = {}
        """Trial calls that are out, by provider, circuit and its epoch."""
        self._house: House | None = None
        self._out: dict[str, int] = {}
        """Permits granted and not ended, by provider."""
        self.permits: dict[str, Permit] = {}
        self.wrongs: list[str] = []
        self.longest_mailbox = 0
        self.most_out: dict[str, int] = {}
        self.most_trials = 0
        self._draws: dict[str, dict[str, Draw]] = {}
        """By provider and permit, in the order of grants."""
        self._numbers = 0

    def follow(self, house: House) -> None:
        """See the answers to awards too: they go to whoever asked, not through the journal."""
        self._house = house
        put = house.system.put

        def seen(to: Any, message: Any, deadline: Any = None, trace: Any = None, sender: str = "", look: Any = None) -> Ask:
            if not isinstance(message, Award):
                return put(to, message, deadline, trace, sender, look)

            def noted(answer: Any) -> None:
                self._answered(message, answer)
                look.heard(answer)

            return put(to, message, deadline, trace, sender, Heard(noted))

        vars(house.system)["put"] = seen

    def see(self, to: str, envelope: Envelope) -> None:
        """An envelope is posted."""
        message = envelope.message
        cell = self._house.system._dispatcher.cells.get(to) if self._house is not None else None
        if cell is not None:
            self.longest_mailbox = max(self.longest_mailbox, len(cell.queue))
        if isinstance(message, Award):
            if message.permit_id in self.permits:
                self.wrongs.append(f"permit {message.permit_id} was awarded twice")
            self.permits[message.permit_id] = Permit(to.removeprefix("provider:"), self._now())
        elif isinstance(message, CallEnded) and to.startswith("provider:"):
            self._ended(message)

    def meet(self, actor: Actor, is_first: bool) -> None:
        """An incarnation of an actor begins. ``is_first``: it has no predecessor."""
        if isinstance(actor, ProviderActor):
            terms = self._terms.setdefault(actor.spec.id, Terms())
            if is_first:
                terms.begin_anew(self._now())
            self._note_limits(actor)

    def guard(self, actor: Any, message: Any, handle: Callable[[], None]) -> None:
        """Let an actor take a message.

        A provider must grant nothing while one of its circuits is open and its time is not come, nor more trials than it has.
        Only calls that explore pass an open circuit; never one that is open for a bad key.
        """
        if isinstance(actor, ProviderActor) and isinstance(message, CallEnded):
            self._note_use(actor, message)
        if not (isinstance(actor, ProviderActor) and isinstance(message, Award | Reconfigure)):
            handle()
            return
        now = self._now()
        explores = isinstance(message, Award) and message.explores
        held = (is_held(actor.standing.circuit, now) and not explores) or is_held(actor.standing.credential, now)
        before = actor.requests
        handle()
        if isinstance(message, Reconfigure):
            self._note_limits(actor)
        elif actor.requests != before:
            if held:
                self.wrongs.append(f"{actor.spec.id} granted {message.permit_id} at {now} while its circuit was open")
            self._note_trials(actor, message.permit_id)
            size = burst_of(in_tokens(self._limits[actor.spec.id]))
            self._draws.setdefault(actor.spec.id, {})[message.permit_id] = Draw(now, message.tokens, self._next(), size)

    def _note_use(self, actor: ProviderActor, end: CallEnded) -> None:
        """A call that the actor knows of ends, and with it what it used is known."""
        draw = self._draws.get(actor.spec.id, {}).get(end.permit_id)
        if draw is not None and end.permit_id in actor.permits:
            draw.used = tokens_used(end.outcome, end.usage, end.failure, draw.reserved) or 0
            draw.settled = self._next()

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def _note_limits(self, actor: ProviderActor) -> None:
        name, limits = actor.spec.id, actor.spec.limits
        self._limits[name] = limits
        self._terms.setdefault(name, Terms()).change(self._now(), limits)

    def _note_trials(self, actor: ProviderActor, permit_id: str) -> None:
        if self.permits[permit_id].ends:
            # Its courier has left and said so: that lies behind the award in the mailbox, and nothing will be sent.
            return
        permit, most = actor.permits[permit_id], max(1, actor.spec.circuit.half_open_calls)
        for circuit, ticket in (("circuit", permit.circuit), ("credential", permit.credential)):
            if ticket.is_trial:
                out = self._trials.setdefault((actor.spec.id, circuit, ticket.epoch), {})
                out[permit_id] = None
                self.most_trials = max(self.most_trials, len(out))
                if len(out) > most:
                    self.wrongs.append(f"{actor.spec.id} has {len(out)} trials out, {most} are allowed")

    def granted(self, provider: str) -> list[Permit]:
        """Permits a provider granted, in order."""
        return [permit for permit in self.permits.values() if permit.provider == provider and permit.granted_at is not None]

    def _answered(self, award: Award, answer: Any) -> None:
        permit = self.permits[award.permit_id]
        if isinstance(answer, Refused):
            permit.refusal = answer.reason
            # It may have been granted in a turn that came to nothing.
            self._forget_trial(award.permit_id)
        elif isinstance(answer, Granted):
            permit.granted_at = self._now()
            name = permit.provider
            self._out[name] = self._out.get(name, 0) + 1
            self.most_out[name] = max(self.most_out.get(name, 0), self._out[name])
            limit = self._limits[name].max_concurrency
            if limit is not None and self._out[name] > limit:
                self.wrongs.append(f"{name} has {self._out[name]} calls out at {self._now()}, its limit is {limit}")

    def _ended(self, end: CallEnded) -> None:
        permit = self.permits.get(end.permit_id)
        if permit is None:
            self.wrongs.append(f"the end of {end.permit_id}, which was never awarded")
            return
        permit.ends += 1
        permit.ended_at, permit.outcome = self._now(), end.outcome
        if permit.granted_at is not None:
            self._out[permit.provider] -= 1
        self._forget_trial(end.permit_id)

    def _forget_trial(self, permit_id: str) -> None:
        for out in self._trials.values():
            out.pop(permit_id, None)

    def at_the_end(self) -> list[str]:
        """What is wrong when all is over."""
        wrongs = list(self.wrongs)
        for permit_id, permit in self.permits.items():
            owed = 0 if permit.refusal else 1
            if permit.ends != owed:
                wrongs.append(f"permit {permit_id} has {permit.ends} ends, not {owed}: {permit}")
        for name, terms in self._terms.items():
            sent = [p.granted_at for p in self.granted(name) if p.outcome is not Outcome.NOT_SENT and p.granted_at is not None]
            wrongs.extend(f"{name}: {wrong}" for wrong in over_rate(sent, terms))
            draws = [
                draw for permit_id, draw in self._draws.get(name, {}).items() if self.permits[permit_id].granted_at is not None
            ]
            wrongs.extend(f"{name}: {wrong}" for wrong in over_tokens(draws, terms))
        return wrongs


def is_held(circuit: Circuit, now: float) -> bool:
    """Open, and the wait is not over."""
    return isinstance(circuit.state, Open) and now < circuit.state.until


def burst_of(limits: LimitsSpec) -> float:
    """Requests the bucket of ``limits`` can hold; ``inf`` if they limit none."""
    return inf if limits.requests_per_minute is None else limits.requests_per_minute if limits.burst is None else limits.burst


def in_tokens(limits: LimitsSpec) -> LimitsSpec:
    """The token bucket of ``limits`` as if it were one of requests: its burst is in proportion to theirs."""
    per_minute = limits.tokens_per_minute
    if per_minute is None or limits.burst is None or not limits.requests_per_minute:
        return LimitsSpec(per_minute)
    return LimitsSpec(per_minute, burst=per_minute * limits.burst / limits.requests_per_minute)


def over_rate(sent: Sequence[float], terms: Terms) -> list[str]:
    """Windows in which more was sent than limit x window + burst."""
    if all(limits.requests_per_minute is None for _, limits in terms.since):
        return []
    wrongs = []
    for first, since in enumerate(sent):
        for last in range(first, len(sent)):
            most = terms.most(since, sent[last])
            if most == inf:
                break
            if last - first + 1 > most + 1e-3:
                wrongs.append(f"{last - first + 1} requests between {since} and {sent[last]}, at most {most} may be")
                break
    return wrongs


def over_tokens(draws: Sequence[Draw], terms: Terms) -> list[str]:
    """Windows in which more tokens were admitted than limit x window + burst; one line for each call that was one too many.

    What counts is what was known when the call was admitted: what those before it have used, where their end was seen, else
    what was reserved for them. Of the call itself no more counts than the bucket holds: a larger one goes into debt.
    """
    held = terms.of_tokens()
    if all(limits.requests_per_minute is None for _, limits in held.since):
        return []
    least = min(burst_of(limits) for _, limits in held.since)
    wrongs = []
    for last, draw in enumerate(draws):
        total = min(float(draw.reserved), draw.size)
        for earlier in reversed(draws[:last]):
            total += earlier.charge(draw.number)
            if total <= least:
                continue
            most = held.most(earlier.at, draw.at)
            if most == inf:
                break
            if total > most + 1.0:
                wrongs.append(f"{total:.0f} tokens between {earlier.at} and {draw.at}, at most {most:.0f} may be")
                break
    return wrongs
