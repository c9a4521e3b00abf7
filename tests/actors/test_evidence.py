"""What is learned of a model at a provider: times, load, risk, output lengths (ROUTING.md; FEATURES E1, D3)."""

from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.provider.evidence import SAMPLES_TAU_S, SOFT, TOKENS_MAX, ModelEvidence
from actors.provider.models import MODELS_MAX, Evidence
from actors.provider.output_length import OutputLength
from actors.provider.overdue import late_and_early
from actors.provider.quantiles import PEAK_TAU_S, TAU_S, Quantiles


def stream(evidence: ModelEvidence, now: float, first_s: float, total_s: float = 1.0, tokens: int = 100) -> None:
    """One streamed call, alone, that ends well."""
    sending = evidence.sent(True, tokens, now)
    evidence.content(sending, first_s, now + first_s, 0.3)
    evidence.ended(sending)
    evidence.finished(sending, total_s, first_s, tokens, now + total_s, 0.3)


def whole(evidence: ModelEvidence, now: float, total_s: float, tokens: int = 100) -> None:
    """One call without streaming, alone, that ends well."""
    sending = evidence.sent(False, tokens, now)
    evidence.ended(sending)
    evidence.finished(sending, total_s, None, tokens, now + total_s, 0.3)


def failed(evidence: ModelEvidence, now: float, lost_s: float = 0.05, after_content: bool = False) -> None:
    sending = evidence.sent(True, 100, now)
    evidence.ended(sending)
    evidence.failed(lost_s, after_content, now + lost_s)


def trained(first_s: float = 0.2, calls: int = 30) -> tuple[ModelEvidence, float]:
    evidence = ModelEvidence()
    for number in range(calls):
        stream(evidence, 2.0 * number, first_s)
    return evidence, 2.0 * calls


def test_quantiles_are_those_of_the_samples_within_a_bucket() -> None:
    seen, rng = Quantiles(), Random("0")
    samples = sorted(rng.lognormvariate(-1.0, 0.8) for _ in range(2000))
    for sample in rng.sample(samples, len(samples)):
        seen.record(sample, 0.0, 0.1)
    assert seen.p50_s == pytest.approx(samples[1000], rel=0.07)
    assert seen.p95_s == pytest.approx(samples[1900], rel=0.07)


def test_A6_a_quantile_comes_down_again_when_the_slow_time_is_over() -> None:
    seen = Quantiles()
    for _ in range(100):
        seen.record(10.0, 0.0, 0.3)
    for number in range(100):
        seen.record(0.1, 3 * TAU_S + number, 0.3)
    assert seen.p50_s == pytest.approx(0.1, rel=0.07)
    assert seen.ewma_s == pytest.approx(0.1, rel=0.01)
    for number in range(20):
        seen.record(0.2, 1e7 + number, 0.3)
    assert seen.p95_s == pytest.approx(0.2, rel=0.07)


@given(st.lists(st.tuples(st.floats(0.0, 1e5), st.floats(0.0, 1e5)), min_size=1, max_size=60))
def test_quantiles_are_ordered_and_finite_whatever_comes(samples: list[tuple[float, float]]) -> None:
    seen, now = Quantiles(), 0.0
    for seconds, passed_s in samples:
        now += passed_s
        seen.record(seconds, now, 0.3)
        assert 0.0 < seen.p50_s <= seen.p95_s < 3000.0


@given(st.lists(st.tuples(st.floats(1e-4, 1e4), st.floats(0.0, 100.0)), min_size=1, max_size=40))
def test_B1_the_peak_lies_between_the_sample_that_came_last_and_the_slowest(samples: list[tuple[float, float]]) -> None:
    seen, now = Quantiles(), 0.0
    for seconds, passed_s in samples:
        now += passed_s
        before = seen.peak_s
        seen.record(seconds, now, 0.3)
        assert seconds <= seen.peak_s <= max(before, seconds)
        assert seen.peak_at(now) == seen.peak_s
        assert seen.peak_at(now + PEAK_TAU_S) == pytest.approx(seen.peak_s * exp(-1.0))


def test_counts_and_risks_fade_with_time_and_reading_them_changes_nothing() -> None:
    evidence, now = trained()
    failed(evidence, now)
    later = evidence.faded(now + SAMPLES_TAU_S)
    assert evidence.faded(now + SAMPLES_TAU_S) == later
    assert later[2:] == pytest.approx((evidence.successes * exp(-1.0), evidence.failures * exp(-1.0)), rel=0.01)
    assert later[:2] == pytest.approx((0.0, 0.0), abs=1e-6)
    assert ModelEvidence().faded(1e9) == (0.0, 0.0, 0.0, 0.0)


