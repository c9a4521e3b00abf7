"""What clients say in ``x-pointsman-*`` headers, end to end: it decides who answers, and the record tells it."""

from collections.abc import Iterator
from typing import Any

import pytest

from runtime.http.hints import HEADERS
from tests.daemon.gateway import Answer, Gateway, chat_body, eventually, provider
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.scripts["p"] = answers
    url = upstream.base_url("p")
    cheap = {"name": "m", "input_price": 1, "output_price": 1}
    dear = {"name": "m", "input_price": 100_000, "output_price": 100_000}
    configuration: dict[str, Any] = {
        "providers": [
            provider("dear", url, [dear], region="us", zone="us-1", tags=["slow", "us"]),
            provider("cheap", url, [cheap], region="eu", zone="eu-1", tags=["slow", "eu"]),
            provider("free", url, ["m"], region="eu", zone="eu-2", tags=["slow"]),
        ],
        "routing": {"strategy": "first"},
        "tenants": {
            "acme": {"allowed_providers": ["free", "cheap"], "strategy": "first"},
            "nobody": {"allowed_providers": []},
            "thrifty": {"max_cost_per_request": 0.01},
            "picky": {"preferred_providers": ["free"]},
        },
    }
    with Gateway(configuration) as found:
        yield found


def said(gateway: Gateway, **hints: str) -> Answer:
    return gateway.chat("m", {f"x-pointsman-{name.replace('_', '-')}": value for name, value in hints.items()}, max_tokens=100)


def chosen(answer: Answer) -> str | None:
    assert answer.status == 200, answer.body
    return answer.header("x-pointsman-provider")


def test_D9_without_hints_the_configuration_decides(gateway: Gateway) -> None:
    assert chosen(said(gateway)) == "dear"


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        ("strategy", "cost", "cheap"),
        ("provider", "free", "free"),
        ("region", "eu", "cheap"),
        ("region", "asia, eu, us", "cheap"),
        ("zone", "eu-2", "free"),
        ("exclude", "dear,free", "cheap"),
        ("tags", "slow,eu", "cheap"),
        ("tags", "slow", "dear"),
        ("max_cost", "0.01", "cheap"),
    ],
)
def test_D9_a_hint_decides_who_answers(gateway: Gateway, hint: str, value: str, expected: str) -> None:
    assert chosen(said(gateway, **{hint: value})) == expected


@pytest.mark.parametrize(("hint", "value"), [("provider", "none-such"), ("region", "mars"), ("zone", "mars-1")])
def test_D9_a_preference_is_no_demand(gateway: Gateway, hint: str, value: str) -> None:
    assert chosen(said(gateway, **{hint: value})) == "dear"


def test_D9_tags_that_nobody_has_together_are_refused(gateway: Gateway) -> None:
    answer = said(gateway, tags="us,eu")

    assert (answer.status, answer.error["code"]) == (403, "rejected")


def test_D9_all_that_was_said_is_in_the_record(gateway: Gateway) -> None:
    headers = {
        "x-pointsman-priority": "high",
        "x-pointsman-max-latency": "60000",
        "x-pointsman-throughput": "1",
        "x-pointsman-tenant": "acme",
        "x-pointsman-user": "jo",
        "x-pointsman-organization": "research",
        "x-pointsman-features": "beta,dark",
        "user-agent": "specification/1.0",
    }

    record = gateway.decision(gateway.chat("m", headers, user="not jo"))

    profile, hints = record["profile"], record["profile"]["hints"]
    assert (profile["tenant"], profile["user"], profile["source"]) == ("acme", "jo", "127.0.0.1")
    assert profile["agent"] == "specification/1.0"
    assert (hints["max_latency_s"], hints["tokens_per_s"]) == (60, 1)
    assert (hints["organization"], hints["features"]) == ("research", ["beta", "dark"])
    assert record["priority"] in (2, "high")


def test_D9_the_bodys_user_counts_where_no_header_names_one(gateway: Gateway) -> None:
    assert gateway.decision(gateway.chat("m", user="jim"))["profile"]["user"] == "jim"


def test_D9_a_deadline_only_shortens(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()

    async def waits(exchange: Any) -> None:
        await gate.passed()
        await answers(exchange)

    upstream.scripts["p"] = waits
    try:
        answer = said(gateway, deadline="100")
    finally:
        upstream.scripts["p"] = answers
        gate.open()

    assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")


def test_D9_a_tenant_is_served_by_its_providers_only(gateway: Gateway) -> None:
    answer = said(gateway, tenant="acme")

    assert chosen(answer) == "cheap"
    reasons = {one["provider"]: one["reason"] for one in gateway.decision(answer)["candidates"]}
    assert reasons["dear"] == "tenant"


def test_D9_a_tenant_that_is_allowed_nobody_is_rejected(gateway: Gateway) -> None:
    answer = said(gateway, tenant="nobody")

    assert (answer.status, answer.error["code"]) == (403, "rejected")
    assert "dear" in answer.error["message"]


def test_D9_a_tenants_ceiling_and_preference_hold(gateway: Gateway) -> None:
    assert chosen(said(gateway, tenant="thrifty")) == "cheap"
    assert chosen(said(gateway, tenant="picky")) == "free"


def test_D9_a_tenant_nobody_configured_is_only_a_name(gateway: Gateway) -> None:
    answer = said(gateway, tenant="walk-in")

    assert chosen(answer) == "dear"
    assert gateway.decision(answer)["profile"]["tenant"] == "walk-in"


@pytest.mark.parametrize(
    ("name", "value"),
    [("priority", "urgent"), ("max-latency", "soon"), ("throughput", "0"), ("tenant", ""), ("organisation", "research")],
)
def test_D9_what_cannot_be_followed_is_refused_by_its_header(gateway: Gateway, name: str, value: str) -> None:
    answer = gateway.chat("m", {f"X-Pointsman-{name}": value})

    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert answer.error["param"] == f"x-pointsman-{name}"
    assert f"x-pointsman-{name}: " in answer.error["message"]


@pytest.mark.parametrize("header", HEADERS)
def test_D9_a_header_given_twice_is_refused_by_its_name(gateway: Gateway, header: str) -> None:
    body = chat_body("m")
    lines = f"{header}: 1\r\n{header.title()}: 1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"

    told = gateway.exchange(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + lines.encode() + body)

    assert told.startswith(b"HTTP/1.1 400 ")
    assert f"{header}: is given more than once".encode() in told


def test_D9_hints_are_for_us_and_go_no_further(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.forget()

    chosen(said(gateway, tenant="walk-in", features="beta"))

    eventually(lambda: bool(upstream.requests("p")), "the call is seen")
    for exchange in upstream.requests("p"):
        assert not [name for name, _ in exchange.headers if name.lower().startswith("x-pointsman")]
