"""The aggregator: what was used, by provider and by model, since start (FEATURES A6).

Owns: one line of counts for each provider and each model it has heard of, at most ``NAMES_LIMIT`` each; further names are
counted together under ``other``, so that misspelt names cannot grow memory.
Accepts: ``CallEnded`` (told by couriers), ``GetStats`` (asked by the admin API).
Always: money and tokens are added as integers; a call whose failure is the client's own is no provider's failure; a call that
was never sent is not counted.
"""

from math import exp, floor, log
from typing import assert_never

from ddsketch.ddsketch import LogCollapsingLowestDenseDDSketch

from actors.kernel import Context, Resident
from messages.calls import AttemptKind, CallEnded, Outcome
from messages.failures import Blame, Scope
from messages.stats import GetStats, Stats, UsageLine

AggregatorMail = CallEnded | GetStats
"""What the aggregator takes."""

NAMES_LIMIT = 1000
NAME_LENGTH_LIMIT = 256
"""A longer name is counted under ``other``: names of models come from clients."""
OTHER = "other"

EMA_ALPHA = 0.1
RELATIVE_ERROR = 0.01
BINS_LIMIT = 1024
"""At 1 % a bin is 2 % wide, so this many reach from 1 µs to 800 s; 8 KiB for a line at most."""

_BINS_PER_E = 1.0 / log((1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR))
_LEAST_S, _MOST_S = 1e-9, 1e6
"""A shorter time is none; a longer one is counted as this: nobody asks how much more than eleven days a call took."""
INFINITE = float("inf")
# A member of an enum is no plain attribute of its class: looking it up costs as much as two calls.
_SUCCESS, _FAILED, _NOT_SENT, _LOST_HEDGE = Outcome.SUCCESS, Outcome.FAILED, Outcome.NOT_SENT, Outcome.LOST_HEDGE
_FIRST, _HEDGE, _EXPLORE = AttemptKind.FIRST, AttemptKind.HEDGE, AttemptKind.EXPLORE
_CLIENT = Blame.CLIENT


class AggregatorActor(Resident):
    """Its successor keeps the lines of its predecessor that add up."""

    def __init__(self, before: "AggregatorActor | None" = None) -> None:
        self._providers: dict[str, Line] = sound(before._providers) if before else {}
        self._models: dict[str, Line] = sound(before._models) if before else {}

    def start(self, context: Context) -> None:
        """Nothing to do: everything comes from couriers."""

    def handle(self, message: AggregatorMail, context: Context) -> None:
        """Take one message."""
        if isinstance(message, CallEnded):  # Every request brings one; ``isinstance`` costs a third of a ``case``.
            self._on_call_ended(message, context.wall())
            return
        match message:
            case GetStats():
                context.reply(Stats(usage_lines(self._providers), usage_lines(self._models)))
            case _:
                assert_never(message)

    def invariant(self) -> str | None:
        """Every line adds up, and there are not too many."""
        for lines in (self._providers, self._models):
            if len(lines) > NAMES_LIMIT + 1:
                return f"{len(lines)} lines are kept"
            for name in sorted(lines):
                if not lines[name].is_sound():
                    return f"the line of {name} does not add up"
        return None

    def _on_call_ended(self, ended: CallEnded, unix_s: float) -> None:
        if ended.outcome is _NOT_SENT:
            return
        provider = self._providers.get(ended.provider) or line_of(self._providers, ended.provider)
        model = self._models.get(ended.model)
        if model is None:
            model = line_of(self._models, OTHER if is_name_unknown_there(ended) else ended.model)
        provider.add(ended, unix_s)
        model.add(ended, unix_s)


class Waiting:
    """How many latencies are not yet in a line's sketch, by the bin they fall into there (some 1700 at most)."""

    __slots__ = ("counts", "least", "none")

    def __init__(self) -> None:
        self.none = 0
        """Of those that were no time at all: below all bins."""
        self.least = 0
        """The bin of the first of ``counts``, which reach as far as bins were met."""
        self.counts: list[int] = []

    def add(self, place: int) -> None:
        """One more in bin ``place``."""
        at = place - self.least
        if not 0 <= at < len(self.counts):
            at = self._reach(place)
        # Not in place: compiled, that would be an addition of objects.
        self.counts[at] = self.counts[at] + 1

    def total(self) -> int:
        """In all bins together."""
        return self.none + sum(self.counts)

    def _reach(self, place: int) -> int:
        counts = self.counts
        if not counts:
            self.least, self.counts = place, [0]
        elif place < self.least:
            self.counts = [0] * (self.least - place) + counts
            self.least = place
        else:
            counts += [0] * (place - self.least - len(counts) + 1)
        return place - self.least


