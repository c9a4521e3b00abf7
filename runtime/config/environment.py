"""Without a file: the providers whose keys are in the environment (FEATURES A2). What is found but not supported is said."""

from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr
from pydantic_core import PydanticCustomError

from runtime.config.build import build
from runtime.config.kinds import KINDS, UNSUPPORTED_KINDS, Kind
from runtime.config.problems import ConfigError, ConfigProblem
from runtime.config.schema import Failover, File, Routing
from runtime.config.schema_provider import Provider, Timeouts, checked_secret
from runtime.config.settings import Loaded
from runtime.config.values import checked_url

TOTAL_S = 120.0
"""How long an attempt at a found provider may take, in seconds."""
ATTEMPTS = 3
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
_OLLAMA_PORT = 11434


def from_environment(environ: Mapping[str, str]) -> Loaded:
    """A provider, called as its kind, for each supported kind whose variables are set.

    Raises ``ConfigError`` if there is none, or if a variable holds what cannot be meant.
    """
    problems: list[ConfigProblem] = []
    providers: list[Provider] = []
    notes: list[str] = []
    for kind in KINDS.values():
        key = _first_set(kind.key_variables, environ)
        url = _first_set(kind.url_variables, environ)
        if url if kind.is_found_by_url else key:
            provider = _provider(kind, key, url, environ, problems)
            if provider:
                providers.append(provider)
        elif url and kind.key_variables:
            notes.append(f"{url} is set, {' or '.join(kind.key_variables)} is not: no provider '{kind.name}'")
    for name, variables in UNSUPPORTED_KINDS.items():
        found = _first_set(variables, environ)
        if found:
            notes.append(f"{found} is set: kind '{name}' is not supported by this version")
    if not providers and not problems:
        problems.append(ConfigProblem("", None, "; ".join([_nothing_found(), *notes])))
    if problems:
        raise ConfigError(problems, "environment")
    file = File(providers=providers, routing=Routing(failover=Failover(max_attempts=ATTEMPTS)))
    return build(file, None, tuple(notes))


def _first_set(variables: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    return next((name for name in variables if environ.get(name, "").strip()), None)


def _provider(
    kind: Kind, key: str | None, url: str | None, environ: Mapping[str, str], problems: list[ConfigProblem]
) -> Provider | None:
    count_before = len(problems)
    base_url, secret = kind.base_url, None
    if key:
        secret = SecretStr(environ[key].strip())
        try:
            checked_secret(secret)
        except PydanticCustomError as error:
            problems.append(ConfigProblem(key, None, error.message()))
    if url:
        try:
            text = environ[url].strip()
            base_url = checked_url(_ollama_url(text) if kind.name == "ollama" else text)
        except PydanticCustomError as error:
            problems.append(ConfigProblem(url, None, error.message()))
    if len(problems) > count_before:
        return None
    return Provider(id=kind.name, kind=kind.name, base_url=base_url, api_key=secret, timeouts=Timeouts(total=TOTAL_S))


def _ollama_url(host: str) -> str:
    """A base URL from ``OLLAMA_HOST``, which is a host, a port, both or a URL, and may be what the server binds to."""
    try:
        parts = urlsplit(host if "://" in host else f"http://{host}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return host
    if "@" in parts.netloc:
        return host
    name = _EVERY_ADDRESS.get(name, name)
    shown = f"[{name}]" if ":" in name else name
    # A URL keeps its scheme's port; a plain host has Ollama's.
    standard = "" if "://" in host else f":{_OLLAMA_PORT}"
    place = f"{shown}:{port}" if port else f"{shown}{standard}"
    path = parts.path.rstrip("/")
    return urlunsplit((parts.scheme, place, path if path.endswith("/v1") else f"{path}/v1", parts.query, parts.fragment))


def _nothing_found() -> str:
    found_by = [kind.url_variables if kind.is_found_by_url else kind.key_variables for kind in KINDS.values()]
    variables = [names[0] for names in found_by if names]
    return f"no provider found: give a file with -c, or set one of {', '.join(variables)}"
