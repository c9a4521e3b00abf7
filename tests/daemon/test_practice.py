"""What a build for production practises on is work that the daemon does, so that the compiler is told the truth."""

from pathlib import Path

import pytest

from native import practice
from native.practice import TURN, practise

ROOT = Path(__file__).parents[2]


async def test_the_daemon_answers_what_it_practises_on() -> None:
    assert await practise(ROOT, connections=2, rounds=4) >= 0.98 * 2 * 4 * len(TURN)


async def test_a_daemon_that_answers_otherwise_is_no_practice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(practice, "PROVIDERS", {"large": 1})
    with pytest.raises(SystemExit, match=r"only \d+ of 17 answers"):
        await practise(ROOT, connections=1, rounds=1)


async def test_a_daemon_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(practice, "PROVIDERS", {})
    with pytest.raises(SystemExit, match="its daemon ended with"):
        await practise(ROOT, connections=1, rounds=1)
