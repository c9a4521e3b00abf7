"""What is noted of a request's headers, and how money stands in an answer's."""

from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from runtime.courier.directory import rounded
from runtime.courier.words import dollars, header_safe
from runtime.http.notes import SPELLINGS_MAX, noted

NAMES = ("user-agent", "x-request-id", "traceparent", "tracestate", "baggage", "openai-beta", "idempotency-key", "cookie", "x")
SPELT = st.sampled_from(NAMES).flatmap(lambda name: st.sampled_from((name, name.upper(), name.title())))


@given(headers=st.lists(st.tuples(SPELT, st.text("abc", max_size=3)), max_size=12))
def test_of_each_name_the_first_value_that_says_something_is_noted_however_it_is_spelt(headers: list[tuple[str, str]]) -> None:
    notes = noted(headers)
    found = {
        "user-agent": notes.agent,
        "x-request-id": notes.request_id,
        "traceparent": notes.traceparent,
        "tracestate": notes.tracestate,
        "baggage": notes.baggage,
    }
    for wanted, value in found.items():
        assert value == next((value for name, value in headers if name.lower() == wanted and value), "")
    assert notes.passing == [pair for pair in headers if pair[0].lower() in ("openai-beta", "idempotency-key")]
    assert (notes.hints, notes.twice) == (None, "")


def test_hints_are_noted_by_lower_case_name_and_one_given_twice_is_told() -> None:
    notes = noted([("X-Pointsman-Tenant", "acme"), ("x-pointsman-user", "jo"), ("x-pointsman-TENANT", "other")])
    assert notes.hints is not None
    assert notes.hints.keys() == {"x-pointsman-tenant", "x-pointsman-user"}
    assert notes.twice == "x-pointsman-tenant"


def test_names_that_nobody_knows_are_read_right_however_many_there_are() -> None:
    for number in range(3 * SPELLINGS_MAX):
        assert noted([(f"x-pointsman-{number}", "1")]).hints == {f"x-pointsman-{number}": "1"}
        assert noted([(f"other-{number}", "1"), ("User-Agent", "me")]).agent == "me"


@given(st.integers(0, 10**15))
def test_money_is_told_exactly_and_with_no_more_places_than_it_has(nusd: int) -> None:
    told = dollars(nusd)
    assert Decimal(told) * 10**9 == nusd
    assert "." not in told or told[-1] != "0"


@given(st.floats(0, 1e25) | st.integers(0, 10**7).map(lambda halves: halves / 2))
@example(0.49999999999999994)
@example(4503599627370497.5)
def test_a_price_is_rounded_as_the_standard_library_does(price: float) -> None:
    assert rounded(price) == round(price)


@given(st.text())
def test_what_stands_in_a_header_is_printable_ascii_and_not_endless(text: str) -> None:
    safe = header_safe(text)
    assert safe == text or len(safe) == min(len(text), 256)
    assert all(" " <= char <= "~" for char in safe)
