"""Rules a Python file must keep. Each takes source text and gives what is wrong with it, by line."""

import ast
import io
import re
import tokenize
from functools import cache, lru_cache
from typing import NamedTuple

FILE_LINES = 400
TEST_FILE_LINES = 600
FUNCTION_LINES = 70

LAW = ("Owns", "Accepts", "Always")

WORLD = frozenset(
    {
        "aiohttp",
        "anyio",
        "asyncio",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "pydantic",
        "requests",
        "secrets",
        "select",
        "selectors",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
        "uuid",
        "uvloop",
    }
)
"""Modules by which the world comes in: an actor or a message that imports one can neither be replayed nor simulated."""

WORLDLY_CALLS = frozenset({"open", "print", "input", "eval", "exec", "hash", "breakpoint"})
"""Built-ins that do I/O, or whose value differs from run to run."""

CLOCKS = frozenset({"now", "utcnow", "today"})

EXCUSED_NOQA = re.compile(r"#\s*noqa:\s*[A-Z]+[0-9]+(,\s*[A-Z]+[0-9]+)*\s+[#–-]\s*\S")
EXCUSED_IGNORE = re.compile(r"#\s*type:\s*ignore\[[a-z0-9, -]+\]\s+#\s*\S")
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
COMMENTED = re.compile(rf"#.*(noqa|type:\s*ignore|{UNFINISHED.pattern})")
EVASIONS = frozenset({"skip", "skipif", "xfail", "importorskip"})
SLEEPERS = frozenset({"time", "asyncio", "anyio"})


class Problem(NamedTuple):
    """What is wrong, and where."""

    line: int
    what: str


@lru_cache(maxsize=1)
def nodes(source: str) -> tuple[ast.AST, ...]:
    """Every node of a file, the module first. Of the last file they are kept: parsing is nearly all of the work."""
    found: list[ast.AST] = [ast.parse(source)]
    # As ``ast.walk`` does, three times as fast. It grows while it is walked.
    for node in found:
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                found += [part for part in value if isinstance(part, ast.AST)]
            elif isinstance(value, ast.AST):
                found.append(value)
    return tuple(found)


def module(source: str) -> ast.Module:
    """The syntax tree of a file."""
    found = nodes(source)[0]
    assert isinstance(found, ast.Module)
    return found


def too_long(source: str, limit: int) -> list[Problem]:
    """A file is read whole or not at all."""
    count = len(source.splitlines())
    return [Problem(count, f"{count} lines are more than {limit}")] if count > limit else []


def long_functions(source: str) -> list[Problem]:
    """A function fits on a screen."""
    return [
        Problem(node.lineno, f"{node.name} has {length} lines, more than {FUNCTION_LINES}")
        for node in nodes(source)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]


def is_actor(source: str) -> bool:
    """Whether a module defines an actor: a class, no protocol, that can start, handle and state its invariant."""
    return any(
        {"start", "handle", "invariant"} <= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        and not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
        for node in nodes(source)
        if isinstance(node, ast.ClassDef)
    )


def lawless(source: str) -> list[Problem]:
    """A file with an actor opens with its law."""
    law = ast.get_docstring(module(source)) or ""
    openings = [line.partition(":")[0].strip() for line in law.splitlines()]
    return [Problem(1, f"the actor's law does not say {part}") for part in LAW if is_actor(source) and part not in openings]


@cache
def imported(source: str) -> tuple[tuple[int, str], ...]:
    """Every module and name imported anywhere in a file, as (line, dotted name)."""
    return tuple(
        (node.lineno, name.name if isinstance(node, ast.Import) else f"{node.module or ''}.{name.name}")
        for node in nodes(source)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    )


def is_within(name: str, package: str) -> bool:
    """Whether a dotted name is ``package`` or lies in it."""
    return name == package or name.startswith(package + ".")


def worldly(source: str) -> list[Problem]:
    """Actors and messages see no clock, no chance, no file and no network but through their context."""
    problems = [
        Problem(line, f"imports {name}")
        for line, name in imported(source)
        if any(is_within(name, module) for module in WORLD) or (is_within(name, "random") and name != "random.Random")
    ]
    hashing = {id(part) for node in nodes(source) if getattr(node, "name", "") == "__hash__" for part in ast.walk(node)}
    for node in nodes(source):
        if not isinstance(node, ast.Call) or id(node) in hashing:
            continue
        called = ast.unparse(node.func)
        if called in WORLDLY_CALLS or (called == "Random" and not node.args):
            problems.append(Problem(node.lineno, f"calls {called}()"))
        owner, _, method = called.rpartition(".")
        if method in CLOCKS and owner.rpartition(".")[2] in ("datetime", "date"):
            problems.append(Problem(node.lineno, f"calls {called}()"))
    return problems


