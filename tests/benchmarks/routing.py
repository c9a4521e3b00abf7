"""What a decision costs: from a ``RouteQuery`` put to the router to its plan, bids of real provider actors included.

    python -m tests.benchmarks.routing [--quick]

Three tables, all in µs for one decision on one core: strategies by number of providers of one model; rules that cannot match by
their number; models by their number. Each figure is the least of the means of many short rounds, for on a shared machine the
smallest is the one that others disturbed least; the rounds are made in three passes over the table, minutes apart. Between
decisions, not timed, the winner is called: it grants a permit and the call ends well, so that bids are made from live evidence.

Machines differ by more than the code does, so a run tells its yardstick too, taken between its other figures: a question fanned
out to three do-nothing mailboxes and back (``dispatched`` of ``tests.benchmarks.mailbox``).
"""

import asyncio
import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from time import perf_counter

import uvloop

from actors.provider.actor import ProviderActor
from actors.router.actor import RouterActor
from actors.router.strategies import STRATEGIES
from messages.calls import Award, CallEnded, ContentStarted, Outcome, Usage
from messages.control import ConfigSnapshot, HealthSpec, ModelSpec, ProviderSpec, RoutingSpec
from messages.policy import Action, ActionKind, Condition, ConditionKind, Rule
from messages.routing import Claimed, RequestProfile, RoutePlan, RouteQuery
from runtime.daemon import GC_THRESHOLDS
from runtime.system.clock import real_clock
from runtime.system.system import ActorSystem
from runtime.tree import CORE, PROVIDER
from tests.benchmarks.mailbox import dispatched

