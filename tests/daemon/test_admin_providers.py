"""Providers at run time (FEATURES A1, C2, D2): registered, changed and taken out through the admin API."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest

from tests.daemon.admin_client import done, everything, generation, send
from tests.daemon.gateway import Answer, Gateway, chat_body, eventually, provider
from tests.daemon.gateway_upstreams import DONE, ROLE, Exchange, ScriptedUpstream, answers, event, replies

KEY = "sk-registered-at-run-time-1"
OTHER_KEY = "sk-registered-at-run-time-2"
HEADER = "header-secret-of-the-new-one"


@pytest.fixture
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    for name in ("one", "two", "new"):
        upstream.scripts[name] = answers
    upstream.forget()
    entries = [provider(name, upstream.base_url(name), ["m", "other"]) for name in ("one", "two")]
    with Gateway({"providers": entries, "routing": {"strategy": "first"}}) as found:
        yield found


def entry(upstream: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    return provider("new", upstream.base_url("new"), ["fresh"], api_key=KEY, **more)


def who(answer: Answer) -> str | None:
    assert answer.status == 200, answer.body
    return answer.header("x-pointsman-provider")


def test_A1_a_registered_provider_takes_traffic_with_its_own_key(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    assert gateway.chat("fresh").status == 404
    before = generation(gateway)

    told = done(
        gateway, "POST", "/admin/providers", entry(upstream, headers={"X-Own": HEADER}, weight=3, region="eu"), status=201
    )

    assert (told["id"], told["weight"], told["region"], told["generation"]) == ("new", 3, "eu", before + 1)
    assert {name: value for name, value in told.items() if name != "generation"} == gateway.providers()["new"]
    answer = gateway.chat("fresh")
    assert who(answer) == "new"
    assert gateway.decision(answer)["generation"] == before + 1
    (request,) = upstream.requests("new")
    assert (request.header("authorization"), request.header("x-own")) == (f"Bearer {KEY}", HEADER)
    assert "fresh" in gateway.get("/v1/models").body.decode()


def test_A1_the_key_of_a_registered_provider_is_in_no_answer_record_or_log(upstream: ScriptedUpstream) -> None:
    # Given an upstream that repeats the key in its errors, so that it gets as near to the log as it can
    upstream.scripts.update(one=answers, new=replies(401, orjson.dumps({"error": {"message": f"bad key {KEY}, {HEADER}"}})))
    configuration = {"providers": [provider("one", upstream.base_url("one"), ["m"])]}
    with Gateway(configuration, {"POINTSMAN_LOG_LEVEL": "DEBUG"}) as gateway:
        added = entry(upstream, headers={"X-Own": HEADER}) | {"probe": {"kind": "models", "interval": "1s"}}

        # When it is registered, called, probed and asked about
        texts = [send(gateway, "POST", "/admin/providers", added).body]
        texts.append(send(gateway, "POST", "/admin/providers", added).body)
        texts.append(send(gateway, "POST", "/admin/providers/new/probe", {}).body)
        texts.append(gateway.chat("fresh").body)
        texts += [gateway.get(path).body for path in ("/admin/providers", "/admin/providers/new", "/admin/decisions", "/")]
        texts.append(gateway.get("/admin/stats").body)

        # Then nothing tells it
        for text in texts:
            assert KEY.encode() not in text
            assert HEADER.encode() not in text
        assert KEY not in gateway.log()
        assert HEADER not in gateway.log()


def test_A1_an_id_is_registered_once_and_the_first_key_stays(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    done(gateway, "POST", "/admin/providers", entry(upstream), status=201)
    before = everything(gateway)

    again = send(gateway, "POST", "/admin/providers", entry(upstream) | {"api_key": OTHER_KEY})

    assert (again.status, again.error["code"]) == (409, "provider_exists")
    assert everything(gateway) == before
    gateway.chat("fresh")
    assert upstream.requests("new")[-1].header("authorization") == f"Bearer {KEY}"


def test_A1_of_many_who_register_one_id_at_once_one_wins_with_its_own_key(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    keys = [f"sk-racing-number-{number}" for number in range(8)]
    with ThreadPoolExecutor(len(keys)) as pool:
        entries = [entry(upstream) | {"api_key": key} for key in keys]
        found = list(pool.map(lambda one: send(gateway, "POST", "/admin/providers", one).status, entries))

    assert sorted(found) == [201, *[409] * 7]
    gateway.chat("fresh")
    assert upstream.requests("new")[-1].header("authorization") == f"Bearer {keys[found.index(201)]}"


def test_A1_the_last_provider_can_be_taken_out_and_another_put_in_its_place(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    for name in ("one", "two"):
        done(gateway, "DELETE", f"/admin/providers/{name}", status=202)
    assert gateway.get("/readyz").status == 503
    assert gateway.chat("m").status in (404, 503)
    assert gateway.get("/").status == 200

    done(gateway, "POST", "/admin/providers", entry(upstream), status=201)

    assert gateway.get("/admin/providers").json()["default"] == "new"
    assert who(gateway.chat("fresh")) == "new"


def test_A1_one_that_was_taken_out_comes_back_with_its_new_key(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    done(gateway, "POST", "/admin/providers", entry(upstream), status=201)
    done(gateway, "DELETE", "/admin/providers/new", status=202)
    assert gateway.chat("fresh").status == 404
    assert gateway.get("/admin/providers/new").status == 404

    done(gateway, "POST", "/admin/providers", entry(upstream) | {"api_key": OTHER_KEY}, status=201)

    assert who(gateway.chat("fresh")) == "new"
    assert upstream.requests("new")[-1].header("authorization") == f"Bearer {OTHER_KEY}"


def test_A1_unregistering_lets_a_stream_run_to_its_end(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()

    async def in_two_parts(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(ROLE + event({"content": "first"}))
        await gate.passed()
        await exchange.chunk(event({"content": "last"}) + event({}, "stop") + DONE)
        await exchange.end_stream()

    upstream.scripts["one"] = in_two_parts
    with gateway.opened("POST", "/v1/chat/completions", chat_body("m", stream=True), {"content-type": "application/json"}) as r:
        assert r.getheader("x-pointsman-provider") == "one"

        # When its provider is taken out in the middle
        told = done(gateway, "DELETE", "/admin/providers/one", status=202)
        assert (told["id"], told["status"]) == ("one", "draining")

        # Then nothing new goes there
        assert who(gateway.chat("m")) == "two"
        assert list(gateway.providers()) == ["two"]
        assert gateway.get("/admin/providers").json()["default"] == "two"

        # And what has begun ends whole
        gate.open()
        text = r.read().decode()
    assert "last" in text
    assert text.endswith("data: [DONE]\n\n")
    assert len(upstream.requests("one")) == 1


def test_A1_one_provider_or_those_that_can_take_calls_are_listed(gateway: Gateway) -> None:
    done(gateway, "PATCH", "/admin/providers/one", {"status": "unavailable", "reason": "maintenance"})

    everyone = gateway.get("/admin/providers").json()["providers"]
    available = gateway.get("/admin/providers?available=true").json()["providers"]

    assert [(one["id"], one["available"]) for one in everyone] == [("one", False), ("two", True)]
    assert [one["id"] for one in available] == ["two"]
    assert gateway.get("/admin/providers/two").json()["id"] == "two"
    assert gateway.call("HEAD", "/admin/providers/two").status == 200
    assert gateway.get("/admin/providers/nobody").error["code"] == "provider_not_found"
    for query in ("available=1", "avail=true", "available=true&x="):
        assert gateway.get(f"/admin/providers?{query}").status == 400


def test_A1_the_first_is_the_default_until_another_is_set(gateway: Gateway) -> None:
    assert gateway.get("/admin/providers").json()["default"] == "one"

    assert done(gateway, "PUT", "/admin/default", {"provider": "two"})["default"] == "two"

    assert gateway.get("/admin/providers").json()["default"] == "two"
    before = everything(gateway)
    unknown = send(gateway, "PUT", "/admin/default", {"provider": "nobody"})
    assert (unknown.status, unknown.error["code"]) == (404, "provider_not_found")
    assert everything(gateway) == before


def test_D2_a_weight_of_zero_takes_a_provider_out_of_the_draw(gateway: Gateway) -> None:
    done(gateway, "PUT", "/admin/strategy", {"strategy": "smooth_weighted_round_robin"})
    assert {who(gateway.chat("m")) for _ in range(4)} == {"one", "two"}

    told = done(gateway, "PATCH", "/admin/providers/one", {"weight": 0})

    assert told["weight"] == 0
    answer = gateway.chat("m")
    assert who(answer) == "two"
    assert {who(gateway.chat("m")) for _ in range(6)} == {"two"}
    assert gateway.decision(answer)["generation"] == told["generation"]


def test_D2_priorities_change_what_the_priority_strategy_prefers(gateway: Gateway) -> None:
    done(gateway, "PUT", "/admin/strategy", {"strategy": "priority"})
    assert who(gateway.chat("m")) == "one"

    done(gateway, "PATCH", "/admin/providers/two", {"priority": 5})

    assert who(gateway.chat("m")) == "two"


@pytest.mark.parametrize("status", ["unavailable", "auth_failed", "disabled"])
def test_A1_a_provider_said_to_be_unfit_takes_nothing_until_it_is_said_to_be_ready(gateway: Gateway, status: str) -> None:
    told = done(gateway, "PATCH", "/admin/providers/one", {"status": status, "reason": "said so"})

    assert told["status"] == status
    if status != "disabled":
        assert "said so" in told["reason"]
    answer = gateway.chat("m")
    assert who(answer) == "two"
    assert {one["provider"]: one["reason"] for one in gateway.decision(answer)["candidates"]}["one"] == status

    done(gateway, "PATCH", "/admin/providers/one", {"status": "ready"})
    assert who(gateway.chat("m")) == "one"


def test_A1_a_provider_is_switched_off_and_on(gateway: Gateway) -> None:
    assert done(gateway, "PATCH", "/admin/providers/one", {"enabled": False})["enabled"] is False
    assert who(gateway.chat("m")) == "two"

    assert done(gateway, "PATCH", "/admin/providers/one", {"enabled": True})["enabled"] is True
    assert who(gateway.chat("m")) == "one"


def test_C2_pushed_metrics_are_shown_and_change_the_choice_where_nothing_was_measured(gateway: Gateway) -> None:
    done(gateway, "PUT", "/admin/strategy", {"strategy": "least_latency"})
    before = generation(gateway)
    for slow, fast, model in (("one", "two", "m"), ("two", "one", "other")):
        done(gateway, "PATCH", f"/admin/providers/{slow}", {"metrics": {"average_latency_ms": 9000}})
        told = done(gateway, "PATCH", f"/admin/providers/{fast}", {"metrics": {"average_latency_ms": 40, "load": 0.5}})

        assert told["metrics"] == {"average_latency_ms": 40, "load": 0.5}
        assert who(gateway.chat(model)) == fast

    # What was measured is no configuration, so it makes no generation; what is told next replaces it whole
    assert generation(gateway) == before
    told = done(gateway, "PATCH", "/admin/providers/one", {"metrics": {"error_rate": 0.25}})
    assert told["metrics"] == {"error_rate": 0.25}
    assert gateway.providers()["one"]["metrics"] == told["metrics"]


def test_C2_a_registered_provider_is_probed(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    added = entry(upstream) | {"probe": {"kind": "models", "interval": "10m"}}
    done(gateway, "POST", "/admin/providers", added, status=201)

    found = send(gateway, "POST", "/admin/providers/new/probe", {})

    assert (found.status, found.json()["ok"]) == (200, True)
    probes = [one for one in upstream.requests("new") if one.target.endswith("/models")]
    assert probes
    assert {one.header("authorization") for one in probes} == {f"Bearer {KEY}"}


def test_C2_the_models_of_a_registered_provider_are_learned(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.scripts["new"] = replies(200, b'{"object":"list","data":[{"id":"its-own"}]}')
    added = {"id": "new", "kind": "vllm", "base_url": upstream.base_url("new"), "probe": {"interval": "10m"}}
    # Not ``done``: what is learned is a generation of its own, which may be in force before one looks.
    assert send(gateway, "POST", "/admin/providers", added).status == 201

    eventually(lambda: "its-own" in gateway.get("/v1/models").body.decode(), "its models are known")
    upstream.scripts["new"] = answers
    assert who(gateway.chat("its-own")) == "new"
