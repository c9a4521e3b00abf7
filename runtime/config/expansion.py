"""Filling in what the file leaves to its surroundings: ``${VARIABLE}``, ``${VARIABLE:-default}`` and ``file:PATH``.

Only values are expanded, never keys, and what comes in is never expanded again. ``$${`` stands for ``${``.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from runtime.config.document import Document
from runtime.config.problems import ConfigProblem, Path, path_text
from runtime.config.sources import Stamp, stamp

SECRET_BYTES_MAX = 64 << 10
"""Largest file taken for a secret, in bytes."""

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")
_NOTHING = ("", "~", "null")


@dataclass(slots=True)
class Expanded:
    """The data with everything filled in. ``secrets`` holds what must not appear in any message."""

    data: Any
    secrets: set[str] = field(default_factory=set, repr=False)
    problems: list[ConfigProblem] = field(default_factory=list)
    missing: set[Path] = field(default_factory=set)
    """Values that could not be filled in: already reported, so that nothing more need be said about them."""
    sources: dict[FilePath, Stamp | None] = field(default_factory=dict)
    """The files that secrets come from, as they were when they were read."""


def expand(document: Document, environ: Mapping[str, str], directory: FilePath) -> Expanded:
    """Fill in ``document.data``. ``file:PATH`` is taken for secrets only, relative to ``directory``."""
    expanded = Expanded(None)
    expanded.data = _Expander(document, environ, directory, expanded).value(document.data, ())
    return expanded


def is_secret(path: Path) -> bool:
    """Whether the value at ``path`` is a secret, wherever the file may have it."""
    return any(step in ("api_key", "admin_key", "headers") for step in path)


class _Expander:
    def __init__(self, document: Document, environ: Mapping[str, str], directory: FilePath, into: Expanded) -> None:
        self._document = document
        self._environ = environ
        self._directory = directory
        self._into = into

    def value(self, data: Any, path: Path) -> Any:
        """``data`` with every text in it filled in."""
        if isinstance(data, dict):
            return {key: self.value(item, (*path, key)) for key, item in data.items()}
        if isinstance(data, list):
            return [self.value(item, (*path, index)) for index, item in enumerate(data)]
        if is_secret(path) and data is not None and not isinstance(data, bool):
            self._into.secrets.add(str(data))
        return self._text(data, path) if isinstance(data, str) else data

    def _text(self, text: str, path: Path) -> str | None:
        count_before = len(self._into.problems)
        filled = _REFERENCE.sub(lambda match: self._reference(match, path), text)
        if len(self._into.problems) > count_before:
            self._into.missing.add(path)
            return None
        # Unquoted, a variable stands for whatever one could write there, so also for nothing at all.
        if filled != text and path in self._document.plain and filled in _NOTHING:
            return None
        if is_secret(path):
            if filled.startswith("file:"):
                return self._file(filled.removeprefix("file:"), path)
            self._into.secrets.add(filled)
        return filled

    def _reference(self, match: re.Match[str], path: Path) -> str:
        if match[0] == "$${":
            return "${"
        name, default = match[1], match[2]
        if name is None:
            self._say(path, "'${' must be followed by NAME} or NAME:-default}; write $${ for the characters themselves")
            return ""
        value = self._environ.get(name, "")
        if value:
            self._into.secrets.add(value)
            return value
        if default is not None:
            return default
        state = "empty" if name in self._environ else "not set"
        self._say(path, f"environment variable {name} is {state}; write ${{{name}:-}} if it may be")
        return ""

    def _file(self, name: str, path: Path) -> str | None:
        try:
            place = self._directory / FilePath(name).expanduser()
            self._into.sources[place] = None
            with place.open("rb") as file:
                self._into.sources[place] = stamp(os.fstat(file.fileno()))
                raw = file.read(SECRET_BYTES_MAX + 1)
            if len(raw) > SECRET_BYTES_MAX:
                raise ValueError(f"has more than {SECRET_BYTES_MAX >> 10} KiB")
            secret = raw.decode().strip()
            if not secret:
                raise ValueError("is empty")
        except OSError as error:
            self._say(path, f"the file cannot be read: {error.strerror or type(error).__name__}")
        except UnicodeDecodeError:
            self._say(path, "the file is no UTF-8 text")
        except (ValueError, RuntimeError) as error:
            # A path with NUL in it, or ~ without a home: the text of these could repeat it.
            own = str(error) if str(error).startswith(("has more", "is empty")) else "cannot be read"
            self._say(path, f"the file {own}")
        else:
            self._into.secrets.add(secret)
            return secret
        self._into.missing.add(path)
        return None

    def _say(self, path: Path, message: str) -> None:
        self._into.problems.append(ConfigProblem(path_text(path), self._document.line(path), message))
