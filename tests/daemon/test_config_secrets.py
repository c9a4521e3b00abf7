"""Secrets come from the file, the environment or other files, and never into a message, a repr or a problem."""

import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.codec import pack
from runtime.config.describe import describe, overview
from runtime.config.loading import load_bytes
from runtime.config.problems import ConfigError
from runtime.config.settings import Loaded
from tests.daemon.config_files import MINIMAL, load, problems_of, said

SECRETS = st.text(string.ascii_letters + string.digits, min_size=10, max_size=40).map(lambda text: f"sk-{text}")

BAD_PLACES = [
    "providers: [{{id: a, kind: openai, api_key: [{0}]}}]",
    "providers: [{{id: a, kind: openai, api_key: {{x: {0}}}}}]",
    "providers: [{{id: a, kind: openai, api_key: '{0} '}}]",
    'providers: [{{id: a, kind: openai, api_key: "{0}\\n"}}]',
    "providers: [{{id: a, kind: openai, api_key: 'file:/nowhere/{0}'}}]",
    "providers: [{{id: a, kind: openai, api_key: '${{{0}'}}]",
    "providers: [{{id: a, kind: openai, api_key: *{0}}}]",
    "providers: [{{id: a, kind: openai, api_key: !{0} x}}]",
    "providers: [{{id: a, kind: openai, api_key: {0}, limits: {{burst: 0}}}}]",
    "providers: [{{id: a, kind: openai, apikey: {0}}}]",
    "providers: [{{id: a, kind: openai, headers: {0}}}]",
    "providers: [{{id: a, kind: openai, headers: [{0}]}}]",
    'providers: [{{id: a, kind: openai, headers: {{X-A: "{0}\\r\\nEvil: 1"}}}}]',
    "providers: [{{id: a, kind: openai, headers: {{X-A: [{0}]}}}}]",
    "providers: [{{id: a, kind: openai, base_url: 'https://user:{0}@host/v1'}}]",
    "providers: [{{id: a, kind: openai, base_url: 'https://host/v1?key={0}'}}]",
    "providers: [{{id: a, kind: '{0}'}}]",
    "providers: [{{id: '{0}', kind: openai}}, {{id: '{0}', kind: openai}}]",
    "providers: [{{id: a, kind: openai, weight: '{0}', transport: '{0}', probe: {{kind: '{0}', interval: '{0}'}}}}]",
    "providers: [{{id: a, kind: openai, trusted: '{0}', capabilities: ['{0}'], models: [{{name: a, upstream: [{0}]}}]}}]",
    "server: {{admin_key: [{0}]}}",
    "server: {{admin_key: '{0} and more'}}",
    "server: {{port: '{0}', max_body: '{0}', drain: '{0}', host: '{0}'}}",
    "default_provider: '{0}'",
    "routing: {{strategy: '{0}', failover: {{on_status: ['{0}'], backoff: {{kind: '{0}'}}}}}}",
    "telemetry: {{otlp_endpoint: '{0}', otlp_protocol: '{0}', sample_ratio: '{0}'}}",
    "providers: [{{id: a, kind: openai, api_key: {0}",
    "providers: [{{id: a, kind: openai, api_key: '{0}",
    "providers: {0}",
    "{0}",
    "api_key: {0}",
]


@pytest.mark.parametrize("place", BAD_PLACES)
@settings(max_examples=15)
@given(secret=SECRETS)
def test_pain_23_no_problem_repeats_a_secret_wherever_it_was_written(place: str, secret: str) -> None:
    assert secret not in "\n".join(said(place.format(secret)))


