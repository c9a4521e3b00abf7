"""The commands: what they print, and how they end."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from runtime.cli import run
from tests.daemon.gateway import WITHIN_S, Client, Gateway, environ_for_daemon, provider, run_pointsman
from tests.daemon.gateway_upstreams import ScriptedUpstream, answers

KEY = "sk-secret-0123456789"
GOOD = f"""\
server: {{port: 8099}}
providers:
  - id: main
    kind: openai
    api_key: {KEY}
    models: [gpt-4o-mini, {{name: gpt-4o, upstream: gpt-4o-2024-08-06}}]
  - id: local
    kind: openai_compatible
    base_url: http://127.0.0.1:9/v1
    models: [gpt-4o-mini]
"""
BAD = """\
server:
  port: eighty
providers:
  - id: main
    kind: openai
    weight: -1
    limits: {requests_per_minute: none}
  - id: main
    kind: antropic
keys: []
"""


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return str(path)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST", "POINTSMAN_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)


# -- how commands are used


@pytest.mark.parametrize("command", [[], ["serve"], ["demo"], ["check"], ["explain"], ["health"], ["probe"], ["reset"]])
def test_every_command_has_help_and_version(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    helped = capsys.readouterr().out
    assert helped.startswith(" ".join(["Usage: pointsman", *command]))

    assert run([*command, "--version"]) == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*( \(compiled\))?\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--workers", "2"],
        ["serve", "--port", "many"],
        ["serve", "--port", "65536", "-c", "GOOD"],
        ["serve", "extra"],
        ["simulate"],
        ["top"],
        ["demo", "--port", "-1"],
        ["check", "--nothing"],
        ["explain"],
        ["explain", "m", "--prompt-tokens", "many"],
        ["explain", "m", "--header", "no-equals-sign", "-c", "GOOD"],
        ["explain", "m", "--header", "x-pointsman-tags=a", "--header", "x-pointsman-tags=b", "-c", "GOOD"],
        ["explain", "m", "--header", "x-pointsman-priority=urgent", "-c", "GOOD"],
        ["explain", "m", "--header", "x-pointsman-tenant=a", "--tenant", "b", "-c", "GOOD"],
        ["explain", "m", "--header", "cookie=a", "-c", "GOOD"],
        ["explain", "m", "--label", "tier", "-c", "GOOD"],
        ["explain", "m", "--prompt-tokens", "-1", "-c", "GOOD"],
        ["explain", "m", "-c", "GOOD", "--url", "http://127.0.0.1:1"],
        ["health", "--colour"],
        ["probe", "one", "another"],
        ["reset", "--url"],
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(
    arguments: list[str], good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run([good if part == "GOOD" else part for part in arguments])

    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    assert shown.err.startswith("pointsman: ")
    assert shown.err.count("\n") == 1


def test_the_module_and_the_script_are_the_same_command() -> None:
    script = Path(sys.executable).parent / "pointsman"
    by_script = subprocess.run(
        [script, "serve", "--workers", "2"], capture_output=True, text=True, check=False, timeout=WITHIN_S
    )
    by_module = run_pointsman("serve", "--workers", "2")

    assert by_script.returncode == by_module.returncode == 2
    assert by_script.stderr == by_module.stderr == "pointsman: Unknown option: --workers.\n"


LATE = ("aiohttp", "genai_prices", "opentelemetry.sdk", "rich", "runtime.daemon", "runtime.simulation")
"""What the short commands do without; loading it takes longer than they do."""


def test_a_short_command_loads_nothing_it_does_not_need(tmp_path: Path) -> None:
    file = tmp_path / "local.yaml"
    file.write_text("providers: [{id: p, kind: openai_compatible, base_url: 'http://127.0.0.1:9/v1', models: [m]}]")
    program = "import sys; from runtime.cli import run; run(sys.argv[1:]); print(*sys.modules, sep='\\n', file=sys.stderr)"

    ended = subprocess.run(
        [sys.executable, "-c", program, "check", "-c", str(file)], capture_output=True, text=True, check=True, timeout=WITHIN_S
    )

    assert "provider:p" in ended.stdout
    loaded = set(ended.stderr.split())
    assert "runtime.config.schema" in loaded
    assert loaded.isdisjoint(LATE)


# -- check


def test_check_prints_the_tree_and_what_would_be_served(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "-c", good]) == 0

    shown = capsys.readouterr().out
    for expected in ("registry", "router", "provider:main", "provider:local", "prober", "gpt-4o-mini", "8099"):
        assert expected in shown
    assert KEY not in shown
    assert "\x1b" not in shown


def test_check_prints_json(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "-c", good, "--json"]) == 0

    found = orjson.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert [one["id"] for one in found["providers"]] == ["main", "local"]
    assert found["models"]["gpt-4o-mini"] == ["main", "local"]
    assert KEY not in str(found)


EVERY_ERROR = [
    ("server.port", 2),
    ("providers[0].weight", 6),
    ("providers[0].limits.requests_per_minute", 7),
    ("providers[1].kind", 9),
    ("keys", 10),
]


def test_check_tells_every_error_at_once_with_path_and_line(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "-c", bad]) == 1

    shown = capsys.readouterr().err
    for path, line in EVERY_ERROR:
        assert re.search(rf"(?m)^.*\b{line}\b.*{re.escape(path)}: ", shown), (path, shown)
    assert re.search(r"\d+ errors\n$", shown)


def test_B8_check_refuses_rules_that_redirect_to_each_other_and_names_both(
    good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = """\
