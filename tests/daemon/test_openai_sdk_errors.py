"""What goes wrong reaches users of the official SDK as its own exceptions, without multiplying retries."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.daemon.gateway import Gateway, provider
from tests.daemon.gateway_upstreams import (
    ROLE,
    Exchange,
    Script,
    ScriptedUpstream,
    answers,
    error,
    event,
    hangs,
    replies,
    streams,
)

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
BROKEN = replies(500, error("broken", None, "server_error"))


async def pauses(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.chunk(ROLE + event({"content": "half"}))
    await exchange.hang()


POOLS: dict[str, list[Script]] = {
    "bad_key": [replies(401, error("bad key", "invalid_api_key"))] * 2,
    "mistake": [replies(400, error("temperature must be at most 2", None, param="temperature")), answers],
    "not_permitted": [replies(422, error("no", "unprocessable")), answers],
    "broken": [BROKEN, BROKEN],
    "hangs": [hangs],
    "busy": [replies(429, error("slow down", "rate_limit_exceeded"), ("retry-after", "40"))],
    "cut": [streams(ROLE, event({"content": "half"}), cut=True), answers],
    "no_finish": [streams(ROLE, event({"content": "half"})), answers],
    "pauses": [pauses, answers],
    "late_error": [streams(ROLE, event({"content": "half"}), b"data: " + error("overloaded") + b"\n\n"), answers],
}


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    providers = []
    for pool, scripts in POOLS.items():
        for number, script in enumerate(scripts):
            identity = f"{pool}.{number}"
            upstream.scripts[identity] = script
            providers.append(provider(identity, upstream.base_url(identity), [pool], timeouts={"idle": "300ms"}))
    failover = {"max_attempts": 2, "backoff": {"kind": "none"}}
    with Gateway({"providers": providers, "routing": {"strategy": "first", "failover": failover}}) as found:
        yield found


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    # With the SDK's own two retries, as users have it.
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="anything") as found:
        yield found


def ask(client: openai.OpenAI, model: str, stream: bool = False, **headers: str) -> Any:
    extra = {f"x-pointsman-{name}": value for name, value in headers.items()}
    found = client.chat.completions.create(model=model, messages=MESSAGES, stream=stream, extra_headers=extra)
    return list(found) if stream else found


def asked(upstream: ScriptedUpstream, pool: str) -> list[int]:
    return [len(upstream.requests(f"{pool}.{number}")) for number in range(len(POOLS[pool]))]


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "nobody-has-this", stream)

    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_mistake_of_the_clients_own(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature must be at most 2") as caught:
        ask(client, "mistake")

    assert caught.value.param == "temperature"
    with pytest.raises(openai.UnprocessableEntityError):
        ask(client, "not_permitted")
    assert asked(upstream, "mistake") == [1, 0]


def test_a_mistake_we_find_ourselves(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "broken", throughput="fast")

    assert caught.value.code == "invalid_request"


def test_pain_13_bad_keys_everywhere_are_no_reason_to_retry(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(client, "bad_key")

    assert caught.value.code == "provider_auth_failed"
    assert asked(upstream, "bad_key") == [1, 1]


def test_pain_13_spent_attempts_are_not_multiplied_by_the_sdk(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, "broken")

    assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")
    assert asked(upstream, "broken") == [1, 1]


def test_pain_13_a_deadline_is_not_multiplied_by_the_sdk(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, "hangs", deadline="200")

    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
    assert asked(upstream, "hangs") == [1]


def test_pain_12_a_rate_limit_comes_with_the_time_to_wait(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    without_retries = openai.OpenAI(base_url=gateway.url + "/v1", api_key="anything", max_retries=0)
    with without_retries as client, pytest.raises(openai.RateLimitError) as caught:
        ask(client, "busy", deadline="2000")

    assert caught.value.code == "rate_limit_exceeded"
    assert 30 <= int(caught.value.response.headers["retry-after"]) <= 40
    assert asked(upstream, "busy") == [1]


def test_a_provider_that_is_down_for_now_is_an_error_of_the_server(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """503 with ``Retry-After``: here the SDK may retry by itself, so it is told not to in this test."""
    with (
        Gateway(
            {
                "providers": [provider("x", upstream.base_url("broken.0"), ["m"], circuit={"failures": 1, "open_for": "60s"})],
                "routing": {"failover": {"enabled": False}},
            }
        ) as other,
        openai.OpenAI(base_url=other.url + "/v1", api_key="any", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError):
            ask(client, "m")
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, "m")

    assert (caught.value.status_code, caught.value.code) == (503, "no_provider_available")
    assert int(caught.value.response.headers["retry-after"]) > 30


@pytest.mark.parametrize("model", ["cut", "no_finish", "pauses", "late_error"])
def test_pain_04_a_cut_stream_raises_and_does_not_end_as_a_clean_answer(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    seen: list[str | None] = []

    with pytest.raises(openai.APIError):
        seen.extend(chunk.choices[0].delta.content for chunk in stream)

    assert seen == ["", "half"]


async def test_the_async_client_raises_the_same(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="anything") as client:
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="nobody-has-this", messages=MESSAGES)
        with pytest.raises(openai.APIError):
            async for _ in await client.chat.completions.create(model="cut", messages=MESSAGES, stream=True):
                pass
