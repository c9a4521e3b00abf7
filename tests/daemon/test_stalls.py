"""A daemon that stood still (a machine that is too busy, a process that was stopped) blames nobody else for that."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from time import sleep

import pytest

from runtime.simulation.behaviour import Behaviour
from runtime.simulation.server import SimulatedProvider
from tests.daemon.gateway import Answer, Gateway, eventually, provider
from tests.daemon.gateway_upstreams import Backstage

STALL_S = 1.2
LATE = {"first_byte": "500ms", "idle": "500ms"}
QUICK = Behaviour("quick", ttfb_ms=150, sigma=0, tokens_per_second=20, models=("quick",), chunk_tokens=1)


@pytest.fixture(scope="module")
def quick(backstage: Backstage, lane: str) -> Iterator[SimulatedProvider]:
    with backstage.simulated(QUICK) as found:
        yield found


@pytest.fixture(scope="module")
def gateway(quick: SimulatedProvider) -> Iterator[Gateway]:
    entry = provider("quick", quick.base_url, ["quick"], timeouts=LATE)
    with Gateway({"providers": [entry], "routing": {"failover": {"enabled": False}}}) as found:
        yield found


@contextmanager
def stopped(gateway: Gateway) -> Iterator[None]:
    gateway.signal(signal.SIGSTOP)
    try:
        yield
        sleep(STALL_S)
    finally:
        gateway.signal(signal.SIGCONT)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_came_while_the_daemon_stood_still_is_no_timeout_of_its_provider(
    gateway: Gateway, quick: SimulatedProvider, stream: bool
) -> None:
    answers: list[Answer] = []
    quick.simulation.journal.forget()
    client = Thread(target=lambda: answers.append(gateway.chat("quick", stream=stream, max_tokens=2)))
    client.start()
    eventually(lambda: len(quick.records("/chat/completions")) == 1, "the call is upstream")

    with stopped(gateway):
        pass
    client.join()

    assert [answer.status for answer in answers] == [200]
    assert (b"[DONE]" in answers[0].body) == stream
    report = gateway.providers()["quick"]
    assert (report["failures"], report["circuit"]) == (0, "closed")
    assert report["latency_ms"]["ewma"] < 1000.0 * STALL_S, "its time was not its provider's"
