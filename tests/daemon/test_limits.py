"""Limits of tenants and pools as clients meet them (FEATURES B4, D1), and the difference to a provider's (pain 28)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI, RateLimitError

from tests.daemon.gateway import Answer, Gateway, eventually, provider
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers, error, hangs, replies

ACME = {"x-pointsman-tenant": "acme"}
BUSY = replies(429, error("slow down", "rate_limit_exceeded", "requests"), ("retry-after", "30"))


@pytest.fixture
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.forget()
    upstream.scripts.update(good=answers, busy=BUSY, slow=hangs)
    configuration = {
        "providers": [
            provider("good", upstream.base_url("good"), ["m", "narrow"]),
            provider("busy", upstream.base_url("busy"), ["busy"]),
            provider("slow", upstream.base_url("slow"), ["slow"]),
        ],
        "tenants": {
            "acme": {"limits": {"requests_per_minute": 1.5, "burst": 3}},
            "talker": {"limits": {"tokens_per_minute": 60}},
        },
        "pools": {"slow": {"limits": {"max_concurrency": 1}}},
        "routing": {"queue": {"max_wait": "1s"}},
    }
    with Gateway(configuration) as found:
        yield found


def refused(answer: Answer, said: str) -> int:
    """Hold a refusal to what is promised; returns its ``Retry-After`` in s."""
    assert answer.status == 429, answer.body
    assert (answer.error["type"], answer.error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert said in answer.error["message"]
    assert answer.header("x-should-retry") is None
    return int(answer.header("retry-after") or 0)


def test_B4_pain_14_28_of_a_tenants_requests_at_once_as_many_pass_as_its_limit_lets_and_the_rest_are_told(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: gateway.chat("m", ACME), range(12)))

    assert sorted(answer.status for answer in found) == [200] * 3 + [429] * 9
    assert len(upstream.requests("good")) == 3
    for answer in found:
        if answer.status == 429:
            wait_s = refused(answer, "Tenant 'acme' is at its limit requests_per_minute: 1.5. Pointsman refused")
            assert 1 <= wait_s <= 40
            assert answer.header("x-pointsman-provider") is None
    assert gateway.chat("m").status == 200
    report = gateway.providers()["good"]
    assert (report["failures"], report["circuit"]) == (0, "closed")
    assert report["health"] > 0.99


def test_D1_tokens_are_settled_to_what_the_provider_says_was_used(gateway: Gateway) -> None:
    talker = {"x-pointsman-tenant": "talker"}
    for _ in range(5):
        # Each reserves more than half of the bucket and uses five tokens.
        assert gateway.chat("m", talker, max_tokens=30).status == 200
    assert gateway.chat("m", talker, max_tokens=5000).status == 429


def test_B4_a_client_that_leaves_a_full_pool_makes_room_in_it(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    connection = gateway.connect()
    body = b'{"model": "slow", "messages": [{"role": "user", "content": "hello"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    connection.sendall(head + f"content-length: {len(body)}\r\n\r\n".encode() + body)
    eventually(lambda: len(upstream.requests("slow")) == 1, "the first call")

    assert refused(gateway.chat("slow"), "Pool 'slow' is at its limit max_concurrency: 1.") == 1
    assert len(upstream.requests("slow")) == 1
    upstream.scripts.update(slow=answers)
    connection.close()
    eventually(lambda: gateway.chat("slow").status == 200, "room in the pool")


def test_B4_the_statistics_tell_how_tenants_and_pools_stand(gateway: Gateway) -> None:
    for _ in range(5):
        gateway.chat("m", ACME)
    acme, talker, slow = gateway.stats()["quotas"]

    assert (acme["kind"], acme["name"], acme["in_flight"], acme["reserved"]) == ("tenant", "acme", 0, 3)
    assert acme["refused"] == {"requests_per_minute": 2}
    left = acme["limits"].pop("requests_left")
    assert 0 <= left < 1
    assert acme["limits"] == {
        "requests_per_minute": 1.5,
        "tokens_per_minute": None,
        "max_concurrency": None,
        "burst": 3.0,
        "tokens_left": None,
    }
    assert (talker["name"], talker["limits"]["tokens_left"], talker["refused"]) == ("talker", 60.0, {})
    assert (slow["kind"], slow["name"], slow["limits"]["max_concurrency"]) == ("pool", "slow", 1)


def test_pain_28_a_providers_own_limit_is_told_apart_from_ours(gateway: Gateway) -> None:
    first, second = (gateway.chat("busy", {"x-pointsman-deadline": "2000"}) for _ in range(2))

    assert "status 429" in first.error["message"]
    assert 25 <= refused(second, "busy is at its rate limit (it said so itself)") <= 30
    assert "Pointsman refused" not in second.error["message"]
    assert gateway.providers()["busy"]["circuit"] == "closed"


def test_B4_the_official_client_sees_a_rate_limit_with_its_wait(gateway: Gateway) -> None:
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, default_headers=ACME)
    for _ in range(3):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(RateLimitError, match="Tenant 'acme' is at its limit") as caught:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    assert int(caught.value.response.headers["retry-after"]) >= 30
