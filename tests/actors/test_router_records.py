"""The decision record, the counts, and the dry run."""

import re
from pathlib import Path
from typing import Any

from actors.router.decision import stage_of
from actors.router.recorder import WITHDRAWN, Recorder
from messages.calls import CallEnded, Outcome
from messages.control import Configured
from messages.decisions import Decision, DecisionFound, Decisions, GetDecision, GetRouterStats, RecentDecisions, RouterStats
from messages.failures import Blame, Failure, Retry, Scope
from messages.policy import Action, ActionKind, Rule
from messages.routing import Claimed, Exclusion, Hints, NoBidReason, RequestProfile, RouteError, Withdraw
from tests.actors.router_kit import Desk, bid, chain, no, provider, snapshot

A, B, C = (provider(name, "m") for name in "abc")
BROKEN = Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, "http_503", 503)


def record(desk: Desk, decision_id: str) -> Decision:
    (found,) = desk.give(GetDecision(decision_id))
    assert isinstance(found, DecisionFound)
    assert found.decision is not None
    return found.decision


def stats(desk: Desk) -> RouterStats:
    (found,) = desk.give(GetRouterStats())
    assert isinstance(found, RouterStats)
    return found


def ended(query_id: str, name: str, outcome: Outcome, **fields: Any) -> CallEnded:
    return CallEnded("permit", query_id, name, "m", outcome, True, 1.5, **fields)


def test_D12_pain_19_the_record_tells_everybodys_score_or_reason() -> None:
    desk = Desk(A, B, C, provider("d", "m", tags=("x",)), strategy="first", generation=4)
    profile = RequestProfile("m", hints=Hints(exclude=("d",)))
    answer = desk.decide(
        bid("a"), no("b", NoBidReason.CIRCUIT_OPEN, None, "5 failures"), bid("c", healthy=False), profile=profile
    )
    found = record(desk, answer.decision_id)
    assert [(c.provider, c.score, c.reason, c.detail) for c in found.candidates] == [
        ("a", 0.0, "", ""),
        ("b", None, "circuit_open", "5 failures"),
        ("c", 0.0, "", "second tier: unhealthy"),
        ("d", None, "excluded", ""),
    ]
    assert found.candidates[0].bid == bid("a")
    assert (found.strategy, found.generation, found.model, found.chosen, found.error) == ("first", 4, "m", ("a", "c"), "")
    assert (found.at, found.seed, found.round, found.query_id) == (1_800_000_000.0, "0/router", 1, "q1")


def test_D12_the_record_of_a_pinned_name_tells_whom_the_pin_left_out() -> None:
    desk = Desk(A, B)
    answer = desk.decide(bid("a"), model="a:m")
    found = record(desk, answer.decision_id)
    assert (found.requested_model, found.model) == ("a:m", "m")
    assert [(c.provider, c.reason) for c in found.candidates] == [("a", ""), ("b", "pin")]


def test_D12_the_record_of_a_rejected_pinned_name_tells_the_rule_from_the_pin() -> None:
    desk = Desk(A, B, provider("d", "other"), rules=[Rule("closed", then=(Action(ActionKind.REJECT, ("no",)),))])
    found = record(desk, desk.refusal(desk.ask("a:m")).decision_id)
    assert [(c.provider, c.stage, c.reason) for c in found.candidates] == [
        ("a", "rules", "rule"),
        ("b", "candidates", "pin"),
        ("d", "candidates", "model"),
    ]


def test_D12_the_record_counts_those_not_asked() -> None:
    desk = Desk(*(provider(f"p{n:02}", "m") for n in range(20)), strategy="first")
    answer = desk.decide(*(bid(f"p{n:02}") for n in range(16)))
    found = record(desk, answer.decision_id)
    assert found.not_asked == 4
    assert [c.reason for c in found.candidates][16:] == ["not_sampled"] * 4


def test_the_record_of_a_refusal_has_its_error_even_if_nobody_was_asked() -> None:
    desk = Desk(A)
    desk.ask("typo")
    found = record(desk, desk.context.replies[0].decision_id)
    assert (found.error, found.requested_model) == (RouteError.MODEL_NOT_SUPPORTED, "typo")
    assert [(one.provider, one.stage, one.reason) for one in found.candidates] == [("a", "candidates", "model")]


