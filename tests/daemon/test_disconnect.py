"""A client that leaves ends its call upstream at once, wherever the call is, and nobody is blamed for it."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import Fault, FaultKind
from runtime.simulation.server import SimulatedProvider
from tests.daemon.gateway import Gateway, chat_body, eventually, provider
from tests.daemon.gateway_upstreams import Backstage

SLOW = Behaviour("slow", ttfb_ms=30_000, sigma=0, models=("slow",))
LONG = Behaviour("long", ttfb_ms=5, sigma=0, tokens_per_second=20, models=("long",), chunk_tokens=1)
FULL = Behaviour("full", ttfb_ms=30_000, sigma=0, models=("full",))
Providers = dict[str, SimulatedProvider]


@pytest.fixture(scope="module")
def providers(backstage: Backstage, lane: str) -> Iterator[Providers]:
    with backstage.simulated(SLOW) as slow, backstage.simulated(LONG) as long, backstage.simulated(FULL) as full:
        yield {"slow": slow, "long": long, "full": full}


@pytest.fixture(scope="module")
def gateway(providers: Providers) -> Iterator[Gateway]:
    entries = [provider(name, one.base_url, [name]) for name, one in providers.items()]
    entries[2]["limits"] = {"max_concurrency": 1}
    with Gateway({"providers": entries}) as found:
        yield found


CONNECTIONS: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _fresh(providers: Providers) -> Iterator[None]:
    for one in providers.values():
        one.simulation.journal.forget()
    yield
    while CONNECTIONS:
        CONNECTIONS.pop().close()


def outcomes(one: SimulatedProvider) -> list[str]:
    return [record.outcome for record in one.records("/chat/completions")]


def send(gateway: Gateway, body: bytes) -> socket.socket:
    connection = gateway.connect()
    CONNECTIONS.append(connection)
    connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return connection


def leave(connection: socket.socket, *, rudely: bool) -> None:
    if rudely:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def nothing_is_left(gateway: Gateway, name: str) -> dict[str, Any]:
    """Permit and request are given back; returns the provider's report."""
    eventually(lambda: gateway.providers()[name]["in_flight"] == 0, "the permit is back")
    eventually(lambda: gateway.stats()["edge"]["in_flight"] == 0, "the request is over")
    return gateway.providers()[name]


@pytest.mark.parametrize("rudely", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_pain_17_leaving_before_the_first_byte_cancels_the_call(
    gateway: Gateway, providers: Providers, stream: bool, rudely: bool
) -> None:
    # Given a call that waits for its first byte
    gone_before = gateway.stats()["edge"]["client_gone"]
    connection = send(gateway, chat_body("slow", stream=stream))
    eventually(lambda: outcomes(providers["slow"]) == ["in_flight"], "the call is upstream")
    assert gateway.providers()["slow"]["in_flight"] == 1

    # When the client leaves
    leave(connection, rudely=rudely)

    # Then the provider sees it leave at once, and nothing is held against it
    eventually(lambda: outcomes(providers["slow"]) == ["cancelled"], "the call is cancelled upstream", within_s=15)
    report = nothing_is_left(gateway, "slow")
    assert (report["failures"], report["circuit"]) == (0, "closed")
    assert gateway.stats()["edge"]["client_gone"] == gone_before + 1


@pytest.mark.parametrize("rudely", [False, True])
def test_pain_17_leaving_in_mid_stream_cancels_the_call(gateway: Gateway, providers: Providers, rudely: bool) -> None:
    failures_before = gateway.providers()["long"]["failures"]
    connection = send(gateway, chat_body("long", stream=True, max_tokens=1000))
    seen = b""
    while b'"content":" ' not in seen:
        seen += connection.recv(65536)

    leave(connection, rudely=rudely)

    eventually(lambda: outcomes(providers["long"]) == ["cancelled"], "the call is cancelled upstream", within_s=15)
    report = nothing_is_left(gateway, "long")
    assert (report["failures"], report["circuit"]) == (failures_before, "closed")
    (attempt,) = gateway.get("/admin/decisions").json()["decisions"][0]["attempts"]
    assert (attempt["provider"], attempt["outcome"]) == ("long", "cancelled")


def test_leaving_while_waiting_for_a_place_takes_nobody_elses(gateway: Gateway, providers: Providers) -> None:
    # Given a provider with one place that is taken, and a request that waits for it
    first = send(gateway, chat_body("full", user="first"))
    eventually(lambda: outcomes(providers["full"]) == ["in_flight"], "the place is taken")
    second = send(gateway, chat_body("full", user="second"))
    eventually(lambda: gateway.stats()["router"]["waiting"] == 1, "the second waits")

    # When the one that waits leaves
    second.close()

    # Then it waits no longer, and when the first has left too, the next gets the place
    eventually(lambda: gateway.stats()["router"]["waiting"] == 0, "nobody waits")
    first.close()
    eventually(lambda: outcomes(providers["full"]) == ["cancelled"], "the first is cancelled")
    third = send(gateway, chat_body("full", user="third"))
    eventually(lambda: outcomes(providers["full"]) == ["cancelled", "in_flight"], "the third is upstream")
    third.close()
    nothing_is_left(gateway, "full")


def test_leaving_while_a_retry_is_waited_for_ends_the_waiting(
    gateway: Gateway, providers: Providers, backstage: Backstage
) -> None:
    backstage.switch_on(providers["long"], Fault(FaultKind.RATE_LIMIT, retry_after_s=1.0, for_s=0.5))
    connection = send(gateway, chat_body("long"))
    eventually(lambda: outcomes(providers["long"]) == ["http_429"], "the rate limit is met")

    connection.close()

    nothing_is_left(gateway, "long")
    assert outcomes(providers["long"]) == ["http_429"]
    eventually(lambda: gateway.providers()["long"]["reason"] == "", "the rate limit is over")


def test_a_hundred_clients_leaving_at_once_leave_nothing_behind(gateway: Gateway, providers: Providers) -> None:
    connections = [send(gateway, chat_body("slow", stream=True, user=str(number))) for number in range(100)]
    calls = providers["slow"].simulation.calls
    eventually(lambda: len(calls) == 100, "all are upstream")
    assert gateway.providers()["slow"]["in_flight"] == 100

    for connection in connections:
        connection.close()

    nothing_is_left(gateway, "slow")
    eventually(lambda: not calls, "all are cancelled upstream", within_s=15)
    assert gateway.providers()["slow"]["circuit"] == "closed"


async def test_pain_17_the_sdk_that_is_cancelled_or_closes_its_stream_ends_the_call(
    gateway: Gateway, providers: Providers
) -> None:
    async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="any") as client:
        call = asyncio.create_task(
            client.chat.completions.create(model="slow", messages=[{"role": "user", "content": "hello"}])
        )
        await asyncio.to_thread(eventually, lambda: outcomes(providers["slow"]) == ["in_flight"], "it is upstream")
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.to_thread(eventually, lambda: outcomes(providers["slow"]) == ["cancelled"], "it is cancelled")

        stream = await client.chat.completions.create(
            model="long", messages=[{"role": "user", "content": "hello"}], stream=True, max_tokens=1000
        )
        async for _ in stream:
            break
        await stream.close()
        await asyncio.to_thread(eventually, lambda: outcomes(providers["long"]) == ["cancelled"], "it is cancelled")