rules:
  - {name: there, when: {model: gpt-4o}, then: {redirect: gpt-4o-mini}}
  - name: back
    when: {all: [{model: gpt-4o-mini}, {tenant: acme}]}
    then:
      - strategy: cost
      - redirect: gpt-4o
"""
    Path(good).write_text(GOOD + rules)
    assert run(["check", "-c", good]) == 1
    told = capsys.readouterr().err
    assert "line 12: rules[0].then.redirect: leads in a circle: rule 'there' sends 'gpt-4o' to 'gpt-4o-mini'" in told
    assert "rule 'back' sends 'gpt-4o-mini' to 'gpt-4o'; this is where a request for 'gpt-4o' of tenant 'acme' would go" in told

    Path(good).write_text(GOOD + rules.replace("name: back", "name: back\n    enabled: false"))
    assert run(["check", "-c", good]) == 0


@pytest.mark.parametrize(("pin", "is_circle"), [("openai:gpt-4o-mini", True), ("mistral:gpt-4o-mini", False)])
def test_B8_check_follows_a_redirect_to_a_pin_as_far_as_it_leads(
    tmp_path: Path, pin: str, is_circle: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pointsman.yaml"
    file.write_text(f"""\
providers:
  - {{id: one, kind: openai, api_key: k, models: [gpt-4o, gpt-4o-mini]}}
  - {{id: two, kind: mistral, api_key: k, models: [gpt-4o]}}
rules:
  - {{name: there, when: {{model: gpt-4o}}, then: {{redirect: "{pin}"}}}}
  - {{name: back, when: {{model: gpt-4o-mini}}, then: {{redirect: gpt-4o}}}}
