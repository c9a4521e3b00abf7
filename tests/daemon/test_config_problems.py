"""What is wrong is told: everything at once, with path, line and reason."""

from pathlib import Path

import pytest

from runtime.config.checks import exposure
from runtime.config.kinds import SUPPORTED_STRATEGIES
from runtime.config.loading import load_bytes, load_file
from runtime.config.problems import ConfigError, path_text
from tests.daemon.config_files import MINIMAL, load, problems_of, said

MANY_THINGS_WRONG = """\
server: {port: 70000, host: 0.0.0.0, prot: 1}
providers:
  - id: a
    kind: openai
    api_key: ${NOPE}
    limits: {request_per_minute: 3, max_concurrency: auto}
    weight: -1
  - id: a
    kind: anthropic
  - kind: openai_compatible
    id: B!
    timeouts: {connect: 1x}
    headers: {"X-A": "a\\nb", "Bad Name": x}
keys: []
routing: {strategy: magic, hedge: {enabled: true, after: auto}}
aliases: {x: y, y: x}
default_provider: nobody
"""


def test_every_error_is_told_at_once_with_its_path_and_line() -> None:
    assert said(MANY_THINGS_WRONG) == [
        "1 server.host: is reachable from other machines and this version knows no keys; "
        "set allow_anonymous: true if that is meant",
        "1 server.port: must be 65535 or less",
        "1 server.prot: unknown key; did you mean 'port'?",
        "5 providers[0].api_key: environment variable NOPE is not set; write ${NOPE:-} if it may be",
        "6 providers[0].limits.max_concurrency: max_concurrency 'auto' is not supported by this version; "
        "give a number or leave it out",
        "6 providers[0].limits.request_per_minute: unknown key; did you mean 'requests_per_minute'?",
        "7 providers[0].weight: must be 0 or more",
        "8 providers[1].id: is already the id of providers[0]",
        "9 providers[1].kind: kind 'anthropic' is not supported by this version",
        "10 providers[2].base_url: is required for kind 'openai_compatible'",
        "11 providers[2].id: must be 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit",
        "12 providers[2].timeouts.connect: expected a duration such as 250ms, 30s, 5m or 2h",
        "13 providers[2].headers.X-A: must not contain a line break, NUL or another control character",
        '13 providers[2].headers["Bad Name"]: is no name for a header',
        "14 keys: not supported by this version",
        "15 routing.hedge.after: not supported by this version",
        "15 routing.hedge.enabled: true is not supported by this version",
        f"15 routing.strategy: unknown strategy; known are: {', '.join(SUPPORTED_STRATEGIES)}",
        "16 aliases.x: leads back to itself",
        "17 default_provider: is the id of no provider",
    ]


def in_provider(line: str) -> str:
    return MINIMAL + f"    {line}\n"


