"""Rows of FEATURES from outside: what a client says and sends decides who answers it, and who does not is told why."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from runtime.simulation.behaviour import Behaviour
from tests.daemon.gateway import Answer, Gateway, chat_body, eventually, provider, run_pointsman
from tests.daemon.gateway_upstreams import Backstage, ScriptedUpstream, answers

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]


# -- C1


@pytest.fixture(scope="module")
def talents(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """One provider for each talent, each of which can chat, and before them one that can only do that."""
    upstream.scripts["p"] = answers
    able = {"plain": ["chat"], "tooled": ["tools"], "seeing": ["vision"], "strict": ["json"], "flowing": ["streaming"]}
    entries = [
        provider(name, upstream.base_url("p"), ["m"], capabilities=["chat", *more] if name != "plain" else more)
        for name, more in able.items()
    ]
    with Gateway({"providers": entries, "routing": {"strategy": "first"}}) as found:
        yield found


@pytest.mark.parametrize(
    ("fields", "needed", "expected"),
    [
        ({}, "chat", "plain"),
        ({"tools": [TOOL]}, "tools", "tooled"),
        ({"messages": PICTURE}, "vision", "seeing"),
        ({"response_format": {"type": "json_object"}}, "json", "strict"),
        ({"stream": True}, "streaming", "flowing"),
    ],
)
def test_C1_who_has_what_the_request_needs_answers_it(
    talents: Gateway, fields: dict[str, Any], needed: str, expected: str
) -> None:
    answer = talents.post("/v1/chat/completions", chat_body("m") if not fields else chat_body("m", **fields))

    assert answer.status == 200, answer.body
    assert answer.header("x-pointsman-provider") == expected
    record = talents.decision(answer)
    assert needed in record["profile"]["needs"]
    unable = {one["provider"] for one in record["candidates"] if one["reason"] == "missing_capability"}
    assert unable == ({"plain", "tooled", "seeing", "strict", "flowing"} - {expected} if fields else set())


def test_C1_what_nobody_can_do_is_refused_and_each_is_told_of(talents: Gateway) -> None:
    answer = talents.chat("m", tools=[TOOL], stream=True)

    assert (answer.status, answer.error["code"]) == (403, "rejected")
    for name in ("plain", "tooled", "flowing"):
        assert f"{name} lacks a capability the request needs" in answer.error["message"]


# -- D4


def test_D4_what_a_candidate_lacks_is_told_whatever_its_tenant_may_not_use_live_and_from_a_file(
    upstream: ScriptedUpstream,
) -> None:
    upstream.scripts["p"] = answers
    able = {"blind": ["chat"], "barred": ["chat", "vision"], "mine": ["chat", "vision"], "short": ["chat", "vision"]}
    entries = [provider(name, upstream.base_url("p"), ["m"], capabilities=more) for name, more in able.items()]
    entries[-1]["models"] = [{"name": "m", "context_window": 100}]
    tenants = {"acme": {"allowed_providers": ["mine"]}, "none": {"allowed_providers": []}}
    told = {"blind": ("requirements", "missing_capability"), "barred": ("tenant", "tenant")}
    told["short"] = ("requirements", "context_too_long")

    with Gateway({"providers": entries, "routing": {"strategy": "first"}, "tenants": tenants}) as gateway:
        fields = {"messages": PICTURE, "max_tokens": 200}
        answer = gateway.chat("m", {"x-pointsman-tenant": "acme"}, **fields)
        assert (answer.status, answer.header("x-pointsman-provider")) == (200, "mine")
        assert left_out(gateway, answer) == told

        options = ("--vision", "--max-tokens", "200", "--tenant", "acme", "--json")
        for source in (("-c", str(gateway.file)), ("--url", gateway.url)):
            record = orjson.loads(run_pointsman("explain", "m", *source, *options).stdout)
            assert {one["provider"]: (one["stage"], one["reason"]) for one in record["candidates"] if one["reason"]} == told

        refused = gateway.chat("m", {"x-pointsman-tenant": "none"}, **fields)
        assert (refused.status, refused.error["code"]) == (403, "rejected")
        message = refused.error["message"]
        assert "blind lacks a capability the request needs (vision); barred is not allowed to the tenant" in message
        assert "short cannot fit the request into its context window" in message


# -- D9: targets of time


@pytest.fixture(scope="module")
def speeds(backstage: Backstage) -> Iterator[Gateway]:
    slow = Behaviour("slow", ttfb_ms=400, sigma=0, tokens_per_second=50, models=("m",))
    quick = Behaviour("quick", ttfb_ms=1, sigma=0, tokens_per_second=20_000, models=("m",))
    with backstage.simulated(slow) as one, backstage.simulated(quick) as other:
        entries = [provider(name, at.base_url, ["m"]) for name, at in (("slow", one), ("quick", other))]
        with Gateway({"providers": entries, "routing": {"strategy": "first"}}) as found:
            measured(found)
            yield found


def ask(gateway: Gateway, **hints: str) -> Answer:
    return gateway.chat("m", {f"x-pointsman-{name}": value for name, value in hints.items()}, stream=True, max_tokens=20)


def measured(gateway: Gateway) -> None:
    """Let both be asked until what they take is known."""
    for name in ("slow", "quick"):
        answer = ask(gateway, provider=name)
        assert (answer.status, answer.header("x-pointsman-provider")) == (200, name)

    def known() -> bool:
        decided = gateway.decision(ask(gateway, provider="quick"))
        bids = [one["bid"] for one in decided["candidates"]]
        return all(bid["tokens_per_s"] > 0 and bid["latency_p50_s"] > 0 for bid in bids)

    eventually(known, "time to first content and rate of both are known")


def left_out(gateway: Gateway, answer: Answer) -> dict[str, tuple[str, str]]:
    return {one["provider"]: (one["stage"], one["reason"]) for one in gateway.decision(answer)["candidates"] if one["reason"]}


def test_D9_without_a_target_the_slow_one_is_as_good_as_any(speeds: Gateway) -> None:
    assert ask(speeds).header("x-pointsman-provider") == "slow"


@pytest.mark.parametrize(
    ("hint", "value", "reason"), [("max-latency", "300", "max_latency"), ("throughput", "200", "throughput")]
)
def test_D9_a_target_leaves_a_slow_provider_out_and_the_record_says_so(
    speeds: Gateway, hint: str, value: str, reason: str
) -> None:
    answer = ask(speeds, **{hint: value})

    assert (answer.status, answer.header("x-pointsman-provider")) == (200, "quick")
    assert left_out(speeds, answer) == {"slow": ("ceilings", reason)}


@pytest.mark.parametrize(("hint", "value"), [("max-latency", "60000"), ("throughput", "1")])
def test_D9_a_target_the_slow_one_meets_leaves_nobody_out(speeds: Gateway, hint: str, value: str) -> None:
    answer = ask(speeds, **{hint: value})

    assert answer.header("x-pointsman-provider") == "slow"
    assert left_out(speeds, answer) == {}


@pytest.mark.parametrize(
    ("hint", "value", "why"),
    [
        ("max-latency", "0.001", "is slower than the request's target"),
        ("throughput", "10000000", "gives fewer tokens a second than the request's target"),
    ],
)
def test_D9_a_target_nobody_meets_is_refused_with_what_each_takes(speeds: Gateway, hint: str, value: str, why: str) -> None:
    answer = ask(speeds, **{hint: value})

    assert answer.status == 403, answer.body
    for name in ("slow", "quick"):
        assert f"{name} {why}" in answer.error["message"]


# -- D12, E3


def test_E3_D12_stats_and_records_tell_strategy_generation_and_what_was_measured(speeds: Gateway) -> None:
    answer = ask(speeds, provider="quick")
    record, stats = speeds.decision(answer), speeds.stats()

    assert record["strategy"] == stats["router"]["strategy"] == "first"
    assert record["generation"] == speeds.get("/admin/strategy").json()["generation"]
    assert record["selection_us"] > 0
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["success"]
    assert stats["router"]["total"] >= 3
    assert stats["router"]["latency_ms"]["avg"] > 0
    latencies = {line["name"]: line["latency_ms"]["avg"] for line in stats["providers"]}
    assert latencies["slow"] > latencies["quick"] > 0


# -- A5: strategies of somebody else's making

THEIRS = """
import sys

