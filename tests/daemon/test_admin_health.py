"""Health of providers from outside: the report, probing now, resetting; by the admin API and by ``pointsman``."""

import os
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any
from unittest.mock import patch

import orjson
import pytest

from runtime.cli import run
from tests.daemon.gateway import Gateway, eventually, provider
from tests.daemon.gateway_upstreams import Exchange, ScriptedUpstream, answers, completion, error, replies

ADMIN_KEY = "correct-horse-battery"
KEY = {"authorization": f"Bearer {ADMIN_KEY}"}
CHEAP = {"name": "m", "upstream": "m-2024", "input_price": 1, "output_price": 2}


class Switched:
    """An upstream that is well or ill as a test says; its list of models is always well."""

    def __init__(self) -> None:
        self.is_ill = False

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.body and self.is_ill:
            await exchange.reply(503, error("down", kind="server_error"))
        else:
            await answers(exchange)


@pytest.fixture(scope="module")
def switched(upstream: ScriptedUpstream) -> Switched:
    script = Switched()
    upstream.forget()
    upstream.scripts.update(well=script, other=answers)
    return script


@pytest.fixture(scope="module")
def running(upstream: ScriptedUpstream, switched: Switched) -> Iterator[Gateway]:
    circuit = {"failures": 2, "open_for": "60s"}
    file = {
        "server": {"admin_key": "${KEY}"},
        "providers": [
            provider("well", upstream.base_url("well"), ["m"], circuit=circuit, probe={"kind": "models", "interval": "10m"}),
            provider("other", upstream.base_url("other"), ["n"], probe={"kind": "models", "interval": "10m"}),
        ],
        "routing": {"failover": {"enabled": False}, "queue": {"max_wait": "0s"}},
    }
    with Gateway(file, {"KEY": ADMIN_KEY}) as found:
        eventually(lambda: len(upstream.requests("well")) == len(upstream.requests("other")) == 1, "the first probes")
        yield found
        assert ADMIN_KEY not in found.log()


@pytest.fixture
def gateway(running: Gateway, upstream: ScriptedUpstream, switched: Switched) -> Gateway:
    """The one gateway of this file, with everybody well again."""
    switched.is_ill = False
    upstream.scripts["other"] = answers
    for name in ("well", "other"):
        assert running.post(f"/admin/providers/{name}/reset", b"{}", KEY).status == 200
    return running


def health(gateway: Gateway, name: str = "well") -> dict[str, Any]:
    answer = gateway.get(f"/admin/providers/{name}/health", KEY)
    assert answer.status == 200, answer.body
    told: dict[str, Any] = answer.json()
    return told


def break_down(gateway: Gateway, switched: Switched) -> None:
    """Fail until the circuit opens."""
    switched.is_ill = True
    for _ in range(2):
        assert gateway.chat("m").status in (502, 503)
    eventually(lambda: health(gateway)["circuit"]["state"] == "open", "the circuit opens")


@dataclass
class Shown:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def pointsman(gateway: Gateway, *arguments: str, key: str = ADMIN_KEY, url: str = "") -> Shown:
    """Run a command here: a process of its own would take seconds to start."""
    out, err = StringIO(), StringIO()
    with patch.dict(os.environ, POINTSMAN_ADMIN_KEY=key), redirect_stdout(out), redirect_stderr(err):
        code = run([*arguments, "--url", url or gateway.url])
    return Shown(code, out.getvalue(), err.getvalue())


def test_D5_C3_the_report_tells_how_the_health_of_a_provider_came_about(gateway: Gateway, switched: Switched) -> None:
    assert gateway.chat("m").status == 200
    fresh = health(gateway)
    assert (fresh["provider"], fresh["status"], fresh["available"], fresh["healthy"]) == ("well", "ready", True, True)
    assert fresh["weights"] == {"success": 0.5, "errors": 0.2, "latency": 0.3}
    assert fresh["parts"] == {"success_rate": 1.0, "error_rate": 0.0, "slowness": 1.0, "failures_in_a_row": 0}
    assert (fresh["circuit"]["state"], fresh["credential"]["state"]) == ("closed", "closed")
    assert 590 < fresh["next_probe_in_s"] <= 600

    break_down(gateway, switched)

    ill = health(gateway)
    assert (ill["status"], ill["available"]) == ("unavailable", False)
    assert ill["reason"].startswith("circuit_open for another")
    assert 0 < ill["circuit"]["retry_in_s"] <= 60
    assert (ill["successes"], ill["failures"]) == (fresh["successes"], fresh["failures"] + 2)
    assert ill["parts"]["failures_in_a_row"] == 2
    last = ill["last_failures"][0]
    assert (last["model"], last["scope"], last["code"], last["status"]) == ("m", "provider", "http_503", 503)
    assert ill["score"] == round(gateway_score(gateway), 4)


