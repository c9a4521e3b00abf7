"""The rules of the house can fail: each is shown something bad, and something good that looks like it."""

from collections.abc import Callable

import pytest

from tests.house import source_rules as rules
from tests.house import text_rules as texts

LAWFUL = '"""An actor.\n\nOwns: x.\nAccepts: y.\nAlways: z.\n"""\n'
ACTOR = "class A:\n    def start(self): ...\n    def handle(self): ...\n    def invariant(self): ...\n"
PROTOCOL = ACTOR.replace("class A", "class A(Protocol)")
NOTE = "TO" + "DO"

BAD: list[tuple[Callable[[str], list[rules.Problem]], str]] = [
    (rules.long_functions, "def f():\n" + "    x = 1\n" * 70),
    (rules.long_functions, "class A:\n    async def f(self):\n" + "        x = 1\n" * 70),
    (rules.lawless, ACTOR),
    (rules.lawless, LAWFUL.replace("Always", "Sometimes") + ACTOR),
    (rules.worldly, "import asyncio"),
    (rules.worldly, "import os.path"),
    (rules.worldly, "from os import environ"),
    (rules.worldly, "from time import monotonic"),
    (rules.worldly, "def f():\n    import logging"),
    (rules.worldly, "import random"),
    (rules.worldly, "from random import choice"),
    (rules.worldly, "from random import Random\nRandom()"),
    (rules.worldly, "from datetime import datetime\ndatetime.now()"),
    (rules.worldly, "import datetime\ndatetime.datetime.utcnow()"),
    (rules.worldly, "from datetime import date\ndate.today()"),
    (rules.worldly, "open('x')"),
    (rules.worldly, "hash('x')"),
    (rules.iterated_sets, "for x in {1, 2}:\n    pass"),
    (rules.iterated_sets, "[x for x in set(y)]"),
    (rules.bare_excuses, "import x  # noqa"),
    (rules.bare_excuses, "import x  # noqa: F401"),
    (rules.bare_excuses, "x = 1  # type: ignore"),
    (rules.bare_excuses, "x = 1  # type: ignore[misc]"),
    (rules.bare_excuses, "x = 1  # type: ignore # because"),
    (rules.unfinished, f"x = 1  # {NOTE}: more"),
    (rules.unfinished, f'def f():\n    """{NOTE}."""'),
    (rules.unfinished, "def f():\n    raise NotImplementedError"),
    (rules.unfinished, "def f():\n    raise NotImplementedError('later')"),
    (rules.evaded, "@pytest.mark.skip\ndef f(): ..."),
    (rules.evaded, "@pytest.mark.xfail(reason='x')\ndef f(): ..."),
    (rules.evaded, "pytest.skip('x')"),
    (rules.evaded, "from pytest import skip"),
    (rules.slept, "time.sleep(1)"),
    (rules.slept, "async def f():\n    await asyncio.sleep(0.01)"),
    (rules.slept, "from asyncio import sleep"),
    (rules.private_imports, "from messages.codec import _plain"),
    (rules.private_imports, "from messages._codec import plain"),
]

GOOD: list[tuple[Callable[[str], list[rules.Problem]], str]] = [
    (rules.long_functions, "def f():\n" + "    x = 1\n" * 69),
    (rules.lawless, LAWFUL + ACTOR),
    (rules.lawless, LAWFUL.replace(": ", "\n    ") + ACTOR),
    (rules.lawless, PROTOCOL),
    (rules.lawless, "def helper(): ..."),
    (rules.worldly, "from random import Random\nRandom('seed')"),
    (rules.worldly, "def f(context):\n    return context.now() + context.wall()"),
    (rules.worldly, "class A:\n    def __hash__(self):\n        return hash(self.name)"),
    (rules.worldly, "from osmium import x\nimport timeless"),
    (rules.iterated_sets, "for x in sorted({1, 2}):\n    pass"),
    (rules.bare_excuses, "import x  # noqa: F401 # kept for its effect"),
    (rules.bare_excuses, "x = 1  # type: ignore[misc, arg-type] # made by hand"),
    (rules.bare_excuses, "import x  # noqa: F401 - kept for its effect"),
    (rules.bare_excuses, "x = '# noqa'"),
    (rules.unfinished, "try:\n    pass\nexcept ValueError:\n    pass"),
    (rules.unfinished, f"x = '{NOTE}'"),
    (rules.evaded, "reader.skip(4)"),
    (rules.slept, "async def f():\n    await asyncio.sleep(0)"),
    (rules.slept, "clock.sleep(3)"),
    (rules.private_imports, "from __future__ import annotations"),
]


@pytest.mark.parametrize(("rule", "source"), BAD)
def test_a_rule_finds_what_breaks_it(rule: Callable[[str], list[rules.Problem]], source: str) -> None:
    assert rule(source) != []


