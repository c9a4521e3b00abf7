"""The laws of a simulated provider's behaviour: luck, limits, places, faults. No loop, no clock."""

import math
from dataclasses import replace
from statistics import fmean, median

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.simulation.behaviour import Behaviour, Luck, answer_tokens
from runtime.simulation.faults import BadFault, Fault, FaultBoard, FaultKind, parse_fault
from runtime.simulation.limits import Bucket, written
from runtime.simulation.plan import AnswerPlan, Ending
from runtime.simulation.provider import Call, ProviderSimulation
from runtime.simulation.slots import Slots, Ticket

SWIFT = Behaviour("swift", ttfb_ms=100, sigma=0.3, tokens_per_second=100, models=("m",))
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def body(**more: object) -> bytes:
    return orjson.dumps({**CHAT, **more})


def arrive(provider: ProviderSimulation, now: float = 0.0, **more: object) -> Call:
    return provider.arrive("POST", "/chat/completions", (), body(**more), now)


def plan(provider: ProviderSimulation, now: float = 0.0, **more: object) -> AnswerPlan:
    return provider.begin(arrive(provider, now, **more), now)


def header(answer: AnswerPlan, name: str) -> str:
    return dict(answer.headers).get(name, "")


# Luck


@given(st.permutations(range(8)))
def test_the_same_seed_gives_the_same_draws_in_whatever_order_calls_come(order: list[int]) -> None:
    def answers(calls: list[int]) -> dict[int, AnswerPlan]:
        provider = ProviderSimulation(SWIFT, 7, 0.0)
        return {number: provider.begin(arrive(provider, user=f"u{number}", stream=True), 0.0) for number in calls}

    in_order, shuffled = answers(list(range(8))), answers(order)

    assert [in_order[number].pieces for number in range(8)] == [shuffled[number].pieces for number in range(8)]
    assert [in_order[number].wait_s for number in range(8)] == [shuffled[number].wait_s for number in range(8)]


def test_seed_provider_request_and_attempt_each_change_the_luck() -> None:
    base = Luck(SWIFT, 1, "key", 0)
    others = [
        Luck(SWIFT, 2, "key", 0),
        Luck(Behaviour("other", ttfb_ms=100), 1, "key", 0),
        Luck(SWIFT, 1, "key2", 0),
        Luck(SWIFT, 1, "key", 1),
    ]

    assert all(other.first_byte_s() != base.first_byte_s() for other in others)


def test_time_to_first_byte_is_lognormal_about_its_median() -> None:
    waits = [Luck(SWIFT, 1, f"k{number}", 0).first_byte_s() for number in range(4000)]

    assert median(waits) == pytest.approx(0.1, rel=0.03)
    logs = [math.log(wait / 0.1) for wait in waits]
    assert math.sqrt(fmean(log * log for log in logs)) == pytest.approx(0.3, rel=0.05)


def test_answers_without_max_tokens_have_forty_tokens_in_mean_and_the_same_length_everywhere() -> None:
    lengths = [answer_tokens(1, f"k{number}") for number in range(4000)]

    assert fmean(lengths) == pytest.approx(40, rel=0.05)
    assert (
        len({len(plan(ProviderSimulation(Behaviour(name, models=("m",)), 1, 0.0), stream=True).pieces) for name in "ab"}) == 1
    )


def test_a_repeated_body_is_another_attempt_with_other_luck() -> None:
    provider = ProviderSimulation(SWIFT, 1, 0.0)

    first, second = plan(provider), plan(provider)

    assert first.wait_s != second.wait_s
    assert [record.attempt for record in provider.journal.records()] == [0, 1]


# Timing


def test_a_stream_sends_one_token_first_and_then_chunks_at_the_providers_speed() -> None:
    provider = ProviderSimulation(
        Behaviour("p", ttfb_ms=100, sigma=0, tokens_per_second=100, models=("m",), chunk_tokens=4), 1, 0.0
    )

    answer = plan(provider, stream=True, max_tokens=9)

    content = [(piece.tokens, round(piece.at_s, 6)) for piece in answer.pieces if piece.tokens]
    assert content == [(1, 0.1), (4, 0.14), (4, 0.18)]
    assert answer.wait_s == pytest.approx(0.1)


