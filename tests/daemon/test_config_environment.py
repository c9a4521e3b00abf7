"""Without a file: providers found in the environment."""

import pytest

from messages.control import ProviderSpec
from runtime.config.environment import from_environment
from runtime.config.problems import ConfigError


def found(environ: dict[str, str]) -> dict[str, ProviderSpec]:
    return {spec.id: spec for spec in from_environment(environ).snapshot.providers}


@pytest.mark.parametrize(
    ("variable", "kind"),
    [
        ("OPENAI_API_KEY", "openai"),
        ("MISTRAL_API_KEY", "mistral"),
        ("DEEPSEEK_API_KEY", "deepseek"),
        ("GROQ_API_KEY", "groq"),
        ("OPENROUTER_API_KEY", "openrouter"),
        ("TOGETHER_API_KEY", "together"),
        ("FIREWORKS_API_KEY", "fireworks"),
        ("XAI_API_KEY", "xai"),
        ("PERPLEXITY_API_KEY", "perplexity"),
        ("PPLX_API_KEY", "perplexity"),
        ("CEREBRAS_API_KEY", "cerebras"),
    ],
)
def test_A2_a_key_in_the_environment_makes_a_provider_with_120_s_and_3_attempts(variable: str, kind: str) -> None:
    loaded = from_environment({variable: " sk-test "})
    (spec,) = loaded.snapshot.providers
    assert (spec.id, spec.kind, spec.takes_any, spec.lists_models) == (kind, kind, True, True)
    assert spec.timeouts.total_s == 120.0
    assert loaded.snapshot.routing.failover.max_attempts == 3
    assert loaded.credentials[kind].call_headers == (("Authorization", "Bearer sk-test"),)
    assert (loaded.path, loaded.notes, loaded.snapshot.default_provider) == (None, (), kind)


def test_A2_every_kind_whose_key_is_set_is_found_and_the_first_is_the_default() -> None:
    loaded = from_environment({"GROQ_API_KEY": "g", "OPENAI_API_KEY": "o", "OLLAMA_HOST": "localhost", "MISTRAL_API_KEY": " "})
    assert [spec.id for spec in loaded.snapshot.providers] == ["openai", "groq", "ollama"]
    assert loaded.snapshot.default_provider == "openai"


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("localhost", "http://localhost:11434/v1"),
        ("box:1234", "http://box:1234/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        (":7000", "http://127.0.0.1:7000/v1"),
        ("[::]:5", "http://[::1]:5/v1"),
        ("http://box:1/", "http://box:1/v1"),
        ("https://ollama.example.com/v1", "https://ollama.example.com/v1"),
    ],
)
def test_A2_ollama_is_found_by_its_host_as_ollama_itself_reads_it(host: str, endpoint: str) -> None:
    spec = found({"OLLAMA_HOST": host})["ollama"]
    assert spec.endpoint == endpoint


def test_A2_base_urls_in_the_environment_are_honoured() -> None:
    specs = found({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://localhost:9/v1/", "VLLM_BASE_URL": "http://gpu:8000/v1"})
    assert specs["openai"].endpoint == "http://localhost:9/v1"
    assert specs["vllm"].endpoint == "http://gpu:8000/v1"


def test_A2_kinds_that_are_found_but_not_supported_are_noted_not_ignored() -> None:
    loaded = from_environment(
        {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "a", "GOOGLE_API_KEY": "g", "GROQ_BASE_URL": "http://x"}
    )
    assert loaded.notes == (
        "GROQ_BASE_URL is set, GROQ_API_KEY is not: no provider 'groq'",
        "ANTHROPIC_API_KEY is set: kind 'anthropic' is not supported by this version",
        "GOOGLE_API_KEY is set: kind 'gemini' is not supported by this version",
    )


@pytest.mark.parametrize(
    ("variable", "kind"),
    [
        ("ANTHROPIC_API_KEY", "anthropic"),
        ("AZURE_OPENAI_API_KEY", "azure"),
        ("AZURE_API_KEY", "azure"),
        ("AWS_BEARER_TOKEN_BEDROCK", "bedrock"),
        ("AWS_ACCESS_KEY_ID", "bedrock"),
        ("COHERE_API_KEY", "cohere"),
        ("CO_API_KEY", "cohere"),
        ("GEMINI_API_KEY", "gemini"),
        ("GOOGLE_API_KEY", "gemini"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "vertex"),
    ],
)
def test_A2_the_keys_of_kinds_of_later_versions_are_known_by_name(variable: str, kind: str) -> None:
    loaded = from_environment({"OPENAI_API_KEY": "k", variable: "v"})
    assert [spec.id for spec in loaded.snapshot.providers] == ["openai"]
    assert loaded.notes == (f"{variable} is set: kind '{kind}' is not supported by this version",)


@pytest.mark.parametrize(
    ("variable", "kind", "key"),
    [
        ("OPENAI_BASE_URL", "openai", "OPENAI_API_KEY"),
        ("OPENAI_API_BASE", "openai", "OPENAI_API_KEY"),
        ("MISTRAL_BASE_URL", "mistral", "MISTRAL_API_KEY"),
        ("DEEPSEEK_BASE_URL", "deepseek", "DEEPSEEK_API_KEY"),
        ("GROQ_BASE_URL", "groq", "GROQ_API_KEY"),
        ("OPENROUTER_BASE_URL", "openrouter", "OPENROUTER_API_KEY"),
        ("TOGETHER_BASE_URL", "together", "TOGETHER_API_KEY"),
        ("FIREWORKS_BASE_URL", "fireworks", "FIREWORKS_API_KEY"),
        ("XAI_BASE_URL", "xai", "XAI_API_KEY"),
        ("PERPLEXITY_BASE_URL", "perplexity", "PERPLEXITY_API_KEY"),
        ("CEREBRAS_BASE_URL", "cerebras", "CEREBRAS_API_KEY"),
        ("OLLAMA_HOST", "ollama", "OLLAMA_API_KEY"),
        ("LMSTUDIO_BASE_URL", "lmstudio", None),
        ("VLLM_BASE_URL", "vllm", None),
    ],
)
def test_A2_a_base_url_goes_with_its_kind_and_a_local_server_is_found_by_it_alone(
    variable: str, kind: str, key: str | None
) -> None:
    loaded = from_environment({variable: "http://gpu:8000/v1"} | ({key: "sk-test"} if key else {}))
    (spec,) = loaded.snapshot.providers
    assert (spec.id, spec.endpoint) == (kind, "http://gpu:8000/v1")
    assert (spec.timeouts.total_s, loaded.snapshot.routing.failover.max_attempts) == (120.0, 3)
    bearer = (("Authorization", "Bearer sk-test"),) if key else ()
    assert loaded.credentials[kind].call_headers == bearer


def test_A2_an_environment_without_providers_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"no provider found: .* OPENAI_API_KEY, .* OLLAMA_HOST"):
        from_environment({"PATH": "/bin"})
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY is set: kind 'anthropic' is not supported"):
        from_environment({"ANTHROPIC_API_KEY": "a"})


def test_A2_variables_that_cannot_be_meant_are_all_named_and_never_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        from_environment(
            {"OPENAI_API_KEY": "sk-a\nsk-b", "GROQ_API_KEY": "k", "GROQ_BASE_URL": "http://u:sk-c@h", "OLLAMA_HOST": "u:sk-d@h"}
        )
    assert [problem.path for problem in caught.value.problems] == ["OPENAI_API_KEY", "GROQ_BASE_URL", "OLLAMA_HOST"]
    assert "sk-" not in str(caught.value)
