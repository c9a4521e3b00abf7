"""Hedges over real sockets: whose answer the client gets, and that the other call's connection is cut."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from tests.daemon.gateway import Answer, Gateway, eventually, provider
from tests.daemon.gateway_upstreams import (
    DONE,
    ROLE,
    Exchange,
    Script,
    ScriptedUpstream,
    completion,
    error,
    event,
    hangs,
    replies,
)

WRONG = error("n must be 1", "invalid_value", param="n")


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    routing = {"strategy": "first", "hedge": {"after": "50ms", "max_share": 1}, "explore": {"enabled": False}}
    models = [{"name": "m", "input_price": 1, "output_price": 1}]
    entries = [provider(name, upstream.base_url(name), models) for name in "ab"]
    with Gateway({"providers": entries, "routing": routing}) as found:
        yield found


@pytest.fixture(autouse=True)
def _fresh(upstream: ScriptedUpstream) -> None:
    upstream.forget()


def line(gateway: Gateway, name: str) -> dict[str, Any]:
    """What the statistics have of a provider; nothing yet is an empty line."""
    found = [one for one in gateway.stats()["providers"] if one["name"] == name]
    return found[0] if found else {"requests": 0, "hedges": 0, "lost": 0, "lost_cost_usd": 0.0}


def told(answer: Answer, stream: bool) -> str:
    """The text of an answer."""
    if not stream:
        return str(answer.json()["choices"][0]["message"]["content"])
    assert answer.body.endswith(DONE)
    pieces = [orjson.loads(part[6:]) for part in answer.body.split(b"\n\n") if part and part + b"\n\n" != DONE]
    return "".join(choice["delta"].get("content", "") for piece in pieces for choice in piece["choices"])


def says(text: str, after: Callable[[], Any] | None = None) -> Script:
    """Answers ``text`` once ``after`` has been waited for."""

    async def script(exchange: Exchange) -> None:
        if after is not None:
            await after()
        if not orjson.loads(exchange.body).get("stream"):
            await exchange.reply(200, completion(text))
            return
        await exchange.begin_stream()
        for piece in (ROLE, event({"content": text}), event({}, "stop"), DONE):
            await exchange.chunk(piece)
        await exchange.end_stream()

    return script


@pytest.mark.parametrize("stream", [True, False])
def test_pain_05_of_a_hanging_provider_and_its_hedge_the_client_gets_the_hedge_and_the_other_is_cut(
    gateway: Gateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.scripts.update(a=hangs, b=says("from b"))
    before = {name: line(gateway, name) for name in "ab"}

    answer = gateway.chat("m", stream=stream)

    assert (answer.status, answer.header("x-pointsman-provider"), told(answer, stream)) == (200, "b", "from b")
    eventually(lambda: upstream.requests("a")[0].is_left, "the hanging call is cut")
    eventually(lambda: line(gateway, "a")["lost"] == before["a"]["lost"] + 1, "the loser is booked")
    eventually(lambda: line(gateway, "b")["hedges"] == before["b"]["hedges"] + 1, "the hedge is counted")
    assert line(gateway, "a")["lost_cost_usd"] > before["a"]["lost_cost_usd"]
    eventually(lambda: all(gateway.providers()[name]["in_flight"] == 0 for name in "ab"), "both permits are back")


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_of_the_hedge_wins_nothing_while_the_first_call_goes_on(
    gateway: Gateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    gate, before = upstream.gate(), line(gateway, "b")["requests"]
    upstream.scripts.update(a=says("from a", gate.passed), b=replies(400, WRONG))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gateway.chat, "m", stream=stream)
        eventually(lambda: line(gateway, "b")["requests"] == before + 1, "the hedge has ended")
        gate.open()
        answer = asked.result()

    assert (answer.status, answer.header("x-pointsman-provider"), told(answer, stream)) == (200, "a", "from a")


def test_what_the_hedge_finds_wrong_with_the_request_is_told_if_the_first_call_fails(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    gate, before = upstream.gate(), line(gateway, "b")["requests"]

    async def fails(exchange: Exchange) -> None:
        await gate.passed()
        await exchange.reply(503, error("down"))

    upstream.scripts.update(a=fails, b=replies(400, WRONG))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gateway.chat, "m")
        eventually(lambda: line(gateway, "b")["requests"] == before + 1, "the hedge has ended")
        gate.open()
        answer = asked.result()

    assert (answer.status, answer.header("x-pointsman-provider")) == (400, "b")
    assert answer.json()["error"]["code"] == "invalid_value"
    assert [len(upstream.requests(name)) for name in "ab"] == [1, 1], "nobody is asked again"
