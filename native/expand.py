"""Writes out what ``@message``, ``@fact`` and ``@dataclass`` do at run time, so that a compiler can see it.

mypyc makes a class fast when it knows the class's fields and can read its ``__init__``. The one that ``dataclass`` makes is
made when the module is imported, and stays interpreted. So before compiling, each such class gets an ``__init__`` in plain
words; equality, hash and representation stay the standard library's.

A class that says it is ``acyclic``, and every message, is spared the garbage collector. Of each message the last one that ended
is kept and used again: to let go of what it is made of runs nobody's code, which might make another one meanwhile.

And what is written in capitals at the top of a module is declared ``Final``: the compiler then reads it from a variable of C,
where it would look up any other name of a module in a dictionary, each time.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

Fields = list[ast.AnnAssign]
_OPTIONS = {
    "message": {"bounded", "pure"},
    "fact": set[str](),
    "dataclass": {"slots", "frozen", "eq", "repr", "order", "match_args"},
}
"""What may stand in the decorators' brackets. A compiled class has slots in any case, and nobody is kept from writing to it."""
_ACYCLIC = "acyclic"
_SPARED = '@mypyc_attr("acyclic")'
_SPARED_AND_KEPT = '@mypyc_attr("acyclic", free_list_len=1)'
_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+")
_SETTABLE = frozenset({"IDLE_MAX", "KEEPALIVE_S", "STALE_WITHIN_S", "UNPACED_S"})
"""Constants that tests set otherwise while they run."""


@dataclass(frozen=True, slots=True)
class Made:
    """A class that a decorator completes: its decorator's name and arguments, and its own fields in order."""

    node: ast.ClassDef
    by: str
    options: dict[str, ast.expr]
    tag: ast.expr | None
    fields: Fields


def classes(tree: ast.Module) -> Iterator[Made]:
    """The classes of a module that one of the three decorators completes and that can be written out.

    A field with ``field(...)`` or a class with an ``__init__`` of its own stays as it is. Raises ``ValueError`` for an option
    or a second decorator that would be lost.
    """
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            name = call.func if call is not None else decorator
            if isinstance(name, ast.Name) and name.id in ("message", "fact", "dataclass"):
                fields = [part for part in node.body if isinstance(part, ast.AnnAssign) and not _is_of_class(part)]
                options = {word.arg: word.value for word in call.keywords if word.arg} if call is not None else {}
                if not any(_is_factory(part.value) for part in fields) and not _has_init(node):
                    others = [by for by in node.decorator_list if by is not decorator and not _is_acyclic(by)]
                    if others or not options.keys() <= _OPTIONS[name.id]:
                        raise ValueError(f"{node.name}: cannot write out {', '.join(map(ast.unparse, node.decorator_list))}")
                    tag = call.args[0] if call is not None and call.args else None
                    yield Made(node, name.id, options, tag, fields)


def expand(source: str, inherited: dict[str, Fields]) -> str:
    """``source`` with its classes written out. ``inherited`` has the fields of all such classes by name, over all modules."""
    tree = ast.parse(source)
    lines = source.split("\n")
    constants = _constants(tree)
    for constant in reversed(constants):
        _declare_final(constant, lines)
    found = list(classes(tree))
    by_node = {made.node: made for made in found}
    is_sparing = False
    for part in reversed(tree.body):
        # From the end, so that the places of what comes before still hold.
        if not isinstance(part, ast.ClassDef):
            continue
        made_by, words = by_node.get(part), list[str]()
        if made_by is not None and made_by.by == "message":
            words.append(_SPARED_AND_KEPT)
        elif any(map(_is_acyclic, part.decorator_list)):
            words.append(_SPARED)
        is_sparing = is_sparing or bool(words)
        if made_by is not None:
            lines[part.end_lineno : part.end_lineno] = _init(made_by, inherited)
            words.append(_decorator(made_by))
        if words:
            lines[part.decorator_list[0].lineno - 1 : part.lineno - 1] = words
    for part in reversed(tree.body):
        for by in part.decorator_list if isinstance(part, ast.FunctionDef) else ():
            if "dataclass_transform" in ast.unparse(by):
                # A word to type checkers, which it leaves on the function; a compiled one takes none.
                del lines[by.lineno - 1]
    used = {made.by for made in found}
    first = _first_line(tree) - 1
    if is_sparing:
        # For the compiler only: at run time nobody calls it.
        lines[first:first] = ["import typing", "if typing.TYPE_CHECKING:", "    from mypy_extensions import mypyc_attr"]
    if constants:
        lines[first:first] = ["from typing import Final"]
    if used & {"message", "fact"}:
        lines[first:first] = ["from dataclasses import dataclass"]
    if "message" in used:
        lines[first:first] = ["from messages.base import register"]
    return "\n".join(lines)


