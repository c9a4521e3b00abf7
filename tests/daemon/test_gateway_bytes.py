"""Bodies pass as they are: up but for the model's value, down to the last byte, and streams chunk by chunk as they come."""

from collections.abc import Iterator

import orjson
import pytest

from tests.daemon.gateway import Gateway, chat_body, provider
from tests.daemon.gateway_upstreams import DONE, ROLE, Exchange, ScriptedUpstream, answers, completion, event, replies, streams


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    models = ["m", {"name": "public", "upstream": 'vendor/"odd" – name'}, "org/with/slashes:free"]
    configuration = {
        "providers": [provider("p", upstream.base_url("p"), models), provider("i", upstream.base_url("i"), ["u"], kind="vllm")]
    }
    with Gateway(configuration) as found:
        yield found


@pytest.fixture(autouse=True)
def _fresh(upstream: ScriptedUpstream) -> None:
    upstream.forget()
    upstream.scripts.update(p=answers, i=answers)


ODD = (
    b'\r\n {"messages" : [ {"role":"user","content":"\\u0061\\ud83d\\ude00 \\/ \xc3\xa9"} ],\t"model"\n:  "%s" ,'
    b'"unknown_field":{"deep":[1e308,0.1000,-0,12345678901234567890123456789012345,{"model":"inner"}]},"seed":1.0E+2,'
    b'"empty":{ },"null":null, "model_":"other", "text":"\\"model\\": \\"fake\\"" }  \n'
)


def test_a_request_arrives_upstream_byte_for_byte(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    # Given a body with odd spaces, escapes, numbers no float can hold as written and fields nobody knows
    body = ODD % b"m"

    # When it is sent on under the same name
    answer = gateway.post("/v1/chat/completions", body)

    # Then not one byte is changed
    assert answer.status == 200, answer.body
    (request,) = upstream.requests("p")
    assert request.body == body
    assert request.target == "/p/v1/chat/completions"


def test_only_the_models_value_is_replaced_where_the_provider_calls_it_otherwise(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    answer = gateway.post("/v1/chat/completions", ODD % b"public")

    assert answer.status == 200, answer.body
    (request,) = upstream.requests("p")
    assert request.body == ODD.replace(b'"%s"', orjson.dumps('vendor/"odd" – name'))


@pytest.mark.parametrize("model", ["org/with/slashes:free", "p:m", "p/m"])
def test_names_with_colons_and_slashes_lead_where_they_should(gateway: Gateway, upstream: ScriptedUpstream, model: str) -> None:
    answer = gateway.chat(model)

    assert answer.status == 200, answer.body
    (request,) = upstream.requests("p")
    assert orjson.loads(request.body)["model"] == model.removeprefix("p:").removeprefix("p/")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", b'{"model":"m","prompt":["a", "b"],"echo":true, "logprobs" : 3}'),
        ("/v1/embeddings", b'{"model":"m","input":[[1,2,3],[4]],"encoding_format" : "base64"}'),
    ],
)
def test_completions_and_embeddings_pass_the_same_way(
    gateway: Gateway, upstream: ScriptedUpstream, path: str, body: bytes
) -> None:
    said = b'{"object":"list", "data":[],"choices":[{"text":"x"}],"usage":{"prompt_tokens":1}}'
    upstream.scripts["p"] = replies(200, said)

    answer = gateway.post(path, body)

    assert (answer.status, answer.body) == (200, said)
    (request,) = upstream.requests("p")
    assert (request.target, request.body) == ("/p" + path, body)


