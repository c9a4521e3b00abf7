"""How long clients are waited for: what both lanes go by."""

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.http.aiohttp_lane import Watch
from runtime.http.patience import BODY_BYTES_PER_S_MIN, UNPACED_S, Progress, body_patience_s


@given(idle_s=st.floats(0.1, 3600), waited_s=st.floats(0, 10_000), came=st.integers(0, 10**8))
def test_a_pause_is_never_longer_than_client_idle_and_a_body_never_slower_than_its_pace(
    idle_s: float, waited_s: float, came: int
) -> None:
    left_s = body_patience_s(idle_s, waited_s, came)
    assert left_s <= idle_s
    assert waited_s + left_s <= max(idle_s, UNPACED_S) + came / BODY_BYTES_PER_S_MIN + 0.001


def test_at_the_beginning_there_is_all_of_client_idle() -> None:
    assert [body_patience_s(idle_s, 0.0, 0) for idle_s in (0.5, 60.0, 600.0)] == [0.5, 60.0, 600.0]


def test_progress_is_less_to_take_than_when_it_was_last_looked() -> None:
    progress = Progress(100)
    assert [progress.is_made(unsent) for unsent in (100, 99, 99, 120, 119, 0, 0)] == [
        False,
        True,
        False,
        False,
        True,
        True,
        False,
    ]


class _Line:
    def __init__(self, unsent: list[int]) -> None:
        self._unsent = unsent

    def get_write_buffer_size(self) -> int:
        return self._unsent.pop(0) if len(self._unsent) > 1 else self._unsent[0]


async def test_the_reference_lane_waits_as_long_as_the_client_takes_something() -> None:
    line: Any = _Line([10, 9, 8, 7, 7])
    loop = asyncio.get_running_loop()
    begun_at = loop.time()
    with pytest.raises(TimeoutError):
        await Watch(cast(asyncio.Transport, line), 0.02).over(loop.create_future())
    # Three looks found progress, the fourth did not.
    assert loop.time() - begun_at >= 0.08 - 0.001
