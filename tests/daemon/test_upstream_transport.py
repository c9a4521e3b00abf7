"""``transport`` of the configuration, from the file to the wire: ``raw`` is direct, ``auto`` goes by the proxy."""

import pytest

from tests.daemon.gateway import Gateway, provider
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers

THROUGH_THE_PROXY = ""
"""A proxy is told the whole URL, which the scripted upstream takes for the path of an upstream without a name."""


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_is_called_by_the_transport_it_has_in_the_file(upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.forget()
    upstream.scripts.update({"p": answers, THROUGH_THE_PROXY: answers})
    configuration = {
        "providers": [
            provider("direct", upstream.base_url("p"), ["of-direct"], transport="raw"),
            provider("default", upstream.base_url("p"), ["of-default"]),
            provider("other", upstream.base_url("p"), ["of-other"], transport="aiohttp"),
            provider("excepted", upstream.base_url("p").replace("127.0.0.1", "localhost"), ["of-excepted"]),
        ]
    }
    environ = {"HTTP_PROXY": f"http://127.0.0.1:{upstream.port}", "NO_PROXY": "10.0.0.0/8,localhost"}
    with Gateway(configuration, environ) as gateway:
        for model in ("of-direct", "of-default", "of-other", "of-excepted"):
            assert gateway.chat(model, stream=stream).status == 200
    assert len(upstream.requests("p")) == 2
    assert len(upstream.requests(THROUGH_THE_PROXY)) == 2