@pytest.mark.parametrize("key", ["keys", "ledger", "cache", "budgets"])
def test_keys_of_later_versions_are_refused_not_ignored(key: str) -> None:
    assert said(MINIMAL + f"{key}: {{}}\n") == [f"4 {key}: not supported by this version"]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        *[(f"providers: [{{id: a, kind: {kind}}}]", "providers[0].kind", f"kind '{kind}' is not supported by this version")
          for kind in ("azure", "anthropic", "gemini", "vertex", "bedrock", "cohere")],
        *[(MINIMAL + f"pools: {{m: {{strategy: cost, {key}: {{}}}}}}", f"pools.m.{key}", "not supported by this version")
          for key in ("failover", "trusted", "keys")],
        *[(MINIMAL + f"tenants: {{acme: {{{key}: {{}}}}}}", f"tenants.acme.{key}", "not supported by this version")
          for key in ("keys", "budget", "budgets")],
        (in_provider("timeouts: {min_tokens_per_second: 5}"), "providers[0].timeouts.min_tokens_per_second",
         "a minimum other than 0 is not supported by this version"),
        (MINIMAL + "routing: {failover: {on_rate_limit: false}}", "routing.failover.on_rate_limit",
         "false is not supported by this version"),
        (MINIMAL + "routing: {strict: true}", "routing.strict", "true is not supported by this version"),
        (MINIMAL + "routing: {explore: {enabled: true}}", "routing.explore.enabled", "true is not supported by this version"),
        (MINIMAL + "routing: {failover: {with_replacement: true}}", "routing.failover.with_replacement",
         "true is not supported by this version"),
        (MINIMAL + "telemetry: {capture_content: true}", "telemetry.capture_content", "true is not supported by this version"),
    ],
)  # fmt: skip
def test_values_of_later_versions_are_refused_not_ignored(text: str, path: str, message: str) -> None:
    assert [(problem.path, problem.message) for problem in problems_of(text)] == [(path, message)]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("", "providers", "is missing"),
        ("providers: []", "providers", "must have 1 or more entries, or be left out"),
        ("providers: {}", "providers", "expected a list"),
        ("providers: [5]", "providers[0]", "expected a mapping"),
        ("[]", "", "expected a mapping"),
        ("providers: [{kind: openai}]", "providers[0].id", "is missing"),
        ("providers: [{id: a}]", "providers[0].kind", "is missing"),
        ("providers: [{id: 7, kind: openai}]", "providers[0].id",
         "expected text (a number or true/false needs quotes to be text)"),
        (MINIMAL + "server: {port: true}", "server.port", "expected a number"),
        (MINIMAL + "server: {port: http}", "server.port", "expected a whole number"),
        (MINIMAL + "server: {port: 1.5}", "server.port", "expected a whole number"),
        (MINIMAL + "server: {port: -1}", "server.port", "must be 0 or more"),
        (MINIMAL + "server: {max_body: 1}", "server.max_body", "must be 1024 or more"),
        (MINIMAL + "server: {max_requests: 0}", "server.max_requests", "must be 1 or more"),
        (MINIMAL + "server: {client_idle: 0}", "server.client_idle", "must be longer than 0"),
        (MINIMAL + "server: {allow_anonymous: maybe}", "server.allow_anonymous", "expected true or false"),
        (MINIMAL + "telemetry: {sample_ratio: 1.01}", "telemetry.sample_ratio", "must be 1 or less"),
        (MINIMAL + "telemetry: {sample_ratio: -0.1}", "telemetry.sample_ratio", "must be 0 or more"),
        (MINIMAL + "routing: {adaptive: {seconds_per_usd: .inf}}", "routing.adaptive.seconds_per_usd",
         "expected a finite number"),
        (MINIMAL + "telemetry: {sample_ratio: .nan}", "telemetry.sample_ratio", "expected a finite number"),
        (MINIMAL + "telemetry: {otlp_protocol: smoke}", "telemetry.otlp_protocol", "expected 'http/protobuf' or 'grpc'"),
        (MINIMAL + "telemetry: {otlp_endpoint: somewhere}", "telemetry.otlp_endpoint",
         "a URL must begin with http:// or https://"),
        (MINIMAL + "routing: {strategy: magic}", "routing.strategy",
         f"unknown strategy; known are: {', '.join(SUPPORTED_STRATEGIES)}"),
        (MINIMAL + "routing: {least_latency: {quantile: p99}}", "routing.least_latency.quantile", "expected 'p50' or 'p95'"),
        (MINIMAL + "routing: {failover: {on_status: [6xx]}}", "routing.failover.on_status[0]",
         "expected a status from 300 to 599 or a class such as 5xx"),
        (MINIMAL + "routing: {failover: {backoff: {base: 2s, max: 1s}}}", "routing.failover.backoff",
         "max must not be shorter than base"),
        (MINIMAL + "health: {ewma_alpha: 0}", "health.ewma_alpha", "must be 0.01 or more"),
        (MINIMAL + "aliases: {gpt4: gpt4}", "aliases.gpt4", "leads back to itself"),
        (MINIMAL + "aliases: {'openai:gpt-4o': gpt4}", 'aliases["openai:gpt-4o"]', "leads back to itself"),
        (MINIMAL + "aliases: {a: 1}", "aliases.a", "expected text (a number or true/false needs quotes to be text)"),
        (in_provider("weight: 1001"), "providers[0].weight", "must be 1000 or less"),
        (in_provider("base_url: https://u:p@h/v1"), "providers[0].base_url",
         "a URL must not contain a user name or password; use api_key or headers"),
        (in_provider("models: []"), "providers[0].models", "must have 1 or more entries, or be left out"),
        (in_provider("models: [a, {name: a}]"), "providers[0].models[1].name", "is already the name of models[0]"),
        (in_provider("models: [a, {name: b, nam: c}]"), "providers[0].models[1].nam", "unknown key; did you mean 'name'?"),
        (in_provider("models: [{name: b, input_price: -1}]"), "providers[0].models[0].input_price", "must be 0 or more"),
        (in_provider("limits: {requests_per_minute: 0}"), "providers[0].limits.requests_per_minute", "must be more than 0"),
        (in_provider("limits: {max_concurrency: 0}"), "providers[0].limits.max_concurrency", "must be 1 or more"),
        (in_provider("limits: {burst: 5}"), "providers[0].limits.burst", "needs requests_per_minute, whose bucket it sizes"),
        (in_provider("capabilities: [chat, telepathy]"), "providers[0].capabilities[1]",
         "unknown capability; known are: chat, embeddings, json, streaming, tools, vision"),
        (in_provider("headers: {Transfer-Encoding: chunked}"), "providers[0].headers.Transfer-Encoding",
         "this header is set by the gateway itself"),
        (in_provider("headers: {X-A: a, x-a: b}"), "providers[0].headers.x-a",
         "is given twice; the case of a header's name does not matter"),
        (in_provider("headers: {X-A: \"a\\0b\"}"), "providers[0].headers.X-A",
         "must not contain a line break, NUL or another control character"),
        (in_provider("api_key: \"a\\nb\""), "providers[0].api_key", "must be printable ASCII without spaces or line breaks"),
        (in_provider("probe: {interval: 10ms}"), "providers[0].probe", "an interval must be 1s at least"),
        (in_provider("circuit: {failure_rate: 2}"), "providers[0].circuit.failure_rate", "must be 1 or less"),
        (in_provider("timeouts: {total: 0}"), "providers[0].timeouts.total", "must be longer than 0"),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_with_their_path_and_reason(text: str, path: str, message: str) -> None:
    assert [(problem.path, problem.message) for problem in problems_of(text)] == [(path, message)]


