"""Limits of tenants and pools in the file: what is written arrives, is shown, and what cannot be meant is refused (B4, D1)."""

import json

import pytest

from messages.limits import LimitsSpec
from messages.policy import PoolSpec, TenantSpec
from runtime.config.describe import describe, overview
from runtime.config.quotas import quotas_of
from runtime.config.schema import UNSUPPORTED_KEYS, json_schema
from tests.daemon.config_files import FLEET, load, said

BOTH = """\
tenants:
  acme: {limits: {requests_per_minute: 600, tokens_per_minute: 2.5e6, max_concurrency: 20, burst: 50}, strategy: cost}
  labs: {limits: {tokens_per_minute: 1000}}
  free: {limits: }
pools:
  gpt-4o: {limits: {max_concurrency: 3}}
  mini: {strategy: cost}
"""


def test_B4_D1_limits_of_tenants_and_pools_arrive() -> None:
    snapshot = load(FLEET + BOTH).snapshot
    assert snapshot.tenants == (
        TenantSpec("acme", strategy="cost", limits=LimitsSpec(600.0, 2_500_000.0, 20, 50.0)),
        TenantSpec("labs", limits=LimitsSpec(tokens_per_minute=1000.0)),
        TenantSpec("free"),
    )
    assert snapshot.pools == (PoolSpec("gpt-4o", limits=LimitsSpec(max_concurrency=3)), PoolSpec("mini", "cost"))


def test_who_has_no_limits_has_no_quota() -> None:
    assert list(quotas_of(load(FLEET + BOTH).snapshot)) == ["tenant:acme", "tenant:labs", "pool:gpt-4o"]
    assert quotas_of(load(FLEET).snapshot) == {}


def test_check_shows_limits_and_quotas_and_gives_them_as_data() -> None:
    loaded = load(FLEET + BOTH)
    lines = describe(loaded)
    assert lines[1:6] == [
        "├─ registry             5 restarts in 30s",
        "├─ quota:tenant:acme    5 restarts in 30s",
        "├─ quota:tenant:labs    5 restarts in 30s",
        "├─ quota:pool:gpt-4o    5 restarts in 30s",
        "├─ router               5 restarts in 30s, strategy adaptive",
    ]
    acme = "limits: requests_per_minute 600, tokens_per_minute 2500000, max_concurrency 20, burst 50"
    assert f"  acme  strategy cost; {acme}" in lines
    assert "  gpt-4o  limits: max_concurrency 3" in lines
    data = overview(loaded)
    assert data["tenants"]["labs"]["limits"] == {"tokens_per_minute": 1000.0}
    assert data["pools"]["gpt-4o"]["limits"] == {"max_concurrency": 3}


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ("{}", "limits: says nothing; give it a limit, or leave it out"),
        ("{burst: 5}", "limits.burst: needs requests_per_minute, whose bucket it sizes"),
        ("{burst: 5, max_concurrency: 1}", "limits.burst: needs requests_per_minute, whose bucket it sizes"),
        ("{burst: 5, requests_per_minute: -1}", "limits.requests_per_minute: must be more than 0"),
        ("{burst: 0.5, requests_per_minute: 1}", "limits.burst: must be 1 or more"),
        ("{requests_per_minute: 0}", "limits.requests_per_minute: must be more than 0"),
        ("{tokens_per_minute: 0}", "limits.tokens_per_minute: must be more than 0"),
        ("{max_concurrency: 0}", "limits.max_concurrency: must be 1 or more"),
        ("{max_concurrency: auto}",
         "limits.max_concurrency: can only be a number: what a tenant or a pool may have at once cannot be learned"),
        ("{requests_per_minut: 5}", "limits.requests_per_minut: unknown key; did you mean 'requests_per_minute'?"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("owner", ["tenants.acme", "pools.mini"])
def test_B4_limits_that_cannot_be_meant_are_refused_where_they_stand(owner: str, limits: str, fault: str) -> None:
    section, name = owner.split(".")
    text = f"{section}: {{{name}: {{limits: {limits}}}}}\n"
    assert [line.split(" ", 1)[1] for line in said(FLEET + text)] == [f"{owner}.{fault}"]


def test_the_schema_for_editors_has_them_and_nothing_calls_them_unsupported() -> None:
    schema = json_schema()["$defs"]
    for name in ("TenantEntry", "PoolEntry"):
        assert '"limits"' in json.dumps(schema[name])
    assert [key for key in UNSUPPORTED_KEYS if key.endswith(".limits")] == []
