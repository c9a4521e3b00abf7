"""What the statistics of a call cost: ``python -m tests.benchmarks.aggregator`` prints µs, the least of seven runs.

The messages are made beforehand; folding the latencies into the sketches comes with it, as often as it comes in use.
"""

from time import perf_counter

from actors.aggregator import AggregatorActor
from messages.calls import CallEnded
from messages.stats import GetStats
from tests.benchmarks.provider_bid import Quiet, ended

ROUNDS = 10_000
REPEATS = 7


def counting(actor: AggregatorActor, context: Quiet, messages: list[CallEnded]) -> float:
    started = perf_counter()
    for message in messages:
        actor.handle(message, context)
    return (perf_counter() - started) / len(messages) * 1e6


def asking(actor: AggregatorActor, context: Quiet) -> float:
    question = GetStats()
    started = perf_counter()
    actor.handle(question, context)
    return (perf_counter() - started) * 1e6


def main() -> None:
    actor, context = AggregatorActor(), Quiet("aggregator")
    for stream in (True, False):
        messages = [ended(number, stream) for number in range(ROUNDS)]
        took = min(counting(actor, context, messages) for _ in range(REPEATS))
        print(f"CallEnded of a {'stream' if stream else 'whole answer'}: {took:.2f}")
    print(f"GetStats of two lines: {min(asking(actor, context) for _ in range(REPEATS)):.2f}")


if __name__ == "__main__":
    main()
