"""Failover, slow streams and adaptive concurrency as the file writes them (FEATURES B5, B6, D8)."""

import pytest

from messages.policy import ChainStep
from runtime.config.describe import describe, overview
from runtime.config.schema import json_schema
from tests.daemon.config_files import MINIMAL, load, said

POOLED = """\
providers:
  - {id: a, kind: openai, models: [m]}
  - {id: b, kind: openai, models: [m]}
  - {id: c, kind: openai, models: [m], limits: {max_concurrency: auto}}
"""


def chained(chain: str) -> str:
    return f"{POOLED}pools: {{m: {{failover: {{chain: {chain}}}}}}}\n"


def test_D8_a_chain_arrives_step_by_step() -> None:
    text = chained("[{provider: a}, {providers: [b, c], strategy: cost}, any]")
    (pool,) = load(text).snapshot.pools

    assert pool.chain == (ChainStep(("a",)), ChainStep(("b", "c"), "cost"), ChainStep())
    assert "  m  failover: a → b, c by cost → any" in describe(load(text))
    assert overview(load(text))["pools"]["m"]["chain"] == [
        {"providers": ["a"]},
        {"providers": ["b", "c"], "strategy": "cost"},
        {"any": True},
    ]
    assert load(chained("[{any: true, strategy: cost}]")).snapshot.pools[0].chain == (ChainStep((), "cost"),)


@pytest.mark.parametrize(
    ("chain", "fault"),
    [
        ("[]", ": must have 1 or more entries, or be left out"),
        ("[{}]", "[0]: needs one of provider, providers and any, and not more"),
        ("[{strategy: cost}]", "[0]: needs one of provider, providers and any, and not more"),
        ("[{provider: a, any: true}]", "[0]: needs one of provider, providers and any, and not more"),
        ("[{provider: nobody}]", "[0]: there is no provider 'nobody'"),
        ("[{providers: [a, a]}]", "[0]: provider 'a' is named twice"),
        ("[{provider: a}, {providers: [b, a]}]", "[1]: a stands in step 0 of the chain already"),
        ("[any, any]", "[1]: any stands in step 0 of the chain already"),
        ("[all]", "[0]: expected a mapping"),
        ("[{any: false}]", "[0].any: can only be true"),
        ("[{provider: a, stategy: cost}]", "[0].stategy: unknown key; did you mean 'strategy'?"),
    ],
)
def test_D8_a_chain_that_cannot_be_meant_is_refused_where_it_stands(chain: str, fault: str) -> None:
    assert said(chained(chain)) == [f"5 pools.m.failover.chain{fault}"]


def test_what_a_pools_failover_has_not_is_refused() -> None:
    text = f"{POOLED}pools: {{m: {{failover: {{chain: [any], max_attempts: 2}}}}}}\n"
    assert said(text) == ["5 pools.m.failover.max_attempts: unknown key"]


def test_auto_is_a_limit_that_is_found_out() -> None:
    loaded = load(POOLED)
    limits = [spec.limits for spec in loaded.snapshot.providers]

    assert [(limit.adaptive, limit.max_concurrency) for limit in limits] == [(False, None), (False, None), (True, None)]
    assert any(line.endswith("max_concurrency auto") for line in describe(loaded))
    assert overview(loaded)["providers"][2]["limits"] == {"max_concurrency": "auto"}
    assert {"const": "auto"} in json_schema()["$defs"]["Limits"]["properties"]["max_concurrency"]["anyOf"]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("Auto", "expected a whole number, or auto"),
        ("0", "must be 1 or more"),
        ("true", "expected a number"),
        ("1.5", "expected a whole number"),
    ],
)
def test_what_is_neither_a_number_of_calls_nor_auto_is_refused(value: str, fault: str) -> None:
    text = MINIMAL + f"    limits: {{max_concurrency: {value}}}\n"
    assert [line.partition("max_concurrency: ")[2] for line in said(text)] == [fault]


def test_auto_may_come_from_the_environment() -> None:
    text = MINIMAL + '    limits: {max_concurrency: "${CALLS}"}\n'
    assert load(text, {"CALLS": "auto"}).snapshot.providers[0].limits.adaptive
    assert load(text, {"CALLS": "7"}).snapshot.providers[0].limits.max_concurrency == 7


def test_a_least_rate_may_be_any_number_that_is_not_negative() -> None:
    text = MINIMAL + "    timeouts: {min_tokens_per_second: 0.5}\n"
    assert load(text).snapshot.providers[0].timeouts.min_tokens_per_s == 0.5
    assert said(text.replace("0.5", "-1"))[0].endswith("min_tokens_per_second: must be 0 or more")