def test_a_key_and_an_authorization_header_contradict_each_other() -> None:
    text = in_provider("api_key: k") + "    headers: {Authorization: Bearer x}\n"
    (problem,) = problems_of(text)
    assert (problem.path, problem.line) == ("providers[0].headers.Authorization", 5)


def test_a_default_model_must_be_among_the_models_where_they_are_named() -> None:
    assert load(in_provider("default_model: anything")).snapshot.providers[0].default_model == "anything"
    (problem,) = problems_of(in_provider("models: [a]") + "    default_model: b\n")
    assert problem.path == "providers[0].default_model"


def test_an_unknown_kind_is_refused_with_the_known_ones_named() -> None:
    (problem,) = problems_of("providers: [{id: a, kind: opneai}]")
    assert problem.message.startswith("unknown kind; known are: openai, openai_compatible, ")


def test_a_circle_of_aliases_is_told_once_and_not_for_those_that_lead_into_it() -> None:
    assert said(MINIMAL + "aliases:\n  z: a\n  a: b\n  b: c\n  c: a\n  fine: gpt-4o\n") == ["6 aliases.a: leads back to itself"]


def test_a_long_chain_of_aliases_is_no_circle_and_takes_no_time() -> None:
    chain = "".join(f"  a{index}: a{index + 1}\n" for index in range(5000))
    assert len(load(MINIMAL + "aliases:\n" + chain).snapshot.aliases) > 5000
    assert said(MINIMAL + "aliases:\n" + chain + "  a5000: a0\n") == ["5 aliases.a0: leads back to itself"]


