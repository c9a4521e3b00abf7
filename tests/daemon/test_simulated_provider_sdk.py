"""The official SDK takes a simulated provider for the real thing."""

from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import Fault, FaultKind
from runtime.simulation.server import SimulatedProvider

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
async def provider() -> AsyncIterator[SimulatedProvider]:
    async with SimulatedProvider(
        Behaviour("p", ttfb_ms=2, tokens_per_second=10_000, models=("m",), api_key="k"), 1
    ) as provider:
        yield provider


@pytest.fixture
async def client(provider: SimulatedProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as client:
        yield client


async def test_the_sdk_reads_whole_answers_streams_completions_embeddings_and_models(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=5)
    stream = await client.chat.completions.create(
        model="m", messages=MESSAGES, max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    legacy = await client.completions.create(model="m", prompt="Once", max_tokens=5)
    vectors = await client.embeddings.create(model="m", input=["a", "b"])
    models = [model.id async for model in client.models.list()]

    assert whole.usage is not None
    assert whole.usage.completion_tokens == 5
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(text.split()) == len((whole.choices[0].message.content or "").split()) == 5
    assert chunks[-1].usage is not None
    assert len(legacy.choices[0].text.split()) == 5
    assert [len(item.embedding) for item in vectors.data] == [16, 16]
    assert models == ["m"]


async def test_the_sdk_sees_tool_calls_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="m", messages=MESSAGES, tools=[WEATHER], tool_choice="required")
    async with client.chat.completions.stream(model="m", messages=MESSAGES, tools=[WEATHER], tool_choice="required") as stream:
        streamed = await stream.get_final_completion()

    for completion in (whole, streamed):
        calls = completion.choices[0].message.tool_calls
        assert calls is not None
        assert calls[0].type == "function"
        assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"city":"simulated"}')


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(FaultKind.AUTH), openai.AuthenticationError),
        (Fault(FaultKind.RATE_LIMIT), openai.RateLimitError),
        (Fault(FaultKind.ERRORS), openai.InternalServerError),
        (Fault(FaultKind.OUTAGE), openai.APIConnectionError),
    ],
)
async def test_faults_raise_the_sdks_own_errors(
    client: openai.AsyncOpenAI, provider: SimulatedProvider, fault: Fault, error: type[Exception]
) -> None:
    provider.switch_on(fault)

    with pytest.raises(error):
        await client.chat.completions.create(model="m", messages=MESSAGES)


async def test_mistakes_raise_the_sdks_own_errors(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await client.chat.completions.create(model="none", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=0)
