"""What the daemon's tests share: one background loop and one port of scripted upstreams for each worker."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from tests.conftest import IS_COMPILED
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


ABOUT_COMMANDS = ("test_cli", "test_explain")
"""Modules about what a terminal shows, slow ones: the lane their daemons have is nothing to them."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Whatever has to do with a daemon runs against one of each lane, unless the test says itself what it does on which."""
    is_said = any(mark.args[0] == "lane" for mark in metafunc.definition.iter_markers("parametrize"))
    if "lane" in metafunc.fixturenames and not is_said:
        # aiohttp's is the same on the compiled build, and was tried on the sources.
        is_one_enough = IS_COMPILED or metafunc.module.__name__.endswith(ABOUT_COMMANDS)
        lanes = ["raw"] if is_one_enough else ["raw", "aiohttp"]
        metafunc.parametrize("lane", lanes, indirect=True, scope="module")


@pytest.fixture(scope="module")
def lane(request: pytest.FixtureRequest) -> Iterator[str]:
    """The lane and the transport of the module's daemons, as long as it lasts."""
    RING.lane = request.param
    yield request.param
    RING.lane = None


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
