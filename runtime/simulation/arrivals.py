"""The requests of a scenario, one after the other: when each comes, from whom, and what it asks. All chance from the seed."""

import heapq
import math
from collections.abc import Iterator, Mapping
from random import Random

import orjson

from runtime.facts import fact
from runtime.ports import EdgeRequest
from runtime.simulation.openai_request import ANSWER_TOKENS_FIELD
from runtime.simulation.scenario_schema import Burst, Load, OutputTokens, PromptTokens, Scenario

PATH = "/v1/chat/completions"
_WORDS = "the points are set and the train takes the right track "
_CHARS_PER_TOKEN = 4
_FRAME_CHARS = 45
"""What the JSON around a question and its number has: they count as prompt, too."""


@fact
class Arrival:
    """A request that comes ``at`` seconds after the start."""

    at: float
    tenant: str
    is_stream: bool
    request: EdgeRequest


def arrivals(scenario: Scenario, models: Mapping[str, float]) -> Iterator[Arrival]:
    """All requests in order of time: a Poisson process for the load, and one more for each burst."""
    load = scenario.load
    flows = [_flow(Random(f"{scenario.seed}/load"), 0, 0.0, scenario.duration, load.rate)]
    for number, burst in enumerate(load.bursts, 1):
        until = min(scenario.duration, burst.at + burst.for_)
        flows.append(_flow(Random(f"{scenario.seed}/burst/{number}"), number, burst.at, until, burst.rate))
    draws = Random(f"{scenario.seed}/requests")
    for number, (at, flow) in enumerate(heapq.merge(*flows), 1):
        yield _arrival(at, number, load, load.bursts[flow - 1] if flow else None, models, draws)


def _flow(rng: Random, number: int, since: float, until: float, rate: float) -> Iterator[tuple[float, int]]:
    at = since + rng.expovariate(rate)
    while at < until:
        yield at, number
        at += rng.expovariate(rate)


def _arrival(at: float, number: int, load: Load, burst: Burst | None, models: Mapping[str, float], rng: Random) -> Arrival:
    # Every request takes the same draws, whatever comes of them: a change of one share moves nothing else.
    model, tenant = _drawn(models, rng), _drawn(load.tenants, rng)
    prompt_tokens, output_tokens = _length(load.prompt_tokens, rng), _length(load.output_tokens, rng)
    stream_share, luck = load.stream_share, rng.random()
    if burst is not None:
        model, tenant = burst.model or model, burst.tenant or tenant
        stream_share = load.stream_share if burst.stream_share is None else burst.stream_share
    is_stream = luck < stream_share
    said: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": _question(number, prompt_tokens)}],
        "metadata": {ANSWER_TOKENS_FIELD: str(output_tokens)},
    }
    if is_stream:
        said["stream"] = True
    if load.max_tokens is not None:
        said["max_tokens"] = load.max_tokens
    headers = [("content-type", "application/json")]
    if tenant:
        headers.append(("x-pointsman-tenant", tenant))
    if load.deadline is not None:
        headers.append(("x-pointsman-deadline", f"{load.deadline * 1000:.0f}"))
    return Arrival(at, tenant, is_stream, EdgeRequest("POST", PATH, tuple(headers), orjson.dumps(said), "127.0.0.1"))


def _drawn(shares: Mapping[str, float], rng: Random) -> str:
    point = rng.random() * sum(shares.values())
    last = ""
    for name, share in shares.items():
        if share > 0:
            last = name
            point -= share
            if point < 0:
                break
    return last


def _length(tokens: PromptTokens | OutputTokens, rng: Random) -> int:
    length = round(tokens.median * math.exp(tokens.sigma * rng.gauss(0.0, 1.0)))
    return min(tokens.max, max(1, length))


def _question(number: int, tokens: int) -> str:
    """A question that occurs once, and makes the whole prompt about ``tokens`` long."""
    chars = max(0, tokens * _CHARS_PER_TOKEN - _FRAME_CHARS - len(str(number)))
    return f"{number}: " + (_WORDS * (chars // len(_WORDS) + 1))[:chars]
