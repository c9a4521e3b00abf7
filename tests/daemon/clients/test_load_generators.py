"""wrk and ab, as fast as they can: every request is answered well, and the gateway has counted each once."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.clients.tools import output_of, program
from tests.daemon.gateway import Gateway, chat_body, eventually, provider
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers

WRK = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = [=[%s]=]
done = function(summary)
  local told = {"requests=" .. summary.requests}
  for name, count in pairs(summary.errors) do table.insert(told, name .. "=" .. count) end
  print("told " .. table.concat(told, " "))
end
"""
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.scripts["p"] = answers
    with Gateway({"providers": [provider("p", upstream.base_url("p"), ["m"])]}) as found:
        yield found


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def body(request: pytest.FixtureRequest) -> bytes:
    return chat_body("m", stream=request.param)


def succeeded(gateway: Gateway) -> int:
    """How many requests have, once none is under way."""
    eventually(lambda: gateway.stats()["edge"]["in_flight"] == 0, "all is over")
    router = gateway.stats()["router"]
    assert router["failed"] == 0
    found: int = router["succeeded"]
    return found


def test_wrk_keeps_its_connections_and_sees_no_error(gateway: Gateway, body: bytes, tmp_path: Path) -> None:
    script = tmp_path / "post.lua"
    script.write_text(WRK % body.decode())
    before = succeeded(gateway)

    said = output_of([program("wrk"), "-t1", "-c16", "-d1s", "-s", str(script), gateway.url + PATH])

    told = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", said[said.index("told ") :])}
    count = told.pop("requests")
    assert told == dict.fromkeys(["connect", "read", "write", "status", "timeout"], 0)
    # It leaves at the end of its second and does not wait for what is under way.
    assert 100 < count <= succeeded(gateway) - before <= count + 16


@pytest.mark.parametrize("options", [["-k"], []], ids=["kept", "one each"])
def test_ab_gets_all_it_asks_for_in_http_1_0(gateway: Gateway, body: bytes, tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "body.json"
    file.write_bytes(body)
    before = succeeded(gateway)

    command = [program("ab"), *options, "-q", "-n", "300", "-c", "8", "-p", str(file), "-T", "application/json"]
    said = output_of([*command, gateway.url + PATH])

    assert re.search(r"Complete requests: +300\n", said), said
    assert re.search(r"Failed requests: +0\n", said), said
    assert "Non-2xx" not in said
    if options and b'"stream":true' not in body:
        # A stream's length is not known before its end, and HTTP/1.0 has no other sign of it.
        assert re.search(r"Keep-Alive requests: +300\n", said), said
    assert succeeded(gateway) - before == 300