def test_an_answer_comes_back_byte_for_byte(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    said = b' {"choices":[{"message":{"content":"\\u00e9\xc3\xa9 \\/"},"x":1E5}],\r\n"vendor":{"n":1234567890123456789012}}\n\n'
    upstream.scripts["p"] = replies(200, said, content_type="application/json; charset=utf-8")

    answer = gateway.chat("m")

    assert answer.body == said
    assert answer.header("content-type") == "application/json; charset=utf-8"
    assert answer.header("content-length") == str(len(said))


def test_an_answer_of_megabytes_comes_back_whole(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    said = completion("x" * 3_000_000)
    upstream.scripts["p"] = replies(200, said)

    assert gateway.chat("m").body == said


def test_a_request_of_megabytes_arrives_whole(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    body = chat_body("m", text="y" * 5_000_000)

    assert gateway.post("/v1/chat/completions", body).status == 200
    assert upstream.requests("p")[0].body == body


def test_a_chunked_request_is_taken_and_sent_on_with_its_length(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    body = chat_body("m")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7))

    said = gateway.exchange(head + pieces + b"0\r\n\r\n")

    assert said.startswith(b"HTTP/1.1 200 ")
    (request,) = upstream.requests("p")
    assert request.body == body
    assert request.header("content-length") == str(len(body))


def test_a_client_that_expects_100_continue_gets_it_and_its_answer(gateway: Gateway) -> None:
    body = chat_body("m")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
    with gateway.connect() as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


STREAM = (
    b": a comment\r\n\r\n",
    ROLE,
    event({"content": "\u00e9"}),
    b'event: odd\ndata:  {"choices":[{"delta":{"content":"\\u00e9 \\n"}}] , "vendor":1E2}\nid: 7\n\n',
    b'data: {"choices":[],\ndata: "joined":true}\n\n',
    event({}, "stop"),
    DONE,
)


@pytest.mark.parametrize("pieces", [STREAM, [b"".join(STREAM)], [bytes([byte]) for byte in b"".join(STREAM)]])
def test_a_stream_comes_back_byte_for_byte(gateway: Gateway, upstream: ScriptedUpstream, pieces: list[bytes]) -> None:
    upstream.scripts["p"] = streams(*pieces)

    answer = gateway.chat("m", stream=True)

    assert answer.body == b"".join(STREAM)
    assert answer.header("content-type") == "text/event-stream"


def test_pain_06_each_chunk_reaches_the_client_before_the_next_is_sent(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    # Given an upstream that sends its next event only when the client has had the one before
    gates = [upstream.gate() for _ in range(3)]
    texts = [event({"content": f"piece {number}"}) for number in range(3)]

    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(ROLE)
        for gate, text in zip(gates, texts, strict=True):
            await exchange.chunk(text)
            await gate.passed()
        await exchange.chunk(event({}, "stop") + DONE)
        await exchange.end_stream()

    upstream.scripts["p"] = script
    with gateway.opened("POST", "/v1/chat/completions", chat_body("m", stream=True)) as response:
        # Then the client has them one by one, the role with the first
        seen = b""
        for gate, text in zip(gates, texts, strict=True):
            while not seen.endswith(text):
                seen += response.read1()
            gate.open()
        assert seen == ROLE + b"".join(texts)
        assert response.read() == event({}, "stop") + DONE


def test_a_streamed_tool_call_is_not_touched(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    pieces = [
        ROLE,
        event(call),
        event({"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}]}),
        event({}, "tool_calls"),
    ]
    upstream.scripts["p"] = streams(*pieces, DONE)

    assert gateway.chat("m", stream=True).body == b"".join(pieces) + DONE


USAGE = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\n'


def test_usage_we_ask_for_ourselves_is_not_passed_on(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    # Given a kind that is known to tell the usage of a stream, and a client that did not ask for it
    upstream.scripts["i"] = streams(ROLE, event({"content": "x"}), event({}, "stop"), USAGE, DONE)
    before = input_tokens(gateway, "i")
    body = chat_body("u", stream=True)

    answer = gateway.post("/v1/chat/completions", body)

    # Then only that was put in, and the client sees nothing of it, but it is counted
    (request,) = upstream.requests("i")
    assert request.body == b'{"stream_options":{"include_usage":true},' + body[1:]
    assert answer.body == ROLE + event({"content": "x"}) + event({}, "stop") + DONE
    assert input_tokens(gateway, "i") - before == 7


def input_tokens(gateway: Gateway, provider_id: str) -> int:
    return sum(line["input_tokens"] for line in gateway.stats()["providers"] if line["name"] == provider_id)


def test_usage_the_client_asks_for_is_passed_on(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.scripts["i"] = streams(ROLE, event({"content": "x"}), event({}, "stop"), USAGE, DONE)
    body = chat_body("u", stream=True, stream_options={"include_usage": True})

    answer = gateway.post("/v1/chat/completions", body)

    assert upstream.requests("i")[0].body == body
    assert USAGE in answer.body
