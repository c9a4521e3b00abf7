"""What probes may cost: nothing unless it is allowed, and never more than the cap of the day (pain 20)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.probe_bill import DAY_S, INPUT_TOKENS, OUTPUT_TOKENS, ProbeBill, cost_usd, paid_model
from messages.calls import Usage
from messages.control import ModelSpec, ProbeSpec, ProviderSpec
from messages.health import ProbeDone

SMALL = ModelSpec("small", "small-2024", 0.1, 0.4)
LARGE = ModelSpec("large", "large-2024", 10.0, 40.0)
DEAR_INPUT = ModelSpec("reader", "reader-1", 50.0, 0.0)
UNKNOWN = ModelSpec("unknown", "unknown")
HALF = ModelSpec("half", "half", 0.0, None)
SPEC = ProviderSpec("a", "openai", "http://a", "key", (LARGE, SMALL, UNKNOWN, HALF), probe=ProbeSpec("chat"))
ESTIMATE = cost_usd(SMALL, INPUT_TOKENS, OUTPUT_TOKENS)


def with_probe(kind: str = "chat", model: str | None = None, cap: float = 1.0) -> ProviderSpec:
    return replace(SPEC, probe=ProbeSpec(kind, 30.0, model, cap))


def done(is_paid: bool = True, usage: Usage | None = None) -> ProbeDone:
    return ProbeDone("p", "a", True, False, 0.1, "", None, is_paid, usage)


@pytest.mark.parametrize("kind", ["models", "http", "off"])
def test_pain_20_nothing_is_paid_unless_the_configuration_says_chat(kind: str) -> None:
    assert ProbeBill().book(with_probe(kind), 0.0) is None


def test_pain_20_the_cheapest_model_is_called_or_the_one_that_is_named() -> None:
    assert paid_model(SPEC) == SMALL
    assert paid_model(with_probe(model="large")) == LARGE
    assert paid_model(replace(SPEC, models=(DEAR_INPUT, LARGE))) == LARGE


def test_pain_20_what_has_no_known_price_is_never_called() -> None:
    assert paid_model(replace(SPEC, models=(UNKNOWN, HALF))) is None
    assert ProbeBill().book(with_probe(model="unknown"), 0.0) is None


def test_a_model_that_is_known_to_cost_nothing_is_called_under_a_cap_of_nothing() -> None:
    free = replace(SPEC, models=(ModelSpec("free", "free", 0.0, 0.0),), probe=ProbeSpec("chat", 30.0, None, 0.0))
    assert ProbeBill().book(free, 0.0) is not None
    assert ProbeBill().book(with_probe(cap=0.0), 0.0) is None


def test_pain_20_probes_that_are_out_count_and_those_that_called_nobody_give_back() -> None:
    bill, spec = ProbeBill(), with_probe(cap=1.5 * ESTIMATE)
    first = bill.book(spec, 0.0)
    assert first is not None
    assert bill.book(spec, 0.0) is None
    assert bill.settle(first, done(is_paid=False)) == 0.0
    again = bill.book(spec, 0.0)
    assert again is not None
    assert bill.settle(again, done(usage=Usage(8, 1))) == pytest.approx(cost_usd(SMALL, 8, 1))
    third = bill.book(spec, 0.0)
    assert third is not None
    assert bill.settle(third, done(usage=None)) == ESTIMATE
    assert bill.book(spec, 0.0) is None


def test_pain_20_the_next_day_begins_at_nothing_and_a_clock_that_was_set_back_pays_nothing_twice() -> None:
    bill, spec = ProbeBill(), with_probe(cap=ESTIMATE)
    today = 20_000 * DAY_S
    late = bill.book(spec, today + DAY_S - 1)
    assert late is not None
    assert bill.book(spec, today + DAY_S - 1) is None
    assert bill.book(spec, today + DAY_S) is not None
    assert bill.book(spec, today) is None
    # One of yesterday is settled on yesterday's bill, which is closed.
    assert bill.settle(late, done(is_paid=False)) == 0.0
    assert bill.book(spec, today + DAY_S) is None


ENDS = st.one_of(
    st.just(done(is_paid=False)), st.just(done()), st.builds(lambda n: done(usage=Usage(n, n)), st.integers(0, 16))
)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 7200), ENDS), max_size=80), st.floats(0.0, 20.0))
def test_pain_20_no_day_of_any_provider_costs_more_than_its_cap(
    probes: list[tuple[str, int, ProbeDone]], estimates: float
) -> None:
    cap = estimates * ESTIMATE
    bill, wall = ProbeBill(), 0.0
    spent: dict[tuple[str, int], float] = {}
    for provider, passed_s, end in probes:
        wall += passed_s
        booking = bill.book(replace(with_probe(cap=cap), id=provider), wall)
        if booking is not None:
            day = (provider, int(wall // DAY_S))
            spent[day] = spent.get(day, 0.0) + bill.settle(booking, end)
    assert all(usd <= cap * (1 + 1e-9) for usd in spent.values())