def iterated_sets(source: str) -> list[Problem]:
    """The order of a set differs from run to run."""
    problems = []
    for node in nodes(source):
        if isinstance(node, ast.For | ast.comprehension):
            over = node.iter
            called = isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id in ("set", "frozenset")
            if called or isinstance(over, ast.Set | ast.SetComp):
                problems.append(Problem(over.lineno, f"goes over a set: {ast.unparse(over)}"))
    return problems


def status_judged(source: str) -> list[Problem]:
    """What a status code means is said once, by the ``Failure`` that is made of it; nobody judges it a second time."""
    return [
        Problem(node.lineno, f"judges a status: {ast.unparse(node)}")
        for node in nodes(source)
        if isinstance(node, ast.Compare)
        and any(isinstance(part, ast.Attribute) and ast.unparse(part).endswith("failure.status") for part in ast.walk(node))
    ]


@cache
def comments(source: str) -> tuple[tuple[int, str], ...]:
    """All comments a rule could be about, as (line, text)."""
    # Telling a comment from a text takes far longer than seeing that neither has such words.
    if not COMMENTED.search(source):
        return ()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return tuple((token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT)


def bare_excuses(source: str) -> list[Problem]:
    """An exception to a rule names the rule, and says why."""
    problems = []
    for line, text in comments(source):
        if re.search(r"#\s*noqa", text) and not EXCUSED_NOQA.search(text):
            problems.append(Problem(line, "noqa without a code and, behind # or -, a reason"))
        if re.search(r"#\s*type:\s*ignore", text) and not EXCUSED_IGNORE.search(text):
            problems.append(Problem(line, "type: ignore without a code and, behind another #, a reason"))
    return problems


def unfinished(source: str) -> list[Problem]:
    """What is here is done: no notes to do it later, no stubs."""
    problems = [Problem(line, text) for line, text in comments(source) if UNFINISHED.search(text)]
    for node in nodes(source):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and UNFINISHED.search(ast.get_docstring(node) or ""):  # type: ignore[arg-type] # narrowed by the flag
            problems.append(Problem(getattr(node, "lineno", 1), "a docstring leaves something to do"))
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            problems.append(Problem(node.lineno, "NotImplementedError"))
    return problems


def evaded(source: str) -> list[Problem]:
    """A test runs, and passes."""
    return [
        Problem(node.lineno, ast.unparse(node))
        for node in nodes(source)
        if isinstance(node, ast.Attribute)
        and node.attr in EVASIONS
        and ast.unparse(node.value) in ("pytest", "pytest.mark", "unittest")
    ] + [Problem(line, name) for line, name in imported(source) if name.rpartition(".")[2] in EVASIONS]


def slept(source: str, is_virtual: bool = False) -> list[Problem]:
    """Tests of actors and of the system wait for no real time. ``sleep(0)``, which only lets others run, is no sleep.

    In a file that runs its coroutines on the virtual loop (``is_virtual``) a coroutine may sleep, unless it is itself a test:
    that one would be run by pytest, on a real loop.
    """
    virtual = {id(part) for part in nodes(source)} if is_virtual else set()
    for node in nodes(source):
        if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test"):
            virtual -= {id(part) for part in ast.walk(node)}
    problems = []
    for node in nodes(source):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
            zero = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            module = ast.unparse(node.func.value)
            if module == "time" or (module in SLEEPERS and not zero and id(node) not in virtual):
                problems.append(Problem(node.lineno, ast.unparse(node)))
    # Imported by its bare name it would not be seen above.
    return problems + [
        Problem(line, f"imports {name}")
        for line, name in imported(source)
        if name.rpartition(".")[2] == "sleep" and name.partition(".")[0] in SLEEPERS
    ]


def imports_of(source: str, package: str) -> list[Problem]:
    """Where ``package`` is imported, which may be forbidden here."""
    return [Problem(line, f"imports {name}") for line, name in imported(source) if is_within(name, package)]


def private_imports(source: str) -> list[Problem]:
    """What begins with an underscore is nobody else's business."""
    return [
        Problem(line, f"imports {name}")
        for line, name in imported(source)
        if any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
    ]


def other_rings(source: str, ring: str) -> list[Problem]:
    """A ring of tests stands alone: what two share lies beside them, not in one of them."""
    return [
        Problem(line, f"imports {name}, of another ring")
        for line, name in imported(source)
        if name.startswith("tests.")
        and name.split(".")[1] in ("actors", "system", "daemon", "house", "benchmarks")
        and name.split(".")[1] != ring
    ]
