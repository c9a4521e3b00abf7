"""What clients send wrongly gets the documented error, is counted, and costs nobody else anything."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.daemon.gateway import HELLO, Answer, Gateway, chat_body, provider
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers

MAX_BODY = 4096


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.scripts["p"] = answers
    entry = provider("p", upstream.base_url("p"), ["m", {"name": "small", "context_window": 100}])
    with Gateway({"server": {"max_body": MAX_BODY}, "providers": [entry]}) as found:
        yield found


@pytest.fixture(autouse=True)
def _fresh(upstream: ScriptedUpstream) -> None:
    upstream.forget()


def refused(gateway: Gateway, upstream: ScriptedUpstream, before: dict[str, Any], status: int) -> None:
    """It was counted with its status, went nowhere, and a good request right after is served."""
    after = gateway.stats()["edge"]
    assert after["refused"] == before["refused"] + 1
    assert after["by_status"].get(str(status), 0) == before["by_status"].get(str(status), 0) + 1
    assert after["in_flight"] == 0
    assert upstream.requests("p") == []
    assert gateway.chat("m").status == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", r"not valid JSON: .* line 1 column 1 \(char 0\)"),
        (b"{", r"not valid JSON: .* line 1 column \d"),
        (b'{"model": "m",\n "messages": [}]}', r"not valid JSON: .* line 2 column \d+ \(char 29\)"),
        (b'{"model": "m"} trailing', r"not valid JSON: .* line 1 column 16 \(char 15\)"),
        (b"\xff\xfe{", "not valid JSON"),
        (b'{"model": "\\ud800"}', "not valid JSON"),
        (b"[" * 2000, "not valid JSON"),
        (b"\x1f\x8b\x08\x00", "not valid JSON"),
    ],
)
def test_broken_json_is_refused_and_the_position_named(
    gateway: Gateway, upstream: ScriptedUpstream, body: bytes, said: str
) -> None:
    before = gateway.stats()["edge"]

    answer = gateway.post("/v1/chat/completions", body)

    assert answer.status == 400
    assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", "invalid_request")
    assert re.search(said, answer.error["message"]), answer.error
    assert answer.header("x-should-retry") == "false"
    refused(gateway, upstream, before, 400)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", {"messages": HELLO}, "model"),
        ("chat/completions", {"messages": HELLO, "model": None}, "model"),
        ("chat/completions", {"messages": HELLO, "model": 7}, "model"),
        ("chat/completions", {"messages": HELLO, "model": ""}, "model"),
        ("chat/completions", {"messages": HELLO, "model": "x" * 300}, "model"),
        ("chat/completions", {"messages": HELLO, "model": "a\nb"}, "model"),
        ("chat/completions", {"model": "m"}, "messages"),
        ("chat/completions", {"model": "m", "messages": "hello"}, "messages"),
        ("chat/completions", {"model": "m", "messages": HELLO, "stream": "yes"}, "stream"),
        ("chat/completions", {"model": "m", "messages": HELLO, "max_tokens": "5"}, "max_tokens"),
        ("chat/completions", {"model": "m", "messages": HELLO, "max_tokens": -1}, "max_tokens"),
        ("chat/completions", {"model": "m", "messages": HELLO, "max_completion_tokens": 1.5}, "max_completion_tokens"),
        ("chat/completions", [1], None),
        ("chat/completions", "text", None),
        ("completions", {"model": "m"}, "prompt"),
        ("embeddings", {"model": "m"}, "input"),
    ],
)
def test_wrong_types_and_missing_fields_are_refused_and_the_field_named(
    gateway: Gateway, upstream: ScriptedUpstream, path: str, body: Any, param: str | None
) -> None:
    before = gateway.stats()["edge"]

    answer = gateway.post(f"/v1/{path}", orjson.dumps(body))

    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == ("invalid_request", param)
    refused(gateway, upstream, before, 400)


def test_an_unknown_model_is_not_found(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    before = gateway.stats()["edge"]

    answer = gateway.chat("gpt-99")

    assert answer.status == 404
    assert (answer.error["code"], answer.error["param"]) == ("model_not_found", "model")
    assert "gpt-99" in answer.error["message"]
    assert gateway.stats()["edge"]["by_status"]["404"] == before["by_status"].get("404", 0) + 1
    assert upstream.requests("p") == []
    decision = gateway.decision(answer)
    assert (decision["requested_model"], decision["error"]) == ("gpt-99", "model_not_supported")


def test_a_prompt_that_fits_nobody_is_refused_as_such(gateway: Gateway) -> None:
    answer = gateway.post("/v1/chat/completions", chat_body("small", messages=[{"role": "user", "content": "x" * 2000}]))

    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("throughput", "0"),
        ("tenant", ""),
        ("priority", "urgent"),
        ("strategie", "first"),
        ("deadline", "soon"),
        ("deadline", "-5"),
        ("deadline", "nan"),
        ("max-cost", "inf"),
        ("exclude", ",".join(map(str, range(100)))),
        ("user", "x" * 2000),
    ],
)
def test_hints_that_cannot_be_followed_are_refused_not_ignored(
    gateway: Gateway, upstream: ScriptedUpstream, name: str, value: str
) -> None:
    before = gateway.stats()["edge"]

    answer = gateway.chat("m", {f"X-Pointsman-{name}": value})

    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == ("invalid_request", f"x-pointsman-{name}")
    refused(gateway, upstream, before, 400)


def test_an_unknown_strategy_is_refused_and_the_known_ones_named(gateway: Gateway) -> None:
    answer = gateway.chat("m", {"x-pointsman-strategy": "best"})

    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert "adaptive" in answer.error["message"]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_the_limit_is_refused(gateway: Gateway, upstream: ScriptedUpstream, is_chunked: bool) -> None:
    before = gateway.stats()["edge"]
    body = chat_body("m", padding="x" * MAX_BODY)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    if is_chunked:
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        sent = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)

    # The connection is closed by the gateway: what else comes on it is the rest of that body.
    answer = parsed(gateway.exchange(sent))

    assert answer.status == 413
    assert answer.error["code"] == "request_too_large"
    assert str(MAX_BODY) in answer.error["message"]
    refused(gateway, upstream, before, 413)


def test_a_body_of_just_the_limit_is_taken(gateway: Gateway) -> None:
    bare = chat_body("m", padding="")

    assert gateway.post("/v1/chat/completions", chat_body("m", padding="x" * (MAX_BODY - len(bare)))).status == 200


def test_an_announced_body_over_the_limit_is_refused_before_it_is_sent(gateway: Gateway) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
    with gateway.connect() as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "garbage",
    [b"zz\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello, longer\r\n0\r\n\r\n"],
)
def test_chunked_garbage_is_refused(gateway: Gateway, upstream: ScriptedUpstream, garbage: bytes) -> None:
    before = gateway.stats()["edge"]
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = parsed(gateway.exchange(head + garbage))

    assert answer.status == 400
    assert answer.error["code"] == "invalid_request"
    refused(gateway, upstream, before, 400)


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\r\n\r\n\x00\x00\x00\r\n\r\n", 400),
        (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: y\r\n" % number for number in range(1000)) + b"\r\n", 431),
    ],
)
def test_what_is_not_http_is_refused(gateway: Gateway, upstream: ScriptedUpstream, garbage: bytes, status: int) -> None:
    before = gateway.stats()["edge"]

    answer = parsed(gateway.exchange(garbage))

    assert answer.status == status
    assert answer.error["code"] == "invalid_request"
    refused(gateway, upstream, before, status)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v1",
        "/v1/",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/V1/chat/completions",
        "/v1/%63hat/completions",
        "/v1/responses",
        "/v1/messages",
        "/admin",
        "/%ff%00",
        "/<script>",
        "/v1/../v1/models/x/../../../etc/passwd",
    ],
)
def test_unknown_paths_are_not_found_in_openais_shape(gateway: Gateway, upstream: ScriptedUpstream, path: str) -> None:
    before = gateway.stats()["edge"]

    answer = gateway.post(path, chat_body("m"))

    assert (answer.status, answer.error["code"]) == (404, "not_found"), answer.body
    refused(gateway, upstream, before, 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/embeddings", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("PUT", "/admin/explain", "POST"),
        ("PATCH", "/healthz", "GET, HEAD"),
    ],
)
def test_methods_a_path_does_not_take_are_refused(
    gateway: Gateway, upstream: ScriptedUpstream, method: str, path: str, allowed: str
) -> None:
    before = gateway.stats()["edge"]

    answer = gateway.call(method, path)

    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.header("allow") == allowed
    refused(gateway, upstream, before, 405)


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/models", "/v1/models/m", "/admin/providers"])
def test_head_is_get_without_a_body(gateway: Gateway, path: str) -> None:
    whole, bare = gateway.get(path), gateway.call("HEAD", path)

    assert (bare.status, bare.body) == (200, b"")
    assert whole.body


def test_a_query_after_the_path_changes_nothing(gateway: Gateway) -> None:
    assert gateway.post("/v1/chat/completions?api-version=2024-10-21", chat_body("m")).status == 200


def test_requests_sent_in_one_go_are_answered_in_order(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    body = chat_body("m")
    one = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body)

    said = gateway.exchange(one + b"X-Request-Id: first\r\n\r\n" + body + one + b"Connection: close\r\n\r\n" + body)

    assert said.count(b"HTTP/1.1 200 ") == 2
    assert said.index(b"x-request-id: first") < said.index(b"x-request-id: req-")


def parsed(said: bytes) -> Answer:
    """An answer as it came on the wire."""
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    return Answer(int(first.split(" ")[1]), headers, body)