""")

    assert run(["check", "-c", str(file)]) == is_circle
    assert ("rules[0].then.redirect: leads in a circle" in capsys.readouterr().err) is is_circle


def test_check_tells_every_error_as_json(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "-c", bad, "--json"]) == 1

    found = orjson.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert set(EVERY_ERROR) <= {(one["path"], one["line"]) for one in found["errors"]}
    assert all(one["message"] for one in found["errors"])


def test_check_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--schema"]) == 0

    schema = orjson.loads(capsys.readouterr().out)
    assert schema["$schema"].endswith("2020-12/schema")
    assert {"server", "providers", "routing"} <= set(schema["properties"])


def test_check_of_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "-c", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml: cannot be read" in capsys.readouterr().err


# -- serve


def test_serve_refuses_an_invalid_file_with_every_error(bad: str) -> None:
    ended = run_pointsman("serve", "-c", bad)

    assert (ended.returncode, ended.stdout) == (1, "")
    for path, line in EVERY_ERROR:
        assert re.search(rf"(?m)^.*\b{line}\b.*{re.escape(path)}: ", ended.stderr), (path, ended.stderr)
    assert "Traceback" not in ended.stderr


def test_serve_without_a_file_and_without_providers_in_the_environment_says_what_to_do() -> None:
    ended = run_pointsman("serve", environ={"ANTHROPIC_API_KEY": "x"})

    assert ended.returncode == 1
    assert "OPENAI_API_KEY" in ended.stderr
    assert "anthropic" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_serve_without_a_file_takes_the_providers_of_the_environment(upstream: ScriptedUpstream) -> None:
    upstream.scripts["env"] = answers
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": upstream.base_url("env")}
    process = start("serve", "--port", "0", environ=environ)
    try:
        port = listening_port(process)
        gateway = Client(port)
        assert list(gateway.providers()) == ["openai"]
        answer = gateway.chat("gpt-4o-mini")
        assert (answer.status, answer.header("x-pointsman-provider")) == (200, "openai")
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, log
    assert KEY not in log


def test_serve_on_a_port_in_use_says_so(good: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        ended = run_pointsman("serve", "-c", good, "--port", port)

    assert ended.returncode == 1
    last = ended.stderr.rstrip().splitlines()[-1]
    assert last.startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert "in use" in last
    assert "Traceback" not in ended.stderr


def test_serve_does_not_show_itself_to_the_network_by_accident(good: str) -> None:
    ended = run_pointsman("serve", "-c", good, "--host", "0.0.0.0")

    assert ended.returncode == 1
    assert "allow_anonymous" in ended.stderr


def test_serve_refuses_telemetry_it_cannot_send(good: str) -> None:
    ended = run_pointsman("serve", "-c", good, "--port", "0", environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "nowhere"})

    assert ended.returncode == 1
    assert "telemetry: " in ended.stderr
    assert "Traceback" not in ended.stderr


# -- explain


@pytest.fixture(scope="module")
def gateway(upstream: ScriptedUpstream) -> Iterator[Gateway]:
    upstream.scripts["p"] = answers
    entries = [provider(name, upstream.base_url("p"), ["m"]) for name in ("p", "q")]
    with Gateway({"server": {"admin_key": "the-admin-key"}, "providers": entries, "routing": {"strategy": "first"}}) as found:
        yield found


def test_explain_from_a_file_is_a_table(good: str) -> None:
    ended = run_pointsman(
        "explain", "gpt-4o-mini", "-c", good, "--prompt-tokens", "1000", "--max-tokens", "100", "--strategy", "first"
    )

    assert ended.returncode == 0, ended.stderr
    assert re.search(r"(?m)^model +gpt-4o-mini$", ended.stdout)
    assert re.search(r"(?m)^ ?main +1 ", ended.stdout)
    assert re.search(r"(?m)^ ?local +2 ", ended.stdout)
    assert re.search(r"(?m)^winner +main", ended.stdout)
    # 1000 in and 100 out at the price of gpt-4o-mini.
    assert "$0.000210" in ended.stdout
    assert KEY not in ended.stdout
    assert "\x1b" not in ended.stdout


def test_explain_from_a_file_as_json(good: str) -> None:
    ended = run_pointsman(
        *("explain", "gpt-4o-mini", "-c", good, "--json", "--tools", "--stream", "--strategy", "first"),
        *("--header", "x-pointsman-exclude=main"),
    )

    assert ended.returncode == 0, ended.stderr
    record = orjson.loads(ended.stdout)
    assert (record["strategy"], record["chosen"]) == ("first", ["local"])
    assert {one["provider"]: one["reason"] for one in record["candidates"]} == {"main": "excluded", "local": ""}


def test_explain_of_what_nobody_has_tells_so_and_exits_1(good: str) -> None:
    ended = run_pointsman("explain", "gpt-99", "-c", good)

    assert ended.returncode == 1
    assert "gpt-99" in ended.stdout
    assert "no provider: model_not_supported" in ended.stdout


def test_explain_asks_a_live_daemon(gateway: Gateway) -> None:
    key = {"POINTSMAN_ADMIN_KEY": "the-admin-key"}
    table = run_pointsman("explain", "m", "--url", gateway.url, environ=key)
    record: dict[str, Any] = orjson.loads(run_pointsman("explain", "m", "--url", gateway.url, "--json", environ=key).stdout)

    assert table.returncode == 0, table.stderr
    assert re.search(r"(?m)^winner +p, then q$", table.stdout)
    assert record["chosen"] == ["p", "q"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("GATEWAY", "answered 401"),
        ("http://127.0.0.1:1", "/admin/explain: Connection refused; is the daemon running there?\n"),
        ("file:///etc/passwd", "no http"),
        ("nonsense", "no http"),
    ],
)
def test_explain_tells_why_a_daemon_could_not_be_asked(gateway: Gateway, url: str, said: str) -> None:
    ended = run_pointsman("explain", "m", "--url", gateway.url if url == "GATEWAY" else url)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


# -- demo


def test_demo_tells_its_addresses_answers_and_ends_by_ctrl_c() -> None:
    # Given the demo
    process = start("demo", "--port", "0")
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        shown = "".join(lines)

        # Then it tells where it is, and the line to try works as it stands
        found = re.search(r"Pointsman is at http://127\.0\.0\.1:(\d+) ", shown)
        assert found is not None, shown
        gateway = Client(int(found.group(1)))
        tried = re.search(r"-d '(\{\"model\".*\})'", shown)
        assert tried is not None
        answer = gateway.post("/v1/chat/completions", tried.group(1).encode())
        assert answer.status == 200
        assert len(gateway.providers()) == 3
        assert all(one in shown for one in gateway.providers())
        fault = re.search(r"curl -s (http://\S+/control/faults) .* -d '(.*)'", shown)
        assert fault is not None
    finally:
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, log
    assert "Traceback" not in log


def start(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "runtime", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ_for_daemon(environ or {}),
    )


def listening_port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)
        if found:
            return int(found.group(1))
    raise AssertionError("it does not listen")
