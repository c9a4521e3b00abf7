"""What a provider's share of a request costs, message by message: ``python -m tests.benchmarks.provider_bid``.

Prints µs, the least of seven runs. The messages are made beforehand, so that only the actor is measured; what making them
costs comes in a line of its own.
"""

from collections.abc import Callable
from time import perf_counter

from actors.kernel import Ref
from actors.provider.actor import ProviderActor, ProviderMail
from messages.calls import Award, CallEnded, ContentStarted, Outcome, Usage
from messages.control import HealthSpec, LimitsSpec, ModelSpec, ProviderSpec
from messages.routing import CallForBids, CapacityFreed, RequestProfile
from runtime.system.solo import SoloContext

ROUNDS = 4_000
REPEATS = 7
TOGETHER = 4
"""Calls that are out at once."""
ROUTER: Ref[CapacityFreed] = Ref("router")
NEEDS = ("chat", "streaming", "tools")


def provider(limits: LimitsSpec) -> ProviderActor:
    models = tuple(ModelSpec(f"m{n}", f"m{n}", 1.0, 2.0, 128_000, 16_000) for n in range(50))
    return ProviderActor(ProviderSpec("a", "openai", "http://a", "k", models, limits=limits), HealthSpec(), 1, None, ROUTER)


class Quiet(SoloContext):
    """Keeps nothing, so that only the actor is measured."""

    def reply(self, message: object) -> None:
        pass

    def tell(self, to: object, message: object) -> None:
        pass


def award(number: int, stream: bool) -> Award:
    return Award(f"p{number}", "q", "m1", 300, stream, 200)


def content(number: int, stream: bool) -> ContentStarted:
    return ContentStarted(f"p{number}", 0.15 + 0.001 * (number % 97))


def ended(number: int, stream: bool) -> CallEnded:
    first_s = 0.15 + 0.001 * (number % 97) if stream else None
    usage = Usage(100, 120 + number % 53)
    return CallEnded(
        f"p{number}", "q", "a", "m1", Outcome.SUCCESS, stream, 1.3 + 0.01 * (number % 89), first_s, None, usage, 700, None, 1
    )


def bids(actor: ProviderActor, context: Quiet) -> float:
    message = CallForBids("q", RequestProfile("m1", "chat", True, 100, 200, NEEDS), "m1")
    started = perf_counter()
    for _ in range(ROUNDS):
        actor.handle(message, context)
    return (perf_counter() - started) / ROUNDS * 1e6


def calls(actor: ProviderActor, context: Quiet, stream: bool) -> dict[str, float]:
    """µs for each message of a call, and under ``making`` for making them all."""
    makers: list[Callable[[int, bool], ProviderMail]] = [award, content, ended] if stream else [award, ended]
    took: dict[str, float] = {"making": 0.0}
    for batch in range(ROUNDS // TOGETHER):
        for make in makers:
            started = perf_counter()
            messages = [make(batch * TOGETHER + n, stream) for n in range(TOGETHER)]
            made = perf_counter()
            for message in messages:
                actor.handle(message, context)
            done = perf_counter()
            name = type(messages[0]).__name__
            took[name] = took.get(name, 0.0) + done - made
            took["making"] += made - started
            context.time += 0.004
    return {name: 1e6 * seconds / ROUNDS for name, seconds in took.items()}


def main() -> None:
    for name, limits in (("no limits", LimitsSpec()), ("all limits", LimitsSpec(1e9, 1e12, 10_000))):
        for stream in (True, False):
            context = Quiet("provider:a")
            actor = provider(limits)
            runs = [calls(actor, context, stream) for _ in range(REPEATS)]
            parts = {part: min(run[part] for run in runs) for part in runs[0]}
            parts["CallForBids"] = min(bids(actor, context) for _ in range(REPEATS))
            kind = "stream" if stream else "whole answer"
            print(f"{name}, {kind}: " + ", ".join(f"{part} {parts[part]:.2f}" for part in sorted(parts)))


if __name__ == "__main__":
    main()
