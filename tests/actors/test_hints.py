"""What a client says about the choice: read, or refused by name; never ignored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.routing import NO_HINTS, Hints
from runtime.http.hints import LATER, BadHint, read_hints


def test_other_headers_say_nothing() -> None:
    found = read_hints([("accept", "x"), ("x-pointsman", "y"), ("authorization", "z")])

    assert found.hints is NO_HINTS
    assert (found.deadline_s, found.user) == (None, "")


def test_all_that_is_supported_is_read_in_any_case() -> None:
    found = read_hints(
        [
            ("X-Pointsman-Strategy", "first"),
            ("x-pointsman-provider", " a "),
            ("x-pointsman-exclude", "b, c,,"),
            ("X-POINTSMAN-TAGS", "cheap,eu"),
            ("x-pointsman-max-cost", "0.05"),
            ("x-pointsman-deadline", "1500"),
            ("x-pointsman-user", "jo"),
        ]
    )

    assert found.hints == Hints("first", "a", ("b", "c"), ("cheap", "eu"), 0.05)
    assert (found.deadline_s, found.user) == (1.5, "jo")


@pytest.mark.parametrize("name", sorted(LATER))
def test_what_a_later_version_reads_is_refused_as_that(name: str) -> None:
    with pytest.raises(BadHint, match=f"x-pointsman-{name}: not supported by this version") as caught:
        read_hints([(f"x-pointsman-{name}", "1")])

    assert caught.value.header == f"x-pointsman-{name}"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("strategie", "first", "there is no such header"),
        ("", "x", "there is no such header"),
        ("deadline", "0", "milliseconds above 0"),
        ("deadline", "-1", "milliseconds above 0"),
        ("deadline", "inf", "milliseconds above 0"),
        ("deadline", "1s", "milliseconds above 0"),
        ("max-cost", "nan", "USD above 0"),
        ("max-cost", "", "USD above 0"),
        ("exclude", ",".join(map(str, range(65))), "more than 64 items"),
        ("user", "x" * 1025, "longer than 1024 characters"),
        ("tags", "a\udcffb", "not text"),
        ("user", "a\x00b", "not text"),
    ],
)
def test_what_cannot_be_followed_is_refused_and_named(name: str, value: str, said: str) -> None:
    with pytest.raises(BadHint, match=said) as caught:
        read_hints([(f"x-pointsman-{name}", value)])

    assert caught.value.header == f"x-pointsman-{name}"


@given(
    name=st.sampled_from(["strategy", "provider", "exclude", "tags", "max-cost", "deadline", "user", "region", "else"]),
    value=st.text(max_size=50),
)
def test_whatever_comes_is_read_as_text_that_can_be_shown_or_refused(name: str, value: str) -> None:
    try:
        found = read_hints([(f"x-pointsman-{name}", value)])
    except BadHint:
        return
    hints = found.hints
    for text in (hints.strategy, hints.prefer, *hints.exclude, *hints.tags, found.user):
        assert text.isprintable()
        assert text.encode().decode() == text
