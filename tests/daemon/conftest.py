"""What the daemon's tests share: one background loop and one port of scripted upstreams for each worker."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from tests.daemon.gateway_upstreams import Backstage, ScriptedUpstream

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The upstream's tests run on both loops, for it lives next to the sockets; the others on asyncio's own."""
    return LOOPS if item.path.name.startswith("test_upstream") else {"asyncio": LOOPS["asyncio"]}


@pytest.fixture(scope="session")
def backstage() -> Iterator[Backstage]:
    found = Backstage()
    yield found
    found.close()


@pytest.fixture(scope="module")
def upstream(backstage: Backstage) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(backstage) as found:
        yield found
