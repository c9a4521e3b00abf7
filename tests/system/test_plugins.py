"""Strategies of other distributions, found by a real entry point of an installed one."""

import logging
import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path
from random import Random

import pytest

from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Ask, Memory, Strategy
from messages.routing import Bid, RequestProfile
from runtime.plugins import all_strategies

MODULE = """
from dataclasses import replace

from actors.router.strategies import STRATEGIES
from actors.router.strategies.base import Strategy


def dearest(bids, request, memory, rng):
    return sorted(((-(bid.cost_usd or 0.0), bid) for bid in bids), key=lambda pair: pair[0])


def three(bids, request, memory):
    return []


async def later(bids, request, memory, rng):
    return []


whole = replace(STRATEGIES["weighted"], name="inner name")
bent = Strategy("bent", dearest, narrow=three)
nothing = None


class Sorter:
    def __init__(self, bids, request, memory, rng):
        pass
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with a module ``their_strategies``; the distribution is written by ``offer``."""
    (tmp_path / "their_strategies.py").write_text(MODULE)
    (tmp_path / "leaving_strategies.py").write_text("raise SystemExit('not today')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    all_strategies.cache_clear()
    yield tmp_path
    all_strategies.cache_clear()
    for name in ("their_strategies", "leaving_strategies"):
        sys.modules.pop(name, None)


def offer(folder: Path, *lines: str, name: str = "theirs") -> None:
    """Install a distribution with these entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[pointsman.strategies]", *lines, ""]))
    invalidate_caches()


def bid(name: str, cost_usd: float) -> Bid:
    return Bid(name, 0, None, 1, 0, 9, 0.3, 0.6, 0.3, 1.0, cost_usd, 0.0, 0.0, 0.0, 1.0, True, False)


def test_without_plugins_there_are_the_built_in_strategies_and_no_others(installed: Path) -> None:
    assert all_strategies() == STRATEGIES


def test_a_plain_function_becomes_a_strategy_named_by_its_entry_point(installed: Path) -> None:
    offer(installed, "dearest_first = their_strategies:dearest")
    found = all_strategies()["dearest_first"]
    assert (found.name, found.is_foreign) == ("dearest_first", True)
    ranked = found.rank([bid("a", 0.1), bid("b", 0.2)], Ask(RequestProfile("m"), 0.0), Memory(), Random(0))
    assert [bid.provider for _, bid in ranked] == ["b", "a"]
    assert set(all_strategies()) == {*STRATEGIES, "dearest_first"}


def test_a_whole_strategy_keeps_its_parts_and_bears_the_name_of_its_entry_point(installed: Path) -> None:
    offer(installed, "theirs = their_strategies:whole")
    found, ours = all_strategies()["theirs"], STRATEGIES["weighted"]
    assert (found.name, found.is_foreign, found.is_weighted) == ("theirs", True, True)
    assert (found.rank, found.narrow, found.index, found.learn) == (ours.rank, ours.narrow, ours.index, ours.learn)


def test_they_are_looked_up_once_for_the_process(installed: Path) -> None:
    before = all_strategies()
    offer(installed, "late = their_strategies:dearest")
    assert all_strategies() is before


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("adaptive = their_strategies:dearest", "there is a strategy of that name already"),
        ("x = their_strategies:missing", "has no attribute 'missing'"),
        ("x = no_such_module:rank", "No module named 'no_such_module'"),
        ("x = leaving_strategies:rank", "SystemExit: not today"),
        ("x = their_strategies:nothing", "None is neither a Strategy nor a function"),
        ("x = their_strategies:Sorter", "is neither a Strategy nor a function"),
        ("x = their_strategies:three", "cannot be called with 4 arguments: too many positional arguments"),
        ("x = their_strategies:bent", "cannot be called with 4 arguments"),
        ("x = their_strategies:later", "a coroutine function cannot rank"),
    ],
)
def test_what_cannot_be_used_is_logged_as_an_error_and_left_out(
    installed: Path, caplog: pytest.LogCaptureFixture, line: str, reason: str
) -> None:
    offer(installed, line, "good = their_strategies:dearest")
    with caplog.at_level(logging.ERROR, "pointsman.plugins"):
        found = all_strategies()
    assert set(found) == {*STRATEGIES, "good"}
    assert found["adaptive"] is STRATEGIES["adaptive"]
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert reason in record.getMessage()
    assert line.partition(" ")[0] in record.getMessage()


def test_of_two_distributions_with_one_name_the_first_counts(installed: Path, caplog: pytest.LogCaptureFixture) -> None:
    offer(installed, "same = their_strategies:dearest", name="one")
    offer(installed, "same = their_strategies:whole", name="two")
    with caplog.at_level(logging.ERROR, "pointsman.plugins"):
        found = all_strategies()["same"]
    assert isinstance(found, Strategy)
    assert len(caplog.records) == 1
