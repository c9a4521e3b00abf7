"""Single entries as they come through the admin API: one rule, one provider, held to the same rules as the file.

Values are taken literally: a variable or ``file:`` would read what is the daemon's own, so they are refused where a secret
stands. Paths of problems are relative to the entry, and no problem repeats what was written.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from messages.control import ProviderSpec
from messages.policy import Rule
from runtime.config.build import credential_of, provider_spec
from runtime.config.build_policy import rule_data, rule_of
from runtime.config.checks import provider_contradictions
from runtime.config.checks_policy import TOO_DEEP
from runtime.config.document import DEPTH_MAX
from runtime.config.problems import ConfigError, ConfigProblem, Path, as_written, from_pydantic, path_text
from runtime.config.schema_policy import RuleEntry, too_deep
from runtime.config.schema_provider import Provider
from runtime.config.settings import Credential

__all__ = ["provider_from", "rule_data", "rule_from"]

E = TypeVar("E", bound=BaseModel)


def rule_from(data: Any) -> Rule:
    """The rule in ``data``, an entry of ``rules`` as plain data.

    Raises ``ConfigError``. Whether the providers it names exist is not looked at here.
    """
    _not_too_deep(data)
    when = data.get("when") if isinstance(data, dict) else None
    return rule_of(_valid(RuleEntry, data, [(("when", *path), TOO_DEEP) for path in too_deep(when)]))


def provider_from(data: Any) -> tuple[ProviderSpec, Credential]:
    """The provider in ``data``, an entry of ``providers`` as plain data, and how it is called.

    Raises ``ConfigError``. Whether its id is taken is not looked at here.
    """
    _not_too_deep(data)
    findings = [*provider_contradictions(data), *_not_literal(data)] if isinstance(data, dict) else []
    provider = _valid(Provider, data, findings)
    credential = credential_of(provider)
    return provider_spec(provider, credential), credential


def _valid(model: type[E], data: Any, findings: list[tuple[Path, str]]) -> E:
    entry = None
    # For a section of the file, nothing means the defaults; as a body it is a mistake.
    if not isinstance(data, dict):
        raise ConfigError([ConfigProblem("", None, "expected a mapping")])
    try:
        entry = model.model_validate(data)
    except ValidationError as error:
        findings = from_pydantic(error, model) + findings
    if entry is None or findings:
        problems = (ConfigProblem(path_text(as_written(path, data)), None, text) for path, text in findings)
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda problem: problem.path))
    return entry


def _not_literal(provider: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    headers = provider.get("headers")
    secrets: dict[Path, Any] = {("api_key",): provider.get("api_key")}
    secrets |= {("headers", str(name)): value for name, value in (headers if isinstance(headers, dict) else {}).items()}
    for path, value in secrets.items():
        if isinstance(value, str) and (value.startswith("file:") or "${" in value):
            yield path, "is taken literally here: variables and file: work in the configuration file only"


def _not_too_deep(data: Any) -> None:
    levels = [data]
    for _ in range(DEPTH_MAX):
        levels = [part for level in levels for part in _parts(level)]
        if not levels:
            return
    raise ConfigError([ConfigProblem("", None, f"nested deeper than {DEPTH_MAX} levels")])


def _parts(data: Any) -> list[Any]:
    if isinstance(data, dict):
        return list(data.values())
    return data if isinstance(data, list) else []
