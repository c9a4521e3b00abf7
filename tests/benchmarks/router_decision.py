"""What a decision costs in the router: ``RouteQuery`` and ``Gathered``, without mailboxes and providers.

Run: ``python -m tests.benchmarks.router_decision``. Prints µs per decision for 1, 3 and 16 providers × strategy: the median
of several rounds, with bids made by hand.
"""

from statistics import median
from time import perf_counter

from actors.router.actor import RouterActor
from actors.router.strategies import STRATEGIES
from messages.calls import CallEnded, Outcome
from messages.control import ConfigSnapshot, ModelSpec, ProviderSpec, RoutingSpec
from messages.routing import Bid, Gathered, RequestProfile, RoutePlan, RouteQuery
from runtime.system.solo import SoloContext

DECISIONS = 4000
ROUNDS = 5


class Forgetful(SoloContext):
    """Keeps only the last of everything, and reads a real clock as the daemon does."""

    def now(self) -> float:
        return perf_counter()

    def forget(self) -> None:
        self.fans.clear()
        self.slots.clear()


def _snapshot(count: int, strategy: str) -> ConfigSnapshot:
    specs = tuple(ProviderSpec(f"p{n}", "openai", "http://x", "c", (ModelSpec("m", "m"),)) for n in range(count))
    return ConfigSnapshot(1, specs, "p0", (), RoutingSpec(strategy))


def _bids(count: int) -> tuple[Bid, ...]:
    return tuple(
        Bid(f"p{n}", n, 100, 1, 0, 50, 0.3, 0.6, 0.3 + n / 50, 0.5 + n / 10, 0.001, 0.02, 0.1, 0.001, 1.0, True, False)
        for n in range(count)
    )


def measure(count: int, strategy: str) -> float:
    """Median µs of one decision among ``count`` providers."""
    context = Forgetful("router")
    actor = RouterActor(_snapshot(count, strategy))
    answers = _bids(count)
    profile = RequestProfile("m")
    taken: list[float] = []
    for round_number in range(ROUNDS):
        spent = 0.0
        for n in range(DECISIONS):
            query = RouteQuery(f"{round_number}-{n}", profile, 1e12, 0.0)
            spent += _timed(actor, query, context)
            gathered = Gathered(context.fans[-1].key, answers)
            spent += _timed(actor, gathered, context)
            assert isinstance(context.slots[-1].answers[0], RoutePlan)
            actor.handle(CallEnded("x", query.query_id, "p0", "m", Outcome.SUCCESS, True, 0.1), context)
            context.forget()
        taken.append(spent / DECISIONS * 1e6)
    return median(taken)


def _timed(actor: RouterActor, message: RouteQuery | Gathered, context: Forgetful) -> float:
    started = perf_counter()
    actor.handle(message, context)
    return perf_counter() - started


def main() -> None:
    """Print the table."""
    print(f"{'strategy':<20}" + "".join(f"{count:>8}" for count in (1, 3, 16)) + "   µs per decision")
    for strategy in STRATEGIES:
        print(f"{strategy:<20}" + "".join(f"{measure(count, strategy):>8.1f}" for count in (1, 3, 16)))


if __name__ == "__main__":
    main()
