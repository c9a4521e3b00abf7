"""Long prompts take longer: how a provider learns by how much, and what it makes of it (docs/routing.md, Long prompts)."""

from collections.abc import Callable
from dataclasses import replace
from math import exp, log
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.provider.concurrency import LIMIT_FIRST
from actors.provider.evidence import ModelEvidence
from actors.provider.prefill import FAR, SHARE_MAX, Prefill
from actors.router.candidates import with_plans
from messages.calls import Award, ContentStarted, Granted, Permit, Restored, Usage
from messages.control import LimitsSpec, ModelSpec, Reset
from messages.health import PushMetrics
from messages.routing import Bid
from tests.actors.strategy_desk import winner
from tests.actors.test_provider import World

SIZES = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)
TOKEN_S = 0.01


def first_s(prompt_tokens: int, base_s: float = 0.2, per_token_s: float = 1e-4) -> float:
    return base_s + per_token_s * prompt_tokens


def call(
    evidence: ModelEvidence,
    now: float,
    seconds: float,
    prompt_tokens: int | None,
    stream: bool = True,
    output_tokens: int = 50,
) -> None:
    """One call, alone, with its first content after ``seconds``, that ends well."""
    sending = evidence.sent(stream, output_tokens, now, False, prompt_tokens)
    evidence.ended(sending)
    whole_s = seconds + TOKEN_S * output_tokens
    if stream:
        evidence.content(sending, seconds, now + seconds, 0.3)
    evidence.finished(sending, whole_s, seconds if stream else None, output_tokens, now + whole_s, 0.3)


def trained(
    calls: int = 200, base_s: float = 0.2, per_token_s: float = 1e-4, spread: float = 0.1, stream: bool = True, seed: str = "0"
) -> tuple[ModelEvidence, float]:
    """A provider that has read prompts of all sizes, each time by luck a factor of e^±``spread`` faster or slower."""
    evidence, rng = ModelEvidence(), Random(seed)
    for number in range(calls):
        prompt = rng.choice(SIZES)
        call(evidence, 20.0 * number, first_s(prompt, base_s, per_token_s) * exp(rng.gauss(0, spread)), prompt, stream, 10)
    return evidence, 20.0 * calls


def idle_s(evidence: ModelEvidence, prompt_tokens: int) -> float:
    return evidence.idle_s * evidence.scale(prompt_tokens)


# What is learned


@settings(max_examples=40)
@given(st.floats(0.05, 2.0), st.floats(2e-5, 2e-3), st.floats(0.0, 0.05), st.integers(0, 1000))
def test_E2_what_a_token_of_a_prompt_takes_is_learned_and_so_is_what_comes_on_top(
    base_s: float, per_token_s: float, spread: float, seed: int
) -> None:
    evidence, _ = trained(500, base_s, per_token_s, spread, seed=str(seed))
    for prompt in (500, 2000, 10_000):
        if per_token_s * prompt > 0.5 * base_s:
            assert idle_s(evidence, prompt) == pytest.approx(first_s(prompt, base_s, per_token_s), rel=0.3)


def test_E2_it_is_learned_through_the_luck_of_single_calls() -> None:
    evidence, rng = ModelEvidence(), Random("luck")
    off: list[float] = []
    for number in range(600):
        prompt = rng.choice(SIZES)
        seconds = first_s(prompt) * exp(rng.gauss(0.0, 0.4))
        off.append(abs(log(seconds / idle_s(evidence, prompt))))
        call(evidence, 20.0 * number, seconds, prompt)
    assert sum(off[300:]) / 300 == pytest.approx(0.4 * 0.8, rel=0.15), "as far off as luck alone is"


def test_E2_it_is_learned_from_answers_that_are_no_streams_too_without_their_output() -> None:
    evidence, now = trained(400, base_s=1.0, per_token_s=1e-3, stream=False)
    short, long = (evidence.expected_s(10.0, now, evidence.scale(prompt)) for prompt in (500, 10_000))
    assert (short, long) == pytest.approx((1.6, 11.1), rel=0.15)


