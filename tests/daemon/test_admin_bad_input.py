"""What the admin API refuses: every impossible change, with path and reason, and nothing of it done."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon.admin_client import done, everything, send
from tests.daemon.gateway import Gateway, provider
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers

SECRET = "sk-of-a-refused-one"
ALWAYS = {"when": {"always": True}}
ENTRY = {"id": "new", "kind": "openai_compatible", "base_url": "http://127.0.0.1:9/v1", "models": ["x"], "api_key": SECRET}


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.scripts.update(one=answers, two=answers)
    entries = [provider(name, upstream.base_url(name), ["m", "n"]) for name in ("one", "two")]
    rules = [
        {"name": "first-rule", "when": {"user": "ann"}, "then": [{"provider": "two"}]},
        {"name": "there", "when": {"all": [{"model": "m"}, {"tenant": "t"}]}, "then": [{"redirect": "n"}]},
        {"name": "off", "enabled": False, "when": {"all": [{"model": "n"}, {"tenant": "t"}]}, "then": [{"redirect": "m"}]},
    ]
    with Gateway({"providers": entries, "aliases": {"a": "m"}, "rules": rules}) as found:
        yield found
        assert SECRET not in found.log()


IMPOSSIBLE: dict[str, tuple[str, str, dict[str, Any], str, str]] = {
    "a rule names an unknown provider": (
        "PUT",
        "/admin/rules/r",
        {**ALWAYS, "then": [{"strategy": "cost"}, {"provider": "nobody"}]},
        "then[1].provider",
        "there is no provider 'nobody'",
    ),
    "a rule names nobody": ("PUT", "/admin/rules/r", {**ALWAYS, "then": [{"providers": []}]}, "then[0].providers", "one"),
    "a rule knows a strategy nobody knows": (
        "PUT",
        "/admin/rules/r",
        {**ALWAYS, "then": [{"strategy": "guess"}]},
        "then[0].strategy",
        "unknown strategy",
    ),
    "a rule redirects to the very model it holds for": (
        "PUT",
        "/admin/rules/r",
        {"when": {"model": "m"}, "then": [{"redirect": "m"}]},
        "then[0].redirect",
        "itself",
    ),
    "a rule redirects back to where another redirects from": (
        "PUT",
        "/admin/rules/back",
        {"when": {"model": "n"}, "then": [{"redirect": "m"}]},
        "rules[1].then[0].redirect",
        "rule 'there' sends 'm' to 'n', rule 'back' sends 'n' to 'm'",
    ),
    "a rule that is switched on closes a circle": (
        "PATCH",
        "/admin/rules/off",
        {"enabled": True},
        "rules[1].then[0].redirect",
        "rule 'there' sends 'm' to 'n', rule 'off' sends 'n' to 'm'",
    ),
    "an alias leads a redirect back to where it came from": (
        "PUT",
        "/admin/rules/back",
        {"when": {"model": "n"}, "then": [{"redirect": "a"}]},
        "rules[1].then[0].redirect",
        "rule 'there' sends 'm' to 'n', rule 'back' sends 'n' to 'm'",
    ),
    "a rule knows a time zone nobody knows": (
        "PUT",
        "/admin/rules/r",
        {"when": {"time_range": {"start": "01:00", "end": "02:00", "zone": "Mars/Olympus"}}, "then": [{"provider": "one"}]},
        "when.time_range.zone",
        "time zone",
    ),
    "a provider of negative weight": ("POST", "/admin/providers", {**ENTRY, "weight": -1}, "weight", "0 or more"),
    "a weight below zero": ("PATCH", "/admin/providers/one", {"weight": -1}, "weight", "from 0"),
    "a provider without models": ("POST", "/admin/providers", {**ENTRY, "models": []}, "models", "1 or more"),
    "a cycle of aliases": ("PUT", "/admin/aliases/m2", {"target": "m2"}, "aliases", "m2"),
    "a longer cycle of aliases": ("PUT", "/admin/aliases/loop", {"target": "looped"}, "aliases", "itself"),
    "a strategy nobody knows": ("PUT", "/admin/strategy", {"strategy": "guess"}, "strategy", "guess"),
    "a strategy for a model and a tenant at once": (
        "PUT",
        "/admin/strategy",
        {"strategy": "cost", "model": "m", "tenant": "t"},
        "tenant",
        "not both",
    ),
}


@pytest.mark.parametrize("what", list(IMPOSSIBLE))
def test_D2_an_impossible_change_is_refused_with_path_and_reason_and_changes_nothing(gateway: Gateway, what: str) -> None:
    method, path, body, param, reason = IMPOSSIBLE[what]
    if what == "a longer cycle of aliases":
        done(gateway, "PUT", "/admin/aliases/looped", {"target": "a"})
        done(gateway, "PUT", "/admin/aliases/a", {"target": "loop"})
    before = everything(gateway)

    answer = send(gateway, method, path, body)

    assert (answer.status, answer.error["code"], answer.error["type"]) == (400, "invalid_request", "invalid_request_error")
    assert param in answer.error["param"]
    assert reason in answer.error["message"]
    assert answer.error["param"] in answer.error["message"]
    assert SECRET.encode() not in answer.body
    assert everything(gateway) == before
    assert send(gateway, "GET", "/admin/providers/new").status == 404


def test_A1_two_providers_with_one_id_are_a_conflict(gateway: Gateway) -> None:
    before = everything(gateway)

    answer = send(gateway, "POST", "/admin/providers", {**ENTRY, "id": "two"})

    assert (answer.status, answer.error["code"], answer.error["param"]) == (409, "provider_exists", "providers[1].id")
    assert everything(gateway) == before
    assert gateway.chat("m", {"x-pointsman-exclude": "one"}).status == 200


def test_A1_everything_that_is_wrong_with_an_entry_is_told_at_once(gateway: Gateway) -> None:
    entry = {"id": "NEW", "kind": "telepathy", "weight": 1001, "limits": {"burst": 0}, "unknown": 1}

    answer = send(gateway, "POST", "/admin/providers", entry)

    for path in ("id", "kind", "weight", "limits.burst", "unknown"):
        assert f"{path}: " in answer.error["message"]


def test_C2_everything_that_is_wrong_with_a_patch_is_told_at_once(gateway: Gateway) -> None:
    before = everything(gateway)
    metrics = {"average_latency_ms": -1, "error_rate": 2, "load": "x", "queue": 3}
    body = {"weigth": 1, "enabled": 1, "status": "fine", "weight": -1, "priority": "a", "metrics": metrics}

    answer = send(gateway, "PATCH", "/admin/providers/one", body)

    assert (answer.status, answer.error["param"]) == (400, "weigth")
    parts = [f"metrics.{name}" for name in ("queue", "average_latency_ms", "error_rate", "load")]
    places = [
        answer.error["message"].index(f"{path}: ") for path in ("weigth", "enabled", "status", "weight", "priority", *parts)
    ]
    assert places == sorted(places)
    assert everything(gateway) == before


def test_C2_a_body_full_of_mistakes_is_answered_with_some_of_them(gateway: Gateway) -> None:
    answer = send(gateway, "PATCH", "/admin/providers/one", {f"no{number}": 1 for number in range(500)})

    assert answer.status == 400
    assert answer.error["message"].endswith("; and 480 more")


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("PATCH", "/admin/providers/one", {}, None),
        ("PATCH", "/admin/providers/one", {"weigth": 1}, "weigth"),
        ("PATCH", "/admin/providers/one", {"base_url": "http://127.0.0.1:1"}, "base_url"),
        ("PATCH", "/admin/providers/one", {"weight": True}, "weight"),
        ("PATCH", "/admin/providers/one", {"weight": 1.5}, "weight"),
        ("PATCH", "/admin/providers/one", {"weight": 1001}, "weight"),
        ("PATCH", "/admin/providers/one", {"priority": 10**9}, "priority"),
        ("PATCH", "/admin/providers/one", {"enabled": "yes"}, "enabled"),
        ("PATCH", "/admin/providers/one", {"status": "fine"}, "status"),
        ("PATCH", "/admin/providers/one", {"status": ["ready"]}, "status"),
        ("PATCH", "/admin/providers/one", {"reason": "of nothing"}, "reason"),
        ("PATCH", "/admin/providers/one", {"status": "unavailable", "reason": "two\nlines"}, "reason"),
        ("PATCH", "/admin/providers/one", {"metrics": {}}, "metrics"),
        ("PATCH", "/admin/providers/one", {"metrics": 3}, "metrics"),
        ("PATCH", "/admin/providers/one", {"metrics": {"latency": 3}}, "metrics.latency"),
        ("PATCH", "/admin/providers/one", {"metrics": {"error_rate": 1.1}}, "metrics.error_rate"),
        ("PATCH", "/admin/providers/one", {"metrics": {"load": -0.1}}, "metrics.load"),
        ("PATCH", "/admin/providers/one", {"metrics": {"average_latency_ms": "5"}}, "metrics.average_latency_ms"),
        ("PATCH", "/admin/providers/one", {"weight": 5, "metrics": {"load": 2}}, "metrics.load"),
        ("PUT", "/admin/default", {}, "provider"),
        ("PUT", "/admin/default", {"provider": 1}, "provider"),
        ("PUT", "/admin/strategy", {}, "strategy"),
        ("PUT", "/admin/strategy", {"strategy": "cost", "pool": "m"}, "pool"),
        ("PUT", "/admin/aliases/x", {}, "target"),
        ("PUT", "/admin/aliases/x", {"target": ["m"]}, "target"),
        ("PUT", "/admin/aliases/x", {"target": "m" * 201}, "target"),
        ("PUT", f"/admin/aliases/{'x' * 201}", {"target": "m"}, "name"),
        ("PUT", "/admin/aliases/%ff", {"target": "m"}, "name"),
        ("PUT", "/admin/aliases/%0a", {"target": "m"}, "name"),
        ("PUT", "/admin/rules/r", {**ALWAYS, "then": [{"fly": True}]}, "then[0].fly"),
        ("PUT", "/admin/rules/r", {**ALWAYS, "name": "other", "then": [{"provider": "one"}]}, "name"),
        ("PUT", "/admin/rules/r", {"when": {"moon": "full"}, "then": [{"provider": "one"}]}, "when.moon"),
        ("PATCH", "/admin/rules/first-rule", {"priority": 3}, "priority"),
        ("PATCH", "/admin/rules/first-rule", {"enabled": 1}, "enabled"),
        ("PATCH", "/admin/rules/first-rule", {}, "enabled"),
        ("POST", "/admin/providers", {**ENTRY, "api_key": "file:/etc/passwd"}, "api_key"),
        ("POST", "/admin/providers", {**ENTRY, "api_key": "${HOME}"}, "api_key"),
    ],
)
def test_C2_bodies_with_a_slip_in_them_are_refused_whole(
    gateway: Gateway, method: str, path: str, body: dict[str, Any], param: str | None
) -> None:
    before = everything(gateway)

    answer = send(gateway, method, path, body)

    assert (answer.status, answer.error["code"]) == (400, "invalid_request"), answer.body
    assert answer.error["param"] == param
    assert everything(gateway) == before


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("PATCH", "/admin/providers/nobody", "provider_not_found"),
        ("DELETE", "/admin/providers/nobody", "provider_not_found"),
        ("DELETE", "/admin/aliases/nobody", "alias_not_found"),
        ("DELETE", "/admin/rules/nobody", "rule_not_found"),
        ("GET", "/admin/rules/nobody", "rule_not_found"),
        ("GET", "/admin/providers/nobody%20at%20all", "provider_not_found"),
    ],
)
def test_A1_what_does_not_exist_is_not_found(gateway: Gateway, method: str, path: str, code: str) -> None:
    before = everything(gateway)

    answer = send(gateway, method, path, {"weight": 1} if method == "PATCH" else None)

    assert (answer.status, answer.error["code"], answer.error["type"]) == (404, code, "not_found_error")
    assert everything(gateway) == before


WRITES = [
    ("POST", "/admin/providers"),
    ("PATCH", "/admin/providers/one"),
    ("PUT", "/admin/default"),
    ("PUT", "/admin/strategy"),
    ("PUT", "/admin/aliases/x"),
    ("PUT", "/admin/rules/r"),
    ("PATCH", "/admin/rules/first-rule"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b'{"provider":NaN}', b"\xff", b"[" * 3000])
def test_A1_bodies_that_are_no_json_object_are_refused(gateway: Gateway, method: str, path: str, body: bytes) -> None:
    before = everything(gateway)

    answer = gateway.call(method, path, body, {"content-type": "application/json"})

    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert everything(gateway) == before


@pytest.mark.parametrize(("method", "path"), [*WRITES, ("DELETE", "/admin/aliases/a"), ("DELETE", "/admin/providers/one")])
def test_A1_no_other_sites_page_can_change_anything(gateway: Gateway, method: str, path: str) -> None:
    before = everything(gateway)

    as_text = gateway.call(method, path, b'{"provider":"two"}', {"content-type": "text/plain"})
    from_page = gateway.call(method, path, b"{}", {"content-type": "application/json", "origin": "http://evil.example.com"})
    bare = gateway.call(method, path, None, {"origin": "http://evil.example.com"})

    assert as_text.status == 415
    assert from_page.status == bare.status == 403
    assert everything(gateway) == before


def test_A1_other_methods_are_told_what_there_is(gateway: Gateway) -> None:
    for path, allowed in (("/admin/default", "PUT"), ("/admin/aliases/x", "PUT, DELETE"), ("/admin/aliases", "GET, HEAD")):
        answer = send(gateway, "POST", path, {})
        assert (answer.status, answer.header("allow")) == (405, allowed)
    assert send(gateway, "GET", "/admin/nothing").status == 404
