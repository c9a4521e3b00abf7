"""Where trying ends: the client's own errors, the deadline, the attempt budget, and what a client is told then."""

from collections.abc import Iterator
from time import monotonic

import pytest

from tests.daemon.gateway import Answer, Gateway, chat_body, provider
from tests.daemon.gateway_upstreams import ROLE, Exchange, Script, ScriptedUpstream, answers, error, event, hangs, replies

BUSY = error("slow down", "rate_limit_exceeded", "requests")
MISTAKE = b'{"error": {"message":"temperature must be at most 2 \\u00e9",  "type":"invalid_request_error","code":null,"x":1}}'
BROKEN = replies(503, error("down", None, "server_error"))


def limited(retry_after: str) -> Script:
    return replies(429, BUSY, ("retry-after", retry_after))


async def busy_once(exchange: Exchange) -> None:
    """A rate limit that is over after a second."""
    is_first = not BUSY_ONCE_ASKED
    BUSY_ONCE_ASKED.append(exchange)
    if is_first:
        await exchange.reply(429, BUSY, ("retry-after", "1"))
    else:
        await answers(exchange)


BUSY_ONCE_ASKED: list[Exchange] = []


def cuts_after_content(*pieces: bytes) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for piece in pieces:
            await exchange.chunk(piece)
        exchange.cut()

    return script


