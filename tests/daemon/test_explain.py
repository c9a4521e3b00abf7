"""Explaining: how a question is read, what it is answered from a file alone, and how the record is shown."""

import asyncio
import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from messages.decisions import Candidate, Decision
from messages.policy import CRITICAL
from messages.routing import NO_HINTS, Bid, Hints, RequestProfile
from runtime import explain, explain_table
from runtime.config.loading import load_file
from runtime.config.problems import ConfigError
from runtime.http import render
from runtime.http.explain_request import BadQuestion, read_explain
from tests.daemon.gateway import WITHIN_S, Gateway, environ_for_daemon, eventually, provider, run_pointsman
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers

FILE = """\
providers:
  - id: main
    kind: openai_compatible
    base_url: http://127.0.0.1:9/v1
    models: [{name: m, input_price: 1, output_price: 2}, {name: gpt-4o-mini}]
  - {id: second, kind: openai_compatible, base_url: "http://127.0.0.1:9/v1", models: [m]}
  - {id: third, kind: openai_compatible, base_url: "http://127.0.0.1:9/v1", models: [m], tags: [slow]}
routing: {strategy: first}
"""


def ask(**question: Any) -> RequestProfile:
    return read_explain(orjson.dumps(question))


# -- the question


def test_a_question_needs_no_more_than_a_model() -> None:
    profile = ask(model="m")

    assert profile == RequestProfile("m", needs=("chat",))
    assert profile.hints is NO_HINTS


def test_D9_a_question_may_say_all_that_a_request_may() -> None:
    profile = ask(
        model="m",
        endpoint="chat",
        prompt_tokens=100,
        max_tokens=10,
        tools=True,
        vision=True,
        json=True,
        stream=True,
        strategy="cost",
        tenant="acme",
        user="jo",
        labels={"tier": "free", "purpose": "batch"},
        headers={"X-Pointsman-Region": "eu", "x-pointsman-max-cost": 0.5},
    )

    assert profile == RequestProfile(
        "m",
        "chat",
        True,
        100,
        10,
        ("chat", "json", "streaming", "tools", "vision"),
        "acme",
        "jo",
        Hints(strategy="cost", regions=("eu",), max_cost_usd=0.5),
        (("purpose", "batch"), ("tier", "free")),
    )


def test_a_tenant_and_a_user_may_come_as_headers_too() -> None:
    profile = ask(model="m", headers={"x-pointsman-tenant": "acme", "x-pointsman-user": "jo"})

    assert (profile.tenant, profile.user) == ("acme", "jo")
    assert profile.hints is NO_HINTS


def test_what_is_null_is_not_said() -> None:
    names = ("endpoint", "prompt_tokens", "tools", "strategy", "tenant", "user", "labels", "headers", "json")

    assert ask(model="m", **dict.fromkeys(names)) == ask(model="m")


