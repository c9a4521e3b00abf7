"""What the compiled build is made from says the same as what people wrote (``native.expand``)."""

import ast
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import messages.base
from native.build import PACKAGES, without_trashcan
from native.expand import Fields, classes, expand
from native.hazards import hazards
from native.modules import INTERPRETED, compiled

ROOT = Path(__file__).parent.parent.parent
MODULES = compiled(ROOT)
INHERITED: dict[str, Fields] = {
    made.node.name: made.fields for name in MODULES for made in classes(ast.parse((ROOT / name).read_text()))
}
WORDS = [name for name in MODULES if name.parts[0] == "messages" and name.name not in ("base.py", "codec.py")]


def classes_of(name: Path) -> list[str]:
    return [made.node.name for made in classes(ast.parse((ROOT / name).read_text()))]


@pytest.fixture
def no_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of messages is empty, so that the same ones can be entered again."""
    monkeypatch.setattr(messages.base, "TAGS", {})


def written_out(name: Path) -> ModuleType:
    """The module as it is compiled, but run by the interpreter."""
    module = ModuleType(f"written_out_{name.stem}")
    sys.modules[module.__name__] = module
    vars(module)["mypyc_attr"] = lambda *words, **more: lambda cls: cls  # A word to the compiler, which nobody calls.
    exec(compile(expand((ROOT / name).read_text(), INHERITED), str(name), "exec"), module.__dict__)
    return module


def messages_of(module: ModuleType) -> Iterator[type[Any]]:
    return (
        cls
        for cls in vars(module).values()
        if isinstance(cls, type) and cls.__module__ == module.__name__ and hasattr(cls, "TAG")
    )


@pytest.mark.parametrize("name", WORDS, ids=str)
def test_a_message_written_out_has_the_tag_the_fields_the_defaults_and_the_annotations_it_had(
    name: Path, no_tags: None
) -> None:
    original = importlib.import_module(".".join(name.with_suffix("").parts))
    found = {cls.__name__: cls for cls in messages_of(written_out(name))}
    assert set(found) == {cls.__name__ for cls in messages_of(original)}
    for cls in messages_of(original):
        made = found[cls.__name__]
        assert (made.TAG, made.BOUNDED, made.PURE) == (cls.TAG, cls.BOUNDED, cls.PURE)
        fields = dataclasses.fields(cls)
        assert [(field.name, repr(field.default)) for field in dataclasses.fields(made)] == [
            (field.name, repr(field.default)) for field in fields
        ]
        assert list(made.__annotations__) == [field.name for field in fields]


def shown(default: Any) -> str:
    return default.__qualname__ if callable(default) else repr(default)


def habits(cls: type[Any]) -> dict[str, object]:
    """How a class is made, compared, hashed, shown and matched."""
    signature = inspect.signature(cls)
    own = {name: getattr(cls, name, None) is getattr(object, name) for name in ("__eq__", "__hash__", "__lt__", "__repr__")}
    return own | {
        "parameters": [(part.name, part.kind, shown(part.default)) for part in signature.parameters.values()],
        "is_hashable": cls.__hash__ is not None,
        "pattern": getattr(cls, "__match_args__", None),
    }


@pytest.mark.parametrize("name", [name for name in MODULES if classes_of(name)], ids=str)
def test_every_class_written_out_is_made_compared_hashed_and_matched_as_before(name: Path, no_tags: None) -> None:
    original = importlib.import_module(".".join(name.with_suffix("").parts))
    module = written_out(name)
    for cls in classes_of(name):
        assert habits(getattr(module, cls)) == habits(getattr(original, cls)), cls


def test_who_is_written_out_is_made_by_position_and_by_name_compared_hashed_and_shown_as_before() -> None:
    source = '''
from dataclasses import dataclass

@dataclass(frozen=True, slots=True)
class Point:
    """A place."""
    x: int
    y: int = 2

@dataclass(slots=True)
class Named(Point):
    name: str = "?"

    def __post_init__(self) -> None:
        self.name = self.name.title()
'''
    space: dict[str, Any] = {"__name__": "somewhere"}
    exec(expand(source, {made.node.name: made.fields for made in classes(ast.parse(source))}), space)
    point, named = space["Point"], space["Named"]
    assert "def __init__(self, x: int, y: int = 2) -> None:" in expand(source, {})
    assert point(1) == point(x=1, y=2) != point(2)
    assert hash(point(1)) == hash(point(1, 2))
    assert repr(point(1)) == "Point(x=1, y=2)"
    assert repr(named(1, name="here")) == "Named(x=1, y=2, name='Here')"
    with pytest.raises(TypeError, match="missing 1 required"):
        point()


@pytest.mark.parametrize("options", ["frozen=False", "frozen=True, eq=False", "eq=False", "order=True", "repr=False"])
def test_the_options_of_a_dataclass_are_kept(options: str) -> None:
    source = f"from dataclasses import dataclass\n\n@dataclass({options})\nclass Point:\n    x: int = 1\n"
    written, original = dict[str, Any](__name__="written"), dict[str, Any](__name__="original")
    exec(expand(source, {}), written)
    exec(source, original)
    assert habits(written["Point"]) == habits(original["Point"])


@pytest.mark.parametrize("decorators", ["@dataclass(kw_only=True)", "@dataclass\n@total_ordering", "@message('a', order=True)"])
def test_what_would_be_lost_in_writing_out_is_refused(decorators: str) -> None:
    with pytest.raises(ValueError, match="Point: cannot write out"):
        expand(f"{decorators}\nclass Point:\n    x: int = 1\n", {})


def test_what_cannot_be_written_out_and_what_need_not_be_stays_as_it_is() -> None:
    source = """