def test_what_is_counted_after_a_silence_is_added_to_what_has_faded_by_then() -> None:
    evidence, now = trained(calls=40)
    for _ in range(10):
        failed(evidence, now)
    successes, failures, samples = evidence.successes, evidence.failures, evidence.samples
    stream(evidence, now + SAMPLES_TAU_S, 0.2)
    assert evidence.successes == pytest.approx(successes * exp(-1.0) + 1.0, rel=0.01)
    assert evidence.failures == pytest.approx(failures * exp(-1.0), rel=0.01)
    assert evidence.samples == pytest.approx(samples * exp(-1.0) + 1.0, rel=0.01)


def test_first_content_and_token_rate_are_learned_from_streams() -> None:
    evidence, now = trained(first_s=0.2)
    assert evidence.first_s == pytest.approx(0.2, rel=0.1)
    assert evidence.token_s == pytest.approx(0.008, rel=0.05)
    assert evidence.expected_s(100.0, now) == pytest.approx(1.0, rel=0.1)
    assert evidence.streams.p50_s == pytest.approx(0.2, rel=0.07)
    assert evidence.wholes.count == 0


def test_answers_that_are_no_streams_feed_total_time_only() -> None:
    evidence = ModelEvidence()
    for number in range(30):
        whole(evidence, 2.0 * number, 1.5)
    early = evidence.sent(False, 100, 60.0)
    evidence.content(early, 0.1, 60.1, 0.3)
    assert evidence.streams.count == 0
    assert evidence.wholes.p50_s == pytest.approx(1.5, rel=0.07)
    assert evidence.expected_s(100.0, 100.0) == pytest.approx(1.5, rel=0.15)


def test_a_surprise_is_learned_quickly() -> None:
    evidence, now = trained(first_s=0.2, calls=60)
    for number in range(4):
        stream(evidence, now + 5.0 * number, 4.0, 5.0)
    assert evidence.first_s > 2.0
    assert evidence.slowness > 5.0


def test_a_call_that_explores_brings_the_first_news_for_a_while_and_is_believed_the_more() -> None:
    plain, explored = trained(first_s=4.0)[0], trained(first_s=4.0)[0]
    for evidence in (plain, explored):
        sending = evidence.sent(True, 100, 200.0, explores=evidence is explored)
        evidence.content(sending, 0.2, 200.2, 0.3)
    assert plain.idle_s == pytest.approx(4.0**0.5 * 0.2**0.5, rel=0.05)
    assert explored.idle_s == pytest.approx(4.0**0.1 * 0.2**0.9, rel=0.05)


def test_a_call_is_late_after_two_and_a_half_deviations_and_may_be_taken_for_it_after_1_65() -> None:
    assert late_and_early(1.0, 0.2) == pytest.approx((exp(0.5), exp(0.33)))
    assert late_and_early(0.01, 0.1) == pytest.approx((0.04, 0.04)), "never before so much longer"


def test_an_overdue_call_is_evidence_before_it_ends_until_a_later_one_does_well() -> None:
    evidence, now = trained()
    usual = evidence.expected_s(100.0, now)
    late = evidence.sent(True, 100, now)
    assert evidence.expected_s(100.0, now + 0.1) == pytest.approx(usual)
    slow = evidence.expected_s(100.0, now + 2.0)
    assert slow == pytest.approx(usual * 2.0 / late.predicted_s)
    stream(evidence, now + 2.0, 0.2)
    assert evidence.oldest is None
    assert evidence.expected_s(100.0, now + 4.0) == pytest.approx(usual, rel=0.1)


def test_beyond_the_knee_calls_queue_and_the_knee_is_found() -> None:
    evidence, now = trained()
    usual = evidence.expected_s(100.0, now)
    sendings = [evidence.sent(True, 100, now) for _ in range(20)]
    assert evidence.expected_s(100.0, now) > usual
    for place, sending in enumerate(sendings):
        first_s = 0.2 + 0.3 * max(0, place - 4)
        evidence.content(sending, first_s, now + first_s, 0.3)
    assert evidence.knee < 8.0
    assert evidence.first_s < 0.6
    assert evidence.expected_s(100.0, now + 5.0) > 3 * usual


