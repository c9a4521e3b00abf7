"""The official SDK takes the gateway for OpenAI, with nothing but ``base_url`` changed."""

from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from runtime.simulation.behaviour import Behaviour
from runtime.simulation.server import SimulatedProvider
from tests.daemon.gateway import Gateway, provider
from tests.daemon.gateway_upstreams import Backstage

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def simulated(backstage: Backstage, lane: str) -> Iterator[SimulatedProvider]:
    behaviour = Behaviour("sim", ttfb_ms=2, tokens_per_second=10_000, models=("m", "upstream-name"), api_key="ours-123456")
    with backstage.simulated(behaviour) as found:
        yield found


@pytest.fixture(scope="module")
def gateway(simulated: SimulatedProvider) -> Iterator[Gateway]:
    models = ["m", {"name": "org/model:v1", "upstream": "upstream-name"}]
    entry = provider("sim", simulated.base_url, models, api_key="ours-123456")
    with Gateway({"providers": [entry], "aliases": {"nick": "m"}}) as found:
        yield found


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="anything") as found:
        yield found


@pytest.fixture
async def async_client(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="anything") as found:
        yield found


def test_a_whole_answer(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="nick", messages=MESSAGES, max_tokens=5)
    completion = raw.parse()

    assert (completion.choices[0].message.content or "").startswith("[sim]")
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 5
    assert raw.headers["x-pointsman-provider"] == "sim"
    assert completion._request_id == raw.headers["x-request-id"]


def test_a_stream_with_and_without_usage(client: openai.OpenAI) -> None:
    plain = list(client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=5, stream=True))
    options = {"include_usage": True}
    counted = list(
        client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=5, stream=True, stream_options=options)  # type: ignore[call-overload] # a plain dict on purpose, as users write it
    )

    texts = ["".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) for chunks in (plain, counted)]
    assert [len(text.split()) for text in texts] == [5, 5]
    assert all(chunk.usage is None for chunk in plain)
    assert counted[-1].choices == []
    assert counted[-1].usage.completion_tokens == 5


def test_tools_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="m", messages=MESSAGES, tools=[WEATHER], tool_choice="required")
    with client.chat.completions.stream(model="m", messages=MESSAGES, tools=[WEATHER], tool_choice="required") as stream:
        streamed = stream.get_final_completion()

    for completion in (whole, streamed):
        calls = completion.choices[0].message.tool_calls
        assert calls is not None
        assert calls[0].type == "function"
        assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"city":"simulated"}')
        assert completion.choices[0].finish_reason == "tool_calls"


def test_what_the_sdk_sends_arrives_as_it_sent_it(client: openai.OpenAI, simulated: SimulatedProvider) -> None:
    client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "größe \u2028 \U0001f600"}],
        temperature=0.1,
        seed=2**53 + 1,
        metadata={"a": "b"},
        extra_body={"vendor_option": {"deep": [1, None, "x"]}},
    )

    record = simulated.records("/chat/completions")[-1]
    assert '"content":"größe \u2028 \U0001f600"'.encode() in record.body
    assert b'"seed":9007199254740993' in record.body
    assert b'"vendor_option":{"deep":[1,null,"x"]}' in record.body
    assert record.key == "right"


def test_legacy_completions_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="m", prompt="Once", max_tokens=5)
    streamed = list(client.completions.create(model="m", prompt="Once", max_tokens=5, stream=True))

    assert len(whole.choices[0].text.split()) == 5
    assert len("".join(chunk.choices[0].text for chunk in streamed).split()) == 5


def test_embeddings(client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="m", input=["a", "b"])

    assert [len(item.embedding) for item in found.data] == [16, 16]
    assert all(isinstance(number, float) for number in found.data[0].embedding)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    listed = client.models.list().data

    assert [(model.id, model.owned_by) for model in listed] == [("m", "sim"), ("nick", "sim"), ("org/model:v1", "sim")]
    assert client.models.retrieve("m").id == "m"
    assert client.models.retrieve("org/model:v1").id == "org/model:v1"
    assert client.chat.completions.create(model="org/model:v1", messages=MESSAGES).model == "upstream-name"
    with pytest.raises(openai.NotFoundError, match="none"):
        client.models.retrieve("none")


async def test_the_async_client_does_all_that_too(async_client: openai.AsyncOpenAI) -> None:
    whole = await async_client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=5)
    stream = await async_client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=5, stream=True)
    chunks = [chunk async for chunk in stream]
    async with async_client.chat.completions.stream(
        model="m", messages=MESSAGES, tools=[WEATHER], tool_choice="required"
    ) as tools:
        called = await tools.get_final_completion()
    legacy = await async_client.completions.create(model="m", prompt="Once", max_tokens=5)
    vectors = await async_client.embeddings.create(model="m", input="a")
    models = [model.id async for model in async_client.models.list()]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(text.split()) == len((whole.choices[0].message.content or "").split()) == 5
    assert called.choices[0].message.tool_calls
    assert len(legacy.choices[0].text.split()) == 5
    assert len(vectors.data) == 1
    assert models == ["m", "nick", "org/model:v1"]