def test_E2_it_is_learned_whether_prompts_are_mixed_or_come_in_spells() -> None:
    evidence = ModelEvidence()
    for number in range(600):
        prompt = 10_000 if number // 40 % 2 else 100
        call(evidence, 20.0 * number, first_s(prompt), prompt)
    assert idle_s(evidence, 10_000) > 3.0 * idle_s(evidence, 100)


def test_a_few_samples_are_not_believed() -> None:
    assert trained(20)[0].prefill.slope == 0.0
    assert trained(40)[0].prefill.slope > 0.0


SAMPLES = st.lists(
    st.tuples(st.integers(-1, 10**7), st.floats(1e-4, 1e4), st.booleans(), st.integers(0, 10**6)), min_size=1, max_size=120
)


@given(SAMPLES, st.lists(st.integers(0, 10**9), min_size=1, max_size=5))
def test_whatever_comes_a_longer_prompt_never_takes_less_and_an_empty_one_a_tenth_of_the_mean_at_least(
    samples: list[tuple[int, float, bool, int]], asked: list[int]
) -> None:
    evidence, now = ModelEvidence(), 0.0
    for prompt, seconds, stream, tokens in samples * 3:
        call(evidence, now, seconds, prompt, stream, tokens)
        now += 20.0
        assert evidence.prefill.slope >= 0.0
        scales = [evidence.scale(tokens) for tokens in sorted(asked)]
        assert scales == sorted(scales)
        assert scales[0] >= 1.0 - SHARE_MAX - 1e-9
        assert evidence.expected_s(10.0, now, scales[-1]) < 1e15


@given(st.lists(st.floats(1e-3, 100.0), min_size=1, max_size=80), st.integers(0, 100_000), st.booleans())
def test_where_all_prompts_are_equal_all_is_as_if_prompts_were_not_looked_at(
    times: list[float], prompt: int, stream: bool
) -> None:
    looking, blind = ModelEvidence(), ModelEvidence()
    for number, seconds in enumerate(times * 3):
        call(looking, 5.0 * number, seconds, prompt, stream)
        call(blind, 5.0 * number, seconds, None, stream)
    assert {name: getattr(looking, name) for name in LEARNED} == {name: getattr(blind, name) for name in LEARNED}
    assert looking.scale(prompt) == looking.scale(10 * prompt) == 1.0


LEARNED = (
    "_a", "_b", "_reference", "idle_s", "first_s", "token_s", "deviation", "deviation_whole", "knee", "soft", "samples",
    "slowness", "overdue_s", "overdue_early_s", "whole_late", "whole_early", "failure_p", "cut_p",
)  # fmt: skip


def test_where_times_do_not_depend_on_prompts_the_slope_goes_nearly_unused() -> None:
    changed, looks = 0, 0
    for seed in range(20):
        rng, prefill = Random(seed), Prefill()
        for _ in range(1000):
            prompt = round(500 * exp(rng.gauss(0.0, 1.2)))
            prefill.learn(prompt, 0.3, 0.0, prefill.scale(prompt), 0.3 * exp(rng.gauss(0.0, 0.4)))
            looks += 1
            changed += not 0.9 < prefill.scale(1500) / prefill.scale(100) < 1.1
    assert changed < 0.01 * looks


def test_prompts_nearly_alike_tell_nothing_whatever_they_take() -> None:
    evidence = ModelEvidence()
    for number in range(200):
        prompt = 1000 + 100 * (number % 3)
        call(evidence, 20.0 * number, 1e-6 * prompt * prompt, prompt)
    assert evidence.prefill.slope == 0.0


def test_that_longer_prompts_were_faster_is_taken_for_chance() -> None:
    evidence, _ = trained(200, base_s=2.0, per_token_s=-1e-4)
    assert evidence.prefill.slope == 0.0