def test_failures_raise_the_risk_and_it_fades() -> None:
    evidence, now = trained()
    for _ in range(5):
        failed(evidence, now, lost_s=0.5)
    assert evidence.failure_p > 0.5
    assert evidence.failure_loss_s == pytest.approx(0.5)
    assert evidence.faded(now + 60.0)[0] < 0.1


def test_a_cut_after_content_is_another_risk_than_a_failure_before() -> None:
    evidence, now = trained()
    failed(evidence, now, after_content=True)
    assert evidence.cut_p > 0.05
    assert evidence.failure_p < 0.01


def test_who_has_only_failed_is_not_unknown_until_that_has_faded() -> None:
    evidence = ModelEvidence()
    assert evidence.known(0.0) == 0
    failed(evidence, 0.0)
    assert evidence.known(evidence.failure_p) == 1
    assert evidence.known(evidence.faded(60.0)[0]) == 0


def test_a_call_called_off_in_time_is_no_evidence_and_too_late_is_a_failure() -> None:
    evidence, now = trained()
    soon = evidence.sent(True, 100, now)
    evidence.ended(soon)
    assert not evidence.called_off(soon, 0.1, now)
    first_s = evidence.first_s
    overdue = evidence.sent(True, 100, now)
    evidence.ended(overdue)
    assert not evidence.called_off(overdue, 1.5, now + 1.5)
    assert evidence.first_s > 2 * first_s
    assert evidence.failures == 0.0
    late = evidence.sent(True, 100, now + 2.0)
    evidence.ended(late)
    assert evidence.called_off(late, 6.0, now + 8.0)
    assert evidence.failure_p > 0.1


def test_a_late_call_is_no_failure_if_one_sent_after_it_did_well() -> None:
    evidence, now = trained()
    late = evidence.sent(True, 100, now)
    stream(evidence, now + 1.0, 0.2)
    evidence.ended(late)
    assert not evidence.called_off(late, 30.0, now + 30.0)


def test_patience_without_samples_is_long_and_with_them_twice_the_p95() -> None:
    assert ModelEvidence().patience_s(True) == 10.0
    slow, _ = trained(first_s=3.0)
    assert slow.patience_s(True) == pytest.approx(6.0, rel=0.1)
    quick, _ = trained(first_s=0.1)
    assert quick.patience_s(True) == 2.0


def test_output_lengths_follow_max_tokens_where_that_predicts_them_better() -> None:
    ratio, length = OutputLength(), OutputLength()
    for number in range(50):
        ratio.learn(50 + 20 * number, 50 + 20 * number)
        length.learn(200 + number % 5, 500 if number % 2 else 4000)
    assert ratio.expected(700) == pytest.approx(700, rel=0.05)
    assert length.expected(4000) == pytest.approx(200, rel=0.05)
    assert length.expected(50) == 50
    assert 200 <= length.upper < 300
    assert OutputLength().upper == 1000


def test_one_answer_is_enough_to_go_by_its_share_of_max_tokens() -> None:
    seen = OutputLength()
    seen.learn(700, 1000)
    assert seen.expected(100) == pytest.approx(70.0)


def test_no_answer_is_expected_to_be_longer_than_max_tokens() -> None:
    seen = OutputLength()
    for number in range(50):
        seen.learn(400 + 40 * number, 200 + 20 * number)
    assert seen.expected(300) == pytest.approx(300.0)


def test_answers_that_become_longer_are_expected_to_be_longer_however_many_there_were() -> None:
    seen = OutputLength()
    for _ in range(200):
        seen.learn(100, None)
    before = seen.typical
    for _ in range(200):
        seen.learn(1000, None)
    assert before == pytest.approx(100.0)
    assert seen.typical == pytest.approx(1000.0, rel=0.05)
    assert seen.upper > 1000


def test_the_deviation_told_is_that_of_the_guess_in_use() -> None:
    seen = OutputLength()
    for number in range(60):
        seen.learn(100 + 100 * (number % 9), 200 + 200 * (number % 9))
    assert seen.expected(3000) == pytest.approx(1500.0)
    assert seen.deviation < 0.01


def test_what_is_reserved_for_an_answer_stays_within_bounds_whatever_came() -> None:
    spread, long = OutputLength(), OutputLength()
    for number in range(100):
        spread.learn(1 if number % 2 else 10_000_000, None)
        long.learn(10_000_000, None)
    assert spread.upper < 20 * spread.typical
    assert long.upper <= exp(14.0) + 1


