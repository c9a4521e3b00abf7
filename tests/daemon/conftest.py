"""What the daemon's tests share: one background loop and one port of scripted upstreams for each worker."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from tests.daemon.gateway import NURSERY, RING
from tests.daemon.gateway_upstreams import Backstage, ScriptedUpstream

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The tests of upstream and listener run on both loops, for they live next to the sockets; the others on asyncio's own."""
    return LOOPS if item.path.name.startswith(("test_upstream", "test_listener")) else {"asyncio": LOOPS["asyncio"]}


BOTH_LANES = frozenset(
    (
        "test_bad_input",
        "test_bad_input_slow",
        "test_disconnect",
        "test_failover",
        "test_gateway_bytes",
        "test_gateway_headers",
        "test_hedging",
        "test_hints_http",
        "test_openai_sdk",
        "test_openai_sdk_errors",
        "test_real_clients",
        "test_shutdown",
    )
)
"""Modules about what goes over the wire: they run against daemons of the fast lane and of the reference lane."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in BOTH_LANES and "lane" in metafunc.fixturenames:
        metafunc.parametrize("lane", ["raw", "aiohttp"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def lane(request: pytest.FixtureRequest) -> Iterator[str]:
    """The lane and the transport of the module's daemons, as long as it lasts."""
    RING.lane = getattr(request, "param", "raw")
    yield RING.lane
    RING.lane = "raw"


@pytest.fixture(scope="session", autouse=True)
def _nursery() -> Iterator[None]:
    yield
    NURSERY.close()


@pytest.fixture(scope="session")
def backstage() -> Iterator[Backstage]:
    found = Backstage()
    yield found
    found.close()


@pytest.fixture(scope="module")
def upstream(backstage: Backstage, lane: str) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(backstage) as found:
        yield found
