"""A quota answers at once, takes all or nothing, ends each reservation once, and refills by nothing but time (B4, D1)."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from actors.quota import QuotaActor
from messages.limits import NO_LIMITS, LimitsSpec
from messages.quota import (
    GetQuota,
    QuotaReconfigured,
    QuotaRefused,
    QuotaReport,
    Reservation,
    ReservationsRestored,
    Reserve,
    Reserved,
    Settle,
)
from runtime.system.solo import SoloContext

NAME = "tenant:acme"


def about(seconds: float) -> Any:
    """Equal but for rounding."""
    return pytest.approx(seconds)


class Quota:
    """A quota at time 1000 s, with its courier played by hand."""

    def __init__(self, limits: LimitsSpec, before: "Quota | None" = None) -> None:
        self.context: SoloContext = SoloContext(f"quota:{NAME}") if before is None else before.context
        self.actor: QuotaActor = QuotaActor(NAME, limits, 1, None if before is None else before.actor)
        self.actor.start(self.context)

    def reserve(self, name: str, tokens: int = 1) -> Any:
        (answer,) = self.context.give(self.actor, Reserve(NAME, name, tokens))
        return answer

    def tell(self, message: Any) -> None:
        assert self.context.give(self.actor, message) == []

    def report(self) -> QuotaReport:
        (answer,) = self.context.give(self.actor, GetQuota())
        assert isinstance(answer, QuotaReport)
        return answer

    def settle(self, name: str, tokens: int | None) -> None:
        self.tell(Settle(name, tokens))

    def takes(self, count: int, tokens: int = 1) -> int:
        """How many of ``count`` reservations it grants now."""
        serial = len(self.context.replies)
        return sum(isinstance(self.reserve(f"{serial}.{number}", tokens), Reserved) for number in range(count))


def test_B4_calls_at_once_are_limited_and_an_end_makes_room() -> None:
    quota = Quota(LimitsSpec(max_concurrency=2))
    assert quota.takes(2) == 2
    assert quota.reserve("third") == QuotaRefused("third", NAME, "max_concurrency", 2, None)
    quota.settle("0.0", 5)
    assert quota.reserve("third") == Reserved("third")


def test_B4_requests_per_minute_come_back_as_the_bucket_refills() -> None:
    quota = Quota(LimitsSpec(requests_per_minute=60, burst=2))
    assert quota.takes(5) == 2
    refused = quota.reserve("late")
    assert refused == QuotaRefused("late", NAME, "requests_per_minute", 60, about(1001.0))
    quota.context.advance(0.9)
    assert quota.takes(5) == 0
    quota.context.advance(0.1)
    assert quota.takes(5) == 1


def test_D1_tokens_are_reserved_by_estimate_and_settled_to_what_was_used() -> None:
    quota = Quota(LimitsSpec(tokens_per_minute=600))
    assert quota.reserve("a", 500) == Reserved("a")
    assert quota.reserve("b", 200) == QuotaRefused("b", NAME, "tokens_per_minute", 600, about(1010.0))
    quota.settle("a", 50)
    assert quota.reserve("b", 200) == Reserved("b")
    quota.settle("b", 700)
    assert quota.reserve("c", 1) == QuotaRefused("c", NAME, "tokens_per_minute", 600, about(1015.1))


def test_B4_what_was_never_sent_is_given_back_whole() -> None:
    quota = Quota(LimitsSpec(requests_per_minute=1, tokens_per_minute=100, max_concurrency=1))
    for number in range(20):
        assert quota.reserve(f"{number}", 100) == Reserved(f"{number}")
        quota.settle(f"{number}", None)


def test_a_refusal_takes_nothing() -> None:
    quota = Quota(LimitsSpec(requests_per_minute=60, tokens_per_minute=100, max_concurrency=9))
    assert quota.takes(1, tokens=100) == 1
    assert quota.takes(500, tokens=100) == 0
    assert quota.actor.rates.requests is not None
    assert (quota.actor.rates.requests.level, len(quota.actor.out)) == (59.0, 1)


def test_pain_28_of_two_limits_the_one_that_lasts_longer_is_told() -> None:
    quota = Quota(LimitsSpec(requests_per_minute=60, tokens_per_minute=60, burst=1))
    quota.takes(1, tokens=1)
    quota.settle("0.0", 10)
    assert quota.reserve("b", 1) == QuotaRefused("b", NAME, "tokens_per_minute", 60, about(1010.0))


def test_asked_twice_of_one_reservation_it_takes_once() -> None:
    quota = Quota(LimitsSpec(requests_per_minute=2, tokens_per_minute=200))
    assert [quota.reserve("a", 100), quota.reserve("a", 100)] == [Reserved("a")] * 2
    assert quota.takes(2, tokens=100) == 1


def test_a_reservation_ends_once_and_an_end_nobody_knows_is_counted() -> None:
    quota = Quota(LimitsSpec(tokens_per_minute=100, max_concurrency=1))
    assert quota.reserve("a", 100) == Reserved("a")
    for _ in range(3):
        quota.settle("a", None)
    assert quota.actor.unknown_ends == 2
    assert quota.takes(9, tokens=50) == 1


def test_B4_it_tells_how_its_limits_stand_and_whom_it_refused_by_which() -> None:
    limits = LimitsSpec(requests_per_minute=60, tokens_per_minute=600, max_concurrency=2)
    quota = Quota(limits)
    assert quota.report() == QuotaReport(NAME, limits, 0, 60.0, 600.0, 0, ())
    quota.reserve("a", 100)
    quota.reserve("a", 100)
    quota.reserve("b", 500)
    quota.reserve("too many", 1)
    quota.settle("a", 40)
    assert quota.takes(2, tokens=600) == 0
    quota.settle("b", 500)
    quota.context.advance(6.0)

    found = quota.report()
    assert (found.in_flight, found.reserved, found.refused) == (
        0,
        2,
        (("max_concurrency", 1), ("tokens_per_minute", 2)),
    )
    assert (found.requests_left, found.tokens_left) == (about(60.0), about(120.0))


def test_B4_its_counts_outlive_a_crash() -> None:
    before = Quota(LimitsSpec(max_concurrency=1))
    before.takes(3)
    after = Quota(LimitsSpec(max_concurrency=1), before)
    after.tell(ReservationsRestored((Reservation("0.0", 1),)))

    found = after.report()
    assert (found.in_flight, found.reserved, found.refused) == (1, 1, (("max_concurrency", 2),))
    assert (found.requests_left, found.tokens_left) == (None, None)


def test_B9_new_limits_hold_for_what_is_out_and_what_is_in_the_buckets() -> None:
    quota = Quota(LimitsSpec(requests_per_minute=10, max_concurrency=5))
    assert quota.takes(4) == 4
    quota.tell(QuotaReconfigured(LimitsSpec(requests_per_minute=600, max_concurrency=3), 2))
    assert quota.reserve("x") == QuotaRefused("x", NAME, "max_concurrency", 3, None)
    for number in range(4):
        quota.settle(f"0.{number}", 1)
    quota.tell(QuotaReconfigured(LimitsSpec(requests_per_minute=600), 3))
    assert quota.takes(100) == 6


def test_B9_limits_that_went_leave_what_is_out_to_end_and_those_that_come_back_start_full() -> None:
    quota = Quota(LimitsSpec(requests_per_minute=2))
    assert quota.takes(3) == 2
    quota.tell(QuotaReconfigured(NO_LIMITS, 2))
    assert quota.takes(50) == 50
    quota.settle("0.0", None)
    quota.tell(QuotaReconfigured(LimitsSpec(requests_per_minute=2), 3))
    assert quota.takes(50) == 2
    assert quota.actor.unknown_ends == 0


def test_an_older_configuration_changes_nothing() -> None:
    quota = Quota(LimitsSpec(max_concurrency=1))
    quota.tell(QuotaReconfigured(LimitsSpec(max_concurrency=7), 5))
    quota.tell(QuotaReconfigured(LimitsSpec(max_concurrency=1), 4))
    assert quota.takes(9) == 7
    assert Quota(LimitsSpec(max_concurrency=1), before=quota).actor.limits.max_concurrency == 7


def test_a_crash_never_refills_a_limit_and_forgets_no_debt() -> None:
    limits = LimitsSpec(requests_per_minute=60, tokens_per_minute=600, max_concurrency=3)
    before = Quota(limits)
    before.takes(2, tokens=300)
    before.settle("0.0", 360)

    after = Quota(limits, before)
    after.tell(ReservationsRestored((Reservation("0.1", 300),)))

    assert after.reserve("x") == QuotaRefused("x", NAME, "tokens_per_minute", 600, about(1006.1))
    assert list(after.actor.out) == ["0.1"]
    after.settle("0.1", 0)
    assert after.takes(1) == 0
    after.context.advance(6.2)
    assert after.takes(5) == 2


def test_after_a_message_it_raised_on_it_keeps_what_is_out_and_forgets_what_is_not() -> None:
    quota = Quota(LimitsSpec(tokens_per_minute=600, max_concurrency=2))
    quota.takes(2, tokens=300)
    quota.tell(ReservationsRestored((Reservation("0.1", 300),)))
    assert quota.reserve("x", 1).limit == "tokens_per_minute"
    quota.settle("0.0", None)
    quota.settle("0.1", None)
    assert quota.takes(9, tokens=300) == 1
    assert quota.actor.unknown_ends == 1


class AnyInterleaving(RuleBasedStateMachine):
    """Couriers come, end, crash the quota and change its limits in any order; nothing is lost and nothing made."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = LimitsSpec(requests_per_minute=30, tokens_per_minute=3000, max_concurrency=4, burst=5)
        self.quota = Quota(self.limits)
        self.out: dict[str, int] = {}
        self.admitted: list[float] = []
        self.generation = 1
        self.serial = 0

    @rule(tokens=st.integers(0, 900))
    def reserve(self, tokens: int) -> None:
        self.serial += 1
        name = f"r{self.serial}"
        answer = self.quota.reserve(name, tokens)
        if isinstance(answer, Reserved):
            self.out[name] = tokens
            self.admitted.append(self.quota.context.time)
        else:
            assert isinstance(answer, QuotaRefused)
            assert answer.retry_at is None or answer.retry_at > self.quota.context.time
            assert (answer.limit == "max_concurrency") == (len(self.out) >= 4)

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 9), used=st.integers(0, 1200))
    def settle(self, which: int, used: int) -> None:
        name = list(self.out)[which % len(self.out)]
        del self.out[name]
        self.quota.settle(name, used)

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.0, 15.0]))
    def wait(self, seconds: float) -> None:
        self.quota.context.advance(seconds)

    @rule()
    def crash(self) -> None:
        self.quota = Quota(self.limits, self.quota)
        self.quota.tell(ReservationsRestored(tuple(Reservation(name, tokens) for name, tokens in self.out.items())))

    @rule()
    def learn_the_same_configuration_again(self) -> None:
        self.generation += 1
        self.quota.tell(QuotaReconfigured(self.limits, self.generation))

    @invariant()
    def what_is_out_is_what_couriers_have(self) -> None:
        assert list(self.quota.actor.out) == list(self.out)
        assert len(self.out) <= 4
        assert self.quota.actor.unknown_ends == 0
        assert self.quota.actor.invariant() is None

    @invariant()
    def no_window_admits_more_than_limit_and_burst(self) -> None:
        for first, since in enumerate(self.admitted):
            assert len(self.admitted) - first <= 5 + (self.quota.context.time - since) * 0.5 + 1e-3


def test_B4_D1_no_window_admits_more_than_limit_and_burst_under_any_interleaving() -> None:
    run_state_machine_as_test(AnyInterleaving, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