def test_a_whole_answer_comes_when_its_last_token_is_made() -> None:
    provider = ProviderSimulation(Behaviour("p", ttfb_ms=100, sigma=0, tokens_per_second=100, models=("m",)), 1, 0.0)

    assert plan(provider, max_tokens=9).wait_s == pytest.approx(0.18)


@pytest.mark.parametrize("how", [{"stream": True}, {"stream": False}])
def test_the_prompt_is_read_first_at_the_providers_speed_of_prefill(how: dict[str, bool]) -> None:
    usual = Behaviour("p", ttfb_ms=100, sigma=0, tokens_per_second=100, models=("m",))
    text = [{"role": "user", "content": "word " * 800}]

    at_once, reading, slowly = (
        plan(ProviderSimulation(replace(usual, prefill_tokens_per_second=rate), 1, 0.0), messages=text, max_tokens=9, **how)
        for rate in (None, 2000, 200)
    )

    tokens = at_once.input_tokens
    assert tokens == pytest.approx(1000, rel=0.01)
    assert reading.wait_s - at_once.wait_s == pytest.approx(tokens / 2000)
    assert slowly.pieces[-1].at_s - at_once.pieces[-1].at_s == pytest.approx(tokens / 200)


# Limits


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 10)), max_size=60))
def test_no_window_admits_more_than_its_refill_and_one_burst(demands: list[tuple[float, float]]) -> None:
    bucket = Bucket(60.0, 10.0, 0.0)
    now, taken = 0.0, []
    for pause, amount in demands:
        now += pause
        if bucket.wait_s(amount, now) == 0.0:
            bucket.take(amount, now)
            taken.append((now, amount))

    for start in range(len(taken)):
        for end in range(start, len(taken)):
            window = taken[end][0] - taken[start][0]
            assert sum(amount for _, amount in taken[start : end + 1]) <= bucket.rate * window + bucket.size + 1e-6


@given(st.floats(0.1, 30), st.floats(0, 20))
def test_whoever_waits_as_long_as_the_bucket_says_is_let_in(amount: float, before: float) -> None:
    bucket = Bucket(60.0, 10.0, 0.0)
    bucket.take(8.0, before)

    wait = bucket.wait_s(amount, before)

    assert bucket.wait_s(amount, before + wait) == 0.0


def test_a_demand_larger_than_the_bucket_is_met_when_it_is_full_and_leaves_a_debt() -> None:
    bucket = Bucket(60.0, 10.0, 0.0)
    bucket.take(1.0, 0.0)

    assert bucket.wait_s(25.0, 0.0) == pytest.approx(1.0)
    bucket.take(25.0, 1.0)
    assert bucket.level(1.0) == pytest.approx(-15.0)


def test_a_429_takes_nothing_and_says_how_long_to_wait() -> None:
    provider = ProviderSimulation(Behaviour("p", models=("m",), requests_per_minute=60, burst_s=2), 1, 0.0)
    assert [plan(provider).status for _ in range(2)] == [200, 200]

    refused = [plan(provider, 0.1) for _ in range(50)]

    assert {answer.status for answer in refused} == {429}
    assert {header(answer, "Retry-After") for answer in refused} == {"1"}
    assert {header(answer, "retry-after-ms") for answer in refused} == {"900"}
    assert header(refused[0], "x-ratelimit-limit-requests") == "60"
    assert header(refused[0], "x-ratelimit-remaining-requests") == "0"
    assert header(refused[0], "x-ratelimit-reset-requests") == "1.9s"
    assert plan(provider, 1.0).status == 200