def test_D12_the_record_of_an_unknown_strategy_lists_everybody_and_says_that_it_was_the_strategy() -> None:
    desk = Desk(A, B, provider("d", "other"), generation=4)
    profiles = [RequestProfile(model, hints=Hints(strategy="fastest")) for model in ("m", "a:m", "typo")]
    for profile in profiles:
        desk.ask(profile=profile)

    found = [record(desk, reply.decision_id) for reply in tuple(desk.context.replies)]
    missing, nobody = ("strategy", "no_strategy"), ("candidates", "model")
    assert [[(one.stage, one.reason) for one in decision.candidates] for decision in found] == [
        [missing, missing, nobody],
        [missing, ("candidates", "pin"), nobody],
        [nobody, nobody, nobody],
    ]
    assert [(one.error, one.strategy, one.model, one.generation) for one in found] == [
        (RouteError.STRATEGY_NOT_FOUND, "fastest", model, 4) for model in ("m", "m", "")
    ]


def test_D12_whoever_was_asked_and_had_not_answered_when_the_client_left_is_told_from_who_was_not_asked() -> None:
    desk = Desk(A, B, provider("d", "other"), strategy="first", fanout=1)
    query_id = desk.ask()
    desk.give(Withdraw(query_id))

    found = record(desk, desk.refusal(query_id).decision_id)
    assert found.error == WITHDRAWN
    assert [(one.provider, one.stage, one.reason, one.detail) for one in found.candidates] == [
        ("a", "health", "timeout", "had not answered yet"),
        ("b", "fan-out", "not_sampled", ""),
        ("d", "candidates", "model", ""),
    ]


def test_pain_19_a_later_round_replaces_the_candidates_and_keeps_the_attempts() -> None:
    desk = Desk(A, B, strategy="first")
    first = desk.decide(bid("a"), bid("b"), query_id="q")
    desk.give(ended("q", "a", Outcome.FAILED, failure=BROKEN, status=503))
    second = desk.decide(bid("b"), query_id="q", tried=("a",))
    desk.give(ended("q", "b", Outcome.SUCCESS, first_content_s=0.25, status=200, attempt=2))
    assert first.decision_id == second.decision_id
    found = record(desk, second.decision_id)
    assert found.round == 2
    assert [(c.provider, c.reason) for c in found.candidates] == [("a", "tried"), ("b", "")]
    assert [(a.provider, a.outcome, a.code, a.status, a.first_content_ms, a.round) for a in found.attempts] == [
        ("a", "failed", "http_503", 503, None, 1),
        ("b", "success", "", 200, 250.0, 2),
    ]
    assert found.attempts[0].duration_ms == 1500.0


def test_D12_the_record_tells_what_the_last_round_took_and_under_which_generation() -> None:
    desk = Desk(A, B, strategy="first", generation=7)
    took = []
    for micros, tried in ((40, ()), (25, ("a",))):
        desk.ask(query_id="q", tried=tried)
        desk.context.advance(micros * 1e-6)
        desk.gathered(*(bid(name) for name in "ab" if name not in tried))
        found = record(desk, desk.plan("q").decision_id)
        took.append((round(found.selection_us), found.generation))
    assert took == [(40, 7), (25, 7)]


def test_D4_every_reason_belongs_to_the_stage_that_the_documentation_says() -> None:
    text = (Path(__file__).parents[2] / "docs" / "routing.md").read_text()
    section = text.partition("## A decision, stage by stage")[2].partition("Of several reasons")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")]
    told = {reason: stage for stage, _, reasons in rows[1:] for reason in re.findall(r"`(\w+)`", reasons)}

    reasons = [*map(str, Exclusion), *map(str, NoBidReason)]
    assert {reason: stage_of(reason) for reason in reasons} == told


def test_a_call_that_was_never_sent_is_no_attempt() -> None:
    desk = Desk(A)
    plan = desk.decide(bid("a"))
    desk.give(ended("q1", "a", Outcome.NOT_SENT))
    assert record(desk, plan.decision_id).attempts == ()
    assert stats(desk).failed == 0


