"""A failing provider is asked once and the next one answers; what cannot be mended is told as what it is."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from tests.daemon.gateway import Gateway, chat_body, eventually, provider
from tests.daemon.gateway_upstreams import (
    DONE,
    ROLE,
    Exchange,
    Script,
    ScriptedUpstream,
    answers,
    error,
    hangs,
    replies,
    streams,
)

BUSY = error("slow down", "rate_limit_exceeded", "requests")


async def cuts(exchange: Exchange) -> None:
    """Takes the request and breaks the connection."""
    exchange.cut()


async def half_an_answer(exchange: Exchange) -> None:
    """Promises more bytes than it sends."""
    await exchange.send(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"choices":')
    exchange.cut()


async def never_done(exchange: Exchange) -> None:
    """Has its status at once, and a byte of its answer now and then."""
    await exchange.send(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"choices":[')
    while True:
        await exchange.send(b" ")
        await asyncio.sleep(0.02)


async def not_http(exchange: Exchange) -> None:
    await exchange.send(b"220 mail.example.test ESMTP\r\n")
    exchange.cut()


@dataclass(frozen=True)
class Case:
    """A way to fail, and what the decision record says of it."""

    script: Script
    code: str
    status: int = 0
    stream: bool = False
    timeouts: dict[str, str] | None = None
    provider_status: str = "ready"
    """Afterwards, a provider that nobody has proved good is unchecked."""


HTML = b"<!doctype html><html><body>Welcome to nginx!</body></html>"
SERVER_ERROR = error("overloaded", "overloaded", "server_error")

CASES = {
    "connection_cut": Case(cuts, "broken"),
    "silence": Case(hangs, "first_byte_timeout", timeouts={"first_byte": "200ms"}),
    "never_done": Case(never_done, "total_timeout", 200, timeouts={"total": "400ms"}),
    "not_http": Case(not_http, "broken"),
    "bad_key": Case(replies(401, error("bad key", "invalid_api_key")), "http_401", 401, provider_status="auth_failed"),
    "forbidden_key": Case(
        replies(403, error("no permission", "permission_denied", "permission_error")),
        "http_403",
        403,
        provider_status="auth_failed",
    ),
    "no_such_model": Case(replies(404, error("no such model", "model_not_found")), "model_not_found", 404),
    "rate_limit": Case(replies(429, BUSY, ("retry-after", "60")), "http_429", 429),
    "no_money": Case(replies(429, error("pay", "insufficient_quota", "insufficient_quota")), "insufficient_quota", 429),
    "error_500": Case(replies(500, b"oops", content_type="text/plain"), "http_500", 500),
    "error_502": Case(replies(502, HTML, content_type="text/html"), "http_502", 502),
    "error_503": Case(replies(503, SERVER_ERROR), "http_503", 503),
    "error_504": Case(replies(504, HTML, content_type="text/html"), "http_504", 504),
    "error_529": Case(replies(529, SERVER_ERROR), "http_529", 529),
    "empty_200": Case(replies(200, b""), "empty", 200),
    "blank_200": Case(replies(200, b" \n"), "empty", 200),
    "html_200": Case(replies(200, HTML, content_type="text/html"), "not_json", 200),
    "half_json_200": Case(replies(200, b'{"choices":[{"message"'), "not_json", 200),
    "list_200": Case(replies(200, b"[1]"), "not_json", 200),
    "error_200": Case(replies(200, error("overloaded", None, "server_error")), "error_event", 200),
    "no_choices_200": Case(replies(200, b'{"choices":[]}'), "no_choices", 200),
    "half_an_answer": Case(half_an_answer, "broken", 200),
    "redirect": Case(replies(302, b"", ("location", "http://127.0.0.1:9/")), "http_302", 302),
    "s_silence": Case(hangs, "first_byte_timeout", stream=True, timeouts={"first_byte": "200ms"}),
    "s_error_500": Case(replies(500, SERVER_ERROR), "http_500", 500, stream=True),
    "s_rate_limit": Case(replies(429, BUSY), "http_429", 429, stream=True),
    "s_empty": Case(streams(), "empty", 200, stream=True),
    "s_comments_only": Case(streams(b": hi\n\n", b": there\n\n"), "empty", 200, stream=True),
    "s_role_only": Case(streams(ROLE), "empty", 200, stream=True),
    "s_done_at_once": Case(streams(ROLE, DONE), "empty", 200, stream=True),
    "s_error_first": Case(streams(b"data: " + SERVER_ERROR + b"\n\n"), "error_event", 200, stream=True),
    "s_error_after_role": Case(streams(ROLE, b"data: " + SERVER_ERROR + b"\n\n"), "error_event", 200, stream=True),
    "s_cut_after_role": Case(streams(ROLE, cut=True), "broken", 200, stream=True),
    "s_html": Case(replies(200, HTML, content_type="text/html"), "empty", 200, stream=True),
    "s_not_json": Case(streams(b"data: hello\n\n"), "not_json", 200, stream=True),
    "s_plain_error": Case(replies(200, SERVER_ERROR), "error_event", 200, stream=True),
}

AGAIN = {f"{name}.again": CASES[name] for name in ("bad_key", "rate_limit", "no_such_model", "error_503")}
"""Pools of their own for tests that look closer, so that none depends on another."""


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.keeps_alive = False
    providers = []
    for name, case in (CASES | AGAIN).items():
        bad, good = f"{name}.bad", f"{name}.good"
        upstream.scripts.update({bad: case.script, good: answers})
        more: dict[str, Any] = {"timeouts": case.timeouts} if case.timeouts else {}
        providers += [
            provider(bad, upstream.base_url(bad), [name], **more),
            provider(good, upstream.base_url(good), [name]),
        ]
    with Gateway({"providers": providers, "routing": {"strategy": "first"}}) as found:
        yield found


@pytest.mark.parametrize("name", CASES)
def test_pain_04_07_09_11_the_next_provider_answers_and_the_failing_one_is_asked_once(
    gateway: Gateway, upstream: ScriptedUpstream, name: str
) -> None:
    # Given a pool whose first provider fails in this way
    case = CASES[name]

    # When a request comes
    answer = gateway.chat(name, stream=case.stream)

    # Then the next one answers, and the answer tells that it took two calls
    assert answer.status == 200, answer.body
    assert answer.header("x-pointsman-provider") == f"{name}.good"
    assert answer.header("x-pointsman-attempts") == "2"
    # And each was asked once
    assert len(upstream.requests(f"{name}.bad")) == 1
    assert len(upstream.requests(f"{name}.good")) == 1
    # And nothing of the failed answer is in the good one
    good = b'"content":"hi"'
    assert answer.body.count(good) == 1
    if case.stream:
        assert answer.body.startswith(ROLE)
        assert answer.body.count(ROLE) == 1
        assert answer.body.endswith(DONE)
    # And the record tells both calls and why the first failed
    first, second = gateway.decision(answer)["attempts"]
    assert (first["provider"], first["outcome"], first["code"], first["status"]) == (
        f"{name}.bad",
        "failed",
        case.code,
        case.status,
    )
    assert (second["provider"], second["outcome"], second["status"]) == (f"{name}.good", "success", 200)
    # And the provider stands as it should
    report = gateway.providers()[f"{name}.bad"]
    assert report["in_flight"] == 0
    assert (report["status"] == "auth_failed") == (case.provider_status == "auth_failed"), report
    if case.provider_status == "auth_failed":
        assert "auth_failed" in report["reason"]


def test_pain_07_a_provider_with_a_bad_key_is_not_asked_again(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gateway.chat("bad_key.again")
    asked = len(upstream.requests("bad_key.again.bad"))

    answer = gateway.chat("bad_key.again")

    assert answer.header("x-pointsman-attempts") == "1"
    assert len(upstream.requests("bad_key.again.bad")) == asked == 1
    left_out = {one["provider"]: one["reason"] for one in gateway.decision(answer)["candidates"]}
    assert left_out["bad_key.again.bad"] == "auth_failed"


def test_pain_09_a_rate_limited_provider_rests_for_as_long_as_it_asked(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gateway.chat("rate_limit.again")

    answer = gateway.chat("rate_limit.again")

    assert answer.header("x-pointsman-attempts") == "1"
    assert len(upstream.requests("rate_limit.again.bad")) == 1
    assert "rate_limited" in gateway.providers()["rate_limit.again.bad"]["reason"]
    assert gateway.providers()["rate_limit.again.bad"]["circuit"] == "closed"


def test_a_model_missing_at_one_provider_costs_that_provider_nothing_else(gateway: Gateway) -> None:
    gateway.chat("no_such_model.again")

    report = gateway.providers()["no_such_model.again.bad"]
    assert (report["circuit"], report["status"]) != ("open", "unavailable")
    assert report["health"] == 1.0


def test_a_refused_connection_leads_to_the_next_provider(upstream: ScriptedUpstream, gateway_of_dead: Gateway) -> None:
    answer = gateway_of_dead.chat("m")

    assert (answer.status, answer.header("x-pointsman-provider")) == (200, "good")
    first, _ = gateway_of_dead.decision(answer)["attempts"]
    assert (first["provider"], first["code"], first["status"]) == ("dead", "connect", 0)


@pytest.fixture
def gateway_of_dead(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.scripts["good"] = answers
    providers = [provider("dead", "http://127.0.0.1:1/v1", ["m"]), provider("good", upstream.base_url("good"), ["m"])]
    with Gateway({"providers": providers, "routing": {"strategy": "first"}}) as found:
        yield found


def test_D8_a_connection_that_is_not_made_within_its_providers_time_leads_to_the_next_one(upstream: ScriptedUpstream) -> None:
    upstream.scripts["good"] = answers
    with socket.create_server(("127.0.0.1", 0)) as mute:
        # It listens, and never says a word of its handshake.
        url = f"https://127.0.0.1:{mute.getsockname()[1]}/v1"
        providers = [
            provider("mute", url, ["m"], timeouts={"connect": "300ms"}),
            provider("good", upstream.base_url("good"), ["m"]),
        ]
        with Gateway({"providers": providers, "routing": {"strategy": "first"}}) as gateway:
            answer = gateway.chat("m")
            first, second = gateway.decision(answer)["attempts"]

    assert (answer.status, second["provider"]) == (200, "good")
    assert (first["provider"], first["code"]) == ("mute", "connect_timeout")
    # By default it would have had two seconds.
    assert 290 <= first["duration_ms"] < 1900


def test_completions_and_embeddings_fail_over_too(upstream: ScriptedUpstream, gateway_of_dead: Gateway) -> None:
    said = b'{"data":[{"embedding":[1]}],"choices":[{"text":"x"}]}'
    upstream.scripts["good"] = replies(200, said)

    for path, body in (("/v1/completions", {"prompt": "x"}), ("/v1/embeddings", {"input": "x"})):
        answer = gateway_of_dead.post(path, orjson.dumps({"model": "m", **body}))
        assert (answer.status, answer.body) == (200, said)


def test_many_at_once_all_get_their_answer_while_the_first_provider_fails(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    connections = [gateway.connect() for _ in range(50)]
    body = chat_body("error_503.again")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    try:
        for connection in connections:
            connection.sendall(head + body)
        answers_said = [connection.recv(65536) for connection in connections]
    finally:
        for connection in connections:
            connection.close()

    assert {said[:12] for said in answers_said} == {b"HTTP/1.1 200"}
    eventually(lambda: gateway.providers()["error_503.again.good"]["in_flight"] == 0, "all permits are back")
