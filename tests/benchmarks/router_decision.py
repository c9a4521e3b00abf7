"""What one request costs in the router, message by message, without mailboxes and providers.

Run: ``python -m tests.benchmarks.router_decision``. Prints µs for ``RouteQuery``, ``Gathered`` (the decision), ``Claimed`` and
``CallEnded`` for 1, 3 and 16 providers × strategy: the least mean of several rounds, with bids made by hand. Expect twice
as much within the daemon, where all that happens between two requests has driven this code and its data from the caches.
"""

from time import perf_counter

from actors.router.actor import RouterActor, RouterMail
from actors.router.strategies import STRATEGIES
from messages.calls import CallEnded, Outcome
from messages.control import ConfigSnapshot, ModelSpec, ProviderSpec, RoutingSpec
from messages.routing import Bid, Claimed, Gathered, RequestProfile, RoutePlan, RouteQuery
from runtime.system.solo import SoloContext

DECISIONS = 4000
ROUNDS = 5
MESSAGES = ("RouteQuery", "Gathered", "Claimed", "CallEnded")


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
        Bid(f"p{n}", n, 9, 1, 0, 50, 0.3, 0.6, 0.3 + n / 50, 0.5 + n, 0.01, 0.02, 0.1, 0.01, 1.0, True, False, likely_usd=0.01)
        for n in range(count)
    )


def measure(count: int, strategy: str) -> list[float]:
    """µs of each message of ``MESSAGES`` among ``count`` providers."""
    context = Forgetful("router")
    actor = RouterActor(_snapshot(count, strategy))
    rounds = [_round(actor, context, number, _bids(count)) for number in range(ROUNDS)]
    return [min(taken) / DECISIONS * 1e6 for taken in zip(*rounds, strict=True)]


def _round(actor: RouterActor, context: Forgetful, number: int, answers: tuple[Bid, ...]) -> list[float]:
    profile = RequestProfile("m")
    spent_s = [0.0] * len(MESSAGES)
    for n in range(DECISIONS):
        query = RouteQuery(f"{number}-{n}", profile, 1e12, 0.0)
        spent_s[0] += _timed(actor, query, context)
        spent_s[1] += _timed(actor, Gathered(context.fans[-1].key, answers), context)
        plan = context.slots[-1].answers[0]
        assert isinstance(plan, RoutePlan)
        provider = plan.choices[0].provider
        spent_s[2] += _timed(actor, Claimed(query.query_id, provider, True), context)
        ended = CallEnded("x", query.query_id, provider, "m", Outcome.SUCCESS, True, 0.1)
        spent_s[3] += _timed(actor, ended, context)
        context.forget()
    return spent_s


def _timed(actor: RouterActor, message: RouterMail, context: Forgetful) -> float:
    started = perf_counter()
    actor.handle(message, context)
    return perf_counter() - started


def main() -> None:
    """Print the table."""
    print(f"{'strategy':<20}{'providers':>10}" + "".join(f"{name:>12}" for name in MESSAGES) + f"{'sum':>8}   µs")
    for strategy in STRATEGIES:
        for count in (1, 3, 16):
            taken = measure(count, strategy)
            print(f"{strategy:<20}{count:>10}" + "".join(f"{us:>12.2f}" for us in taken) + f"{sum(taken):>8.2f}")


if __name__ == "__main__":
    main()