@pytest.mark.parametrize(("rule", "source"), GOOD)
def test_a_rule_lets_pass_what_keeps_it(rule: Callable[[str], list[rules.Problem]], source: str) -> None:
    assert rule(source) == []


def test_a_sleep_in_virtual_time_is_none_but_a_test_run_by_pytest_is_not_in_virtual_time() -> None:
    assert not rules.slept("async def body():\n    await asyncio.sleep(5)", is_virtual=True)
    assert rules.slept("async def body():\n    time.sleep(5)", is_virtual=True)
    assert rules.slept("async def test_x():\n    await asyncio.sleep(5)", is_virtual=True)


def test_a_file_over_its_limit_is_found() -> None:
    assert rules.too_long("x\n" * 401, rules.FILE_LINES) == [(401, "401 lines are more than 400")]
    assert rules.too_long("x\n" * 400, rules.FILE_LINES) == []


def test_an_import_is_found_however_it_is_written() -> None:
    for source in ("import aiohttp", "from aiohttp import web", "from aiohttp.web import Request", "import aiohttp.web as w"):
        assert rules.imports_of(source, "aiohttp")
    assert not rules.imports_of("import aiohttpx\nfrom runtime import aiohttp_client", "aiohttp")


def test_a_status_code_that_is_judged_again_is_found() -> None:
    for source in ("failure.status in OVERLOADED", "if self._failure.status >= 500: pass", "503 == end.failure.status"):
        assert rules.status_judged(source)
    assert not rules.status_judged("tell(failure.status); answer.status == 200")


def test_an_import_from_another_ring_is_found() -> None:
    assert rules.other_rings("from tests.daemon.world import World", "actors")
    assert rules.other_rings("from tests import daemon", "actors")
    assert not rules.other_rings("from tests.actors.strategies import of_class\nfrom tests import every_message", "actors")


def test_a_path_of_one_machine_is_found() -> None:
    home = "/" + "home/ann/.venv"
    assert texts.machine_paths(f"run {home}/bin/python") == [f"line 1: {home.rpartition('/')[0]}"]
    assert texts.machine_paths("GET https://example.com/home/page and /usr/bin and ~/x") == []


@pytest.mark.parametrize(
    ("changelog", "newest"),
    [
        ("# Changes\n\n## Unreleased\n- x\n## 0.1.0\n", "Unreleased"),
        ("## [0.2.0] - 2026-11-21\n", "0.2.0"),
        ("## 0.3.0 (2026-11-21)\n", "0.3.0"),
        ("# Changes\n", ""),
    ],
)
def test_the_newest_version_is_read_from_the_change_log(changelog: str, newest: str) -> None:
    assert texts.newest_version(changelog) == newest


def test_a_change_log_of_another_version_is_found() -> None:
    assert texts.is_version_told("0.1.0", "## 0.1.0\n")
    assert texts.is_version_told("0.1.0", "## Unreleased\n")
    assert not texts.is_version_told("0.2.0", "## 0.1.0\n")


def test_a_dependency_without_a_reason_is_found() -> None:
    readme = "| name | why |\n|---|---|\n| `aiohttp` | the HTTP of both sides |\n| `msgpack` | |\n"

    assert texts.unreasoned(["aiohttp>=3.14", "msgpack>=1", "uvloop>=0.22; sys_platform != 'win32'"], readme) == [
        "msgpack",
        "uvloop",
    ]


def test_a_decision_record_that_is_incomplete_or_not_listed_is_found() -> None:
    whole = "\n## Context\n## Decision\n## Consequences\n"
    good = {"0001-a.md": "# 0001: A" + whole, "0002-b.md": "# 0002: B" + whole}
    index = "- [A](0001-a.md)\n- [B](0002-b.md)\n"

    assert texts.adr_problems(index, good) == []
    assert texts.adr_problems("- [A](0001-a.md)", good) == ["0002-b.md: not in the index"]
    assert texts.adr_problems(index, {"0001-a.md": good["0001-a.md"]}) == ["0002-b.md: in the index, but not there"]
    assert texts.adr_problems(index, good | {"0002-b.md": "# 0002: B\n## Context\n## Decision\n"}) == [
        "0002-b.md: no ## Consequences"
    ]
    assert "0004-c.md: number 0003 is due" in texts.adr_problems(index, good | {"0004-c.md": "# 0004: C" + whole})


def test_another_distribution_with_our_names_is_found() -> None:
    owners = {"messages": ["pointsman", "messages-lib"], "otel": ["pointsman"]}

    assert texts.foreign_owners(owners, ["actors", "messages", "otel"], "pointsman") == ["messages: messages-lib"]