from dataclasses import dataclass, field

@dataclass
class Made:
    parts: list[int] = field(default_factory=list)

@dataclass
class Own:
    x: int

    def __init__(self) -> None:
        self.x = 1

class Plain:
    y: int = 1
"""
    assert expand(source, {}) == source


def test_what_is_written_in_capitals_is_declared_final_where_it_stands_and_other_names_are_not() -> None:
    source = """from enum import Enum

class Kind(Enum):
    A = 1

LIMIT_S = 2.0
_TABLE: dict[str, int] = {
    "é": 1,
}
_ONE, _TWO = Kind.A, 2
KEEPALIVE_S = 5.0
log = M = 3
"""
    wanted = source.replace("LIMIT_S =", "LIMIT_S: Final =").replace("dict[str, int]", "Final[dict[str, int]]")
    wanted = wanted.replace("_ONE, _TWO = Kind.A, 2", "_ONE: Final[Kind] = Kind.A; _TWO: Final = 2")
    assert expand(source, {}) == "from typing import Final\n" + wanted


@pytest.mark.parametrize("name", MODULES, ids=str)
def test_a_module_written_out_is_still_python_and_keeps_its_remarks(name: Path) -> None:
    source = (ROOT / name).read_text()
    out = expand(source, INHERITED)
    ast.parse(out)
    assert out.count("# ") == source.count("# ")
    assert ast.get_docstring(ast.parse(out)) == ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize("name", MODULES, ids=str)
def test_no_compiled_coroutine_waits_while_an_exception_is_handled(name: Path) -> None:
    assert hazards((ROOT / name).read_text()) == []


def test_waiting_is_found_in_handlers_in_ends_and_in_contexts_and_nowhere_else() -> None:
    source = """
async def waits():
    try:
        await before()
    except ValueError:
        await within_a_handler()
    except KeyError:
        later = lambda: (yield)
        raise
    else:
        await afterwards()
    finally:
        if True:
            await at_the_end()
    async with a_context():
        pass
"""
    assert hazards(source) == [6, 14, 15]


@pytest.mark.parametrize(
    "source",
    [
        "    try:\n        pass\n    except* ValueError:\n        await one()",
        "    try:\n        pass\n    except ValueError:\n        return await one()",
        "    try:\n        pass\n    except ValueError:\n        return [x async for x in many()]",
        "    try:\n        pass\n    except ValueError:\n        return {await one(x) for x in few()}",
        "    try:\n        pass\n    except ValueError:\n        async for x in many(): pass",
        "    try:\n        pass\n    except ValueError:\n        yield 1",
        "    try:\n        pass\n    finally:\n        x = (yield)",
        "    try:\n        pass\n    finally:\n        with one(): await two()",
        "    def inner():\n        async def innermost():\n            try: pass\n            finally: await one()",
        "    try:\n        pass\n    except Exception:\n        try: await one()\n        except ValueError: pass",
    ],
)
def test_waiting_is_found_under_whatever_guise(source: str) -> None:
    assert hazards(f"async def waits():\n{source}\n") == [5]


def test_the_lists_of_modules_name_what_there_is() -> None:
    assert {name.parts[0] for name in MODULES} <= set(PACKAGES)
    assert not {name.as_posix() for name in MODULES} & set(INTERPRETED)
    assert Path("actors/router/actor.py") in MODULES
    assert Path("actors/router/strategies/adaptive.py") in MODULES


def test_a_list_that_names_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="messages"):
        compiled(tmp_path)


def test_messages_and_what_says_it_is_acyclic_are_spared_the_garbage_collector_and_nothing_else_is() -> None:
    classes = ("@message('a')\nclass A(Message)", "@acyclic\n@dataclass\nclass B", "@acyclic\nclass C", "@fact\nclass D")
    source = "".join(f"{head}:\n    x: int\n\n" for head in classes)
    tree = ast.parse(expand(source, {}))
    words = {node.name: ast.unparse(node.decorator_list[0]) for node in tree.body if isinstance(node, ast.ClassDef)}
    assert words == {
        "A": "mypyc_attr('acyclic', free_list_len=1)",
        "B": "mypyc_attr('acyclic')",
        "C": "mypyc_attr('acyclic')",
        "D": "dataclass(init=False, unsafe_hash=True)",
    }


def end_of(name: str, *lines: str) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"static void\n{name}_dealloc({name}Object *self)\n{{\n{body}}}\n\n"


def test_what_the_garbage_collector_does_not_know_has_no_trashcan_in_the_compiled_build() -> None:
    bin_, out = "CPy_TRASHCAN_BEGIN(self, x_dealloc)", "CPy_TRASHCAN_END(self)"
    known = end_of("known", "PyObject_GC_UnTrack(self);", bin_, "known_clear(self);", out)
    spared = end_of("spared", "if (x) {", "return;", "}", bin_, "spared_clear(self);", out)
    left = end_of("spared", "if (x) {", "return;", "}", "spared_clear(self);")
    assert without_trashcan(known + spared + known) == known + left + known


def test_nothing_interpreted_inherits_from_what_is_compiled() -> None:
    # A compiled class lets no other in, and it says so only when the other is made.
    made = {".".join(name.with_suffix("").parts) for name in MODULES}
    heirs: list[str] = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name, tree = path.relative_to(ROOT), ast.parse(path.read_text())
            if name in MODULES:
                continue
            imported = {
                alias.asname or alias.name: f"{node.module}.{alias.name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module in made
                for alias in node.names
            }
            bases = [base for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
            heirs += [f"{name}: {imported[base.id]}" for base in bases if isinstance(base, ast.Name) and base.id in imported]
    assert heirs == []
