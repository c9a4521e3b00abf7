"""What mypyc compiles without a word and gets wrong.

A compiled coroutine that waits while an exception is being handled (in ``except`` or ``finally``; ``async with`` is both) may
lose it: others run meanwhile, and when it goes on, "the exception being handled" is theirs or none. Seen with mypyc 2.4: a
cancelled coroutine returned None. So compiled modules put the exception aside and wait afterwards.
"""

import ast
from collections.abc import Iterable, Iterator

_WAITING = (ast.Await, ast.AsyncWith, ast.AsyncFor, ast.Yield, ast.YieldFrom)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_INNER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def hazards(source: str) -> list[int]:
    """The lines of ``source`` where a coroutine or a generator waits while an exception may be being handled."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Try | ast.TryStar):
            found.update(part.lineno for part in _own([*node.handlers, *node.finalbody]) if _waits(part))
        elif isinstance(node, ast.AsyncWith):
            found.add(node.lineno)
    return sorted(found)


def _waits(part: ast.AST) -> bool:
    if isinstance(part, _COMPREHENSIONS):
        return any(clause.is_async for clause in part.generators)
    return isinstance(part, _WAITING)


def _own(parts: Iterable[ast.AST]) -> Iterator[ast.expr | ast.stmt]:
    """What runs where ``parts`` run: all of it but the insides of functions."""
    for part in parts:
        if isinstance(part, ast.expr | ast.stmt):
            yield part
        if not isinstance(part, _INNER):
            yield from _own(ast.iter_child_nodes(part))
