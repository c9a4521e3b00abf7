"""The rules of the house, held by every file of it."""

import importlib
import tomllib
from collections.abc import Callable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from tests.house import source_rules as rules
from tests.house import text_rules as texts

ROOT = Path(__file__).resolve().parents[2]
STOREYS = ["actors", "messages", "otel", "runtime"]
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".cfg", ".lock", ".html", ".proto", ".lua", ".sh", ""}
OUTSIDE = {
    ".git",
    ".venv",
    ".venv-native",
    "node_modules",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".import_linter_cache",
    "__pycache__",
}

AIOHTTP_ROOMS = ("runtime/http/", "runtime/upstream/", "runtime/simulation/")
"""Behind the two ports, and in the simulated world."""

AIOHTTP_ERRORS = "runtime/upstream/failures.py"
"""The one door for foreign errors: it names aiohttp's exceptions, and calls nothing of it."""


def python_files(*folders: str) -> list[str]:
    """Paths from the root, sorted."""
    return sorted(path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> list[str]:
    """Every file of the house that is text, by its path from the root, sorted."""
    found = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if not OUTSIDE & set(parts) and path.suffix in TEXT_SUFFIXES and path.is_file() and "egg-info" not in str(path):
            found.append("/".join(parts))
    return sorted(found)


@cache
def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


def pyproject() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


def found(rule: Callable[[str], list[rules.Problem]], paths: list[str]) -> list[str]:
    """What ``rule`` finds in all of ``paths``."""
    return [f"{path}:{problem.line}: {problem.what}" for path in paths for problem in rule(read(path))]


PRODUCT = python_files(*STOREYS)
TESTS = python_files("tests")


def test_the_house_was_found() -> None:
    assert "actors/kernel.py" in PRODUCT
    assert "tests/house/test_house.py" in TESTS
    assert {"Makefile", "README.md", ".ci/run", "pyproject.toml"} <= set(text_files())


def test_no_file_is_longer_than_400_lines_and_no_test_longer_than_600() -> None:
    assert found(lambda source: rules.too_long(source, rules.FILE_LINES), PRODUCT) == []
    assert found(lambda source: rules.too_long(source, rules.TEST_FILE_LINES), TESTS) == []


MAY_SKIP = "tests/daemon/clients/tools.py"
"""It skips a test for which a program of other people's is missing, and fails it on CI."""

EVERYWHERE = (rules.long_functions, rules.bare_excuses, rules.unfinished, rules.evaded, rules.private_imports)


def test_every_file_keeps_every_rule() -> None:
    # File by file, and in one test, so that each is parsed once.
    problems: dict[str, list[str]] = {rule.__name__: [] for rule in EVERYWHERE}
    for path in PRODUCT + TESTS:
        for rule in EVERYWHERE:
            if (rule, path) != (rules.evaded, MAY_SKIP):
                problems[rule.__name__] += found(rule, [path])

    assert problems == {rule.__name__: [] for rule in EVERYWHERE}


def test_every_actor_opens_with_its_law() -> None:
    assert found(rules.lawless, python_files("actors")) == []


@pytest.mark.parametrize("rule", [rules.worldly, rules.iterated_sets])
def test_actors_and_messages_keep_the_world_out(rule: Callable[[str], list[rules.Problem]]) -> None:
    assert found(rule, python_files("actors", "messages")) == []


def test_every_actor_is_kept_independent_by_the_import_linter() -> None:
    contracts = pyproject()["tool"]["importlinter"]["contracts"]
    (independent,) = [contract["modules"] for contract in contracts if contract["type"] == "independence"]
    actors = [path for path in python_files("actors") if rules.is_actor(read(path))]
    modules = [".".join(path.removesuffix(".py").split("/")[:2]) for path in actors]

    assert sorted(set(modules) - set(independent)) == []


def test_the_storeys_are_a_contract_of_the_import_linter() -> None:
    linter = pyproject()["tool"]["importlinter"]
    (layers,) = [contract["layers"] for contract in linter["contracts"] if contract["type"] == "layers"]

    assert layers == ["runtime", "actors", "otel", "messages"]
    assert sorted(linter["root_packages"]) == STOREYS


def test_aiohttp_stays_behind_the_two_ports_in_one_file_each_side() -> None:
    users = [path for path in PRODUCT if rules.imports_of(read(path), "aiohttp")]

    assert [path for path in users if not path.startswith(AIOHTTP_ROOMS)] == []
    assert len([path for path in users if path.startswith("runtime/http/")]) <= 1, users
    assert len([path for path in users if path.startswith("runtime/upstream/") and path != AIOHTTP_ERRORS]) <= 1, users


def test_only_upstream_and_dialects_know_what_a_status_code_means() -> None:
    elsewhere = [path for path in PRODUCT if not path.startswith(("runtime/upstream/", "runtime/dialects/"))]

    assert found(rules.status_judged, elsewhere) == []


def test_only_otel_knows_the_sdk() -> None:
    elsewhere = [path for path in PRODUCT if not path.startswith("otel/")]

    assert found(lambda source: rules.imports_of(source, "opentelemetry"), elsewhere) == []


def test_the_product_knows_nothing_of_its_tests() -> None:
    assert found(lambda source: rules.imports_of(source, "tests"), PRODUCT) == []


def on_the_virtual_loop(paths: list[str]) -> set[str]:
    """Those that import the virtual loop, or a test module that does."""
    virtual = {"runtime.system.virtual_loop"}
    while True:
        more = {
            path.removesuffix(".py").replace("/", ".")
            for path in paths
            if any(rules.is_within(name, module) for _, name in rules.imported(read(path)) for module in virtual)
        }
        if more <= virtual:
            return {path for path in paths if path.removesuffix(".py").replace("/", ".") in virtual}
        virtual |= more


def test_tests_of_actors_and_of_the_system_never_sleep() -> None:
    paths = python_files("tests/actors", "tests/system")
    virtual = on_the_virtual_loop(paths)

    assert found(lambda source: rules.slept(source, is_virtual=True), sorted(virtual)) == []
    assert found(rules.slept, [path for path in paths if path not in virtual]) == []


def test_tests_take_nothing_from_other_rings() -> None:
    for path in TESTS:
        parts = path.split("/")
        ring = parts[1] if len(parts) > 2 else ""
        # A file beside the rings is shared by them and so may use none of them.
        assert found(lambda source, ring=ring: rules.other_rings(source, ring), [path]) == []  # type: ignore[misc] # bound now


def test_no_path_of_one_machine_is_written_down() -> None:
    assert [f"{path}: {problem}" for path in text_files() for problem in texts.machine_paths(read(path))] == []


def test_no_other_installed_distribution_owns_one_of_the_four_names() -> None:
    assert texts.foreign_owners(dict(packages_distributions()), STOREYS, "pointsman") == []


@pytest.mark.parametrize("package", STOREYS)
def test_the_four_packages_are_those_of_this_house(package: str) -> None:
    assert importlib.import_module(package).__file__ == str(ROOT / package / "__init__.py")


def test_the_wheel_ships_the_four_storeys_and_no_tests() -> None:
    assert pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == STOREYS


def test_the_change_log_begins_with_the_version_or_with_what_has_none_yet() -> None:
    assert texts.is_version_told(pyproject()["project"]["version"], read("CHANGELOG.md"))


def test_every_dependency_has_its_reason_in_the_readme() -> None:
    assert texts.unreasoned(pyproject()["project"]["dependencies"], read("README.md")) == []


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_pain_27_every_locked_package_has_a_version_and_a_hash(lock: str) -> None:
    entries = read(lock).replace("\\\n", " ").splitlines()
    locked = [entry for entry in entries if entry and not entry.lstrip().startswith("#")]

    assert len(locked) > 10
    assert [entry for entry in locked if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_every_decision_record_is_whole_and_listed() -> None:
    records = {path.name: path.read_text() for path in (ROOT / "docs/adr").glob("[0-9]*.md")}

    assert len(records) >= 9
    assert texts.adr_problems(read("docs/adr/README.md"), records) == []