def test_models_are_bounded_and_the_one_unused_for_longest_is_forgotten() -> None:
    evidence = Evidence()
    for number in range(MODELS_MAX):
        evidence.of(f"m{number}")
    kept = evidence.of("m0")
    evidence.of("one more")
    assert len(evidence) == MODELS_MAX
    assert evidence.models.get("m0") is kept
    assert "m1" not in evidence.models


NUMBERS = st.one_of(st.floats(), st.floats(0.0, 1e4))


@given(st.lists(st.tuples(st.integers(0, 5), NUMBERS, NUMBERS, st.integers(-1, 10**6), st.floats(0.0, 1e5)), max_size=60))
def test_no_number_from_outside_breaks_the_estimates(events: list[tuple[int, float, float, int, float]]) -> None:
    evidence, now = ModelEvidence(), 0.0
    for what, duration_s, first_s, tokens, passed_s in events:
        now += passed_s
        sending = evidence.sent(what % 2 == 0, None if tokens < 0 else tokens, now)
        if what == 0:
            evidence.content(sending, first_s, now, 0.3)
        evidence.ended(sending)
        if what < 3:
            evidence.finished(sending, duration_s, first_s, tokens, now, 0.3)
        elif what == 3:
            evidence.failed(duration_s, tokens > 5, now)
        else:
            evidence.called_off(sending, duration_s, now)
        assert 0.0 < evidence.expected_s(evidence.output.expected(1000), now) < 1e15
        assert 0.0 <= evidence.failure_p <= 1.0
        assert 0.0 <= evidence.cut_p <= 1.0
        assert evidence.knee >= 1.0
        assert evidence.in_flight == 0
        assert evidence.oldest is None


@given(st.floats(0.001, 100.0), st.floats(0.0, 3.0))
def test_an_overdue_call_is_older_than_expected_so_that_what_it_tells_never_makes_a_provider_quicker(
    predicted_s: float, deviation: float
) -> None:
    assert min(late_and_early(predicted_s, deviation)) > predicted_s


def test_what_a_failure_costs_is_the_first_ones_time_and_moves_by_a_third_of_the_way_with_each_later_one() -> None:
    evidence = ModelEvidence()
    failed(evidence, 1.0, lost_s=2.0)
    assert evidence.failure_loss_s == 2.0
    failed(evidence, 2.0, lost_s=1.0)
    assert evidence.failure_loss_s == pytest.approx(2.0 + 0.3 * (1.0 - 2.0))


def test_an_answer_is_taken_for_no_longer_than_ten_million_tokens_whatever_its_usage_says() -> None:
    honest, boaster = ModelEvidence(), ModelEvidence()
    stream(honest, 1.0, 0.2, tokens=TOKENS_MAX)
    stream(boaster, 1.0, 0.2, tokens=TOKENS_MAX * 1000)
    assert boaster.output.typical == honest.output.typical
    assert boaster.token_s == honest.token_s
    stream(nothing := ModelEvidence(), 1.0, 0.2, tokens=0)
    stream(negative := ModelEvidence(), 1.0, 0.2, tokens=-5)
    assert negative.output.typical == nothing.output.typical


def test_queueing_beyond_the_knee_is_believed_in_full_while_it_shows_and_less_once_it_does_not() -> None:
    evidence, now = trained(first_s=1.0)
    knee = evidence.knee

    def at_twice_the_knee(first_s: float, now: float) -> None:
        sendings = [evidence.sent(True, 100, now) for _ in range(int(2 * knee))]
        evidence.content(sendings[-1], first_s, now + first_s, 0.3)
        for sending in sendings:
            evidence.ended(sending)

    at_twice_the_knee(4.0, now + 10.0)
    assert evidence.soft == 1.0
    at_twice_the_knee(1.0, now + 30.0)
    assert evidence.soft == SOFT


def test_a_token_rate_far_from_what_was_known_is_learned_at_half_its_way_at_once() -> None:
    evidence, now = trained()
    for number in range(20):
        stream(evidence, now + number, 0.2, total_s=1.2, tokens=100)
    assert evidence.token_s == pytest.approx(0.01, rel=0.05)
    before = evidence.token_s
    stream(evidence, now + 50.0, 0.2, total_s=0.2 + 100 * before * exp(1.6), tokens=100)
    assert evidence.token_s == pytest.approx(before * exp(0.5 * 1.6), rel=0.01)
    before = evidence.token_s
    stream(evidence, now + 60.0, 0.2, total_s=0.2 + 100 * before * exp(1.4), tokens=100)
    assert evidence.token_s == pytest.approx(before * exp(0.12 * 1.4), rel=0.01)
