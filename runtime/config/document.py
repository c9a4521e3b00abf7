"""From YAML text to plain data with a line for every value. Nothing is guessed: YAML 1.2's core rules, no surprises.

PyYAML's safe loader composes the nodes; only what they mean is decided here: ``off`` and ``yes`` are text (YAML 1.1 takes
them for booleans), a duplicate key is an error, and a document that unfolds beyond all measure is refused.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from runtime.config.problems import ConfigError, ConfigProblem, Path, path_text

TEXT_BYTES_MAX = 4 << 20
"""Largest file taken, in bytes."""
VALUES_MAX = 200_000
"""Most values a file may unfold to."""
DEPTH_MAX = 32

_CORE = "tag:yaml.org,2002:"
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")

_TYPES = {
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    "int": (re.compile(r"[-+]?[0-9]{1,18}"), "-+0123456789"),
    "float": (
        re.compile(
            r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,3})?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
        ),
        "-+.0123456789",
    ),
    "null": (re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    "merge": (re.compile(r"<<"), "<"),
}
"""How plain text looks that is not text, and the characters it can begin with."""


class _Composer(yaml.SafeLoader):
    """The safe loader with the implicit types of YAML 1.2's core schema."""


# A table of its own, so that the parent's stays as it is.
_Composer.yaml_implicit_resolvers = {}
for _type, (_pattern, _first) in _TYPES.items():
    _Composer.add_implicit_resolver(_CORE + _type, re.compile(f"(?:{_pattern.pattern})$"), list(_first))


@dataclass(slots=True)
class Document:
    """Plain data and where it stands. ``plain`` holds the paths of text written without quotes."""

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    plain: set[Path] = field(default_factory=set)
    problems: list[ConfigProblem] = field(default_factory=list)

    def line(self, path: Path) -> int | None:
        """The line of the value at ``path``, or of what it would stand in; None for an empty document."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def read_document(text: str) -> Document:
    """The data of one YAML document. Duplicate keys and the like are in ``problems``.

    Raises ``ConfigError`` with line and column where ``text`` is no YAML.
    """
    document = Document()
    try:
        loader = _Composer(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
        if root is not None:
            document.data = _Reader(document).value(root, ())
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_broken(error, text)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([ConfigProblem("", line, "not YAML: a control character stands here")]) from None
    except RecursionError:
        raise ConfigError([ConfigProblem("", None, f"nested deeper than {DEPTH_MAX} levels")]) from None
    return document


def _broken(error: yaml.MarkedYAMLError, text: str) -> ConfigProblem:
    mark = error.problem_mark or error.context_mark
    reason = _QUOTED.sub(_harmless, error.problem or error.context or "cannot be read")
    where = f" (column {mark.column + 1})" if mark else ""
    is_variable = mark is not None and text[: mark.index + 1].endswith("${")
    hint = '; within { } or [ ] write "${VARIABLE}" with quotes' if is_variable else ""
    return ConfigProblem("", mark.line + 1 if mark else None, f"not YAML{where}: {reason}{hint}")


def _harmless(quoted: re.Match[str]) -> str:
    # What PyYAML quotes is the file's own text, which can be a secret; single characters and '<block end>' are not.
    inner = quoted[1] or quoted[2] or ""
    return quoted[0] if len(inner.lstrip("\\")) <= 1 or re.fullmatch(r"<[a-z ]+>", inner) else "…"


class _Reader:
    """Turns nodes into data; collects problems instead of stopping at the first."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._left = VALUES_MAX

    def value(self, node: Node, path: Path) -> Any:
        """The data of ``node``, which stands at ``path``."""
        self._left -= 1
        if self._left < 0:
            raise ConfigError([ConfigProblem("", None, f"unfolds to more than {VALUES_MAX} values")])
        if len(path) > DEPTH_MAX:
            raise ConfigError([ConfigProblem("", node.start_mark.line + 1, f"nested deeper than {DEPTH_MAX} levels")])
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        raise AssertionError(f"PyYAML has no other nodes: {type(node).__name__}")

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _CORE + "merge":
                merged = {**self._merged(value_node, path), **merged}
                continue
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self._say(path, line, "a key must be text")
                continue
            key = key_node.value
            if key in result:
                first = self._document.lines[(*path, key)]
                self._say((*path, key), line, f"duplicate key; first given in line {first}")
                continue
            self._document.lines[(*path, key)] = line
            result[key] = self.value(value_node, (*path, key))
        return {**merged, **result}

    def _merged(self, node: Node, path: Path) -> dict[str, Any]:
        parts = node.value if isinstance(node, SequenceNode) else [node]
        result: dict[str, Any] = {}
        for part in parts:
            if isinstance(part, MappingNode):
                result = {**self._mapping(part, path), **result}
            else:
                self._say(path, node.start_mark.line + 1, "only a mapping can be merged with <<")
        return result

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_CORE)
        if kind == "str":
            if node.style is None:
                self._document.plain.add(path)
            return text
        if kind not in _TYPES or not _TYPES[kind][0].fullmatch(text):
            self._say(path, node.start_mark.line + 1, "this YAML tag does not fit here")
            return None
        match kind:
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text)
            case "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return None if kind == "null" else text

    def _say(self, path: Path, line: int, message: str) -> None:
        self._document.problems.append(ConfigProblem(path_text(path), line, message))
