"""Configurations for the tests of the configuration."""

from collections.abc import Mapping
from pathlib import Path

from runtime.config.loading import load_bytes
from runtime.config.problems import ConfigError, ConfigProblem
from runtime.config.settings import Loaded

MINIMAL = """\
providers:
  - id: main
    kind: openai
"""

FLEET = """\
providers:
  - {id: west, kind: openai, models: [gpt-4o, mini]}
  - {id: east, kind: openai, models: [gpt-4o]}
"""
"""Two providers whose models are known, so that names nobody serves can be told."""


def load(text: str, environ: Mapping[str, str] | None = None, directory: Path = Path("/nowhere")) -> Loaded:
    return load_bytes(text.encode(), directory / "pointsman.yaml", environ or {})


def problems_of(text: str, environ: Mapping[str, str] | None = None, directory: Path = Path("/nowhere")) -> list[ConfigProblem]:
    try:
        load(text, environ, directory)
    except ConfigError as error:
        return list(error.problems)
    raise AssertionError("the configuration is valid")


def said(text: str, environ: Mapping[str, str] | None = None, directory: Path = Path("/nowhere")) -> list[str]:
    """Every problem as ``line path: message``."""
    return [f"{problem.line} {problem.path}: {problem.message}" for problem in problems_of(text, environ, directory)]
