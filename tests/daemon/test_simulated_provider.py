"""A simulated provider over real sockets: what it answers, how it breaks, and what it remembers."""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from runtime.config.loading import load_bytes
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.demo_world import demo_behaviours, demo_config, demo_world
from runtime.simulation.faults import Fault, FaultKind
from runtime.simulation.server import SimulatedProvider

QUICK = Behaviour("quick", ttfb_ms=2, sigma=0, tokens_per_second=10_000, models=("m", "other"))
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture
async def provider() -> AsyncIterator[SimulatedProvider]:
    async with SimulatedProvider(QUICK, seed=1) as provider:
        yield provider


async def until(condition: Callable[[], bool], deadline_s: float = 5.0) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_s
    while not condition():
        assert loop.time() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


async def post(
    session: aiohttp.ClientSession, provider: SimulatedProvider, path: str = "/chat/completions", **body: Any
) -> tuple[int, dict[str, str], Any]:
    async with session.post(provider.base_url + path, json=CHAT | body) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, headers, orjson.loads(await response.read())


async def frames(
    session: aiohttp.ClientSession, provider: SimulatedProvider, path: str = "/chat/completions", **body: Any
) -> list[Any]:
    async with session.post(provider.base_url + path, json=CHAT | body | {"stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = (await response.read()).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [orjson.loads(event.removeprefix("data: ")) for event in events[:-2]]


# Answers


async def test_a_chat_completion_has_openais_shape(session: aiohttp.ClientSession, provider: SimulatedProvider) -> None:
    status, headers, body = await post(session, provider)

    assert (status, headers["x-simulated-provider"]) == (200, "quick")
    assert (body["object"], body["model"]) == ("chat.completion", "m")
    assert body["choices"][0]["message"]["content"].startswith("[quick] ")
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 12
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 12


async def test_a_stream_begins_with_the_role_and_ends_with_reason_usage_and_done(
    session: aiohttp.ClientSession, provider: SimulatedProvider
) -> None:
    events = await frames(session, provider, stream_options={"include_usage": True})

    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert len("".join(delta.get("content", "") for delta in deltas).split()) == 12
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert (events[-1]["choices"], events[-1]["usage"]["completion_tokens"]) == ([], 12)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert all(event["usage"] is None for event in events[:-1])


async def test_usage_is_streamed_only_to_those_who_ask(session: aiohttp.ClientSession, provider: SimulatedProvider) -> None:
    assert all("usage" not in event for event in await frames(session, provider))


async def test_chunks_are_sent_as_they_are_made(session: aiohttp.ClientSession) -> None:
    drop_by_drop = Behaviour("p", ttfb_ms=1, sigma=0, tokens_per_second=1, models=("m",))
    async with (
        SimulatedProvider(drop_by_drop, 1) as provider,
        session.post(provider.base_url + "/chat/completions", json=CHAT | {"stream": True}) as response,
    ):
        text = b""
        while b"[p]" not in text:
            text += await response.content.readany()

        assert b"[DONE]" not in text
        assert provider.records()[0].outcome == "in_flight"


async def test_legacy_completions_come_whole_and_in_frames(session: aiohttp.ClientSession, provider: SimulatedProvider) -> None:
    _, _, whole = await post(session, provider, "/completions", prompt="Once")
    events = await frames(session, provider, "/completions", prompt="Once")

    assert (whole["object"], len(whole["choices"][0]["text"].split())) == ("text_completion", 12)
    assert len("".join(event["choices"][0]["text"] for event in events).split()) == 12
    assert events[-1]["choices"][0]["finish_reason"] == "length"


async def test_embeddings_are_seeded_by_their_text_as_floats_or_base64(
    session: aiohttp.ClientSession, provider: SimulatedProvider
) -> None:
    _, _, floats = await post(session, provider, "/embeddings", input=["a", "b", "a"], dimensions=4)
    _, _, coded = await post(session, provider, "/embeddings", input="a", dimensions=4, encoding_format="base64")

    vectors = [item["embedding"] for item in floats["data"]]
    assert vectors[0] == vectors[2] != vectors[1]
    assert list(struct.unpack("<4f", base64.b64decode(coded["data"][0]["embedding"]))) == pytest.approx(vectors[0])


async def test_models_are_listed_and_looked_up(session: aiohttp.ClientSession, provider: SimulatedProvider) -> None:
    async with session.get(provider.base_url + "/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["m", "other"]
    async with session.get(provider.base_url + "/models/other") as response:
        assert (await response.json())["owned_by"] == "quick"
    async with session.get(provider.base_url + "/models/none") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_tool_that_must_be_called_is_called_whole_and_in_deltas(
    session: aiohttp.ClientSession, provider: SimulatedProvider, choice: object
) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    }
    asked: dict[str, Any] = {
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": schema}}],
        "tool_choice": choice,
    }

    _, _, body = await post(session, provider, **asked)
    deltas = [event["choices"][0]["delta"] for event in await frames(session, provider, **asked)]

    call = body["choices"][0]["message"]["tool_calls"][0]
    assert (call["function"]["name"], body["choices"][0]["finish_reason"]) == ("weather", "tool_calls")
    assert orjson.loads(call["function"]["arguments"]) == {"city": "simulated", "days": 1}
    parts = [delta["tool_calls"][0]["function"] for delta in deltas if "tool_calls" in delta]
    assert parts[0]["name"] == "weather"
    assert "".join(part["arguments"] for part in parts) == call["function"]["arguments"]
    assert len(parts) > 2


# Refusals


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/chat/completions", b'{"model": ', 400, None),
        ("/chat/completions", b"[]", 400, None),
        ("/chat/completions", b'{"messages": []}', 400, None),
        ("/chat/completions", b'{"model": "m", "messages": "hi"}', 400, "invalid_value"),
        ("/chat/completions", b'{"model": "m", "messages": [{}], "stream": "yes"}', 400, "invalid_value"),
        ("/chat/completions", b'{"model": "m", "messages": [{}], "max_tokens": 0}', 400, "invalid_value"),
        ("/chat/completions", b'{"model": "m", "messages": [{}], "n": 2}', 400, "unsupported_value"),
        ("/chat/completions", b'{"model": "m", "messages": [{}], "tool_choice": "required"}', 400, None),
        ("/chat/completions", b'{"model": "none", "messages": [{}]}', 404, "model_not_found"),
        ("/completions", b'{"model": "m"}', 400, "invalid_value"),
        ("/embeddings", b'{"model": "m", "input": []}', 400, "invalid_value"),
        ("/responses", b"{}", 404, "unknown_url"),
    ],
)
async def test_a_bad_request_gets_openais_error(
    session: aiohttp.ClientSession, provider: SimulatedProvider, path: str, body: bytes, status: int, code: str | None
) -> None:
    async with session.post(provider.base_url + path, data=body) as response:
        error = (await response.json())["error"]

    assert (response.status, error["type"], error["code"]) == (status, "invalid_request_error", code)


