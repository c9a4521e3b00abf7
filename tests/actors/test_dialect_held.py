"""A stream that must show its rate is held until enough tokens are here, or it is at its end (pain 5)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.dialects.stream import HELD_BYTES_MAX, StreamReader, UsageMode
from tests.actors.test_dialect_stream import DONE, ROLE, STOP, TEXT, USAGE, delta

TOKEN = delta(content="word")
"""Four characters: a token."""


def reader(tokens_held: int = 3, mode: UsageMode = UsageMode.REQUESTED) -> StreamReader:
    return StreamReader(mode, 200, tokens_held)


@pytest.mark.parametrize("mode", list(UsageMode))
def test_pain_05_content_is_held_until_enough_tokens_are_here(mode: UsageMode) -> None:
    held = reader(mode=mode)
    assert held.feed(ROLE) == b""
    assert not held.has_content
    assert held.feed(TOKEN) == held.feed(TOKEN) == b""
    assert (held.has_content, held.committed) == (True, False)
    assert held.feed(TOKEN) == ROLE + 3 * TOKEN
    assert held.committed
    assert held.feed(TOKEN) == TOKEN


def test_an_event_is_a_token_at_least_and_long_ones_are_more() -> None:
    assert reader().feed(3 * delta(content="字")) != b""
    assert reader().feed(delta(content="twelve chars")) != b""
    assert reader().feed(delta(content="eight ch")) == b""


@pytest.mark.parametrize("end", [STOP, DONE, STOP + DONE])
def test_pain_05_a_short_answer_is_let_go_at_its_end(end: bytes) -> None:
    held = reader()
    assert held.feed(TEXT) == b""
    assert held.feed(end) == TEXT + end
    assert held.finish() == b""
    assert held.is_complete


def test_an_error_while_it_is_held_is_a_failure_and_nothing_is_given_out() -> None:
    held = reader()
    assert held.feed(TOKEN + b'data: {"error":{"message":"died"}}\n\n') == b""
    assert held.failure is not None
    assert held.failure.code == "error_event"


def test_an_end_without_a_finish_reason_while_it_is_held_is_a_failure() -> None:
    held = reader()
    assert held.feed(TOKEN) == b""
    assert held.finish() == b""
    assert held.failure is not None
    assert held.failure.code == "truncated"


def test_a_stream_that_breaks_off_while_it_is_held_gives_nothing_out_and_leaves_the_reason_to_its_caller() -> None:
    held = reader()
    held.feed(TOKEN)
    assert held.finish(is_clean=False) == b""
    assert held.failure is None


def test_no_more_is_held_than_ever() -> None:
    held = reader(10**9)
    out = b"".join(held.feed(delta(content="")) for _ in range(HELD_BYTES_MAX // 50))
    assert held.committed
    assert len(out) > HELD_BYTES_MAX


@given(
    tokens_held=st.integers(0, 8),
    words=st.lists(st.sampled_from(["", "a", "word", "some more of it", "字"]), max_size=10),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
    mode=st.sampled_from(list(UsageMode)),
)
def test_held_or_not_the_client_gets_the_same_bytes_wherever_they_are_cut(
    tokens_held: int, words: list[str], cuts: list[int], mode: UsageMode
) -> None:
    stream = ROLE + b"".join(delta(content=word) for word in words) + STOP + USAGE + DONE
    places = [0, *sorted(cut % len(stream) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(places)]
    outs = []
    for held in (reader(tokens_held, mode), reader(0, mode)):
        outs.append(b"".join(held.feed(chunk) for chunk in chunks) + held.finish())
        assert held.is_complete
    assert outs[0] == outs[1]
