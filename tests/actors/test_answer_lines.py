"""The headers of an answer as lines: the same as the pairs say, whatever was kept of answers before."""

from hypothesis import given
from hypothesis import strategies as st

from messages.control import ConfigSnapshot, ProviderSpec
from runtime.courier.directory import LABELS_MAX, Directory, Track
from runtime.courier.results import Whole, answer_headers, answer_lines, label_headers
from runtime.courier.words import TITLES_MAX, header_lines, type_line

NAMES = st.sampled_from(("content-type", "openai-version", "x-pointsman-upstream-request-id"))
PAIRS = st.just(("content-type", "application/json")) | st.tuples(NAMES, st.text("ab;\r\n\0é", max_size=5))
COSTS = st.none() | st.integers(0, 10**10)


def track_of(directory: Directory) -> Track:
    found = directory.track("east")
    assert found is not None
    return found


def snapshot(generation: int) -> ConfigSnapshot:
    return ConfigSnapshot(generation, (ProviderSpec("east", "openai_compatible", "http://east/v1", ""),), "", ())


@given(theirs=st.lists(PAIRS, max_size=3), cost_nusd=COSTS, status=st.sampled_from((200, 201)))
def test_lines_say_what_the_pairs_say_in_the_same_order(
    theirs: list[tuple[str, str]], cost_nusd: int | None, status: int
) -> None:
    label = label_headers("east", "small\n", "score", 1)
    lines = answer_lines(Whole(status, list(theirs), b"", cost_nusd), "req-1", header_lines(label), "d1")
    ours = [("x-request-id", "req-1"), *label, ("x-pointsman-decision", "d1")]
    assert lines == header_lines(answer_headers(Whole(status, list(theirs), b"", cost_nusd), ours))


def test_a_type_is_told_right_however_many_there_are() -> None:
    for number in range(2 * TITLES_MAX):
        for _ in range(2):
            assert type_line(f"a/{number}") == f"\r\ncontent-type: a/{number}"
    assert type_line("a\r\nb: c") == "\r\ncontent-type: a  b: c"


def test_a_label_is_of_its_model_and_strategy_however_many_there_are() -> None:
    track = track_of(Directory(snapshot(1), lambda provider: None))
    for number in range(2 * LABELS_MAX):
        for strategy in ("score", "first", "score"):
            for model in ("small", f"model-{number}"):
                assert track.label(model, strategy) == header_lines(label_headers("east", model, strategy, 1))
        assert len(track.labels) <= LABELS_MAX


def test_labels_are_made_anew_with_each_generation() -> None:
    directory = Directory(snapshot(1), lambda provider: None)
    before = track_of(directory)
    before.label("small", "score")
    directory.publish(snapshot(2))
    assert (len(before.labels), len(track_of(directory).labels)) == (1, 0)