def _first_line(tree: ast.Module) -> int:
    """Where what the text needs can be imported: before the first import, or before what comes after the docstring."""
    found = [node.lineno for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    if found:
        return found[0]
    body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    return min(node.lineno for node in ast.walk(ast.Module(body[:1], [])) if isinstance(node, ast.stmt | ast.expr))


def _constants(tree: ast.Module) -> list[ast.Assign | ast.AnnAssign]:
    """The statements at the top of a module that bind names in capitals, and bind them for good, in order."""
    found: list[ast.Assign | ast.AnnAssign] = []
    for part in tree.body:
        targets = part.targets if isinstance(part, ast.Assign) else [part.target] if isinstance(part, ast.AnnAssign) else []
        if len(targets) == 1 and isinstance(part, ast.Assign | ast.AnnAssign) and part.value is not None:
            names = targets[0].elts if isinstance(targets[0], ast.Tuple) else targets
            if all(_is_constant(name) for name in names) and "Final" not in ast.unparse(part):
                found.append(part)
    return found


def _is_constant(name: ast.expr) -> bool:
    return isinstance(name, ast.Name) and name.id not in _SETTABLE and _CONSTANT.fullmatch(name.id) is not None


def _declare_final(part: ast.Assign | ast.AnnAssign, lines: list[str]) -> None:
    """Declare what ``part`` binds, in ``lines``; every line stays where it is."""
    if isinstance(part, ast.AnnAssign):
        last, end = part.annotation.end_lineno or 0, part.annotation.end_col_offset or 0
        _insert(lines, last, end, "]")
        _insert(lines, part.annotation.lineno, part.annotation.col_offset, "Final[")
        return
    target, value = part.targets[0], part.value
    if not isinstance(target, ast.Tuple):
        _insert(lines, part.lineno, target.end_col_offset or 0, f": {_final(value)}")
    elif isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts) and part.lineno == part.end_lineno:
        pairs = zip(target.elts, value.elts, strict=True)
        lines[part.lineno - 1] = "; ".join(f"{_text(name)}: {_final(given)} = {_text(given)}" for name, given in pairs)


def _final(value: ast.expr) -> str:
    """A member of an enum is told by its class: else mypy would hold what is compared to it for that one value."""
    is_member = isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id[0].isupper()
    return f"Final[{_text(value.value)}]" if is_member and isinstance(value, ast.Attribute) else "Final"


def _insert(lines: list[str], line: int, column: int, text: str) -> None:
    """``line`` counts from one, ``column`` in bytes, as ``ast`` does."""
    whole = lines[line - 1].encode()
    lines[line - 1] = (whole[:column] + text.encode() + whole[column:]).decode()


def _decorator(made: Made) -> str:
    words = ["init=False"]
    if made.by in ("message", "fact") or (_says(made, "frozen", True) and not _says(made, "eq", False)):
        words.append("unsafe_hash=True")
    words += [f"{word}={_text(value)}" for word, value in made.options.items() if word in ("eq", "repr", "order", "match_args")]
    return f"@dataclass({', '.join(words)})"


def _is_acyclic(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id == _ACYCLIC


def _says(made: Made, option: str, value: bool) -> bool:
    given = made.options.get(option)
    return isinstance(given, ast.Constant) and given.value is value


def _init(made: Made, inherited: dict[str, Fields]) -> list[str]:
    """The lines to put after the class."""
    node = made.node
    fields = [part for base in node.bases for part in inherited.get(ast.unparse(base), [])] + made.fields
    lines = ["", f"    def __init__(self{''.join(f', {_parameter(part)}' for part in fields)}) -> None:"]
    lines += [f"        self.{_text(part.target)} = {_text(part.target)}" for part in fields] or ["        pass"]
    if any(isinstance(part, ast.FunctionDef) and part.name == "__post_init__" for part in node.body):
        lines += ["        self.__post_init__()"]
    if made.by == "message":
        told = [node.name, _text(made.tag), *(f"{word}={_text(value)}" for word, value in made.options.items())]
        # The compiler keeps no more of an annotation than it needs itself; whoever decodes messages reads them whole.
        hints = {_text(part.target): _text(part.annotation) for part in fields}
        lines += ["", f"setattr({node.name}, '__annotations__', {hints!r})", f"register({', '.join(told)})"]
    return lines


def _parameter(part: ast.AnnAssign) -> str:
    default = "" if part.value is None else f" = {_text(part.value)}"
    return f"{_text(part.target)}: {_text(part.annotation)}{default}"


def _is_of_class(part: ast.AnnAssign) -> bool:
    return "ClassVar" in ast.unparse(part.annotation)


def _is_factory(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field"


def _has_init(node: ast.ClassDef) -> bool:
    return any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in node.body)


def _text(node: ast.expr | None) -> str:
    return "" if node is None else ast.unparse(node)