def test_nothing_is_extrapolated_beyond_the_prompts_that_were_seen() -> None:
    evidence, _ = trained()
    assert evidence.scale(10_000) > evidence.scale(9_000)
    assert evidence.scale(1_000_000) == pytest.approx(evidence.scale(10_000), rel=0.02)
    assert evidence.scale(50) < evidence.scale(200)
    assert evidence.scale(0) == evidence.scale(40)


def test_the_shortest_prompt_is_forgotten_as_slowly_as_the_longest_when_it_comes_no_more() -> None:
    evidence, now = trained()
    assert evidence.scale(1000) > evidence.scale(200)
    for number in range(3000):
        prompt = 5000 + 2500 * (number % 3)
        call(evidence, now + 20.0 * number, first_s(prompt), prompt)
    assert evidence.scale(1000) == evidence.scale(4000) < evidence.scale(7000)


def believed(sizes: tuple[int, ...], takes: Callable[[int], float], calls: int = 400) -> tuple[Prefill, float]:
    """Prompts of these sizes by turns, exactly as long as said; and F (s), the time for the mean one."""
    prefill, idle = Prefill(), sum(map(takes, sizes)) / len(sizes)
    for number in range(calls):
        prompt = sizes[number % len(sizes)]
        idle *= prefill.learn(prompt, idle, 0.0, prefill.scale(prompt), takes(prompt))
    return prefill, idle


def test_what_a_token_takes_stays_the_same_however_the_mean_moves() -> None:
    prefill, idle = believed((100, 300, 900), first_s)
    per_token_s = prefill.slope * idle
    assert per_token_s > 0.0
    for number in range(400):
        prompt = (400_000, 600_000, 900_000)[number % 3]
        takes_s = idle * prefill.scale(900) + per_token_s * (prompt - 900)
        idle *= prefill.learn(prompt, idle, 0.0, takes_s / idle, takes_s)
        assert prefill.slope * idle == pytest.approx(per_token_s, rel=0.05)


def test_where_long_prompts_take_more_than_their_share_an_empty_one_keeps_a_tenth_of_the_mean() -> None:
    prefill, _ = believed((50, 1000, 2000), lambda prompt: 0.01 + 1e-7 * prompt * prompt)
    assert prefill.flat == pytest.approx(1.0 - SHARE_MAX)


@pytest.mark.parametrize(("least", "more"), [(FAR, 400.0), (1.0 / FAR, 0.01)])
def test_what_is_far_off_is_believed_to_be_four_times_off(least: float, more: float) -> None:
    (far, _), (farther, _) = believed(SIZES, first_s), believed(SIZES, first_s)
    for number in range(8):
        prompt = SIZES[number]
        for prefill, times in ((far, least), (farther, more)):
            prefill.learn(prompt, 0.3, 0.0, prefill.scale(prompt), times * 0.3 * prefill.scale(prompt))
    assert farther.slope == pytest.approx(far.slope)
    assert farther.flat == pytest.approx(far.flat)


def test_answers_that_came_sooner_than_their_output_alone_should_take_tell_no_slope() -> None:
    prefill = Prefill()
    for number in range(800):
        prompt = SIZES[number % 8]
        prefill.learn(prompt, 1.0, 3.0, 1.0, 1.0 + 1e-5 * prompt)
    assert prefill.slope == 0.0


def test_prompts_that_come_no_more_are_forgotten_slowly() -> None:
    evidence, now = trained()
    far = evidence.scale(10_000) / evidence.scale(1000)
    rng = Random("later")
    for number in range(3000):
        prompt = rng.choice((200, 500, 1000))
        call(evidence, now + 20.0 * number, first_s(prompt), prompt)
    assert evidence.scale(10_000) / evidence.scale(1000) < 0.5 * far
    assert idle_s(evidence, 1000) == pytest.approx(0.3, rel=0.1)


def test_what_a_prompt_takes_stays_the_same_when_prompts_grow_longer() -> None:
    evidence, now = trained(800, spread=0.0)
    short, slowness = idle_s(evidence, 500), evidence.slowness
    rng = Random("longer")
    for number in range(200):
        prompt = rng.choice((5000, 8000, 10_000))
        call(evidence, now + 20.0 * number, first_s(prompt), prompt)
        assert idle_s(evidence, 500) == pytest.approx(short, rel=0.02)
        assert evidence.slowness == pytest.approx(slowness, rel=0.02), "the mean has moved, not the provider"