class Line:
    """Counts of one name. Times in seconds."""

    __slots__ = (
        "average_s",
        "cancelled",
        "cost_nusd",
        "estimated",
        "explores",
        "failures",
        "hedges",
        "input_tokens",
        "last_at",
        "latencies",
        "least_s",
        "lost",
        "lost_cost_nusd",
        "most_s",
        "output_tokens",
        "requests",
        "successes",
        "unpriced",
        "waiting",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.successes = 0
        self.failures = 0
        self.cancelled = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.average_s = 0.0
        self.least_s = 0.0
        self.most_s = 0.0
        self.latencies = LogCollapsingLowestDenseDDSketch(RELATIVE_ERROR, BINS_LIMIT)
        self.waiting = Waiting()
        self.cost_nusd = 0
        self.unpriced = 0
        self.estimated = 0
        self.last_at = 0.0
        self.hedges = 0
        self.explores = 0
        self.lost = 0
        self.lost_cost_nusd = 0

    def add(self, ended: CallEnded, unix_s: float) -> None:
        """Count one call that ended at ``unix_s``."""
        self.requests += 1
        self.last_at = unix_s
        outcome, usage, cost_nusd = ended.outcome, ended.usage, ended.cost_nusd
        if outcome is _SUCCESS:
            self._add_success(ended)
        elif outcome is not _FAILED:
            self.cancelled += 1
            if outcome is _LOST_HEDGE:
                self.lost += 1
                self.lost_cost_nusd += cost_nusd or 0
        elif ended.failure is None or ended.failure.blame is not _CLIENT:
            self.failures += 1
        # What a broken or abandoned call has used is used all the same.
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
            if usage.estimated:
                self.estimated += 1
        if cost_nusd is not None:
            self.cost_nusd += cost_nusd
        kind = ended.kind
        if kind is not _FIRST:
            self.hedges += kind is _HEDGE
            self.explores += kind is _EXPLORE

    def _add_success(self, ended: CallEnded) -> None:
        latency_s = ended.duration_s
        if ended.stream and ended.first_content_s is not None:
            latency_s = ended.first_content_s
        # First, for these are the steps that can raise: a line that does not add up costs its history.
        if not 0.0 <= latency_s < INFINITE:
            raise OverflowError(f"a call of {latency_s} s")
        if latency_s >= _LEAST_S:
            self.waiting.add(floor(log(latency_s if latency_s < _MOST_S else _MOST_S) * _BINS_PER_E))
        else:
            self.waiting.none += 1
        if self.successes == 0:
            self.average_s = self.least_s = self.most_s = latency_s
        else:
            self.average_s += EMA_ALPHA * (latency_s - self.average_s)
            if latency_s < self.least_s:
                self.least_s = latency_s
            elif latency_s > self.most_s:
                self.most_s = latency_s
        self.successes += 1
        if ended.cost_nusd is None:
            self.unpriced += 1

    def _fold(self) -> None:
        """Put what waits into the sketch, for somebody wants to know: those of one bin at once, by a value within it."""
        waiting, self.waiting = self.waiting, Waiting()
        if waiting.none:
            self.latencies.add(0.0, float(waiting.none))
        for at, count in enumerate(waiting.counts):
            if count:
                self.latencies.add(exp((waiting.least + at + 0.5) / _BINS_PER_E), float(count))

    def is_sound(self) -> bool:
        """Whether the counts agree with each other."""
        verdicts = self.successes + self.failures + self.cancelled
        return verdicts <= self.requests and self.latencies.count + self.waiting.total() == self.successes >= self.unpriced

    def p95_s(self) -> float:
        """The latency that 95 of 100 successes did not exceed (nearest rank, so never less than asked); 0 without any."""
        if self.successes == 0:
            return 0.0
        self._fold()
        # The sketch finds the value at ``quantile x (count - 1)``, from 0, rounded down: half a rank more is the rank itself.
        rank = (95 * self.successes + 99) // 100 - 1
        quantile = 1.0 if rank + 1 == self.successes else (rank + 0.5) / (self.successes - 1)
        p95_s = self.latencies.get_quantile_value(quantile) or 0.0
        return min(max(p95_s, self.least_s), self.most_s)

    def usage(self, name: str) -> UsageLine:
        """The line as it is told. Times in milliseconds, 0 where there was no success."""
        return UsageLine(
            name=name,
            requests=self.requests,
            successes=self.successes,
            failures=self.failures,
            cancelled=self.cancelled,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            latency_avg_ms=self.average_s * 1000.0,
            latency_min_ms=self.least_s * 1000.0,
            latency_max_ms=self.most_s * 1000.0,
            latency_p95_ms=self.p95_s() * 1000.0,
            cost_nusd=self.cost_nusd,
            unpriced=self.unpriced,
            estimated=self.estimated,
            last_at=self.last_at,
            hedges=self.hedges,
            explores=self.explores,
            lost=self.lost,
            lost_cost_nusd=self.lost_cost_nusd,
        )


def line_of(lines: dict[str, Line], name: str) -> Line:
    """The line of ``name``, made if there is room for one more, else the line of the rest."""
    line = lines.get(name)
    if line is not None:
        return line
    if len(name) > NAME_LENGTH_LIMIT or (name != OTHER and len(lines) - (OTHER in lines) >= NAMES_LIMIT):
        return line_of(lines, OTHER)
    line = lines[name] = Line()
    return line


def is_name_unknown_there(ended: CallEnded) -> bool:
    """Whether the provider had no such model: such a name gets no line, or every misspelling would take one for ever."""
    return ended.failure is not None and ended.failure.scope is Scope.MODEL


def usage_lines(lines: dict[str, Line]) -> tuple[UsageLine, ...]:
    """All lines, sorted by name."""
    return tuple(lines[name].usage(name) for name in sorted(lines))


def sound(lines: dict[str, Line]) -> dict[str, Line]:
    """The lines that add up."""
    return {name: line for name, line in lines.items() if line.is_sound()}
