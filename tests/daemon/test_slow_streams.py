"""Slow streams, chains and limits that are found out, over real sockets and through the file (pain 5; FEATURES B6, D8)."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon.gateway import Gateway, provider
from tests.daemon.gateway_upstreams import DONE, Exchange, ScriptedUpstream, answers, event, replies

TOKEN = event({"content": "word"})


async def crawls(exchange: Exchange) -> None:
    """One token, and then nothing worth the name."""
    await exchange.begin_stream()
    await exchange.chunk(TOKEN)
    await exchange.hang()


async def runs(exchange: Exchange) -> None:
    """Twelve tokens one by one, and a proper end."""
    await exchange.begin_stream()
    for _ in range(12):
        await exchange.chunk(TOKEN)
        await asyncio.sleep(0.001)
    await exchange.chunk(event({}, "stop") + DONE)
    await exchange.end_stream()


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.keeps_alive = False
    upstream.scripts |= {"crawls": crawls, "runs": runs, "first": replies(503, b"{}"), "second": answers, "third": answers}
    least: dict[str, Any] = {"timeouts": {"min_tokens_per_second": 20}}
    providers = [
        provider("crawls", upstream.base_url("crawls"), ["slow"], **least),
        provider("runs", upstream.base_url("runs"), ["slow", "brisk"], **least),
        provider("third", upstream.base_url("third"), ["chained"], limits={"max_concurrency": "auto"}),
        provider("second", upstream.base_url("second"), ["chained"], limits={"max_concurrency": 5}),
        provider("first", upstream.base_url("first"), ["chained"]),
    ]
    pools = {"chained": {"failover": {"chain": [{"provider": "first"}, {"providers": ["second"]}, "any"]}}}
    with Gateway({"providers": providers, "routing": {"strategy": "first"}, "pools": pools}) as found:
        yield found


def test_pain_05_a_stream_that_begins_and_then_crawls_fails_over_before_the_client_has_a_byte(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    answer = gateway.chat("slow", stream=True)

    assert (answer.status, answer.header("x-pointsman-provider")) == (200, "runs")
    assert answer.body == 12 * TOKEN + event({}, "stop") + DONE
    first, second = gateway.decision(answer)["attempts"]
    assert (first["code"], second["outcome"]) == ("too_slow", "success")
    assert 500 <= first["duration_ms"] < 20_000
    assert upstream.requests("crawls")[-1].is_left
    report = gateway.providers()["crawls"]
    assert (report["failures"], report["in_flight"]) == (1, 0)


def test_a_stream_that_keeps_the_rate_comes_whole(gateway: Gateway) -> None:
    answer = gateway.chat("brisk", stream=True)

    assert (answer.status, answer.header("x-pointsman-attempts")) == (200, "1")
    assert answer.body == 12 * TOKEN + event({}, "stop") + DONE


def test_D8_a_request_fails_over_along_the_chain_of_its_pool(gateway: Gateway) -> None:
    answer = gateway.chat("chained")

    assert (answer.status, answer.header("x-pointsman-provider")) == (200, "second")
    assert [one["provider"] for one in gateway.decision(answer)["attempts"]] == ["first", "second"]


def test_the_admin_api_shows_the_limit_that_was_found_out_beside_the_one_that_was_configured(gateway: Gateway) -> None:
    shown = {name: report["limits"] for name, report in gateway.providers().items()}

    assert (shown["third"]["max_concurrency"], shown["third"]["concurrency"]) == ("auto", 16)
    assert (shown["second"]["max_concurrency"], shown["second"]["concurrency"]) == (5, 5)
    assert (shown["first"]["max_concurrency"], shown["first"]["concurrency"]) == (None, None)