def test_a_duplicate_key_is_an_error_wherever_it_stands() -> None:
    text = MINIMAL + "    limits: {burst: 1, burst: 2, requests_per_minute: 9}\nserver: {port: 1}\nserver: {port: 2}\n"
    assert said(text) == [
        "4 providers[0].limits.burst: duplicate key; first given in line 4",
        "6 server: duplicate key; first given in line 5",
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: [1\nb: 2", 2, "not YAML (column 2): expected ',' or ']', but got ':'"),
        ("a:\n\t- b", 2, "not YAML (column 1): found character '\\t' that cannot start any token"),
        ("a: b\n c: d", 2, "not YAML (column 3): mapping values are not allowed here"),
        ("a: 1\n\x07", 2, "not YAML: a control character stands here"),
        ("a: *nowhere", 1, "not YAML (column 4): found undefined alias …"),
    ],
)
def test_broken_yaml_is_told_with_line_and_column(text: str, line: int, message: str) -> None:
    (problem,) = problems_of(text)
    assert (problem.path, problem.line, problem.message) == ("", line, message)


@pytest.mark.parametrize("text", ["a: &a [*a, *a]", "a: &a {<<: *a}", "[" * 5000, "a: " + "{a: " * 100 + "1" + "}" * 100])
def test_a_document_that_unfolds_for_ever_or_too_deep_is_refused(text: str) -> None:
    assert "nested deeper" in problems_of(text)[0].message


def test_a_document_that_unfolds_beyond_all_measure_is_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    assert problems_of("\n".join(lines))[0].message == "unfolds to more than 200000 values"


def test_off_and_yes_are_text_and_only_true_and_false_are_not() -> None:
    assert load(in_provider("probe: {kind: off}")).snapshot.providers[0].probe.kind == "off"
    assert load(in_provider("region: no")).snapshot.providers[0].region == "no"


def test_anchors_and_merge_keys_work() -> None:
    text = """
providers:
  - &first {id: a, kind: openai, weight: 5, region: eu}
  - {<<: *first, id: b, region: us}
"""
    first, second = load(text).snapshot.providers
    assert (second.id, second.kind, second.weight, second.region) == ("b", "openai", 5, "us")
    assert first.region == "eu"


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"providers:\n  - id: \xff\n"])
def test_a_file_that_is_no_text_is_refused(raw: bytes) -> None:
    with pytest.raises(ConfigError, match="is no UTF-8 text"):
        load_bytes(raw, Path("x.yaml"), {})


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(ConfigError, match="is larger than 4 MiB"):
        load_bytes(b"#" * (5 << 20), Path("x.yaml"), {})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load_file(tmp_path / "absent.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file(tmp_path, {})


def test_each_line_of_an_error_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("providers: [{id: a, kind: nothing}]\nkeys: []\n")
    with pytest.raises(ConfigError) as caught:
        load_file(file, {})
    assert str(caught.value).splitlines()[1] == f"{file}: line 2: keys: not supported by this version"


def test_a_host_from_the_command_line_is_held_to_the_same_rule() -> None:
    assert exposure("127.0.0.1", False) is None
    assert exposure("0.0.0.0", True) is None
    assert exposure("0.0.0.0", False) is not None
    assert load("server: {host: 0.0.0.0, allow_anonymous: true}\n" + MINIMAL).server.host == "0.0.0.0"


def test_paths_are_written_as_in_the_file_and_never_break_a_line() -> None:
    assert path_text(("providers", 2, "limits", "burst")) == "providers[2].limits.burst"
    assert path_text(("aliases", "gpt-3.5")) == 'aliases["gpt-3.5"]'
    assert path_text(("aliases", 'a"\n')) == 'aliases["a\\"�"]'
    assert len(path_text(("x" * 5000,))) < 100