@pytest.mark.parametrize(
    ("question", "param", "said"),
    [
        (b"{", None, "not JSON"),
        (b"[]", None, "must be a JSON object"),
        (b"{}", "model", "is missing"),
        (b'{"model":1}', "model", "must be a string"),
        (b'{"model":"m","modle":"m"}', "modle", "is not known"),
        (b'{"model":"m","prompt_tokens":true}', "prompt_tokens", "must be a whole number"),
        (b'{"model":"m","max_tokens":-1}', "max_tokens", "must not be negative"),
        (b'{"model":"m","json":1}', "json", "must be true or false"),
        (b'{"model":"m","endpoint":"images"}', "endpoint", "must be one of chat, completions, embeddings"),
        (b'{"model":"m","labels":["a"]}', "labels", "must be an object"),
        (b'{"model":"m","labels":{"a":1}}', "labels", "must be strings"),
        (b'{"model":"m","tenant":" "}', "tenant", "x-pointsman-tenant: is empty"),
        (b'{"model":"m","headers":{"cookie":"a"}}', "headers", "x-pointsman-"),
        (b'{"model":"m","headers":{"x-pointsman-tags":["a"]}}', "headers", "strings or numbers"),
        (b'{"model":"m","headers":{"x-pointsman-priority":"urgent"}}', "headers", "low, normal, high, critical"),
        (b'{"model":"m","strategy":"a","headers":{"x-pointsman-strategy":"b"}}', "headers", "more than once"),
        (b'{"model":"m","headers":{"x-pointsman-user":"a","X-Pointsman-User":"b"}}', "headers", "more than once"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_the_name_of_its_field(
    question: bytes, param: str | None, said: str
) -> None:
    with pytest.raises(BadQuestion, match=re.escape(said)) as caught:
        read_explain(question)

    problem = caught.value.problem
    assert (problem.status, problem.code, problem.param) == (400, "invalid_request", param)


# -- the record as a table

BID = Bid("a", 3, None, 1, 0, 20, 0.3, 0.5, 0.31, 0.3204, 0.00021, 0.01, 1.0, 0.0, 0.97, True, False)
IDLE = replace(BID, provider="b", in_flight=0, samples=0, cost_usd=None)
RECORD = Decision(
    "d1",
    "q1",
    0.0,
    7,
    "gpt4",
    "gpt-4o",
    "cost",
    "eu-stays-in-eu",
    "0/router",
    (
        Candidate("c", None, "excluded", "the request said so", None, "request"),
        Candidate("b", 0.75, "", "", IDLE),
        Candidate("a", 0.5, "", "", BID),
        Candidate("d", None, "tenant", "", None, "tenant"),
    ),
    ("a", "b"),
    "",
    41.26,
    1,
    (),
    0,
    (("not_sampled", 480), ("model", 3)),
    RequestProfile("gpt4", tenant="acme", labels=(("tier", "free"),)),
    CRITICAL,
    "the strategy 'mine' failed",
)


def shown(record: Decision | dict[str, Any]) -> str:
    out = io.StringIO()
    explain_table.show(render.decision(record) if isinstance(record, Decision) else record, Console(file=out, width=200))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def test_D12_a_record_is_shown_with_all_that_led_to_it() -> None:
    text = shown(RECORD)

    for line in (
        "model     gpt4 → gpt-4o",
        "tenant    acme",
        "labels    tier=free",
        "rule      eu-stays-in-eu",
        "strategy  cost",
        "priority  critical",
        "others    480 not_sampled, 3 model",
        "winner    a, then b",
        "note      the strategy 'mine' failed",
        "decided in 41 µs, generation 7, seed 0/router",
    ):
        assert f"{line}\n" in text, text


def test_D12_every_provider_has_a_line_winner_and_chain_first_then_who_was_left_out_where_and_why() -> None:
    lines = shown(RECORD).splitlines()
    start = next(number for number, line in enumerate(lines) if line.split()[:2] == ["provider", "rank"])

    columns = ["provider", "rank", "score", "expected", "prefill", "price", "in", "flight", "health", "why", "not"]
    assert lines[start].split() == columns
    assert [line.split() for line in lines[start + 2 : start + 6]] == [
        ["a", "1", "0.5", "320", "ms", "$0.000210", "3", "0.97"],
        ["b", "2", "0.75", "unknown", "unknown", "0", "0.97"],
        ["c", "request:", "excluded:", "the", "request", "said", "so"],
        ["d", "tenant:", "tenant"],
    ]


def test_D12_no_word_of_why_not_is_said_twice() -> None:
    left_out = (
        Candidate("a", None, "tenant", "tenant acme-labs", None, "tenant"),
        Candidate("b", None, "rule", "rule 'night' rejects this request: no", None, "rules"),
        Candidate("c", None, "rule", "ruled out", None, "rules"),
        Candidate("d", None, "", "second tier: unhealthy", BID),
    )
    text = shown(replace(RECORD, candidates=left_out, chosen=()))

    assert "  tenant: tenant acme-labs\n" in text
    assert "  rules: rule 'night' rejects this request: no\n" in text
    assert "  rules: rule: ruled out\n" in text
    assert "  second tier: unhealthy\n" in text


def test_D12_what_it_takes_to_read_the_prompt_is_shown_where_it_makes_a_difference() -> None:
    reader = replace(BID, provider="b", expected_s=2.5, prefill_s=1.75)
    text = shown(replace(RECORD, candidates=(Candidate("a", 0.5, "", "", BID), Candidate("b", 0.75, "", "", reader))))

    rows = [line.split() for line in text.splitlines() if line.split()[:1] in (["a"], ["b"])]
    assert rows == [
        ["a", "1", "0.5", "320", "ms", "$0.000210", "3", "0.97"],
        ["b", "2", "0.75", "2500", "ms", "1750", "ms", "$0.000210", "3", "0.97"],
    ]


def test_E2_the_winners_latency_and_price_are_predicted() -> None:
    assert "predicted 320 ms, $0.000210\n" in shown(RECORD)
    assert "predicted latency unknown, price unknown\n" in shown(replace(RECORD, chosen=("b",)))


def test_what_is_as_usual_is_not_mentioned() -> None:
    text = shown(replace(RECORD, rule="", priority=1, profile=None, rest=(), note="", requested_model="gpt-4o"))

    for name in ("rule", "priority", "tenant", "labels", "others", "note", "→"):
        assert not re.search(rf"(?m)^{name} .*", text.replace("tenant: tenant", ""))
    assert "model     gpt-4o\n" in text


def test_nobody_is_shown_as_nobody_with_the_error() -> None:
    text = shown(replace(RECORD, model="", chosen=(), error="model_not_supported"))

    assert "model     gpt4 → nobody\n" in text
    assert "no provider: model_not_supported\n" in text
    assert "winner" not in text


def test_names_from_outside_are_neither_markup_nor_orders_to_the_terminal() -> None:
    text = shown(replace(RECORD, requested_model="[bold]x\x1b[2J", candidates=(Candidate("[red]p", None, "r", "\x07", None),)))

    assert "[bold]x?[2J" in text
    assert "[red]p" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_record_of_another_version_is_shown_as_far_as_it_goes() -> None:
    assert "strategy  first\n" in shown({"strategy": "first", "candidates": [{"provider": "p"}]})


# -- from a file alone


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pointsman.yaml"
    path.write_text(FILE)
    return path


def decided(file: Path, **question: Any) -> dict[str, Any]:
    return asyncio.run(explain.from_configuration(load_file(file, {}), question))


def test_D12_a_file_alone_is_enough_to_decide_and_the_decision_is_the_same_each_time(file: Path) -> None:
    first, second = (decided(file, model="m", prompt_tokens=1000, max_tokens=100, strategy="adaptive") for _ in range(2))

    timeless = {"at": 0, "selection_us": 0}
    assert first | timeless == second | timeless
    assert sorted(first["chosen"]) == ["main", "second", "third"]
    assert first["generation"] == 1
    assert first["seed"]


def test_E2_the_price_is_predicted_from_the_requests_own_size(file: Path) -> None:
    record = decided(file, model="m", prompt_tokens=1000, max_tokens=100)

    assert record["chosen"] == ["main", "second", "third"]
    bids = {one["provider"]: one["bid"] for one in record["candidates"]}
    assert bids["main"]["cost_usd"] == pytest.approx(1000 * 1e-6 + 100 * 2e-6)
    assert "predicted latency unknown, $0.001200\n" in shown(record)


def test_D9_a_tenant_of_a_file_is_held_to_its_providers(file: Path) -> None:
    file.write_text(FILE + "tenants: {acme: {allowed_providers: [third]}, none: {allowed_providers: []}}\n")

    record = decided(file, model="m", tenant="acme")
    assert record["chosen"] == ["third"]
    assert [(one["provider"], one["reason"]) for one in record["candidates"] if one["reason"]] == [
        ("main", "tenant"),
        ("second", "tenant"),
    ]
    assert decided(file, model="m", tenant="none")["error"]


def test_B8_labels_let_a_pools_rules_be_tried_before_there_are_keys(file: Path) -> None:
    rules = "[{labels: {purpose: batch}, deny: true}, {labels: {tier: free}, redirect: gpt-4o-mini}]"
    file.write_text(FILE + f"pools: {{m: {{rules: {rules}}}}}\n")

    assert decided(file, model="m")["chosen"] == ["main", "second", "third"]
    assert decided(file, model="m", labels={"purpose": "batch"})["error"]
    assert decided(file, model="m", labels={"tier": "free"})["model"] == "gpt-4o-mini"


def test_a_configuration_that_the_registry_refuses_is_told_with_path_and_reason(file: Path) -> None:
    # Given one that no file can say, for loading finds the same faults first
    loaded = load_file(file, {})
    circle = replace(loaded.snapshot, aliases=(("one", "other"), ("other", "one")))

    with pytest.raises(ConfigError) as caught:
        asyncio.run(explain.from_configuration(replace(loaded, snapshot=circle), {"model": "m"}))

    assert caught.value.text() == f"{file}: aliases.one: leads back to itself"


def test_a_question_that_makes_no_sense_is_wrong_usage(file: Path) -> None:
    with pytest.raises(explain.CannotExplain) as caught:
        decided(file, model="")

    assert caught.value.is_usage


# -- the command


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.scripts["p"] = answers
    entries = [provider(name, upstream.base_url("p"), ["m"]) for name in ("p", "q")]
    with Gateway({"providers": entries, "routing": {"strategy": "first"}}) as found:
        yield found


def test_every_option_of_the_command_reaches_the_decision(file: Path) -> None:
    ended = run_pointsman(
        *("explain", "m", "-c", str(file), "--json", "--prompt-tokens", "50", "--max-tokens", "5"),
        *("--tools", "--vision", "--stream", "--strategy", "priority", "--tenant", "acme"),
        *("--header", "x-pointsman-tags=slow", "--header", "x-pointsman-priority=high"),
        *("--label", "tier=free", "--label", "purpose=chat"),
    )

    assert ended.returncode == 0, ended.stderr
    record = orjson.loads(ended.stdout)
    assert (record["strategy"], record["chosen"]) == ("priority", ["third"])


@pytest.mark.parametrize("json", [False, True])
def test_an_invalid_file_is_answered_as_check_does(tmp_path: Path, json: bool) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("providers:\n  - {id: a, kind: openai, weight: -1}\n  - {id: a, kind: openai}\n")
    more = ["--json"] if json else []

    explained = run_pointsman("explain", "m", "-c", str(path), *more)
    checked = run_pointsman("check", "-c", str(path), *more)

    assert explained.returncode == checked.returncode == 1
    assert (explained.stdout, explained.stderr) == (checked.stdout, checked.stderr)
    assert explained.stdout + explained.stderr


def test_a_question_a_daemon_cannot_understand_is_wrong_usage(gateway: Gateway) -> None:
    ended = run_pointsman("explain", "m", "--url", gateway.url, "--header", "x-pointsman-priority=urgent")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "low, normal, high, critical" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_E2_a_live_daemons_prediction_is_what_it_has_measured(gateway: Gateway) -> None:
    # Given a provider that has answered
    assert gateway.chat("m").status == 200

    def is_known() -> bool:
        return bool(gateway.providers()["p"]["latency_ms"]["p50"])

    eventually(is_known, "its latency is known")

    ended = run_pointsman("explain", "m", "--url", gateway.url)

    assert ended.returncode == 0, ended.stderr
    assert re.search(r"(?m)^winner    p, then q$", ended.stdout)
    assert re.search(r"(?m)^predicted \d+ ms, price unknown$", ended.stdout)


def test_colours_are_for_terminals_only(file: Path) -> None:
    command = [sys.executable, "-m", "runtime", "explain", "m", "-c", str(file)]
    environ = environ_for_daemon({"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"})

    piped = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN_S, env=environ)
    ours, theirs = pty.openpty()
    try:
        on_terminal = subprocess.run(command, stdout=theirs, check=False, timeout=WITHIN_S, env=environ)
        drawn = os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)

    assert (piped.returncode, on_terminal.returncode) == (0, 0)
    assert "\x1b" not in piped.stdout
    assert b"\x1b[" in drawn
