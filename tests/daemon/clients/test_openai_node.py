"""The official SDK for Node takes the gateway for OpenAI, with nothing but ``baseURL`` changed."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from runtime.simulation.behaviour import Behaviour
from tests.daemon.clients.tools import HERE, node_package, output_of, program
from tests.daemon.gateway import Gateway, eventually, provider
from tests.daemon.gateway_upstreams import ROLE, Backstage, Exchange, ScriptedUpstream, event, hangs, streams

CONTENT = event({"content": "half "})


async def half(exchange: Exchange) -> None:
    """A stream that begins and does not end."""
    await exchange.begin_stream()
    await exchange.chunk(ROLE + CONTENT)
    await exchange.hang()


@pytest.fixture(scope="module")
def told(backstage: Backstage, upstream: ScriptedUpstream) -> Iterator[dict[str, Any]]:
    """What the SDK has to tell of one run of ``openai_sdk.mjs``; a gateway stands behind it until the module ends."""
    node = program("node")
    node_package("openai")
    upstream.scripts.update(hangs=hangs, half=half, broken=streams(ROLE + CONTENT, cut=True))
    behaviour = Behaviour("sim", ttfb_ms=2, tokens_per_second=10_000, models=("m",))
    with backstage.simulated(behaviour) as simulated:
        entries = [provider("sim", simulated.base_url, ["m"])]
        entries += [provider(name, upstream.base_url(name), [name]) for name in ("hangs", "half", "broken")]
        with Gateway({"server": {"max_body": "1MiB"}, "providers": entries}) as gateway:
            said = output_of([node, str(HERE / "openai_sdk.mjs"), gateway.url + "/v1"])
            yield orjson.loads(said)


def test_a_whole_answer(told: dict[str, Any]) -> None:
    whole = told["whole"]
    assert whole["text"].startswith("[sim]")
    assert (whole["usage"]["completion_tokens"], whole["provider"], whole["is_request_id_known"]) == (5, "sim", True)


def test_a_stream_with_and_without_usage(told: dict[str, Any]) -> None:
    assert told["stream"] == {"words": 5, "usage": None}
    assert told["counted"]["words"] == 5
    assert told["counted"]["usage"]["completion_tokens"] == 5


def test_tools_legacy_completions_embeddings_and_models(told: dict[str, Any]) -> None:
    assert told["tool"] == ["weather", {"city": "simulated"}]
    assert told["legacy"] == 5
    assert told["vectors"] == [16, 16]
    assert (told["models"], told["model"]) == (["broken", "half", "hangs", "m"], "m")


def test_many_at_once_and_much_in_one(told: dict[str, Any]) -> None:
    assert told["many"] == 40
    assert told["much"] > 100_000


def test_errors_are_of_the_sdks_own_kinds_and_it_is_told_not_to_try_again(told: dict[str, Any]) -> None:
    assert told["unknown"] == {"kind": "NotFoundError", "status": 404, "code": "model_not_found", "should_retry": "false"}
    assert told["invalid"] == {"kind": "BadRequestError", "status": 400, "code": "invalid_request", "should_retry": "false"}
    assert (told["large"]["kind"], told["large"]["code"]) == ("APIError", "request_too_large")
    assert told["late"]["kind"] == "APIConnectionTimeoutError"


def test_a_stream_that_breaks_is_an_error_and_no_short_answer(told: dict[str, Any]) -> None:
    assert told["broken"]["kind"] == "APIError"


def test_who_leaves_in_mid_stream_or_does_not_wait_ends_the_call_upstream(
    told: dict[str, Any], upstream: ScriptedUpstream
) -> None:
    (begun,), (silent,) = upstream.requests("half"), upstream.requests("hangs")
    eventually(lambda: begun.is_left and silent.is_left, "both calls have ended")
