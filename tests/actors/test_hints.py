"""What a client says about the choice: read, or refused by name; never ignored."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.policy import CRITICAL, HIGH, LOW, NORMAL
from messages.routing import NO_HINTS, Hints
from runtime.http import hints
from runtime.http.hints import HEADERS, BadHint, ClientHints
from runtime.http.notes import PREFIX, noted
from runtime.ports import Headers


def read_hints(headers: Headers) -> ClientHints:
    return hints.read_hints(noted(headers))


def test_other_headers_say_nothing() -> None:
    found = read_hints([("accept", "x"), ("x-pointsman", "y"), ("authorization", "z"), ("upgrade", "u"), ("", "")])

    assert found == ClientHints(NO_HINTS, None, "")
    assert found.hints is NO_HINTS


def test_D9_all_that_the_contract_names_is_read_in_any_case() -> None:
    found = read_hints(
        [
            ("X-Pointsman-Strategy", "first"),
            ("x-pointsman-provider", " a "),
            ("x-pointsman-region", "eu, us,"),
            ("x-pointsman-zone", "eu-1"),
            ("x-pointsman-exclude", "b, c,,"),
            ("X-POINTSMAN-TAGS", "cheap,eu"),
            ("x-pointsman-priority", "high"),
            ("x-pointsman-max-cost", "0.05"),
            ("x-pointsman-max-latency", "250"),
            ("x-pointsman-throughput", "40"),
            ("x-pointsman-deadline", "1500"),
            ("x-pointsman-tenant", "acme"),
            ("x-pointsman-user", "jo"),
            ("x-pointsman-organization", "research"),
            ("x-pointsman-features", "beta, dark"),
            ("User-Agent", "curl/8"),
        ]
    )

    said = Hints(
        strategy="first",
        prefer=("a",),
        exclude=("b", "c"),
        tags=("cheap", "eu"),
        max_cost_usd=0.05,
        regions=("eu", "us"),
        zone="eu-1",
        priority=HIGH,
        max_latency_s=0.25,
        tokens_per_s=40,
        organization="research",
        features=("beta", "dark"),
    )
    assert found == ClientHints(said, 1.5, "jo", "acme", "curl/8")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("strategy", "cost", replace(NO_HINTS, strategy="cost")),
        ("provider", "a", replace(NO_HINTS, prefer=("a",))),
        ("provider", "b, a", replace(NO_HINTS, prefer=("b", "a"))),
        ("region", "eu", replace(NO_HINTS, regions=("eu",))),
        ("zone", "z", replace(NO_HINTS, zone="z")),
        ("exclude", "a", replace(NO_HINTS, exclude=("a",))),
        ("tags", "a", replace(NO_HINTS, tags=("a",))),
        ("priority", "low", replace(NO_HINTS, priority=LOW)),
        ("priority", "critical", replace(NO_HINTS, priority=CRITICAL)),
        ("max-cost", "1e-3", replace(NO_HINTS, max_cost_usd=0.001)),
        ("max-latency", "0.5", replace(NO_HINTS, max_latency_s=0.0005)),
        ("throughput", "1", replace(NO_HINTS, tokens_per_s=1)),
        ("organization", "o", replace(NO_HINTS, organization="o")),
        ("features", "f", replace(NO_HINTS, features=("f",))),
    ],
)
def test_D9_each_hint_says_one_thing_and_nothing_else(name: str, value: str, said: Hints) -> None:
    assert read_hints([(PREFIX + name, value)]) == ClientHints(said, None, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [("tenant", "acme"), ("user", "jo"), ("deadline", "5"), ("priority", "normal"), ("exclude", " , "), ("strategy", "")],
)
def test_who_says_nothing_about_the_choice_gets_the_very_object_that_says_nothing(name: str, value: str) -> None:
    assert NO_HINTS.priority == NORMAL
    assert read_hints([(PREFIX + name, value), ("user-agent", "curl/8")]).hints is NO_HINTS


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("strategie", "first", "there is no such header"),
        ("", "x", "there is no such header"),
        ("priority ", "low", "there is no such header"),
        ("deadline", "0", "milliseconds above 0"),
        ("deadline", "-1", "milliseconds above 0"),
        ("deadline", "inf", "milliseconds above 0"),
        ("deadline", "1s", "milliseconds above 0"),
        ("deadline", "5e-324", "milliseconds above 0"),
        ("max-latency", "soon", "milliseconds above 0"),
        ("throughput", "-3", "tokens per second above 0"),
        ("max-cost", "nan", "USD above 0"),
        ("max-cost", "", "USD above 0"),
        ("priority", "urgent", "one of low, normal, high, critical"),
        ("priority", "", "one of low, normal, high, critical"),
        ("tenant", " ", "is empty"),
        ("exclude", ",".join(map(str, range(65))), "more than 64 items"),
        ("features", ",".join(map(str, range(65))), "more than 64 items"),
        ("user", "x" * 1025, "longer than 1024 characters"),
        ("tags", "a\udcffb", "not text"),
        ("user", "a\x00b", "not text"),
    ],
)
def test_what_cannot_be_followed_is_refused_and_named(name: str, value: str, said: str) -> None:
    with pytest.raises(BadHint, match=said) as caught:
        read_hints([(f"x-pointsman-{name}", value)])

    assert caught.value.header == f"x-pointsman-{name}"


@pytest.mark.parametrize("name", ["x-pointsman-a\x1b[31m", "x-pointsman-" + "a" * 5000])
def test_a_header_that_is_refused_is_named_in_text_of_bounded_length(name: str) -> None:
    with pytest.raises(BadHint) as caught:
        read_hints([(name, "1")])

    assert caught.value.header.isprintable()
    assert len(caught.value.header) <= 200


@pytest.mark.parametrize("header", HEADERS)
def test_D9_a_hint_given_twice_is_refused_for_nobody_can_tell_which_was_meant(header: str) -> None:
    with pytest.raises(BadHint, match="more than once") as caught:
        read_hints([(header, "1"), ("accept", "x"), (header.upper(), "1")])

    assert caught.value.header == header


@pytest.mark.parametrize(
    ("given", "kept"),
    [("curl/8.0", "curl/8.0"), ("x" * 500, "x" * 200), ("a\x00\udcffb", "a??b"), ("", "")],
)
def test_D9_the_clients_program_is_kept_short_and_printable(given: str, kept: str) -> None:
    assert read_hints([("uSER-aGENT", given)]).agent == kept
    assert read_hints([("user-agent", given), ("x-pointsman-user", "jo")]).agent == kept


@given(
    name=st.one_of(st.sampled_from([header.removeprefix(PREFIX) for header in HEADERS]), st.text(max_size=300)),
    value=st.one_of(st.text(max_size=50), st.floats().map(str)),
    agent=st.text(max_size=300),
)
def test_whatever_comes_is_read_as_text_that_can_be_shown_or_refused(name: str, value: str, agent: str) -> None:
    try:
        found = read_hints([(f"x-pointsman-{name}", value), ("user-agent", agent)])
    except BadHint:
        return
    hints = found.hints
    texts = (hints.strategy, hints.zone, hints.organization, *hints.prefer, *hints.regions, *hints.exclude, *hints.tags)
    for text in (*texts, *hints.features, found.user, found.tenant, found.agent):
        assert text.isprintable()
        assert text.encode().decode() == text
    for number in (hints.max_cost_usd, hints.max_latency_s, hints.tokens_per_s, found.deadline_s):
        assert number is None or 0 < number < float("inf")