def test_tokens_are_counted_with_the_answer_and_the_refusal_names_them() -> None:
    provider = ProviderSimulation(Behaviour("p", models=("m",), tokens_per_minute=6000, burst_s=1), 1, 0.0)

    first, second = plan(provider, max_tokens=80), plan(provider, max_tokens=80)

    assert (first.status, second.status) == (200, 429)
    assert orjson.loads(second.pieces[0].data)["error"]["type"] == "tokens"
    assert int(header(first, "x-ratelimit-remaining-tokens")) < 20


@pytest.mark.parametrize(("seconds", "text"), [(0, "0ms"), (0.02, "20ms"), (1.5, "1.5s"), (61, "1m1s"), (360, "6m0s")])
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert written(seconds) == text


# Places


@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=80))
def test_places_go_to_whoever_came_first_and_none_is_lost_or_doubled(capacity: int, steps: list[tuple[bool, int]]) -> None:
    slots = Slots(capacity)
    present: list[Ticket] = []
    left: list[Ticket] = []
    for is_entering, which in steps:
        if is_entering or not present:
            present.append(slots.enter(lambda: None))
        else:
            left.append(present.pop(which % len(present)))
            slots.leave(left[-1])
        for ticket in left:
            slots.leave(ticket)

        assert [ticket.is_served for ticket in present] == [place < capacity for place in range(len(present))]
        assert (slots.served, slots.waiting) == (min(capacity, len(present)), max(0, len(present) - capacity))


def test_a_freed_place_wakes_the_first_in_line_at_once() -> None:
    slots, woken = Slots(1), list[str]()
    first = slots.enter(lambda: woken.append("first"))
    slots.enter(lambda: woken.append("second"))
    slots.enter(lambda: woken.append("third"))

    slots.leave(first)

    assert woken == ["second"]


# Faults


def struck(fault: Fault, calls: int = 400, *, stream: bool = False) -> list[AnswerPlan]:
    provider = ProviderSimulation(SWIFT, 3, 0.0)
    provider.switch_on(fault, 0.0)
    return [plan(provider, user=f"u{number}", stream=stream) for number in range(calls)]


def test_errors_hit_their_share_of_calls_with_their_status() -> None:
    answers = struck(Fault(FaultKind.ERRORS, p=0.3, status=502))

    assert {answer.status for answer in answers} == {200, 502}
    assert sum(answer.status == 502 for answer in answers) / 400 == pytest.approx(0.3, abs=0.07)


def test_an_outage_resets_and_a_hang_never_answers() -> None:
    assert {answer.ending for answer in struck(Fault(FaultKind.OUTAGE), 5)} == {Ending.RESET}
    assert {answer.ending for answer in struck(Fault(FaultKind.HANG), 5)} == {Ending.HANG}


def test_slowness_multiplies_all_times() -> None:
    usual, slow = (
        plan(ProviderSimulation(SWIFT, 3, 0.0), user="u0", stream=True),
        struck(Fault(FaultKind.SLOW), 1, stream=True)[0],
    )

    assert [piece.at_s for piece in slow.pieces] == pytest.approx([10 * piece.at_s for piece in usual.pieces])


def test_a_cut_stream_breaks_after_content_and_before_its_end_sometimes_within_a_frame() -> None:
    answers = struck(Fault(FaultKind.CUT), 60, stream=True)

    sent = [b"".join(piece.data for piece in answer.pieces) for answer in answers]
    assert {answer.ending for answer in answers} == {Ending.CUT}
    assert all(b"[swift]" in text and b"[DONE]" not in text for text in sent)
    assert {text.endswith(b"\n\n") for text in sent} == {True, False}


def test_a_cut_whole_answer_promises_more_bytes_than_it_sends() -> None:
    answer = struck(Fault(FaultKind.CUT), 1)[0]

    assert answer.length is not None
    assert 0 < len(answer.pieces[0].data) < answer.length


def test_garbage_is_an_empty_or_an_html_200() -> None:
    answers = struck(Fault(FaultKind.GARBAGE), 40)

    assert {answer.status for answer in answers} == {200}
    assert {answer.pieces[0].data[:6] for answer in answers} == {b"", b"<html>"}


