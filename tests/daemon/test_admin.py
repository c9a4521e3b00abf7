"""The admin API: who may use it, and what it tells."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.daemon.gateway import Gateway, chat_body, eventually, provider
from tests.daemon.gateway_upstreams import Exchange, ScriptedUpstream, answers, error, replies

ADMIN_KEY = "correct-horse-battery"
HOSTILE = "<script>alert(1)</script>&\"'"
READS = ["/admin/providers", "/admin/stats", "/admin/decisions", "/admin/decisions/none"]


async def lists_models(exchange: Exchange) -> None:
    await exchange.reply(200, b'{"object":"list","data":[{"id":"learned-a"},{"id":"learned-b"}]}')


def configuration(upstream: ScriptedUpstream, **server: Any) -> dict[str, Any]:
    upstream.scripts.update(
        good=answers, bad=replies(401, error("bad key")), broken=replies(503, error("down")), lists=lists_models
    )
    limits = {"requests_per_minute": 600, "tokens_per_minute": 1_000_000, "max_concurrency": 7}
    model = {"name": "m", "input_price": 1, "output_price": 2}
    return {
        "server": server,
        "providers": [
            provider("bad", upstream.base_url("bad"), ["m"], weight=2),
            provider("good", upstream.base_url("good"), [model], limits=limits, region="eu", tags=["cheap"], priority=3),
            provider("broken", upstream.base_url("broken"), [HOSTILE], circuit={"failures": 1, "open_for": "60s"}),
            {"id": "lists", "kind": "vllm", "base_url": upstream.base_url("lists"), "probe": {"interval": "10m"}},
        ],
        "routing": {"strategy": "first", "failover": {"backoff": {"kind": "none"}}},
        "default_provider": "good",
    }


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with Gateway(configuration(upstream)) as found:
        yield found


@pytest.fixture(scope="module")
def locked(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with Gateway(configuration(upstream, admin_key="${KEY}"), {"KEY": ADMIN_KEY}) as found:
        yield found
        assert ADMIN_KEY not in found.log()


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"bearer{ADMIN_KEY}", "Basic eA==", "", "Bearer größe"])
def test_with_an_admin_key_nobody_else_gets_in(locked: Gateway, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization.encode().decode("latin-1")}

    answer = locked.get(path, headers)

    assert answer.status == 401
    assert answer.error["type"] == "authentication_error"
    assert ADMIN_KEY not in answer.body.decode()


def test_with_the_admin_key_it_answers_whoever_asks(locked: Gateway) -> None:
    key = {"authorization": f"Bearer {ADMIN_KEY}", "host": "gateway.example.com", "x-forwarded-for": "10.0.0.1"}

    assert locked.get("/admin/providers", key).status == 200
    assert locked.get("/admin/decisions/none", key).status == 404
    explained = locked.post("/admin/explain", b'{"model":"m"}', key)
    assert (explained.status, explained.json()["chosen"]) == (200, ["bad", "good"])


def test_with_an_admin_key_the_page_tells_nothing(locked: Gateway) -> None:
    page = locked.get("/")

    assert page.status == 200
    assert b"administrators" in page.body
    assert b"<code>good</code>" not in page.body
    assert b"<code>good</code>" in locked.get("/", {"authorization": f"Bearer {ADMIN_KEY}"}).body


def test_models_and_health_need_no_admin_key(locked: Gateway) -> None:
    for path in ("/v1/models", "/healthz", "/readyz", "/openapi.json"):
        assert locked.get(path).status == 200


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example.com"},
        {"host": "127.0.0.1.evil.example.com"},
        {"origin": "http://evil.example.com"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"x-forwarded-for": "127.0.0.1"},
        {"x-forwarded-prefix": ""},
        {"forwarded": "for=127.0.0.1"},
    ],
)
def test_without_an_admin_key_no_page_and_no_proxy_gets_in(gateway: Gateway, path: str, headers: dict[str, str]) -> None:
    answer = gateway.get(path, headers)

    assert answer.status == 403
    assert answer.error["type"] == "permission_error"


def test_without_an_admin_key_this_machines_own_people_get_in(gateway: Gateway) -> None:
    for headers in ({}, {"host": f"localhost:{gateway.port}"}, {"host": "[::1]"}, {"origin": gateway.url}):
        assert gateway.get("/admin/providers", headers).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
@pytest.mark.parametrize("path", ["/admin/explain", "/admin/providers/good/probe"])
def test_what_a_foreign_page_can_post_without_asking_is_refused(gateway: Gateway, path: str, kind: str) -> None:
    answer = gateway.post(path, b'{"model":"m"}', {"content-type": kind})

    assert (answer.status, answer.error["code"]) == (415, "invalid_request")


def test_providers_are_told_with_the_fields_of_the_contract(gateway: Gateway) -> None:
    eventually(lambda: len(gateway.providers()["lists"]["models"]) == 2, "the list of models is learned")
    told = gateway.get("/admin/providers").json()

    assert list(told) == ["generation", "default", "providers"]
    assert told["default"] == "good"
    assert told["generation"] >= 1
    assert [one["id"] for one in told["providers"]] == ["bad", "good", "broken", "lists"]
    required = {
        *("id", "kind", "models", "status", "reason", "circuit", "health", "in_flight", "weight", "priority", "limits"),
        *("latency_ms", "requests", "successes", "failures"),
    }
    for one in told["providers"]:
        assert required <= set(one)
        assert list(one["latency_ms"]) == ["ewma", "p50", "p95"]
    good = told["providers"][1]
    assert (good["kind"], good["weight"], good["priority"], good["region"], good["tags"]) == (
        "openai_compatible",
        1,
        3,
        "eu",
        ["cheap"],
    )
    assert good["limits"]["requests_per_minute"] == 600
    assert good["models"][0]["name"] == "m"
    assert [model["name"] for model in told["providers"][3]["models"]] == ["learned-a", "learned-b"]


def test_learned_models_are_served(gateway: Gateway) -> None:
    eventually(lambda: "learned-a" in gateway.get("/v1/models").body.decode(), "the list of models is learned")


def test_counts_add_up(gateway: Gateway) -> None:
    before, stats_before = gateway.providers()["good"], gateway.stats()
    headers = {"x-pointsman-exclude": "bad"}
    for number in range(5):
        assert gateway.chat("m", headers, stream=number % 2 == 1).status == 200

    after, stats = gateway.providers()["good"], gateway.stats()
    assert after["requests"] - before["requests"] == 5
    assert after["successes"] - before["successes"] == 5
    assert after["in_flight"] == 0
    assert after["latency_ms"]["p50"] > 0
    assert list(stats) == ["providers", "models", "quotas", "router", "system", "edge"]
    assert stats["router"]["total"] - stats_before["router"]["total"] == 5
    assert stats["router"]["succeeded"] - stats_before["router"]["succeeded"] == 5
    assert set(stats["router"]["decision_us"]) == {"p50", "p95", "p99"}
    assert 0 < stats["router"]["decision_us"]["p50"] < 50_000
    assert stats["edge"]["by_status"]["200"] - stats_before["edge"]["by_status"].get("200", 0) == 5
    line = next(one for one in stats["providers"] if one["name"] == "good")
    assert {"requests", "input_tokens", "output_tokens", "cost_usd", "latency_ms"} <= set(line)
    assert line["cost_usd"] > 0


def test_pain_19_a_decision_tells_candidates_reasons_attempts_and_generation(gateway: Gateway) -> None:
    # Given a request that met a bad key first
    answer = gateway.chat("m", {"x-pointsman-strategy": "first"})
    assert answer.status == 200

    # When the same is asked again, then the record says why the first was left out
    again = gateway.chat("m", {"x-pointsman-strategy": "first"})
    record = gateway.decision(again)
    assert record["decision_id"] == again.header("x-pointsman-decision")
    assert (record["requested_model"], record["model"], record["strategy"]) == ("m", "m", "first")
    assert record["generation"] == gateway.get("/admin/providers").json()["generation"]
    assert record["chosen"] == ["good"]
    bad, good, *others = record["candidates"]
    assert {(one["provider"], one["stage"] != "", one["reason"]) for one in others} == {
        ("broken", True, "model"),
        ("lists", True, "model"),
    }
    assert (bad["provider"], bad["reason"], bad["score"]) == ("bad", "auth_failed", None)
    assert (good["provider"], good["reason"]) == ("good", "")
    assert good["bid"]["healthy"] is True
    assert record["selection_us"] > 0
    (attempt,) = record["attempts"]
    assert (attempt["provider"], attempt["outcome"], attempt["status"]) == ("good", "success", 200)
    assert attempt["duration_ms"] > 0
    assert record in gateway.get("/admin/decisions").json()["decisions"]


@pytest.mark.parametrize("identity", ["none", "%3Cscript%3E", "..", "%ff"])
def test_a_decision_that_never_was_is_not_found(gateway: Gateway, identity: str) -> None:
    answer = gateway.get(f"/admin/decisions/{identity}")

    assert (answer.status, answer.error["code"]) == (404, "decision_not_found")


def test_explaining_decides_for_real_but_calls_nobody(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.forget()
    total_before = gateway.stats()["router"]["total"]
    question = {"model": "m", "prompt_tokens": 100, "max_tokens": 10, "stream": True, "headers": {"x-pointsman-exclude": "bad"}}

    record = gateway.post("/admin/explain", orjson.dumps(question)).json()

    assert record["chosen"] == ["good"]
    reasons = {one["provider"]: one["reason"] for one in record["candidates"]}
    assert reasons == {"bad": "excluded", "good": "", "broken": "model", "lists": "model"}
    assert record["attempts"] == []
    assert upstream.requests("good") == []
    assert gateway.stats()["router"]["total"] == total_before
    assert gateway.providers()["good"]["in_flight"] == 0


@pytest.mark.parametrize(
    ("question", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b"{}", "model"),
        (b'{"model":1}', "model"),
        (b'{"model":"m","tenancy":"acme"}', "tenancy"),
        (b'{"model":"m","prompt_tokens":-1}', "prompt_tokens"),
        (b'{"model":"m","prompt_tokens":true}', "prompt_tokens"),
        (b'{"model":"m","endpoint":"images"}', "endpoint"),
        (b'{"model":"m","headers":{"x-pointsman-regio":"eu"}}', "headers"),
        (b'{"model":"m","headers":{"cookie":"a"}}', "headers"),
        (b'{"model":"m","headers":{"x-pointsman-max-cost":"much"}}', "headers"),
    ],
)
def test_bad_questions_are_refused(gateway: Gateway, question: bytes, param: str | None) -> None:
    answer = gateway.post("/admin/explain", question)

    assert answer.status == 400, answer.body
    assert (answer.error["code"], answer.error["param"]) == ("invalid_request", param)


def test_a_probe_can_be_asked_for(gateway: Gateway) -> None:
    found = gateway.post("/admin/providers/lists/probe", b"{}")

    assert found.status == 200
    assert (found.json()["provider"], found.json()["ok"]) == ("lists", True)
    assert gateway.post("/admin/providers/nobody/probe", b"{}").status == 404
    assert gateway.post("/admin/providers/good/probe", b"{}").json()["ok"] is False


def test_the_page_shows_providers_and_decisions_and_escapes_what_clients_sent(gateway: Gateway) -> None:
    # Given requests for models with hostile names, one of which somebody has
    gateway.chat(HOSTILE)
    gateway.chat("<img src=x onerror=alert(2)>")
    answer = gateway.chat("m")

    page = gateway.get("/")

    assert page.header("content-type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in (page.header("content-security-policy") or "")
    text = page.body.decode()
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    for shown in ("good", "broken", answer.header("x-pointsman-decision"), "auth_failed"):
        assert shown is not None
        assert shown in text


def test_the_api_describes_itself(gateway: Gateway) -> None:
    described = gateway.get("/openapi.json").json()

    assert described["openapi"].startswith("3.1")
    for path in ("/v1/chat/completions", "/v1/models/{id}", "/admin/providers", "/healthz", "/readyz"):
        assert path in described["paths"]
    assert list(described["paths"]["/admin/rules/{name}"]) == ["get", "put", "patch", "delete"]
    assert described["paths"]["/admin/rules/{name}"]["put"]["parameters"][0]["name"] == "name"
    assert list(described["paths"]["/admin/providers"]["post"]["responses"]) == ["201", "default"]


@pytest.mark.parametrize(("name", "status"), [("bad", "auth_failed"), ("broken", "unavailable")])
def test_it_is_ready_while_one_provider_can_take_calls(upstream: ScriptedUpstream, name: str, status: str) -> None:
    # Given a daemon whose only provider has not been heard of
    door = f"ready.{name}"
    upstream.scripts[door] = replies(401, error("bad key")) if name == "bad" else replies(503, error("down"))
    entry = provider(name, upstream.base_url(door), ["m"], circuit={"failures": 1, "open_for": "300ms"})
    entry["probe"] = {"kind": "http", "interval": "1s"}
    with Gateway({"providers": [entry], "routing": {"failover": {"enabled": False}}}) as gateway:
        assert gateway.get("/healthz").json() == {"status": "ok"}

        # When it fails
        eventually(lambda: gateway.chat("m").status != 200 and gateway.providers()[name]["status"] == status, "it has failed")

        # Then the daemon lives but is not ready
        assert gateway.get("/readyz").status == 503
        assert gateway.get("/healthz").status == 200

        # And when the provider is back, it is ready again
        upstream.scripts[door] = answers_probes
        eventually(lambda: gateway.chat("m").status == 200, "it is back", within_s=10)
        assert gateway.get("/readyz").json() == {"status": "ready"}


async def answers_probes(exchange: Exchange) -> None:
    if exchange.body:
        await answers(exchange)
    else:
        await exchange.reply(200, b"{}")


def test_streams_that_are_under_way_are_shown(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()

    async def waits(exchange: Exchange) -> None:
        await gate.passed()
        await answers(exchange)

    upstream.scripts["good"] = waits
    try:
        with gateway.connect() as connection:
            body = chat_body("m", stream=True)
            head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Pointsman-Exclude: bad\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % len(body) + body)
            eventually(lambda: gateway.providers()["good"]["in_flight"] == 1, "it is shown as in flight")
            gate.open()
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        eventually(lambda: gateway.providers()["good"]["in_flight"] == 0, "it is over")
    finally:
        upstream.scripts["good"] = answers
