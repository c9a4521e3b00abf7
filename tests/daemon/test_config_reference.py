"""What ``check`` prints, the schema for editors, the reference and the examples hold what the loader does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from messages.policy import ConditionKind
from runtime.config.describe import describe, leads_to, overview, served_models
from runtime.config.kinds import BUILT_IN_ALIASES, KINDS, SUPPORTED_STRATEGIES, UNSUPPORTED_KINDS
from runtime.config.loading import load_file
from runtime.config.schema import File, json_schema
from runtime.config.strategies import known_strategies
from tests.daemon.config_files import load

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

TWO = """
server: {port: 9000, max_body: 1MiB}
providers:
  - {id: west, kind: openai, api_key: sk-hidden, models: [gpt-4o, shared], limits: {requests_per_minute: 60}}
  - {id: east, kind: openai_compatible, base_url: "http://example.com/v1", api_key: sk-hidden, models: [shared]}
  - {id: any, kind: vllm}
  - {id: resting, kind: groq, enabled: false, models: [shared]}
default_provider: any
aliases: {good: better, better: gpt-4o, pinned: "east:shared", astray: "east:gpt-4o"}
"""


def test_check_prints_the_supervision_tree_with_the_providers() -> None:
    assert describe(load(TWO))[:12] == [
        "pointsman (one_for_one)",
        "├─ registry             5 restarts in 30s",
        "├─ router               5 restarts in 30s, strategy adaptive",
        "├─ providers            one_for_one, 5 restarts in 30s each",
        "│  ├─ provider:west",
        "│  ├─ provider:east",
        "│  ├─ provider:any",
        "│  └─ provider:resting  (disabled)",
        "├─ observers            restart with back-off for ever",
        "│  ├─ aggregator",
        "│  └─ prober",
        "└─ edge                 http://127.0.0.1:9000",
    ]


def test_check_prints_what_would_be_served() -> None:
    lines = describe(load(TWO))
    assert "  west     openai  https://api.openai.com/v1  with key; requests_per_minute 60" in lines
    assert "  any      vllm  http://localhost:8000/v1  without key, default; no limits" in lines
    assert "  gpt-4o  → west" in lines
    assert "  shared  → west, east" in lines
    assert "  what these list themselves, any name until that is known → any" in lines
    assert "  good          → better  (west)" in lines
    assert "  pinned        → east:shared  (east)" in lines
    assert "  astray        → east:gpt-4o  (no provider here)" in lines
    assert "  requests in flight 10000, body 1MiB" in lines
    assert "  attempts 3, deadline 10m" in lines
    assert "  east: its key is sent unencrypted (http)" in lines
    assert "  east: price of shared is not known" in lines


def test_A7_an_alias_that_a_model_of_its_name_keeps_from_use_is_told() -> None:
    lines = describe(load(TWO.replace("aliases: {", "aliases: {shared: gpt-4o, ")))
    assert "  shared        → gpt-4o  (a model of that name goes first)" in lines
    assert "  alias shared: has no effect, for a provider lists a model of that name" in lines
    assert not any("alias good" in line for line in lines)


def test_what_check_prints_is_there_as_data_too() -> None:
    loaded = load(TWO)
    data = json.loads(json.dumps(overview(loaded)))
    assert data["models"] == {"gpt-4o": ["west"], "shared": ["west", "east"]} == served_models(loaded)
    assert data["aliases"]["good"] == {"stands_for": "better", "leads_to": ["west"]}
    assert [provider["id"] for provider in data["providers"]] == ["west", "east", "any", "resting"]
    assert data["providers"][0]["limits"] == {"requests_per_minute": 60}


@pytest.mark.parametrize(
    ("name", "providers"),
    [
        ("shared", ["west", "east"]),
        ("west:gpt-4o", ["west"]),
        ("openai/gpt-4o", ["west"]),
        ("vllm:x/y", ["any"]),
        ("nobodys", ["any"]),
        ("groq:shared", []),
        ("east:gpt-4o", []),
    ],
)
def test_A7_a_name_leads_to_those_that_list_it_then_where_it_is_pinned_then_to_a_default_that_takes_any(
    name: str, providers: list[str]
) -> None:
    assert leads_to(load(TWO), name) == providers


def test_a_configuration_with_nobody_enabled_is_noted() -> None:
    lines = describe(load("providers: [{id: a, kind: openai, enabled: false}]"))
    assert "  no provider is enabled: every request is answered 503" in lines


def test_the_schema_for_editors_is_json_and_knows_every_section_and_refuses_unknown_keys() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert sorted(schema["properties"]) == sorted(File.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["providers"]
    condition = schema["$defs"]["ConditionEntry"]
    assert (condition["minProperties"], condition["maxProperties"]) == (1, 1)
    assert {kind.value for kind in ConditionKind} == set(condition["properties"])
    assert schema["$defs"]["ActionEntry"]["properties"]["strategy"]["enum"] == list(known_strategies())
    provider = schema["$defs"]["Provider"]["properties"]
    assert provider["kind"]["enum"] == list(KINDS)
    assert {"type": "string", "minLength": 1} in schema["$defs"]["Model"]["anyOf"]


def test_the_schema_for_editors_takes_a_variable_in_place_of_a_number() -> None:
    port = json_schema()["$defs"]["Server"]["properties"]["port"]
    assert port["default"] == 8080
    concurrency = json_schema()["$defs"]["Limits"]["properties"]["max_concurrency"]
    assert {"type": "integer", "minimum": 1, "maximum": 1_000_000} in concurrency["anyOf"][0]["anyOf"]
    assert port["anyOf"] == [
        {"type": "integer", "minimum": 0, "maximum": 65535},
        {"type": "string", "pattern": r"\$\{"},
    ]


def keys_of(model: type[BaseModel], above: tuple[type[BaseModel], ...] = ()) -> Iterator[str]:
    # A condition can hold conditions.
    if model in above:
        return
    for name, field in model.model_fields.items():
        yield field.alias or name
        for part in models_in(field.annotation):
            yield from keys_of(part, (*above, model))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def test_the_reference_names_every_key_kind_strategy_alias_and_variable() -> None:
    words = {*keys_of(File), *KINDS, *UNSUPPORTED_KINDS, *SUPPORTED_STRATEGIES}
    words |= {*BUILT_IN_ALIASES, *BUILT_IN_ALIASES.values()}
    for kind in KINDS.values():
        words |= {*kind.key_variables, *kind.url_variables}
    missing = [word for word in sorted(words) if f"`{word}`" not in REFERENCE and f".{word}`" not in REFERENCE]
    # Sections that are described by the dotted keys within them.
    assert [word for word in missing if f"`{word}." not in REFERENCE and f".{word}." not in REFERENCE] == []


def test_the_reference_gives_each_kind_its_base_url_and_usage() -> None:
    for kind in KINDS.values():
        url = f"`{kind.base_url}`" if kind.base_url else "none, to be given"
        usage = "insert" if kind.includes_usage else "estimate"
        assert f"| `{kind.name}` | {url} | {usage} |" in REFERENCE


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / file.name
    copy.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "admin-key").write_text("boss", encoding="utf-8")
    variables = ("OPENAI_API_KEY", "GROQ_API_KEY", "OPENAI_API_KEY_RESEARCH", "OPENAI_API_KEY_PRODUCT", "OPENAI_API_KEY_EU")
    loaded = load_file(copy, dict.fromkeys(variables, "sk-example"))
    assert all(loaded.credentials[spec.id].base_url == spec.endpoint for spec in loaded.snapshot.providers)