def raising(bids, request, memory, rng):
    raise LookupError("no idea")

def rubbish(bids, request, memory, rng):
    return "the second, I think"

def leaving(bids, request, memory, rng):
    sys.exit(3)

def last(bids, request, memory, rng):
    return [(float(place), bid) for place, bid in enumerate(reversed(bids))]
"""
NAMES = ("raising", "rubbish", "leaving", "last")


@pytest.fixture
def theirs(tmp_path: Path) -> dict[str, str]:
    """The environment of a daemon that finds another distribution's strategies."""
    (tmp_path / "their_strategies.py").write_text(THEIRS)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    points = "\n".join(f"{name} = their_strategies:{name}" for name in NAMES)
    (info / "entry_points.txt").write_text(f"[pointsman.strategies]\n{points}\n")
    return {"PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))}


def test_A5_a_strategy_of_others_that_fails_costs_one_fallback_to_first_logged_and_counted(
    upstream: ScriptedUpstream, theirs: dict[str, str]
) -> None:
    upstream.scripts["p"] = answers
    entries = [provider(name, upstream.base_url("p"), ["m"]) for name in ("one", "two")]
    with Gateway({"providers": entries}, theirs, may_complain=True) as gateway:
        good = gateway.chat("m", {"x-pointsman-strategy": "last"})
        assert (good.status, good.header("x-pointsman-provider")) == (200, "two")

        for strategy, why in (
            ("raising", "LookupError: no idea"),
            ("rubbish", "the ranking is no list but str"),
            ("leaving", "SystemExit: 3"),
        ):
            answer = gateway.chat("m", {"x-pointsman-strategy": strategy})
            assert (answer.status, answer.header("x-pointsman-provider")) == (200, "one")
            assert gateway.decision(answer)["note"] == f"{strategy} failed ({why}): first stood in"
            gateway.wait_for_log(f"ERROR.*strategy {strategy} failed, 'first' stands in: {why}")

        router = gateway.stats()["router"]
        assert (router["strategy_errors"], router["succeeded"]) == (3, 4)


# -- B8


def test_B8_a_circle_that_hangs_on_a_price_is_answered_500_when_it_is_walked_and_the_record_has_the_way(
    upstream: ScriptedUpstream,
) -> None:
    upstream.scripts["p"] = answers
    models = [{"name": name, "input_price": 1, "output_price": 1} for name in ("m", "n")]
    rules = [
        {"name": "there", "when": {"model": "m"}, "then": {"redirect": "n"}},
        {"name": "back", "when": {"all": [{"model": "n"}, {"cost_under": 0.01}]}, "then": {"redirect": "m"}},
    ]
    with Gateway({"providers": [provider("a", upstream.base_url("p"), models)], "rules": rules}) as gateway:
        answer = gateway.chat("m")

        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        assert "redirects lead in a circle: m → n → m" in answer.error["message"]
        record = gateway.decision(answer)
        assert (record["error"], record["rule"]) == ("selection_failed", "there → back")
        assert record["note"] == "redirects lead in a circle: m → n → m"
        assert [(one["stage"], one["reason"]) for one in record["candidates"]] == [("rules", "rule")]
        assert gateway.chat("n").status == 500, "nobody waits, and the next request is answered too"

        # It could be told that it may come to this, and was: by the check, and in the log.
        doubt = (
            "rules[0].then[0].redirect: may lead in a circle: rule 'there' sends 'm' to 'n', rule 'back' sends 'n' to 'm'; "
            "this is where a request for 'm' could go, as prices are, and be answered 500"
        )
        checked = run_pointsman("check", "-c", str(gateway.file), "--json")
        assert (checked.returncode, doubt in orjson.loads(checked.stdout)["notes"]) == (0, True)
        assert doubt in gateway.log()


def test_B8_a_check_of_redirects_that_ends_before_its_time_says_so_and_names_rules(tmp_path: Path) -> None:
    names = [f"m{n}" for n in range(600)]
    rules = [
        {
            "name": f"{one}-{n}",
            "when": {"all": [{"model": one}, {"tenant": f"t{n}"}, {"never": True}]},
            "then": {"redirect": to},
        }
        for one, to in zip(names, [*names[1:], names[0]], strict=True)
        for n in range(5)
    ]
    entry = provider("a", "http://127.0.0.1:9", names)
    file = tmp_path / "many.yaml"
    file.write_bytes(orjson.dumps({"providers": [entry], "rules": rules}))

    checked = run_pointsman("check", "-c", str(file), "--json")

    assert checked.returncode == 0, checked.stdout
    (note,) = [note for note in orjson.loads(checked.stdout)["notes"] if note.startswith("redirects:")]
    assert "too many to try them all, so one may lead in a circle" in note
    assert "not seen through: rule 'm" in note
    assert note.endswith(" more")