async def pauses_after_content(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.chunk(event({"content": "half"}))
    await exchange.hang()


async def errs_after_content(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.chunk(event({"content": "half"}))
    await exchange.chunk(b"data: " + error("overloaded", None, "server_error") + b"\n\n")
    await exchange.end_stream()


async def ends_without_finish(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.chunk(event({"content": "half"}))
    await exchange.end_stream()


HALF = ROLE + event({"content": "half"})
POOLS: dict[str, dict[str, Script]] = {
    "mistake_400": {"a": replies(400, MISTAKE), "b": answers},
    "mistake_422": {"a": replies(422, MISTAKE), "b": answers},
    "mistake_413": {"a": replies(413, MISTAKE), "b": answers},
    "busy_once": {"a": busy_once},
    "all_busy": {"a": limited("30"), "b": limited("20")},
    "all_bad_keys": {"a": replies(401, error("no")), "b": replies(401, error("no"))},
    "all_broken": {"a": BROKEN, "b": replies(200, b"<html>"), "c": replies(502, b"")},
    "many_broken": dict.fromkeys("abcdef", BROKEN),
    "all_hang": {"a": hangs, "b": hangs},
    "cut_whole": {"a": cuts_after_content(ROLE, event({"content": "half"})), "b": answers},
    "cut_inside": {"a": cuts_after_content(ROLE, event({"content": "half"}), b'data: {"choices":[{"del'), "b": answers},
    "pause": {"a": pauses_after_content, "b": answers},
    "late_error": {"a": errs_after_content, "b": answers},
    "no_finish": {"a": ends_without_finish, "b": answers},
}


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    providers = []
    for pool, members in POOLS.items():
        for name, script in members.items():
            identity = f"{pool}.{name}"
            upstream.scripts[identity] = script
            providers.append(provider(identity, upstream.base_url(identity), [pool], timeouts={"idle": "300ms"}))
    failover = {"backoff": {"kind": "exponential", "base": "10ms", "max": "20ms"}}
    with Gateway({"providers": providers, "routing": {"strategy": "first", "failover": failover}}) as found:
        yield found


def asked(upstream: ScriptedUpstream, pool: str) -> dict[str, int]:
    return {name: len(upstream.requests(f"{pool}.{name}")) for name in POOLS[pool]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("pool", "status"), [("mistake_400", 400), ("mistake_422", 422), ("mistake_413", 413)])
def test_the_clients_own_mistake_passes_through_and_teaches_nothing(
    gateway: Gateway, upstream: ScriptedUpstream, pool: str, status: int, stream: bool
) -> None:
    upstream.forget()

    answer = gateway.chat(pool, stream=stream)

    assert (answer.status, answer.body) == (status, MISTAKE)
    assert answer.header("x-pointsman-provider") == f"{pool}.a"
    assert answer.header("x-pointsman-attempts") == "1"
    assert asked(upstream, pool) == {"a": 1, "b": 0}
    report = gateway.providers()[f"{pool}.a"]
    assert (report["failures"], report["circuit"], report["health"]) == (0, "closed", 1.0)


def test_pain_12_a_short_rate_limit_of_the_only_provider_is_waited_out(gateway: Gateway) -> None:
    # Given one provider that says: in a second
    BUSY_ONCE_ASKED.clear()
    begun_at = monotonic()

    # When a request comes
    answer = gateway.chat("busy_once")

    # Then it waits, no shorter than asked, and is answered
    assert answer.status == 200, answer.body
    assert monotonic() - begun_at >= 1.0
    assert len(BUSY_ONCE_ASKED) == 2
    assert answer.header("x-pointsman-attempts") == "2"


def test_pain_12_28_where_all_are_rate_limited_the_client_is_told_when_to_come_back(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.forget()

    answer = gateway.chat("all_busy", {"x-pointsman-deadline": "5000"})

    assert answer.status == 429, answer.body
    assert answer.error["code"] == "rate_limit_exceeded"
    assert answer.error["type"] == "rate_limit_error"
    assert 15 <= int(answer.header("retry-after") or 0) <= 20
    # The SDK may retry this: it is told when.
    assert answer.header("x-should-retry") is None
    assert "all_busy.a" in answer.error["message"]
    assert "all_busy.b" in answer.error["message"]
    assert asked(upstream, "all_busy") == {"a": 1, "b": 1}

    # And who comes too early is told so, and nobody is asked for it
    again = gateway.chat("all_busy", {"x-pointsman-deadline": "1000"})
    assert again.status == 429, again.body
    assert 10 <= int(again.header("retry-after") or 0) <= 20
    assert asked(upstream, "all_busy") == {"a": 1, "b": 1}


def test_where_every_key_is_bad_the_client_is_told_so(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.forget()

    first, second = gateway.chat("all_bad_keys"), gateway.chat("all_bad_keys")

    for answer in (first, second):
        assert answer.status == 401, answer.body
        assert (answer.error["code"], answer.error["type"]) == ("provider_auth_failed", "authentication_error")
        assert answer.header("x-should-retry") == "false"
    assert asked(upstream, "all_bad_keys") == {"a": 1, "b": 1}


def test_pain_19_when_all_attempts_are_spent_the_answer_names_each_provider_and_why(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.forget()

    answer = gateway.chat("all_broken")

    assert answer.status == 502, answer.body
    assert (answer.error["code"], answer.error["type"]) == ("upstream_error", "server_error")
    assert answer.header("x-should-retry") == "false"
    assert answer.header("x-pointsman-attempts") == "3"
    message = answer.error["message"]
    assert "all_broken.a failed: http_503 (status 503)" in message
    assert "all_broken.b failed: not_json (status 200)" in message
    assert "all_broken.c failed: http_502 (status 502)" in message
    assert asked(upstream, "all_broken") == {"a": 1, "b": 1, "c": 1}
    # And the record of the decision is there for who wants to know more
    record = gateway.decision(answer)
    assert [(one["provider"], one["outcome"], one["round"]) for one in record["attempts"]] == [
        ("all_broken.a", "failed", 1),
        ("all_broken.b", "failed", 2),
        ("all_broken.c", "failed", 3),
    ]


def test_pain_13_no_more_calls_are_made_than_the_attempt_budget_allows(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.forget()

    answer = gateway.chat("many_broken")

    assert answer.status == 502
    assert asked(upstream, "many_broken") == {"a": 1, "b": 1, "c": 1, "d": 0, "e": 0, "f": 0}


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_ends_it_all_with_504(gateway: Gateway, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.forget()
    begun_at = monotonic()

    answer = gateway.chat("all_hang", {"x-pointsman-deadline": "300"}, stream=stream)

    assert answer.status == 504, answer.body
    assert 0.3 <= monotonic() - begun_at < 5
    assert answer.error["code"] == "deadline_exceeded"
    assert answer.header("x-should-retry") == "false"
    # One call hung till then, and no other was begun.
    assert sum(asked(upstream, "all_hang").values()) == 1
    # It says nothing about the provider but that it took at least so long.
    assert gateway.providers()["all_hang.a"]["in_flight"] == 0
    assert gateway.providers()["all_hang.a"]["circuit"] == "closed"


@pytest.mark.parametrize(
    ("pool", "kept"),
    [
        ("cut_whole", HALF),
        ("cut_inside", HALF + b'data: {"choices":[{"del'),
        ("pause", event({"content": "half"})),
        ("no_finish", event({"content": "half"})),
    ],
)
def test_pain_04_a_stream_that_breaks_after_content_ends_with_an_error_and_a_cut_connection(
    gateway: Gateway, upstream: ScriptedUpstream, pool: str, kept: bytes
) -> None:
    upstream.forget()

    head, stream = raw_stream(gateway, pool)

    # What came is passed on, then comes one error frame, and no end that could be taken for a good one
    assert head.startswith(b"HTTP/1.1 200 ")
    assert stream.startswith(kept)
    frame = stream.removeprefix(kept).strip()
    assert frame.startswith(b'data: {"error":{"message":"')
    assert frame.count(b"data: ") == 1
    assert b'"code":"upstream_error"' in frame
    assert b"[DONE]" not in stream
    # Nobody else was asked: the client has half an answer already
    assert asked(upstream, pool) == {"a": 1, "b": 0}
    record = gateway.decision(Answer(200, headers_of(head), b""))
    (attempt,) = record["attempts"]
    assert attempt["outcome"] == "failed"


def test_pain_04_an_error_event_after_content_is_passed_on_and_the_connection_is_cut(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.forget()

    head, stream = raw_stream(gateway, "late_error")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert stream == event({"content": "half"}) + b"data: " + error("overloaded", None, "server_error") + b"\n\n"
    assert asked(upstream, "late_error") == {"a": 1, "b": 0}


def raw_stream(gateway: Gateway, model: str) -> tuple[bytes, bytes]:
    """The head and the body of a stream whose chunked coding does not end."""
    body = chat_body(model, stream=True)
    # Keep-alive on purpose: only the gateway can be who closes the connection.
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    said_head, _, said = gateway.exchange(head + body).partition(b"\r\n\r\n")
    pieces = []
    while said:
        size, _, said = said.partition(b"\r\n")
        assert int(size, 16) > 0, "the body has an end, as if it were whole"
        pieces.append(said[: int(size, 16)])
        said = said[int(size, 16) + 2 :]
    return said_head, b"".join(pieces)


def headers_of(head: bytes) -> tuple[tuple[str, str], ...]:
    lines = head.decode().split("\r\n")[1:]
    return tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
