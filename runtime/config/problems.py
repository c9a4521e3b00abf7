"""What is wrong with a configuration, said so that it can be found: path, line, reason.

Never a value that was written, except the names of providers and models that rules, tenants and pools give.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from runtime.config.schema import UNSUPPORTED_KEYS, File
from runtime.config.schema_policy import OneKey
from runtime.config.sources import Sources

Path = tuple[str | int, ...]
"""Keys and positions from the root of the file to a value."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_KEY_LENGTH_MAX = 60


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong. ``path`` is empty where the whole file is meant, ``line`` counts from 1, None: not in the file."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used, with everything that is wrong with it."""

    def __init__(self, problems: Iterable[ConfigProblem], source: str = "", sources: Sources | None = None) -> None:
        self.problems: tuple[ConfigProblem, ...] = tuple(problems)
        self.source = source
        self.sources: Sources = sources or {}
        """The files it was read from, as far as that went: a change of one is worth another look."""
        super().__init__(self.text())

    def text(self) -> str:
        """One line per problem, for people."""
        before = f"{self.source}: " if self.source else ""
        return "\n".join(f"{before}{problem}" for problem in self.problems)


def path_text(path: Path) -> str:
    """``providers[2].limits.requests_per_minute``; keys that are no plain words in quotes: ``aliases["gpt-3.5"]``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step) and len(step) <= _KEY_LENGTH_MAX:
            text += f".{step}" if text else step
        else:
            shown = step if len(step) <= _KEY_LENGTH_MAX else step[:_KEY_LENGTH_MAX] + "…"
            escaped = shown.replace("\\", "\\\\").replace('"', '\\"')
            text += '["' + "".join(c if c.isprintable() else "�" for c in escaped) + '"]'
    return text


def as_written(path: Path, data: Any) -> Path:
    """``path`` as the author of ``data`` would give it, where one thing may stand for a list of it.

    A single action has no position, and ``provider`` may stand for ``providers``.
    """
    written: list[str | int] = []
    for place in path:
        if isinstance(place, int) and not isinstance(data, list):
            continue
        is_single = place == "providers" and isinstance(data, dict) and place not in data and "provider" in data
        step = "provider" if is_single else place
        written.append(step)
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int):
            data = data[step] if step < len(data) else None
    return tuple(written)


def from_pydantic(error: ValidationError, root: type[BaseModel] = File) -> list[tuple[Path, str]]:
    """Every error of a validation of a ``root`` as path and message."""
    return [_translated(details, root) for details in error.errors(include_url=False, include_input=False)]


def _translated(details: ErrorDetails, root: type[BaseModel]) -> tuple[Path, str]:
    # A bad key of a mapping is located as (..., key, "[key]").
    path = tuple(step for step in details["loc"] if step != "[key]")
    kind, bounds = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return path, _unknown_key(path, root)
    return path, _message(kind, bounds, details["msg"])


_EXPECTED = {
    "missing": "is missing",
    "string_type": "expected text (a number or true/false needs quotes to be text)",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "int_parsing_size": "the number is too large",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "list_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
}


def _message(kind: str, bounds: Mapping[str, Any], fallback: str) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    match kind:
        case "pointsman":
            return fallback
        case "greater_than_equal":
            return f"must be {_number(bounds['ge'])} or more"
        case "greater_than":
            return f"must be more than {_number(bounds['gt'])}"
        case "less_than_equal":
            return f"must be {_number(bounds['le'])} or less"
        case "literal_error":
            return f"expected {bounds['expected']}"
        case "too_short":
            return f"must have {bounds['min_length']} or more entries, or be left out"
        case "too_long":
            return f"must have {bounds['max_length']} or fewer entries"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have {bounds['max_length']} or fewer characters"
    # The text of an error we have no words for could repeat what was written.
    return f"is not valid ({kind})"


def _number(value: Any) -> str:
    return f"{value:g}" if abs(value) < 1_000_000 else f"{value:.0f}"


def _unknown_key(path: Path, root: type[BaseModel]) -> str:
    steps = [step for step in path if isinstance(step, str)]
    if any(_is_at(steps, unsupported.split(".")) for unsupported in UNSUPPORTED_KEYS):
        return "not supported by this version"
    model = _model_at(path[:-1], root)
    known = [field.alias or name for name, field in model.model_fields.items()] if model else []
    if model and issubclass(model, OneKey):
        return f"unknown {model.KEYS_ARE}; known are: {', '.join(known)}"
    near = difflib.get_close_matches(str(path[-1]).lower(), known, n=1, cutoff=0.6)
    return f"unknown key; did you mean '{near[0]}'?" if near else "unknown key"


def _is_at(steps: list[str], pattern: list[str]) -> bool:
    return len(steps) == len(pattern) and all(want in ("*", step) for step, want in zip(steps, pattern, strict=True))


def _model_at(path: Path, root: type[BaseModel]) -> type[BaseModel] | None:
    found: Any = root
    for step in path:
        model = _model_in(found)
        if model is None:
            return None
        if _is_mapping(found):
            found = model
        elif isinstance(step, str):
            names = {field.alias or name: field for name, field in model.model_fields.items()}
            found = names[step].annotation if step in names else None
    return _model_in(found)


def _is_mapping(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        found = _model_in(part)
        if found:
            return found
    return None