def test_a_slow_spell_slows_the_reading_too_and_is_no_slope() -> None:
    evidence, now = trained()
    before = evidence.scale(10_000) / evidence.scale(100)
    rng = Random("slow")
    for number in range(15):
        prompt = rng.choice(SIZES)
        call(evidence, now + 50.0 * number, 10.0 * first_s(prompt), prompt)
    assert evidence.slowness > 5.0
    assert idle_s(evidence, 10_000) == pytest.approx(12.0, rel=0.3)
    assert evidence.scale(10_000) / evidence.scale(100) == pytest.approx(before, rel=0.4)


# What a long prompt does not do


def test_a_long_prompt_is_no_surprise() -> None:
    evidence, now = trained(spread=0.0)
    before = (evidence.slowness, evidence.deviation, evidence.knee)
    for number in range(5):
        call(evidence, now + 20.0 * number, first_s(10_000), 10_000)
    assert (evidence.slowness, evidence.deviation, evidence.knee) == pytest.approx(before, rel=0.05)
    assert idle_s(evidence, 100) == pytest.approx(first_s(100), rel=0.25)


def test_long_prompts_side_by_side_do_not_move_the_knee() -> None:
    evidence, now = trained(spread=0.0)
    sendings = [evidence.sent(True, 10, now, False, 10_000) for _ in range(8)]
    for sending in sendings:
        evidence.content(sending, first_s(10_000), now + 1.2, 0.3)
    assert evidence.knee == 8.0
    twice = [evidence.sent(True, 10, now, False, 10_000) for _ in range(8)]
    for sending in twice:
        evidence.content(sending, 2.0 * first_s(10_000), now + 2.4, 0.3)
    assert evidence.knee < 8.0, "that is more than the prompt explains"


def test_a_long_prompt_is_overdue_later_and_makes_nobody_slow_before() -> None:
    evidence, now = trained(spread=0.0)
    usual = evidence.expected_s(10.0, now)
    short, long = (evidence.sent(True, 10, now, False, prompt) for prompt in (100, 10_000))
    assert short.predicted_s == pytest.approx(first_s(100), rel=0.25)
    assert long.predicted_s == pytest.approx(first_s(10_000), rel=0.1)
    assert short.overdue_s < 0.6 < first_s(10_000) < long.overdue_s
    evidence.ended(short)
    assert evidence.oldest is long
    assert evidence.expected_s(10.0, now + 1.2) == pytest.approx(usual)
    assert evidence.expected_s(10.0, now + 3.0) > 2.0 * usual


def test_a_short_prompt_is_not_overdue_before_its_margin_however_little_it_takes() -> None:
    evidence, now = trained(base_s=0.001, per_token_s=1e-5, spread=0.0)
    assert idle_s(evidence, 50) < 0.01
    assert evidence.sent(True, 10, now, False, 50).overdue_s >= 0.03


def test_a_long_prompt_that_is_called_off_was_late_by_its_own_measure() -> None:
    evidence, now = trained(base_s=0.2, per_token_s=2e-4, spread=0.0)
    for number in range(200):
        call(evidence, now + 20.0 * number, first_s(100, 0.2, 2e-4), 100)
    now += 4000.0
    idle, waited_s = evidence.idle_s, first_s(10_000, 0.2, 2e-4)
    assert evidence.patience_s(True) < waited_s
    early = evidence.sent(True, 10, now, False, 10_000)
    evidence.ended(early)
    assert not evidence.called_off(early, waited_s, now + waited_s), "no failure"
    assert evidence.idle_s == idle, "and no sign of slowness"
    late = evidence.sent(True, 10, now, False, 100)
    evidence.ended(late)
    assert evidence.called_off(late, waited_s, now + waited_s)
    assert evidence.idle_s > idle


