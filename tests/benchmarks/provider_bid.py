"""What a provider's share of a request costs: ``python -m tests.benchmarks.provider_bid`` prints µs, medians of seven."""

from statistics import median
from time import perf_counter

from actors.kernel import Ref
from actors.provider.actor import ProviderActor
from messages.calls import Award, CallEnded, ContentStarted, Outcome, Usage
from messages.control import HealthSpec, LimitsSpec, ModelSpec, ProviderSpec
from messages.routing import CallForBids, CapacityFreed, RequestProfile
from runtime.system.solo import SoloContext

ROUNDS = 20_000
REPEATS = 7
ROUTER: Ref[CapacityFreed] = Ref("router")


def provider(limits: LimitsSpec) -> ProviderActor:
    models = tuple(ModelSpec(f"m{n}", f"m{n}", 1.0, 2.0, 128_000, 16_000) for n in range(50))
    return ProviderActor(
        ProviderSpec("a", "openai", "http://a", "k", models, limits=limits), HealthSpec(), 100.0, 1, None, ROUTER
    )


class Quiet(SoloContext):
    """Keeps nothing, so that only the actor is measured."""

    def reply(self, message: object) -> None:
        pass

    def tell(self, to: object, message: object) -> None:
        pass


def call(actor: ProviderActor, context: Quiet, number: int, stream: bool) -> None:
    permit = f"p{number}"
    actor.handle(Award(permit, "q", "m1", 300, stream, 200), context)
    context.time += 0.001
    if stream:
        actor.handle(ContentStarted(permit, 0.2), context)
    end = CallEnded(permit, "q", "a", "m1", Outcome.SUCCESS, stream, 1.5, 0.2 if stream else None, None, Usage(100, 150))
    actor.handle(end, context)


def bids(actor: ProviderActor, context: Quiet) -> float:
    needs = ("chat", "streaming", "tools")
    message = CallForBids("q", RequestProfile("m1", "chat", True, 100, 200, needs), "m1")
    started = perf_counter()
    for _ in range(ROUNDS):
        actor.handle(message, context)
    return (perf_counter() - started) / ROUNDS * 1e6


def calls(actor: ProviderActor, context: Quiet, stream: bool) -> float:
    started = perf_counter()
    for number in range(ROUNDS):
        call(actor, context, number, stream)
    return (perf_counter() - started) / ROUNDS * 1e6


def main() -> None:
    for name, limits in (
        ("no limits", LimitsSpec()),
        ("all limits", LimitsSpec(1e9, 1e12, 10_000)),
    ):
        context = Quiet("provider:a")
        actor = provider(limits)
        call(actor, context, -1, True)
        print(f"{name}: CallForBids {median(bids(actor, context) for _ in range(REPEATS)):.2f} µs")
        for stream in (True, False):
            took = median(calls(actor, context, stream) for _ in range(3))
            print(f"{name}: Award + {'ContentStarted + ' if stream else ''}CallEnded {took:.2f} µs (with making the messages)")


if __name__ == "__main__":
    main()