@pytest.mark.parametrize(("key", "status"), [("right-key", 200), ("wrong-key", 401), ("", 401)])
async def test_only_the_right_key_is_let_in(session: aiohttp.ClientSession, key: str, status: int) -> None:
    async with SimulatedProvider(Behaviour("p", ttfb_ms=1, models=("m",), api_key="right-key"), 1) as provider:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with session.post(provider.base_url + "/chat/completions", json=CHAT, headers=headers) as response:
            text = await response.text()

        assert response.status == status
        assert ("invalid_api_key" in text) is (status == 401)
        assert "key" not in text.replace("API key", "").replace("invalid_api_key", "")


async def test_over_the_limit_comes_429_with_the_wait_and_the_state_of_the_limits(session: aiohttp.ClientSession) -> None:
    limited = Behaviour("p", ttfb_ms=1, models=("m",), requests_per_minute=6, tokens_per_minute=60_000, burst_s=10)
    async with SimulatedProvider(limited, 1) as provider:
        first, headers, _ = await post(session, provider)
        second, refused, body = await post(session, provider)

    assert (first, second) == (200, 429)
    told = {f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")}
    assert told <= set(headers)
    assert 9 <= int(refused["retry-after"]) <= 10
    assert (body["error"]["type"], body["error"]["code"]) == ("requests", "rate_limit_exceeded")


# What it remembers


async def test_the_body_and_headers_that_came_can_be_read_back_byte_for_byte(
    session: aiohttp.ClientSession, provider: SimulatedProvider
) -> None:
    sent = '{ "model":"m",  "messages":[{"role":"user","content":"caf\u00e9 \\u00e9"}], "odd" : 1e2 }'.encode()
    headers = {"Authorization": "Bearer s3cret", "X-Mine": "Yes"}
    async with session.post(provider.base_url + "/chat/completions", data=sent, headers=headers) as response:
        await response.read()

    async with session.get(provider.control_url + "/requests") as response:
        text = await response.text()
        record = orjson.loads(text)["requests"][0]

    assert base64.b64decode(record["body_base64"]) == sent
    assert ["X-Mine", "Yes"] in record["headers"]
    assert record["outcome"] == "ok"
    assert record["ended_at"] > record["at"]
    assert "s3cret" not in text


@pytest.mark.parametrize("stream", [True, False])
async def test_pain_17_a_caller_who_leaves_in_the_wait_is_recorded_as_cancelled(
    session: aiohttp.ClientSession, stream: bool
) -> None:
    async with SimulatedProvider(Behaviour("p", ttfb_ms=60_000, sigma=0, capacity=1, models=("m",)), 1) as provider:
        served = asyncio.ensure_future(post(session, provider, stream=stream))
        await until(lambda: provider.simulation.slots.served == 1)
        waiting = asyncio.ensure_future(post(session, provider, stream=stream))
        await until(lambda: provider.simulation.slots.waiting == 1)

        for call in (waiting, served):
            call.cancel()
        await until(lambda: not provider.simulation.calls)

        assert [record.outcome for record in provider.records()] == ["cancelled", "cancelled"]
        assert (provider.simulation.slots.served, provider.simulation.slots.waiting) == (0, 0)
        assert all(record.ended_at is not None and record.ended_at < 30 for record in provider.records())


async def test_pain_17_a_caller_who_leaves_in_mid_stream_is_recorded_as_cancelled(session: aiohttp.ClientSession) -> None:
    async with SimulatedProvider(Behaviour("p", ttfb_ms=1, sigma=0, tokens_per_second=0.1, models=("m",)), 1) as provider:
        async with session.post(provider.base_url + "/chat/completions", json=CHAT | {"stream": True}) as response:
            await response.content.readany()
        await until(lambda: not provider.simulation.calls)

        record = provider.records()[0]
        assert (record.outcome, record.output_tokens) == ("cancelled", 1)


async def test_calls_beyond_capacity_wait_in_line(session: aiohttp.ClientSession) -> None:
    async with SimulatedProvider(Behaviour("p", ttfb_ms=30, sigma=0, capacity=1, models=("m",)), 1) as provider:
        answers = await asyncio.gather(*(post(session, provider) for _ in range(3)))

        served = [record.served_at for record in provider.records()]
        ended = [record.ended_at for record in provider.records()]
        assert [status for status, _, _ in answers] == [200, 200, 200]
        assert all(served[number + 1] >= ended[number] for number in range(2))  # type: ignore[operator] # all have ended


# Life


async def test_stopping_breaks_off_what_runs_and_closes_the_port(session: aiohttp.ClientSession) -> None:
    provider = SimulatedProvider(QUICK, 1)
    await provider.start()
    provider.switch_on(Fault(FaultKind.HANG))
    hanging = asyncio.ensure_future(post(session, provider))
    await until(lambda: bool(provider.simulation.calls))

    await provider.stop()
    await provider.stop()

    with pytest.raises(aiohttp.ClientError):
        await hanging
    with pytest.raises(aiohttp.ClientConnectorError):
        await post(session, provider)


async def test_the_world_of_the_demo_has_three_providers_that_share_their_models(session: aiohttp.ClientSession) -> None:
    async with demo_world(seed=1) as providers:
        config = demo_config(providers)
        for provider, entry in zip(providers, config["providers"], strict=True):
            headers = {"Authorization": f"Bearer {entry['api_key']}"}
            async with session.get(entry["base_url"] + "/models", headers=headers) as response:
                names = [model["id"] for model in (await response.json())["data"]]
            assert [model["name"] for model in entry["models"]] == names == ["demo-small", "demo-large"]
            assert entry["id"] == provider.behaviour.name

    loaded = load_bytes(orjson.dumps(config), Path("demo.yaml"), {})
    assert sorted(loaded.credentials) == ["steady", "swift", "thrifty"]
    swift, steady, thrifty = demo_behaviours()
    assert swift.ttfb_ms < steady.ttfb_ms < thrifty.ttfb_ms
    assert swift.output_price > steady.output_price > thrifty.output_price
    assert thrifty.requests_per_minute is not None
