"""What tracing costs: µs per span to make and end it, to queue it, and to encode it, and for a whole sampled request.

Run: ``python -m tests.benchmarks.tracing``. The request is a typical one: a server span with one decision, six turns of
actors, one call. The least mean of several rounds. The last column is the same spans through the SDK's own encoder.
"""

from collections.abc import Callable, Sequence
from random import Random
from time import perf_counter

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from messages.calls import Usage
from otel.delivery import translating
from otel.encoding import SpanEncoder
from otel.live_spans import LiveSpan
from otel.queue import QueueLimits, SpanQueue
from otel.sampling import Ids, Sampler
from otel.spans import Tracing

REQUESTS = 250
ROUNDS = 12
BATCH = 512
TURNS = (("router", "RouteQuery"), ("provider:a", "CallForBids"), ("provider:b", "CallForBids"), ("provider:c", "CallForBids"))
LATER_TURNS = (("provider:a", "Claim"), ("provider:a", "CallEnded"))


class Nowhere:
    """Takes everything at once."""

    def export(self, spans: Sequence[LiveSpan]) -> bool:
        return True

    def shutdown(self) -> None:
        """Nothing is under way."""


def play(tracing: Tracing, number: int) -> None:
    """One request."""
    server = tracing.server_request(None, "POST", "/v1/chat/completions")
    assert server is not None
    for actor, message_name in TURNS:
        tracing.process(actor, message_name, server.context, 0.0001).end()
    server.decision(f"decision-{number}", strategy="adaptive", chosen=("a", "b", "c"), generation=1)
    attempt = tracing.attempt(
        server.context,
        "chat",
        "gpt-4o",
        "openai",
        provider_id="a",
        max_tokens=64,
        server_address="a.example",
        server_port=443,
    )
    attempt.response(f"chatcmpl-{number}", "gpt-4o", ["stop"])
    attempt.usage(Usage(number, 2 * number))
    attempt.end(None, status=200)
    for actor, message_name in LATER_TURNS:
        tracing.process(actor, message_name, server.context, 0.0001).end()
    server.end(200)


def main() -> None:
    """Print the table."""
    kept: list[LiveSpan] = []
    tracing = Tracing(kept.append, Sampler(1.0, Random(1)), Ids(Random(2)))
    resource, scope = Resource.create({"service.name": "pointsman"}), InstrumentationScope("pointsman", "1")
    encoder, translate = SpanEncoder(resource, scope), translating(resource, scope)
    queue = SpanQueue(Nowhere(), QueueLimits(delay_s=3600.0, spans_max=100_000, batch_max=100_000))

    def make() -> None:
        kept.clear()
        for number in range(REQUESTS):
            play(tracing, number)

    def put() -> None:
        for span in kept:
            queue.put(span)

    def encode(batch: Callable[[Sequence[LiveSpan]], bytes]) -> None:
        for start in range(0, len(kept), BATCH):
            batch(kept[start : start + BATCH])

    def by_the_sdk(spans: Sequence[LiveSpan]) -> bytes:
        made: bytes = encode_spans([translate(span) for span in spans]).SerializePartialToString()
        return made

    made_s = _least(make)
    steps = [made_s, _least(put), _least(lambda: encode(encoder.encode)), _least(lambda: encode(by_the_sdk))]
    queue.close(1.0)
    per_request = [step / REQUESTS * 1e6 for step in steps]
    spans = len(kept) / REQUESTS
    print(f"{'µs':<16}{'make, end':>12}{'queue':>12}{'encode':>12}{'sum':>12}{'(by the SDK)':>16}")
    for what, share in (("per span", spans), ("per request", 1.0)):
        make_us, put_us, encode_us, sdk_us = (step / share for step in per_request)
        total = make_us + put_us + encode_us
        print(f"{what:<16}{make_us:>12.2f}{put_us:>12.2f}{encode_us:>12.2f}{total:>12.2f}{sdk_us:>16.2f}")


def _least(step: Callable[[], None]) -> float:
    """Seconds of the quickest round."""
    taken = []
    for _ in range(ROUNDS):
        started = perf_counter()
        step()
        taken.append(perf_counter() - started)
    return min(taken)


if __name__ == "__main__":
    main()
