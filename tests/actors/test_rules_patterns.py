"""Patterns of names: the three ways to write one, and the expressions that are refused because of the work they could make."""

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.patterns import PATTERN_LENGTH_MAX, name_test, time_zone
from actors.regexes import NAME_LENGTH_MAX, WORK_MAX, is_too_much

letters = st.text(st.sampled_from("ab-.4"), max_size=8)


@given(st.text(st.sampled_from("ab-.4*?[]!"), min_size=1, max_size=8), letters)
def test_A4_with_a_star_a_question_mark_or_a_bracket_it_is_a_glob(pattern: str, name: str) -> None:
    is_glob = any(sign in pattern for sign in "*?[")
    assert name_test(pattern)(name) is (fnmatchcase(name, pattern) if is_glob else pattern in name)


@given(st.text(st.sampled_from("ab^$[]|+"), min_size=1, max_size=6), letters)
def test_A4_between_slashes_it_is_an_expression_that_is_searched(regex: str, name: str) -> None:
    try:
        fits = name_test(f"/{regex}/")
    except ValueError:
        return
    assert fits(name) is (re.search(regex, name) is not None)


@given(letters.filter(bool), letters)
def test_A4_plain_text_is_looked_for_anywhere(text: str, name: str) -> None:
    assert name_test(text)(name) is (text in name)


def test_A4_upper_and_lower_case_differ_unless_the_expression_says_otherwise() -> None:
    assert not name_test("GPT")("gpt-4o")
    assert not name_test("GPT*")("gpt-4o")
    assert not name_test("/GPT/")("gpt-4o")
    assert name_test("/(?i)GPT/")("gpt-4o")


def test_A4_a_slash_alone_is_plain_text() -> None:
    assert name_test("/")("meta/llama")
    assert name_test("meta/")("meta/llama")
    assert not name_test("/meta")("meta/llama")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "is empty"),
        ("//", "is empty"),
        ("x" * (PATTERN_LENGTH_MAX + 1), "longer than 256"),
        ("/(/", "no regular expression"),
        ("/*a/", "no regular expression"),
        ("/[[:alpha:]]/", "Possible nested set"),
        ("/(?x) a # b/", "comments"),
        ("/a(?#b)c/", "comments"),
        ("/(a+)+$/", "too long"),
        ("/(a|a)*$/", "too long"),
        ("/(a|ab)*c/", "too long"),
        ("/(.*)*/", "too long"),
        ("/((a{1,9}){1,9}){1,9}/", "too long"),
        ("/(?:a?){30}a{30}/", "too long"),
        ("/(?=(a+)+b)/", "too long"),
        ("/(?>(a+)+b)/", "too long"),
        ("/a.*a.*a.*b/", "too long"),
        ("/^a|.*.*.*b/", "too long"),
        ("/([^]+]+)+/", "too long"),
        ("/([]a]+)+/", "too long"),
        (r"/(\)+)+/", "too long"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        name_test(pattern)


@pytest.mark.parametrize(
    "regex",
    [
        "gpt-4(o|\\.1)?(-mini|-nano)?$",
        "^claude-.*-[0-9]{8}$",
        "gpt.*turbo.*16k-preview",
        "^(openai|azure)[:/].*",
        "(mini|nano)+",
        "(-[0-9]++)*+",
        "(?>a+)+b",
        r"^\w+-\w+-\w+$",
        "(?P<version>[0-9])\\.(?P=version)",
        "(a)?(?(1)b|c)",
        "a{}b{x}",
    ],
)
def test_what_people_write_about_names_is_taken(regex: str) -> None:
    name_test(f"/{regex}/")


def test_a_name_longer_than_names_are_matches_no_expression() -> None:
    fits = name_test("/a/")
    assert fits("a" * NAME_LENGTH_MAX)
    assert not fits("a" * (NAME_LENGTH_MAX + 1))


pieces = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", r"\w", "a|b", ""]),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{}|{}".format, inner, inner),
        st.builds("({}){}".format, inner, st.sampled_from(["", "*", "+", "?", "{2}", "{0,2}", "*?", "++"])),
    ),
    max_leaves=6,
)


@given(pieces)
@settings(max_examples=300)
def test_the_estimate_reads_every_expression_to_its_end(regex: str) -> None:
    re.compile(regex)
    assert is_too_much(regex) in (True, False)
    # One more free stretch within a repeat is never less work.
    if is_too_much(regex):
        assert is_too_much(f"(?:{regex})c.*d")


@given(st.sampled_from(["a", ".", "[ab]", r"\w"]), st.sampled_from("*+"), st.sampled_from("*+"), st.sampled_from(["", "?"]))
def test_a_free_repeat_of_a_free_repeat_is_always_refused(atom: str, inner: str, outer: str, lazy: str) -> None:
    assert is_too_much(f"({atom}{inner}{lazy}){outer}")
    assert is_too_much(f"((x{atom}{inner}){{1,}}y|z){outer}")
    assert not is_too_much(f"(?:{atom}{inner}+){outer}+")


def test_the_bound_lies_between_two_free_stretches_and_three() -> None:
    assert NAME_LENGTH_MAX**3 < WORK_MAX < NAME_LENGTH_MAX**4


def test_a_time_zone_has_an_iana_name() -> None:
    assert time_zone("Europe/Berlin").key == "Europe/Berlin"
    for name in ("", "Europe", "CEST?", "../UTC", "/etc/passwd", "a\0b", "Mars/Olympus", "\ud800"):
        with pytest.raises(ValueError, match="there is no time zone"):
            time_zone(name)
