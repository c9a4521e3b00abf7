"""Strategy, aliases and rules at run time (FEATURES A4, A7, D2, D7): set, shown and taken back through the admin API."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.daemon.admin_client import done, everything, generation, send
from tests.daemon.gateway import Answer, Gateway, provider
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers

ALWAYS = {"when": {"always": True}}


def configured(upstream: ScriptedUpstream) -> Gateway:
    upstream.scripts.update(one=answers, two=answers)
    entries = [provider(name, upstream.base_url(name), ["m", f"only-{name}"]) for name in ("one", "two")]
    rules = [{"name": "from-file", "priority": 1, "when": {"user": "nobody-there"}, "then": [{"provider": "two"}]}]
    configuration = {"providers": entries, "routing": {"strategy": "first"}, "aliases": {"short": "m"}, "rules": rules}
    return Gateway(configuration)


@pytest.fixture
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    with configured(upstream) as found:
        yield found


@pytest.fixture(scope="module")
def shared(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """For tests that leave it as they found it."""
    with configured(upstream) as found:
        before = names(found)
        yield found
        assert names(found) == before


def names(gateway: Gateway) -> tuple[dict[str, str], list[str]]:
    """Its aliases, and the names of its rules."""
    rules = gateway.get("/admin/rules").json()["rules"]
    return gateway.get("/admin/aliases").json()["aliases"], [rule["name"] for rule in rules]


def who(answer: Answer) -> str | None:
    assert answer.status == 200, answer.body
    return answer.header("x-pointsman-provider")


# Strategy.


def test_D2_the_strategy_is_changed_and_the_next_decision_says_so(gateway: Gateway) -> None:
    told = gateway.get("/admin/strategy").json()
    assert (told["strategy"], told["pools"], told["tenants"]) == ("first", {}, {})
    assert {"first", "adaptive", "thompson", "weighted"} <= set(told["available"])
    before = gateway.chat("m")
    assert before.header("x-pointsman-strategy") == "first"

    told = done(gateway, "PUT", "/admin/strategy", {"strategy": "round_robin"})

    assert told["strategy"] == "round_robin"
    after = gateway.chat("m")
    assert after.header("x-pointsman-strategy") == "round_robin"
    assert gateway.decision(after)["generation"] == told["generation"] == gateway.decision(before)["generation"] + 1
    assert {who(gateway.chat("m")) for _ in range(4)} == {"one", "two"}


def test_D2_a_pool_and_a_tenant_have_strategies_of_their_own(gateway: Gateway) -> None:
    done(gateway, "PUT", "/admin/strategy", {"strategy": "cost", "tenant": "acme"})
    told = done(gateway, "PUT", "/admin/strategy", {"strategy": "random", "model": "m"})

    assert (told["strategy"], told["pools"], told["tenants"]) == ("first", {"m": "random"}, {"acme": "cost"})
    assert gateway.chat("m").header("x-pointsman-strategy") == "random"
    assert gateway.chat("only-one").header("x-pointsman-strategy") == "first"
    assert gateway.chat("only-one", {"x-pointsman-tenant": "acme"}).header("x-pointsman-strategy") == "cost"

    # And given back
    done(gateway, "PUT", "/admin/strategy", {"strategy": "", "model": "m"})
    told = done(gateway, "PUT", "/admin/strategy", {"strategy": None, "tenant": "acme"})
    assert (told["pools"], told["tenants"]) == ({}, {})
    assert gateway.chat("m").header("x-pointsman-strategy") == "first"


def test_D2_a_model_that_nobody_serves_has_no_strategy_of_its_own_and_the_code_says_what_is_missing(shared: Gateway) -> None:
    refused = send(shared, "PUT", "/admin/strategy", {"strategy": "cost", "model": "ghost"})

    assert (refused.status, refused.error["code"], refused.error["param"]) == (404, "model_not_found", "pools")
    assert refused.error["message"] == "pools: no provider serves a model 'ghost'"


# Aliases.


def test_A7_aliases_are_listed_set_and_forgotten(gateway: Gateway) -> None:
    aliases = gateway.get("/admin/aliases").json()["aliases"]
    assert aliases["short"] == "m"
    assert aliases["gpt4"] == "openai:gpt-4o"
    assert gateway.chat("mine").status == 404

    told = done(gateway, "PUT", "/admin/aliases/mine", {"target": "two:m"})

    assert (told["name"], told["target"]) == ("mine", "two:m")
    answer = gateway.chat("mine")
    assert who(answer) == "two"
    assert gateway.decision(answer)["generation"] == told["generation"]
    assert gateway.get("/admin/aliases").json()["aliases"]["mine"] == "two:m"
    assert gateway.get("/v1/models/mine").json()["owned_by"] == "two"
    assert gateway.get("/v1/models/short").json()["owned_by"] == "one,two"
    assert gateway.get("/v1/models/gpt4").status == 404, "nobody here has it"

    done(gateway, "DELETE", "/admin/aliases/mine")
    assert gateway.chat("mine").status == 404
    assert send(gateway, "DELETE", "/admin/aliases/mine").error["code"] == "alias_not_found"


def test_A7_a_changed_alias_leads_elsewhere_and_a_built_in_one_can_be_forgotten(gateway: Gateway) -> None:
    done(gateway, "PUT", "/admin/aliases/short", {"target": "only-two"})
    assert who(gateway.chat("short")) == "two"

    done(gateway, "DELETE", "/admin/aliases/gpt4")
    assert "gpt4" not in gateway.get("/admin/aliases").json()["aliases"]


@pytest.mark.parametrize("name", ["team/gpt:best", "größe", "a b", "50%", "q?x=1"])
def test_A7_names_of_aliases_may_hold_what_names_of_models_hold(shared: Gateway, name: str) -> None:
    path = f"/admin/aliases/{quote(name, safe='')}"

    assert done(shared, "PUT", path, {"target": "m"})["name"] == name

    assert shared.chat(name).status == 200
    done(shared, "DELETE", path)
    assert name not in shared.get("/admin/aliases").json()["aliases"]


# Rules.


def test_D7_rules_are_put_matched_counted_switched_and_forgotten(gateway: Gateway) -> None:
    # Given a rule for one user
    rule = {"priority": 100, "when": {"all": [{"user": "ann"}, {"model": "m"}]}, "then": [{"provider": "two"}]}
    told = done(gateway, "PUT", "/admin/rules/ann-to-two", rule)
    assert (told["name"], told["enabled"], told["hits"]) == ("ann-to-two", True, 0)

    # When she and another ask
    answer = gateway.chat("m", {"x-pointsman-user": "ann"})
    assert who(answer) == "two"
    assert who(gateway.chat("m", {"x-pointsman-user": "bob"})) == "one"

    # Then it is in the record and counted once
    record = gateway.decision(answer)
    assert (record["rule"], record["generation"]) == ("ann-to-two", told["generation"])
    assert gateway.get("/admin/rules/ann-to-two").json()["hits"] == 1
    assert gateway.stats()["router"]["rule_hits"]["ann-to-two"] == 1

    # And switched off it matches no more, and on again
    assert done(gateway, "PATCH", "/admin/rules/ann-to-two", {"enabled": False})["enabled"] is False
    assert who(gateway.chat("m", {"x-pointsman-user": "ann"})) == "one"
    done(gateway, "PATCH", "/admin/rules/ann-to-two", {"enabled": True})
    assert who(gateway.chat("m", {"x-pointsman-user": "ann"})) == "two"

    # And when it is gone nobody knows it
    done(gateway, "DELETE", "/admin/rules/ann-to-two")
    assert who(gateway.chat("m", {"x-pointsman-user": "ann"})) == "one"
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"enabled": True})):
        missing = send(gateway, method, "/admin/rules/ann-to-two", body)
        assert (missing.status, missing.error["code"]) == (404, "rule_not_found")


def test_A4_rules_are_listed_in_the_order_in_which_they_are_asked(gateway: Gateway) -> None:
    done(gateway, "PUT", "/admin/rules/low", {"priority": 0, **ALWAYS, "then": [{"provider": "one"}]})
    done(gateway, "PUT", "/admin/rules/high", {"priority": 9, **ALWAYS, "then": [{"provider": "two"}]})

    listed = gateway.get("/admin/rules").json()["rules"]

    assert [rule["name"] for rule in listed] == ["high", "from-file", "low"]
    assert gateway.decision(gateway.chat("m"))["rule"] == "high"


def test_A4_a_put_replaces_the_rule_of_that_name_also_one_of_the_file(gateway: Gateway) -> None:
    done(gateway, "PUT", "/admin/rules/from-file", {**ALWAYS, "then": [{"reject": "maintenance_mode"}]})

    assert [rule["name"] for rule in gateway.get("/admin/rules").json()["rules"]] == ["from-file"]
    refused = gateway.chat("m")
    assert (refused.status, refused.error["code"]) == (503, "rejected")


@pytest.mark.parametrize(
    "when",
    [
        {"never": True},
        {"any": [{"has_tools": True}, {"not": {"has_vision": True}}]},
        {"model_pattern": "/^gpt-.*/"},
        {"time_range": {"start": "22:00", "end": "06:00:30", "zone": "Europe/Berlin"}},
        {"min_priority": "high"},
        {"region": ["eu", "us"]},
        {"token_count_over": 4000},
        {"cost_under": 0.5},
        {"latency_under": 800},
    ],
)
def test_A4_what_is_shown_of_a_rule_can_be_put_back(shared: Gateway, when: dict[str, Any]) -> None:
    rule = {"priority": 7, "when": when, "then": [{"strategy": "cost"}, {"priority": "low"}], "allow_fallback": False}
    first = done(shared, "PUT", "/admin/rules/any-name", rule)
    assert first["when"] == when
    shown = {name: value for name, value in first.items() if name not in ("generation", "hits")}

    again = done(shared, "PUT", "/admin/rules/any-name", shown)

    assert again == first, "the same rule again is no change"
    done(shared, "DELETE", "/admin/rules/any-name")


def test_D7_names_of_rules_may_hold_what_names_of_models_hold(shared: Gateway) -> None:
    path = f"/admin/rules/{quote('acme/eu: nights', safe='')}"

    done(shared, "PUT", path, {**ALWAYS, "then": [{"provider": "two"}]})

    assert shared.get(path).json()["name"] == "acme/eu: nights"
    assert shared.decision(shared.chat("m"))["rule"] == "acme/eu: nights"
    done(shared, "DELETE", path)


def test_D2_what_says_what_is_so_already_is_no_new_generation(gateway: Gateway) -> None:
    before = everything(gateway)

    done(gateway, "PUT", "/admin/aliases/short", {"target": "m"})
    done(gateway, "PUT", "/admin/default", {"provider": "one"})

    assert everything(gateway) == before
    assert generation(gateway) == before[0]["generation"]


def test_A1_the_last_provider_of_a_pool_is_not_taken_out(gateway: Gateway) -> None:
    done(gateway, "DELETE", "/admin/rules/from-file")
    done(gateway, "PUT", "/admin/strategy", {"strategy": "cost", "model": "m"})
    done(gateway, "DELETE", "/admin/providers/one", status=202)
    before = everything(gateway)

    refused = send(gateway, "DELETE", "/admin/providers/two")

    assert (refused.status, refused.error["code"], refused.error["param"]) == (400, "invalid_request", "pools.m")
    assert "no provider serves a model of this name" in refused.error["message"]
    assert everything(gateway) == before
    assert gateway.chat("m").status == 200


def test_A1_a_provider_that_a_rule_names_is_not_taken_out(gateway: Gateway) -> None:
    before = everything(gateway)

    refused = send(gateway, "DELETE", "/admin/providers/two")

    assert (refused.status, refused.error["code"]) == (400, "invalid_request")
    assert refused.error["param"] == "rules[0].then[0].providers"
    assert "two" in refused.error["message"]
    assert everything(gateway) == before

    done(gateway, "DELETE", "/admin/rules/from-file")
    done(gateway, "DELETE", "/admin/providers/two", status=202)
    assert list(gateway.providers()) == ["one"]