@pytest.mark.parametrize("place", BAD_PLACES)
@settings(max_examples=15)
@given(secret=SECRETS)
def test_pain_23_no_problem_repeats_what_came_from_the_environment(place: str, secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bytes(place.format("${SECRET}").encode(), Path("/nowhere/x.yaml"), {"SECRET": secret})
    assert secret not in f"{caught.value}{caught.value!r}{caught.value.problems}"


def everything_shown(loaded: Loaded) -> str:
    return "\n".join([repr(loaded), str(loaded), f"{loaded.server}", *describe(loaded), str(overview(loaded))])


@given(secret=SECRETS)
def test_pain_23_a_loaded_configuration_shows_no_secret(secret: str) -> None:
    text = f"server: {{admin_key: {secret}1}}\n" + MINIMAL + f"    api_key: {secret}2\n    headers: {{X-A: {secret}3}}\n"
    loaded = load(text)
    assert secret not in everything_shown(loaded)
    assert secret.encode() not in pack(loaded.snapshot)
    assert loaded.credentials["main"].call_headers == (("Authorization", f"Bearer {secret}2"), ("X-A", f"{secret}3"))


def test_a_variable_is_expanded_within_text_and_a_default_stands_in_for_an_absent_or_empty_one() -> None:
    text = MINIMAL + "    region: ${A}-${B:-west}\n    zone: ${EMPTY:-z}\n"
    spec = load(text, {"A": "us", "EMPTY": ""}).snapshot.providers[0]
    assert (spec.region, spec.zone) == ("us-west", "z")


def test_an_unquoted_variable_stands_for_a_number_a_truth_or_nothing_too() -> None:
    text = "server: {port: '${PORT}', drain: '${DRAIN}'}\n" + MINIMAL
    text += "    enabled: ${ON:-false}\n    region: ${REGION:-}\n    weight: ${W:-7}\n    api_key: ${KEY:-}\n"
    loaded = load(text, {"PORT": "9000", "DRAIN": "5s"})
    spec = loaded.snapshot.providers[0]
    assert (loaded.server.port, loaded.server.drain_s) == (9000, 5)
    assert (spec.enabled, spec.region, spec.weight) == (False, None, 7)
    assert loaded.credentials["main"].api_key is None


def test_a_variable_within_braces_without_quotes_is_no_yaml_and_the_error_says_what_to_do() -> None:
    (problem,) = problems_of("providers: [{id: a, kind: openai, api_key: ${KEY}}]", {"KEY": "k"})
    assert problem.message.endswith('; within { } or [ ] write "${VARIABLE}" with quotes')


def test_what_a_variable_holds_is_not_expanded_again_and_doubled_dollars_stand_for_themselves() -> None:
    text = MINIMAL + '    api_key: ${A}\n    region: "$${B}"\n'
    loaded = load(text, {"A": "${B}", "B": "boo"})
    assert loaded.credentials["main"].call_headers == (("Authorization", "Bearer ${B}"),)
    assert loaded.snapshot.providers[0].region == "${B}"


def test_absent_empty_and_mistyped_variables_are_errors_with_path_and_line() -> None:
    text = MINIMAL + "    region: ${ABSENT}\n    zone: ${EMPTY}\n    tags: ['${no good}']\n    priority: ${GONE}\n"
    assert said(text, {"EMPTY": ""}) == [
        "4 providers[0].region: environment variable ABSENT is not set; write ${ABSENT:-} if it may be",
        "5 providers[0].zone: environment variable EMPTY is empty; write ${EMPTY:-} if it may be",
        "6 providers[0].tags[0]: '${' must be followed by NAME} or NAME:-default}; write $${ for the characters themselves",
        "7 providers[0].priority: environment variable GONE is not set; write ${GONE:-} if it may be",
    ]


def test_variables_are_not_expanded_in_keys() -> None:
    assert problems_of(MINIMAL + "${X}: 1\n", {"X": "server"})[0].path == '["${X}"]'


def test_secrets_are_read_from_files_next_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-from-file\n")
    (tmp_path / "admin").write_text("boss")
    text = f"server: {{admin_key: 'file:{tmp_path}/admin'}}\n" + MINIMAL
    text += "    api_key: file:key\n    headers: {X-A: 'file:${NAME}'}\n    region: file:key\n"
    loaded = load(text, {"NAME": "key"}, tmp_path)
    assert loaded.credentials["main"].call_headers == (("Authorization", "Bearer sk-from-file"), ("X-A", "sk-from-file"))
    assert loaded.server.admin_key is not None
    assert loaded.server.admin_key.get_secret_value() == "boss"
    assert loaded.snapshot.providers[0].region == "file:key"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the file cannot be read: No such file or directory"),
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"\xff\xfe", "the file is no UTF-8 text"),
        (b"k" * 70_000, "the file has more than 64 KiB"),
        (b"two\nlines", "must be printable ASCII without spaces or line breaks"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    (problem,) = problems_of(MINIMAL + "    api_key: file:key\n", {}, tmp_path)
    assert (problem.path, problem.line, problem.message) == ("providers[0].api_key", 4, message)