def test_a_refused_key_is_401_and_a_forced_rate_limit_429_with_its_wait() -> None:
    assert {answer.status for answer in struck(Fault(FaultKind.AUTH), 5)} == {401}
    limited = struck(Fault(FaultKind.RATE_LIMIT, retry_after_s=7), 5)
    assert {(answer.status, header(answer, "Retry-After")) for answer in limited} == {(429, "7")}


def test_a_standing_habit_of_errors_needs_no_fault() -> None:
    provider = ProviderSimulation(Behaviour("p", models=("m",), error_share=0.25), 1, 0.0)

    statuses = [plan(provider, user=f"u{number}").status for number in range(400)]

    assert statuses.count(503) / 400 == pytest.approx(0.25, abs=0.07)


def test_a_fault_with_a_time_ends_by_itself_and_one_without_when_it_is_switched_off() -> None:
    board = FaultBoard()
    board.switch_on(Fault(FaultKind.HANG, for_s=30), 100.0)
    board.switch_on(Fault(FaultKind.SLOW), 100.0)

    assert [line["fault"] for line in board.state(129.9)] == ["hang", "slow"]
    assert [line["fault"] for line in board.state(130.0)] == ["slow"]
    board.switch_off(FaultKind.SLOW)
    assert board.state(110.0) == [{"fault": "hang", "p": 1.0, "remaining_s": 20.0}]
    board.switch_off()
    assert board.state(110.0) == []


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        ([], 1),
        ({}, 1),
        ({"fault": "fire"}, 1),
        ({"fault": "outage", "p": 0.5}, 1),
        ({"fault": "errors", "p": 2, "status": 200, "for": "soon", "fctor": 1}, 4),
        ({"fault": "errors", "p": True}, 1),
        ({"fault": "errors", "status": 500.5}, 1),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_with_everything_that_is_wrong(data: object, errors: int) -> None:
    with pytest.raises(BadFault) as caught:
        parse_fault(data)

    assert len(caught.value.errors) == errors


def test_a_fault_takes_its_figures_from_the_body() -> None:
    assert parse_fault({"fault": "errors", "p": 0.3, "status": 500, "for": 30}) == Fault(
        FaultKind.ERRORS, 0.3, 10.0, 500, 1.0, 30
    )


# Bounds


def test_pain_01_what_a_provider_remembers_is_bounded() -> None:
    provider = ProviderSimulation(SWIFT, 1, 0.0)
    for number in range(200):
        call = arrive(provider, user=f"u{number}", filler="x" * 300_000 if number > 197 else "")
        provider.end(call, "ok", 0.0)
        provider.end(provider.arrive("GET", "/models", (), b"", 0.0), "ok", 0.0)

    records = provider.journal.records("/chat/completions")
    assert len(records) == 50
    assert len(records[-1].body) == 256 * 1024 < records[-1].body_bytes
    assert len(provider.journal.records()) == 100
    assert provider.calls == {}


def test_pain_23_a_record_keeps_no_key() -> None:
    provider = ProviderSimulation(Behaviour("p", models=("m",), api_key="s3cret"), 1, 0.0)
    for credential in ("Bearer s3cret", "Bearer wr0ng"):
        provider.arrive("POST", "/chat/completions", (("Authorization", credential),), body(), 0.0)

    records = provider.journal.records()
    assert [record.key for record in records] == ["right", "wrong"]
    assert "s3cret" not in repr(records) + repr(provider.behaviour) + repr([record.line() for record in records])
    assert "wr0ng" not in repr(records)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens_per_second": 0},
        {"prefill_tokens_per_second": 0},
        {"capacity": 0},
        {"ttfb_ms": -1},
        {"requests_per_minute": 0},
        {"error_share": 2},
        {"models": ()},
    ],
)
def test_a_behaviour_no_provider_can_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="p"):
        Behaviour("p", **wrong)  # type: ignore[arg-type] # wrong values are the point
