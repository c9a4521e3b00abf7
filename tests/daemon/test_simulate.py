"""``pointsman simulate``: what it prints, how it ends, and that the same seed prints the same."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from pydantic import BaseModel

from runtime.cli import run
from runtime.simulation.scenario_schema import FaultName, Scenario

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "examples" / "simulation" / "pointsman.yaml")
SCENARIO = """\
duration: 3m
load: {rate: 2, tenants: {shop: 1, batch: 1}}
providers:
  main: {faults: [{fault: outage, at: 1m, for: 30s}]}
  second: {error_share: 0.1}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    file = tmp_path / "scenario.yaml"
    file.write_text(SCENARIO)
    return str(file)


def test_simulate_prints_a_table_with_a_row_for_every_provider_and_tenant(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", scenario, "-c", CONFIG]) == 0

    said = capsys.readouterr()
    assert said.err == ""
    rows, columns = ("main", "second", "budget", "shop", "batch"), ("share", "success", "first content", "cost")
    for word in (*rows, *columns, "per request", "queue"):
        assert word in said.out


def test_simulate_prints_the_same_as_json(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", scenario, "-c", CONFIG, "--json", "--seed", "7"]) == 0

    report = orjson.loads(capsys.readouterr().out)
    assert report["seed"] == 7
    assert [one["provider"] for one in report["providers"]] == ["main", "second", "budget"]
    assert report["requests"] > 200


def test_the_same_seed_prints_the_same_byte_for_byte_and_another_does_not(scenario: str) -> None:
    def printed(hash_seed: str, *more: str) -> bytes:
        environ = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "runtime", "simulate", scenario, "-c", CONFIG, *more]
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=True).stdout

    once = printed("1")
    assert printed("2") == once
    assert printed("1", "--seed", "1") != once


def test_a_bad_scenario_ends_with_1_and_every_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("duration: 0s\nload: {rates: 1}\n")

    assert run(["simulate", str(file), "-c", CONFIG]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{file}: line 1: duration: must be longer than 0",
        f"{file}: line 2: load.rates: unknown key; did you mean 'rate'?",
        "2 errors",
    ]
    assert run(["simulate", str(file), "-c", CONFIG, "--json"]) == 1
    assert orjson.loads(capsys.readouterr().out)["errors"][0]["line"] == 1
    assert run(["simulate", str(tmp_path / "none.yaml"), "-c", CONFIG]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_a_negative_seed_is_wrong_usage(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", scenario, "-c", CONFIG, "--seed", "-1"]) == 2
    assert "--seed" in capsys.readouterr().err


def test_the_documentation_names_every_key_and_fault_of_a_scenario() -> None:
    text = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")

    assert [word for word in [*keys_of(Scenario), *get_args(FaultName)] if not re.search(rf"\b{word}\b[^`\n]*`", text)] == []


def keys_of(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name
        for part in (field.annotation, *get_args(field.annotation)):
            yield from keys_within(part)


def keys_within(part: Any) -> Iterator[str]:
    if isinstance(part, type) and issubclass(part, BaseModel):
        yield from keys_of(part)