def test_ids_of_records_count_on_past_each_thousand() -> None:
    context, recorder = Desk(A).context, Recorder(1, "seed")
    ids = [recorder._new_id(context) for _ in range(2_345)]
    head = ids[0].removesuffix("1")
    assert ids == [f"{head}{number}" for number in range(1, 2_346)]


def test_the_newest_records_come_first_and_the_oldest_go() -> None:
    desk = Desk(A, decisions_kept=3)
    made = [desk.decide(bid("a")).decision_id for _ in range(5)]
    (recent,) = desk.give(RecentDecisions(10))
    assert isinstance(recent, Decisions)
    assert [decision.decision_id for decision in recent.decisions] == made[:1:-1]
    assert len(desk.give(RecentDecisions(1))[0].decisions) == 1
    assert desk.give(GetDecision(made[0])) == [DecisionFound(None)]
    desk.give(ended("q1", "a", Outcome.SUCCESS))


def test_whatever_number_of_records_is_kept_from_when_on_they_are_the_newest() -> None:
    desk, made = Desk(A, decisions_kept=3), list[str]()
    for generation, limit in enumerate((3, 5, 2, 2, 0, 4), start=2):
        desk.give(Configured(snapshot(A, generation=generation, decisions_kept=limit)))
        kept = len(desk.give(RecentDecisions(99))[0].decisions)
        for _ in range(7):
            made.append(desk.decide(bid("a")).decision_id)
            kept = min(limit, kept + 1)
            (recent,) = desk.give(RecentDecisions(99))
            assert [decision.decision_id for decision in recent.decisions] == made[-1 : -1 - kept : -1]


def test_decision_ids_are_told_by_the_seed() -> None:
    one, same, other = (Desk(A, seed=seed).decide(bid("a")).decision_id for seed in ("1", "1", "2"))
    assert one == same != other
    assert re.fullmatch(r"dec-[0-9a-f]{12}-1", one)


def test_D11_the_counts_and_the_time_a_decision_takes() -> None:
    desk = Desk(A, B)
    query_id = desk.ask()
    desk.context.advance(40e-6)
    desk.gathered(bid("a"), bid("b"))
    desk.give(ended(query_id, "a", Outcome.FAILED, failure=BROKEN))
    desk.give(ended(query_id, "b", Outcome.SUCCESS))
    desk.give(ended(query_id, "b", Outcome.CANCELLED))
    desk.ask("typo")
    found = stats(desk)
    assert (found.total, found.succeeded, found.failed, found.waiting) == (2, 1, 2, 0)
    assert 38 < found.decision_p50_us < 42
    assert found.decision_p99_us == found.decision_p50_us


def test_a_round_repeated_after_a_refusal_is_not_counted_twice() -> None:
    desk = Desk(A, B)
    desk.decide(bid("a"), bid("b"), query_id="q")
    desk.give(Claimed("q", "a", False))
    desk.decide(bid("b"), query_id="q", refused=("a",))
    assert stats(desk).total == 1


def test_explain_decides_and_records_but_leaves_no_trace_in_what_follows() -> None:
    desk = Desk(A, B, strategy="round_robin")
    both = (bid("a"), bid("b"))
    for number in range(3):
        plan = desk.decide(*both, query_id=f"explain-{number}", may_wait=False)
        assert chain(plan) == ["a", "b"]
        assert record(desk, plan.decision_id).chosen == ("a", "b")
    assert stats(desk) == RouterStats(0, 0, 0, 0.0, 0.0, 0.0, 0)
    assert chain(desk.decide(*both)) == ["a", "b"]
    desk.ask("typo", query_id="explain-typo", may_wait=False)
    assert stats(desk).failed == 0


def test_explain_makes_no_open_plans() -> None:
    desk = Desk(A, strategy="least_connections")
    for number in range(3):
        plan = desk.decide(bid("a"), query_id=f"explain-{number}", may_wait=False)
        assert plan.choices[0].score == 0.0
