"""What the daemon's tests share: one background loop and one port of scripted upstreams for each worker."""

from collections.abc import Iterator

import pytest

from tests.daemon.gateway_upstreams import Backstage, ScriptedUpstream


@pytest.fixture(scope="session")
def backstage() -> Iterator[Backstage]:
    found = Backstage()
    yield found
    found.close()


@pytest.fixture(scope="module")
def upstream(backstage: Backstage) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(backstage) as found:
        yield found