def test_a_short_prompt_is_waited_for_no_less_than_any_other() -> None:
    evidence, _ = trained(base_s=0.5, per_token_s=1e-3)
    assert evidence.scale(50) < 0.5
    assert evidence.patience_s(True, evidence.scale(50)) == evidence.patience_s(True) > 10.0


def test_where_others_queue_a_long_prompt_is_expected_to_queue_the_longer() -> None:
    evidence, now = trained(spread=0.0)
    evidence.in_flight = 15
    scale = evidence.scale(10_000)
    sending = evidence.sent(True, 10, now, False, 10_000)
    queue_s = evidence.soft * (16 - evidence.knee) / evidence.knee * (evidence.first_s * scale + 10 * evidence.token_s)
    assert sending.predicted_s == pytest.approx(evidence.idle_s * scale + queue_s)


def test_a_size_that_cannot_be_teaches_nothing() -> None:
    evidence, now = trained(spread=0.0)
    slope = evidence.prefill.slope
    for number in range(20):
        call(evidence, now + 20.0 * number, 1.0, -10_000)
    assert evidence.prefill.slope == slope


def test_a_call_that_was_out_before_a_restart_teaches_nothing_of_prompts() -> None:
    evidence, now = trained(spread=0.0)
    slope = evidence.prefill.slope
    for number in range(8):
        sending = evidence.restored(True, now + number)
        evidence.ended(sending)
        evidence.content(sending, 1.0, now + number + 1.0, 0.3)
    assert evidence.prefill.slope == slope


# The provider


class Reader(World):
    """A provider that takes ``base_s`` and ``per_token_s`` for each token of a prompt, and has read prompts of all sizes."""

    def __init__(self, base_s: float, per_token_s: float, name: str = "a", calls: int = 120, **changes: Any) -> None:
        super().__init__(id=name, models=(ModelSpec("m", "m"),), **changes)
        self.base_s, self.per_token_s = base_s, per_token_s
        rng = Random(name)
        for number in range(calls):
            self.stream(f"p{number}", rng.choice(SIZES))
            self.context.advance(10.0)

    def takes_s(self, prompt_tokens: int) -> float:
        return first_s(prompt_tokens, self.base_s, self.per_token_s)

    def send(self, permit_id: str, prompt_tokens: int) -> None:
        tokens = prompt_tokens + 20
        award = Award(permit_id, "q", "m", tokens, True, 20, prompt_tokens=prompt_tokens)
        assert isinstance(self.give(award), Granted)

    def begin(self, permit_id: str, prompt_tokens: int) -> None:
        """The first content comes."""
        self.give(ContentStarted(permit_id, self.takes_s(prompt_tokens)))

    def stream(self, permit_id: str, prompt_tokens: int) -> None:
        self.send(permit_id, prompt_tokens)
        seconds = self.takes_s(prompt_tokens)
        self.context.advance(seconds)
        self.begin(permit_id, prompt_tokens)
        self.context.advance(0.2)
        usage = Usage(prompt_tokens, 20)
        self.end(permit_id, stream=True, duration_s=seconds + 0.2, first_content_s=seconds, usage=usage)

    def offer(self, prompt_tokens: int, **more: Any) -> Bid:
        bid = self.bid(prompt_tokens=prompt_tokens, max_tokens=20, stream=True, **more)
        assert isinstance(bid, Bid)
        return bid


def test_E2_a_bid_expects_for_a_prompt_what_such_prompts_took_and_tells_how_much_of_it_is_reading() -> None:
    world = Reader(0.2, 2e-4)
    short, long = world.offer(100), world.offer(10_000)
    assert (short.expected_s, long.expected_s) == pytest.approx((0.42, 2.4), rel=0.15)
    assert (short.prefill_s, long.prefill_s) == pytest.approx((0.02, 2.0), rel=0.2)
    assert long.overdue_s > long.overdue_early_s > 2.2 > 0.5 > short.overdue_s
    assert short.slowness == long.slowness == pytest.approx(1.0, rel=0.1)
    assert with_plans(long, 1).prefill_s == long.prefill_s