SIZES = (1, 3, 10, 16, 50, 200, 500)
RULES = (0, 10, 1000)
MODELS = (10, 10_000)
MODEL = "gpt-4o"
PROFILE = RequestProfile(MODEL, prompt_tokens=200, max_tokens=100, needs=("chat",))


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured."""

    decisions: int
    """In one round."""
    rounds: int


FULL, QUICK = Effort(40, 35), Effort(40, 2)
PASSES = 3


def providers(count: int, models: int = 1) -> tuple[ProviderSpec, ...]:
    """``count`` providers of one model at different prices; the first of them has ``models`` models in all."""
    price = [ModelSpec(MODEL, MODEL, 1.0 + number % 7, 2.0 + number % 5, 128_000) for number in range(count)]
    more = tuple(ModelSpec(f"model-{number}", f"model-{number}", 1.0, 2.0) for number in range(models - 1))
    return tuple(
        ProviderSpec(f"p{n}", "openai", "http://x", "c", (price[n], *(() if n else more)), weight=1 + n % 3, priority=n % 2)
        for n in range(count)
    )


def rules(count: int) -> tuple[Rule, ...]:
    """Rules that cannot match: each demands another model or another tenant, some with more to it."""
    found: list[Rule] = []
    for number in range(count):
        name = ConditionKind.MODEL if number % 2 else ConditionKind.TENANT
        demand = Condition(name, names=(f"other-{number}",))
        tools = Condition(ConditionKind.HAS_TOOLS)
        when = Condition(ConditionKind.ALL, (demand, tools)) if number % 3 else demand
        found.append(Rule(f"rule-{number}", number, True, when, (Action(ActionKind.STRATEGY, ("first",)),)))
    return tuple(found)


class House:
    """A router and its providers, as the daemon has them, without couriers and HTTP."""

    def __init__(self, snapshot: ConfigSnapshot) -> None:
        self._clock = real_clock()
        self._system = ActorSystem("seed", self._clock)
        router = self._system.spawn("router", lambda before: RouterActor(snapshot), CORE)
        self._router = router
        for spec in snapshot.providers:
            self._spawn(spec)
        self._count = 0

    def _spawn(self, spec: ProviderSpec) -> None:
        def make(before: object) -> ProviderActor:
            return ProviderActor(spec, HealthSpec(), 1, None, self._router)

        self._system.spawn(f"provider:{spec.id}", make, PROVIDER)

    async def decide(self) -> float:
        """One decision in seconds; then, not timed, the call it leads to."""
        self._count += 1
        query_id = f"q{self._count}"
        now = self._clock.now()
        query = RouteQuery(query_id, PROFILE, now + 600.0, now)
        started = perf_counter()
        asked = self._system.put("router", query, now + 600.0)
        plan = await self._system.wait_for(asked) if asked.is_open else asked.outcome()
        took_s = perf_counter() - started
        assert isinstance(plan, RoutePlan), plan
        self._call(plan, query_id)
        return took_s

    def _call(self, plan: RoutePlan, query_id: str) -> None:
        choice, tell = plan.choices[0], self._system.tell
        name = f"provider:{choice.provider}"
        self._system.put(name, Award(query_id, query_id, MODEL, choice.tokens, True, 100), self._clock.now() + 60.0)
        tell("router", Claimed(query_id, choice.provider, True))
        first_s = 0.2 + 0.01 * (self._count % 5)
        tell(name, ContentStarted(query_id, first_s))
        usage = Usage(200, 90)
        ended = CallEnded(query_id, query_id, choice.provider, MODEL, Outcome.SUCCESS, True, 1.0, first_s, None, usage)
        tell(name, ended)
        tell("router", ended)

    async def stop(self) -> None:
        """End all actors."""
        await self._system.stop()


async def measure(snapshot: ConfigSnapshot, effort: Effort) -> float:
    """µs for a decision."""
    house = House(snapshot)
    await asyncio.sleep(0)
    try:
        for _ in range(3 * len(snapshot.providers)):
            await house.decide()
        # As the daemon does.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        rounds = [sum([await house.decide() for _ in range(effort.decisions)]) for _ in range(effort.rounds)]
        return min(rounds) / effort.decisions * 1e6
    finally:
        gc.unfreeze()
        await house.stop()


def snapshot_of(specs: Sequence[ProviderSpec], strategy: str, more: tuple[Rule, ...] = ()) -> ConfigSnapshot:
    """A configuration with these providers, this strategy and these rules."""
    return ConfigSnapshot(1, tuple(specs), specs[0].id, (), RoutingSpec(strategy), rules=more)


Rows = dict[str, list[ConfigSnapshot]]
"""Configurations to measure, by the name of their row."""


def tables() -> dict[str, Rows]:
    """All there is to measure, by what the columns are."""
    ruled = [snapshot_of(providers(3), "adaptive", rules(count)) for count in RULES]
    wide = [snapshot_of(providers(3, count), "adaptive") for count in MODELS]
    return {
        _head("providers of the model", SIZES): {name: [snapshot_of(providers(n), name) for n in SIZES] for name in STRATEGIES},
        _head("rules that cannot match", RULES): {"adaptive, 3 providers": ruled},
        _head("models configured", MODELS): {"adaptive, 3 providers": wide},
    }


def _head(name: str, columns: Sequence[int]) -> str:
    return name.ljust(30) + "".join(f"{column:>9}" for column in columns)


async def run(effort: Effort) -> None:
    """Measure and print everything."""
    least: dict[tuple[str, str, int], float] = {}
    yardstick, found = inf, tables()
    for _ in range(PASSES):
        for head, rows in found.items():
            for name, snapshots in rows.items():
                yardstick = min(yardstick, await dispatched(3, effort.decisions, effort.rounds))
                for column, snapshot in enumerate(snapshots):
                    place = head, name, column
                    least[place] = min(least.get(place, inf), await measure(snapshot, effort))
    for head, rows in found.items():
        print(head)
        for name, snapshots in rows.items():
            print(name.ljust(30) + "".join(f"{least[head, name, column]:>9.1f}" for column in range(len(snapshots))))
        print()
    print(f"yardstick: {yardstick:.1f} µs")


def main() -> None:
    """Run on the loop the daemon runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(QUICK if "--quick" in sys.argv else FULL))


if __name__ == "__main__":
    main()