def gateway_score(gateway: Gateway) -> float:
    one = next(one for one in gateway.get("/admin/providers", KEY).json()["providers"] if one["id"] == "well")
    return float(one["health"])


def test_pain_08_a_reset_lets_calls_through_at_once(gateway: Gateway, switched: Switched) -> None:
    break_down(gateway, switched)
    switched.is_ill = False
    assert gateway.chat("m").status == 503

    answer = gateway.post("/admin/providers/well/reset", b"{}", KEY)

    told = answer.json()
    assert (answer.status, told["circuit"]["state"], told["score"], told["available"]) == (200, "closed", 1.0, True)
    assert gateway.chat("m").status == 200


def test_pain_08_whoever_is_refused_while_all_are_open_is_told_when_to_come_again(gateway: Gateway, switched: Switched) -> None:
    break_down(gateway, switched)

    refused = gateway.chat("m")

    assert (refused.status, refused.error["code"]) == (503, "no_provider_available")
    assert 1 <= int(refused.header("retry-after") or 0) <= 61
    assert "well has its circuit open" in refused.error["message"]


def test_C3_a_probe_is_made_now_though_nobody_wished_one(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    before = len(upstream.requests("well"))

    found = gateway.post("/admin/providers/well/probe", b"{}", KEY).json()

    assert (found["provider"], found["ok"], found["auth_failed"], found["cost_usd"]) == ("well", True, False, 0.0)
    assert len(upstream.requests("well")) == before + 1
    assert upstream.requests("well")[-1].body == b""


@pytest.mark.parametrize(("method", "path"), [("GET", "health"), ("POST", "probe"), ("POST", "reset")])
def test_health_probe_and_reset_are_as_well_guarded_as_the_rest(gateway: Gateway, method: str, path: str) -> None:
    def status(name: str, key: dict[str, str]) -> int:
        body = b"{}" if method == "POST" else None
        return gateway.call(method, f"/admin/providers/{name}/{path}", body, {"content-type": "application/json", **key}).status

    assert (status("well", {}), status("well", {"authorization": "Bearer wrong"})) == (401, 401)
    assert (status("well", KEY), status("nobody", KEY)) == (200, 404)
    wrong = gateway.call("DELETE", f"/admin/providers/well/{path}", None, KEY)
    assert wrong.status == 405


def test_pain_20_a_paid_probe_asks_for_free_first_calls_the_model_within_its_cap_and_says_what_it_cost(
    upstream: ScriptedUpstream,
) -> None:
    upstream.forget()
    upstream.scripts["paid"] = answers
    # The script's answer says 2 + 3 tokens: 8e-6 USD. The estimate of one probe is 96e-6.
    probe = {"kind": "chat", "interval": "10m", "max_spend_per_day": 110e-6}
    entry = provider("paid", upstream.base_url("paid"), [CHEAP], probe=probe, api_key="sk-paid-paid-paid")
    with Gateway({"providers": [entry]}) as gateway:
        eventually(lambda: gateway.providers()["paid"]["status"] == "ready", "the first probe")
        costs = [gateway.post("/admin/providers/paid/probe", b"{}").json()["cost_usd"] for _ in range(3)]

        # 8 + 8 µUSD are spent when the third is booked: 16 + 96 would be over the cap.
        assert costs == [pytest.approx(8e-6), 0.0, 0.0]
        asked = upstream.requests("paid")
        assert [exchange.target.rsplit("/", 1)[1] for exchange in asked] == [
            *("models", "completions"),
            *("models", "completions"),
            "models",
            "models",
        ]
        said = orjson.loads(asked[1].body)
        assert (said["model"], said["max_tokens"]) == ("m-2024", 16)
        assert {exchange.header("authorization") for exchange in asked} == {"Bearer sk-paid-paid-paid"}
        told = gateway.get("/admin/providers/paid/health").json()
        assert told["probes_usd"] == pytest.approx(16e-6)
        # A probe is no request of anybody's.
        assert gateway.providers()["paid"]["requests"] == 0


async def refuses_max_tokens(exchange: Exchange) -> None:
    if exchange.body:
        await exchange.reply(400, error("Unsupported parameter: 'max_tokens'", "unsupported_parameter", param="max_tokens"))
    else:
        await answers(exchange)


async def lists_but_fails(exchange: Exchange) -> None:
    if exchange.body:
        await exchange.reply(503, error("overloaded", kind="server_error"))
    else:
        await answers(exchange)


async def hides_its_list(exchange: Exchange) -> None:
    if exchange.body:
        await exchange.reply(200, completion())
    else:
        await exchange.reply(401, error("no rights to list models"))


async def gibberish(exchange: Exchange) -> None:
    if exchange.body:
        await exchange.reply(200, b"<html>maintenance</html>", content_type="text/html")
    else:
        await answers(exchange)


@pytest.mark.parametrize(
    ("script", "ok", "costs"),
    [
        (refuses_max_tokens, True, False),
        (lists_but_fails, False, False),
        (hides_its_list, True, True),
        (gibberish, False, True),
    ],
    ids=["reasoning model", "list lies", "no rights to the list", "no answer at all"],
)
def test_pain_20_what_a_paid_probe_finds_outranks_the_free_endpoint_and_lies_about_nobody(
    upstream: ScriptedUpstream, script: Any, ok: bool, costs: bool
) -> None:
    upstream.scripts["paid"] = script
    entry = provider("paid", upstream.base_url("paid"), [CHEAP], probe={"kind": "chat", "interval": "10m"})
    with Gateway({"providers": [entry]}) as gateway:
        found = gateway.post("/admin/providers/paid/probe", b"{}").json()
        assert (found["ok"], found["auth_failed"], found["cost_usd"] > 0) == (ok, False, costs)


def test_C3_pointsman_health_shows_all_with_latency_and_fails_if_one_takes_no_calls(
    gateway: Gateway, switched: Switched
) -> None:
    gateway.chat("m")
    fine = pointsman(gateway, "health")
    assert (fine.code, fine.err) == (0, "")
    assert all(word in fine.out for word in ("well", "other", "ready", "p95 ms", "closed"))
    assert [line.split().count("–") for line in fine.out.splitlines() if "closed" in line] == [0, 3], "one was called"

    break_down(gateway, switched)

    ill = pointsman(gateway, "health")
    assert ill.code == 1
    assert "circuit_open" in ill.out
    told = orjson.loads(pointsman(gateway, "health", "--json").out)
    assert {one["id"]: one["circuit"] for one in told} == {"well": "open", "other": "closed"}


def test_C3_pointsman_health_of_one_shows_the_report(gateway: Gateway, switched: Switched) -> None:
    break_down(gateway, switched)

    shown = pointsman(gateway, "health", "well")

    assert shown.code == 1
    assert all(word in shown.out for word in ("success_rate", "retry_in_s", "http_503", "failures_in_a_row"))
    assert orjson.loads(pointsman(gateway, "health", "well", "--json").out)["circuit"]["state"] == "open"


def test_C3_pointsman_probe_and_reset_act_on_one_or_all(
    gateway: Gateway, switched: Switched, upstream: ScriptedUpstream
) -> None:
    break_down(gateway, switched)
    switched.is_ill = False

    probed = pointsman(gateway, "probe", "--json")
    assert (probed.code, [one["ok"] for one in orjson.loads(probed.out)]) == (0, [True, True])
    upstream.scripts["other"] = replies(503, error("down"))
    one = pointsman(gateway, "probe", "other")
    assert (one.code, "well" in one.out, "other" in one.out) == (1, False, True)

    reset = pointsman(gateway, "reset")
    assert (reset.code, "closed" in reset.out) == (0, True)
    assert gateway.chat("m").status == 200


def test_pointsman_says_why_it_could_not_ask(gateway: Gateway) -> None:
    assert "answered 401" in pointsman(gateway, "health", key="wrong").err
    unknown = pointsman(gateway, "reset", "nobody")
    assert (unknown.code, unknown.out) == (1, "")
    assert "answered 404" in unknown.err
    away = pointsman(gateway, "probe", url="http://127.0.0.1:9")
    assert (away.code, "127.0.0.1:9" in away.err) == (1, True)


def test_a_probe_that_is_off_is_not_made_for_whoever_asks(upstream: ScriptedUpstream) -> None:
    upstream.scripts["a"] = answers
    with Gateway({"providers": [provider("a", upstream.base_url("a"), ["m"])]}) as gateway:
        found = gateway.post("/admin/providers/a/probe", b"{}").json()
        assert (found["ok"], found["detail"]) == (False, "its probe is off")
        assert gateway.get("/admin/providers/a/health").json()["next_probe_in_s"] is None