def test_E2_a_bid_tells_no_reading_where_prompts_made_no_difference() -> None:
    world = Reader(0.5, 0.0)
    short, long = world.offer(100), world.offer(10_000)
    assert long == replace(short, tokens=10_020)
    assert long.prefill_s == 0.0


def test_D3_who_begins_at_once_and_reads_slowly_wins_short_prompts_and_loses_long_ones() -> None:
    prompt_reader, quick_starter = Reader(0.8, 2e-5, "reader"), Reader(0.1, 3e-4, "starter")

    def chosen(prompt_tokens: int) -> str:
        return winner("adaptive", prompt_reader.offer(prompt_tokens), quick_starter.offer(prompt_tokens))

    assert [chosen(prompt) for prompt in (50, 500, 1000)] == ["starter"] * 3
    assert [chosen(prompt) for prompt in (5000, 10_000, 100_000)] == ["reader"] * 3


def test_A5_what_was_learned_of_prompts_outlives_a_reload_and_a_reset_and_not_another_endpoint() -> None:
    world = Reader(0.2, 2e-4)
    long = world.offer(10_000)
    world.reconfigure(2, weight=3)
    world.give(Reset())
    assert world.offer(10_000).expected_s == pytest.approx(long.expected_s)
    world.reconfigure(3, endpoint="http://elsewhere")
    assert world.offer(10_000).prefill_s == 0.0
    assert world.offer(10_000).samples == 0


def test_after_a_crash_prompts_are_learned_anew() -> None:
    world = Reader(0.2, 2e-4)
    world.send("out", 10_000)
    world.crash()
    world.give(Restored((Permit("out", "q", "m", 10_020, True, world.context.time),)))
    world.begin("out", 10_000)
    world.end("out", stream=True, duration_s=2.4, first_content_s=2.2, usage=Usage(10_000, 20))
    assert world.offer(10_000).prefill_s == 0.0
    assert world.actor.invariant() is None


def test_C2_a_pushed_latency_stands_in_as_before_where_nothing_was_measured() -> None:
    world = Reader(0.2, 2e-4, calls=0)
    world.give(PushMetrics(average_latency_s=3.0))
    short, long = world.offer(100), world.offer(10_000)
    assert short.expected_s == long.expected_s == pytest.approx(3.0)
    assert long.prefill_s == 0.0


def test_C2_our_own_measurements_of_prompts_outrank_a_pushed_latency() -> None:
    world = Reader(0.2, 2e-4)
    before = world.offer(100), world.offer(10_000)
    world.give(PushMetrics(average_latency_s=30.0, load=0.5))
    for bid, prompt in zip(before, (100, 10_000), strict=True):
        now = world.offer(prompt)
        assert now.expected_s == pytest.approx(2.0 * bid.expected_s)
        assert replace(now, expected_s=bid.expected_s) == bid


def test_a_long_prompt_is_not_taken_for_a_queue_where_the_limit_is_found_out() -> None:
    world = Reader(0.2, 2e-4, limits=LimitsSpec(adaptive=True))
    for window in range(8):
        # Those sent first find the provider at ease; most of the window are long.
        out = {f"{window}/{number}": 100 if number < 7 else 10_000 for number in range(LIMIT_FIRST)}
        for permit_id, prompt in out.items():
            world.send(permit_id, prompt)
        for permit_id, prompt in sorted(out.items(), key=lambda sent: sent[1]):
            world.context.time = max(world.context.time, world.actor.permits[permit_id].sending.sent_at + world.takes_s(prompt))
            world.begin(permit_id, prompt)
        for permit_id, prompt in out.items():
            seconds = world.takes_s(prompt)
            world.end(permit_id, stream=True, duration_s=seconds + 0.2, first_content_s=seconds, usage=Usage(prompt, 20))
        limit = world.report().concurrency_limit
        assert limit is not None
        assert limit >= LIMIT_FIRST
