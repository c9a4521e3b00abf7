"""The kinds of provider: where they are, which environment variables belong to them, what their streams can do.

All kinds of this version speak OpenAI's protocol; they differ by base URL and habits. The others are known by name, so
that they are refused as not supported rather than as unknown.
"""

from dataclasses import dataclass

EVERYTHING = ("chat", "embeddings", "json", "streaming", "tools", "vision")
_NO_EMBEDDINGS = ("chat", "json", "streaming", "tools", "vision")
_TEXT_ONLY = ("chat", "json", "streaming", "tools")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of provider."""

    name: str
    base_url: str | None
    """Where it is, None: to be given."""
    key_variables: tuple[str, ...] = ()
    """Environment variables that hold its key, the first that is set wins."""
    url_variables: tuple[str, ...] = ()
    """Environment variables that move its base URL."""
    is_found_by_url: bool = False
    """True: needs no key, so one of ``url_variables`` makes it known, and only that does."""
    includes_usage: bool = True
    """True: takes ``stream_options.include_usage``."""
    capabilities: tuple[str, ...] = EVERYTHING
    price_list: str | None = None
    """Its name in the price library, None: prices unknown, or told by the base URL."""


# Mistral answers 422 to stream_options and sends usage unasked; Perplexity documents no stream_options. Of an
# openai_compatible server nothing is known, so nothing is inserted.
_KINDS = (
    Kind("openai", "https://api.openai.com/v1", ("OPENAI_API_KEY",), ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
         price_list="openai"),
    Kind("openai_compatible", None, includes_usage=False),
    Kind("cerebras", "https://api.cerebras.ai/v1", ("CEREBRAS_API_KEY",), ("CEREBRAS_BASE_URL",),
         capabilities=_TEXT_ONLY, price_list="cerebras"),
    Kind("deepseek", "https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",), ("DEEPSEEK_BASE_URL",),
         capabilities=_TEXT_ONLY, price_list="deepseek"),
    Kind("fireworks", "https://api.fireworks.ai/inference/v1", ("FIREWORKS_API_KEY",), ("FIREWORKS_BASE_URL",),
         price_list="fireworks"),
    Kind("groq", "https://api.groq.com/openai/v1", ("GROQ_API_KEY",), ("GROQ_BASE_URL",),
         capabilities=_NO_EMBEDDINGS, price_list="groq"),
    Kind("lmstudio", "http://localhost:1234/v1", (), ("LMSTUDIO_BASE_URL",), is_found_by_url=True),
    Kind("mistral", "https://api.mistral.ai/v1", ("MISTRAL_API_KEY",), ("MISTRAL_BASE_URL",),
         includes_usage=False, price_list="mistral"),
    Kind("ollama", "http://localhost:11434/v1", ("OLLAMA_API_KEY",), ("OLLAMA_HOST",), is_found_by_url=True),
    Kind("openrouter", "https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",), ("OPENROUTER_BASE_URL",),
         price_list="openrouter"),
    Kind("perplexity", "https://api.perplexity.ai", ("PERPLEXITY_API_KEY", "PPLX_API_KEY"), ("PERPLEXITY_BASE_URL",),
         includes_usage=False, capabilities=("chat", "json", "streaming", "vision"), price_list="perplexity"),
    Kind("together", "https://api.together.xyz/v1", ("TOGETHER_API_KEY",), ("TOGETHER_BASE_URL",), price_list="together"),
    Kind("vllm", "http://localhost:8000/v1", (), ("VLLM_BASE_URL",), is_found_by_url=True),
    Kind("xai", "https://api.x.ai/v1", ("XAI_API_KEY",), ("XAI_BASE_URL",), capabilities=_NO_EMBEDDINGS, price_list="x-ai"),
)  # fmt: skip

KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}
"""The kinds this version supports, in the order in which the environment is searched."""

UNSUPPORTED_KINDS: dict[str, tuple[str, ...]] = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "azure": ("AZURE_OPENAI_API_KEY", "AZURE_API_KEY"),
    "bedrock": ("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID"),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "vertex": ("GOOGLE_APPLICATION_CREDENTIALS",),
}
"""Kinds of later versions, with the environment variables that hold their keys."""

BUILT_IN_ALIASES: dict[str, str] = {
    "claude": "anthropic:claude-sonnet-4-5",
    "claude-haiku": "anthropic:claude-haiku-4-5",
    "claude-opus": "anthropic:claude-opus-4-1",
    "deepseek": "deepseek:deepseek-chat",
    "gemini": "gemini:gemini-2.5-pro",
    "gpt35": "openai:gpt-3.5-turbo",
    "gpt4": "openai:gpt-4o",
    "llama": "groq:llama-3.3-70b-versatile",
    "mistral": "mistral:mistral-large-latest",
}
"""The built-in nine (FEATURES A7). A file's aliases override them; one whose provider is not configured leads nowhere."""

SUPPORTED_STRATEGIES = (
    "adaptive",
    "capability",
    "cost",
    "first",
    "least_connections",
    "least_latency",
    "least_requests",
    "optimize_cost",
    "optimize_latency",
    "optimize_reliability",
    "power_of_two",
    "priority",
    "random",
    "round_robin",
    "smooth_weighted_round_robin",
    "success_latency_ratio",
    "thompson",
    "weighted",
    "weighted_random",
)
"""The strategies that come with the gateway; plugins add theirs (``strategies.known_strategies``)."""
