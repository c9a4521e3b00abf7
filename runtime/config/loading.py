"""Reading a configuration file: every error at once, each with its path and line, none with a secret."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path as FilePath

from pydantic import ValidationError

from runtime.config.build import build
from runtime.config.checks import contradictions
from runtime.config.checks_policy import policy_findings
from runtime.config.document import TEXT_BYTES_MAX, Document, read_document
from runtime.config.expansion import Expanded, expand
from runtime.config.problems import ConfigError, ConfigProblem, Path, as_written, from_pydantic, path_text
from runtime.config.schema import File
from runtime.config.settings import Loaded
from runtime.config.sources import Sources, stamp
from runtime.config.tls import BadTls, server_context

_REDACTED_LENGTH_MIN = 6


def load_file(path: FilePath, environ: Mapping[str, str]) -> Loaded:
    """The configuration in the file at ``path``, with variables from ``environ``. Raises ``ConfigError``."""
    raw, sources = read_file(path)
    try:
        loaded = load_bytes(raw, path, environ)
    except ConfigError as error:
        raise ConfigError(error.problems, error.source, {**sources, **error.sources}) from None
    return replace(loaded, sources={**sources, **loaded.sources})


def read_file(path: FilePath) -> tuple[bytes, Sources]:
    """What is in a file (of one that is too large, enough to see it) and how it stood then. Raises ``ConfigError``."""
    try:
        with path.open("rb") as file:
            sources: Sources = {path: stamp(os.fstat(file.fileno()))}
            return file.read(TEXT_BYTES_MAX + 1), sources
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError([ConfigProblem("", None, f"cannot be read: {reason}")], str(path), {path: None}) from None


def load_bytes(raw: bytes, path: FilePath, environ: Mapping[str, str]) -> Loaded:
    """The same from the bytes of a file; ``path`` is where they come from. Raises ``ConfigError``."""
    document = document_in(raw, path)
    expanded = expand(document, environ, path.parent)
    file, problems = validate(document, expanded)
    if file is None:
        raise ConfigError(problems, str(path), expanded.sources)
    loaded = build(file, path)
    try:
        if loaded.server.tls is not None:
            server_context(loaded.server.tls)
    except BadTls as error:
        where: Path = ("server", "tls", error.key)
        problem = ConfigProblem(path_text(where), document.line(where), error.message)
        raise ConfigError([problem], str(path), expanded.sources) from None
    return replace(loaded, sources=expanded.sources)


def document_in(raw: bytes, path: FilePath) -> Document:
    """The document in the bytes of the file at ``path``. Raises ``ConfigError``."""
    if len(raw) > TEXT_BYTES_MAX:
        raise ConfigError([ConfigProblem("", None, f"is larger than {TEXT_BYTES_MAX >> 20} MiB")], str(path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([ConfigProblem("", line, "is no UTF-8 text")], str(path)) from None
    try:
        return read_document(text)
    except ConfigError as error:
        raise ConfigError(error.problems, str(path)) from None


def validate(document: Document, expanded: Expanded) -> tuple[File | None, list[ConfigProblem]]:
    """The file if it is valid, else None and everything that is wrong, in order of lines."""
    findings: list[tuple[Path, str]] = []
    file = None
    data = {} if expanded.data is None else expanded.data
    try:
        file = File.model_validate(data)
    except ValidationError as error:
        findings += from_pydantic(error)
    findings = [(as_written(path, data), text) for path, text in [*findings, *contradictions(data), *policy_findings(data)]]
    problems = document.problems + expanded.problems
    problems += [
        ConfigProblem(path_text(path), document.line(path), message)
        for path, message in findings
        if path not in expanded.missing
    ]
    if not problems:
        return file, []
    unique = dict.fromkeys(_redacted(problem, expanded.secrets) for problem in problems)
    return None, sorted(unique, key=lambda problem: (problem.line or 0, problem.path))


def _redacted(problem: ConfigProblem, secrets: Iterable[str]) -> ConfigProblem:
    # A second lock: no message repeats what was written, but one that did would still not tell a secret.
    message = problem.message
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _REDACTED_LENGTH_MIN:
            message = message.replace(secret, "***")
    return ConfigProblem(problem.path, problem.line, message)
