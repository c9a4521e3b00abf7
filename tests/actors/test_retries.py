"""When and where a request may be tried again: pauses, budgets, and what a request has tried."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.control import BackoffSpec, FailoverSpec
from messages.failures import Blame, Failure, Retry, Scope
from runtime.courier.retries import BUDGET_FLOOR, RetryBudgets, Tries, backoff_s

RNG = Random(1)


def failure(retry: Retry = Retry.LATER, scope: Scope = Scope.PROVIDER, retry_after_s: float | None = None) -> Failure:
    return Failure(Blame.UPSTREAM, scope, retry, "broken", 503, retry_after_s)


def tries(max_attempts: int = 3, *, enabled: bool = True) -> Tries:
    backoff = BackoffSpec(kind="exponential", base_s=0.1, factor=2.0, max_s=5.0, jitter=False)
    return Tries(FailoverSpec(enabled=enabled, max_attempts=max_attempts, backoff=backoff))


@pytest.mark.parametrize(
    ("kind", "waits"),
    [
        ("none", [0, 0, 0, 0, 0]),
        ("linear", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("exponential", [0.1, 0.2, 0.4, 0.8, 1.0]),
        ("fibonacci", [0.1, 0.1, 0.2, 0.3, 0.5]),
    ],
)
def test_each_kind_of_backoff_grows_in_its_way_up_to_its_limit(kind: str, waits: list[float]) -> None:
    spec = BackoffSpec(kind=kind, base_s=0.1, factor=2.0, max_s=1.0, jitter=False)

    assert [backoff_s(spec, repeat, RNG) for repeat in range(1, 6)] == pytest.approx(waits)


@given(
    kind=st.sampled_from(["none", "linear", "exponential", "fibonacci"]),
    repeat=st.integers(1, 10_000),
    base_s=st.floats(0, 10),
    factor=st.floats(1, 100),
    seed=st.integers(0, 100),
)
def test_a_pause_is_never_negative_nor_over_its_limit_however_often(
    kind: str, repeat: int, base_s: float, factor: float, seed: int
) -> None:
    spec = BackoffSpec(kind=kind, base_s=base_s, factor=factor, max_s=10.0, jitter=True)
    without = BackoffSpec(kind=kind, base_s=base_s, factor=factor, max_s=10.0, jitter=False)

    assert 0.0 <= backoff_s(spec, repeat, Random(seed)) <= backoff_s(without, repeat, Random(seed)) <= 10.0


def test_jitter_spreads_the_pauses_over_the_whole_time() -> None:
    spec = BackoffSpec(kind="linear", base_s=1.0, max_s=10.0, jitter=True)
    rng = Random(3)
    drawn = [backoff_s(spec, 1, rng) for _ in range(200)]

    assert min(drawn) < 0.1
    assert max(drawn) > 0.9
    assert 0.4 < sum(drawn) / len(drawn) < 0.6


def test_a_provider_gets_its_floor_of_repeats_and_then_its_share() -> None:
    # Given a provider that has had its floor of repeats in a row
    budgets = RetryBudgets(0.2)
    assert [budgets.spend("a") for _ in range(int(BUDGET_FLOOR))] == [True] * int(BUDGET_FLOOR)
    assert not budgets.has_any("a")
    assert not budgets.spend("a")

    # When five first calls went there, then one repeat is earned, and another provider has its own
    for _ in range(5):
        budgets.earn("a")
    assert budgets.has_any("a")
    assert budgets.spend("a")
    assert not budgets.spend("a")
    assert budgets.spend("b")


def test_another_share_leaves_what_was_spent_of_those_that_are_still_configured() -> None:
    budgets = RetryBudgets(0.2)
    for name in "ab":
        while budgets.spend(name):
            pass

    budgets.reconfigure(1.0, ("a",))
    assert (budgets.has_any("a"), budgets.has_any("b")) == (False, True), "b is new if it comes again"
    budgets.earn("a")
    assert budgets.has_any("a")


def test_good_times_save_up_no_more_than_the_floor() -> None:
    budgets = RetryBudgets(1.0)
    for _ in range(1000):
        budgets.earn("a")

    assert sum(budgets.spend("a") for _ in range(1000)) == int(BUDGET_FLOOR)


def test_pain_11_a_failed_provider_is_not_asked_again_until_its_time_has_come() -> None:
    # Given one provider that may be asked later, one in 2 s, and one never
    found = tries(max_attempts=10)
    found.add("now", failure(), 100.0)
    found.add("soon", failure(retry_after_s=2.0), 100.0)
    found.add("never", failure(Retry.ELSEWHERE), 100.0)
    assert list(found.tried) == ["now", "soon", "never"]

    # When their times come, then each that may is a candidate again
    found.wake(100.5)
    assert list(found.tried) == ["soon", "never"]
    found.wake(102.0)
    assert list(found.tried) == ["never"]
    assert found.is_repeat("now")
    assert not found.is_repeat("other")


def test_the_pause_before_a_repeat_is_the_longer_of_backoff_and_what_was_asked_for() -> None:
    budgets = RetryBudgets(0.2)
    short, long = tries(), tries()
    short.add("a", failure(retry_after_s=0.01), 100.0)
    long.add("a", failure(retry_after_s=3.0), 100.0)

    assert short.rest(100.0, budgets, RNG) == pytest.approx(0.1)
    assert long.rest(100.0, budgets, RNG) == pytest.approx(3.0)


def test_what_was_waited_elsewhere_since_the_failure_is_part_of_the_pause() -> None:
    found = tries()
    found.add("a", failure(retry_after_s=3.0), 100.0)

    assert found.rest(102.0, RetryBudgets(0.2), RNG) == pytest.approx(1.0)
    assert found.rest(110.0, RetryBudgets(0.2), RNG) == 0.0
    found.wake(110.0)
    assert found.tried == ()


def test_the_first_wait_that_was_named_counts_where_its_provider_may_get_a_repeat() -> None:
    found, budgets = tries(max_attempts=10), RetryBudgets(0.2)
    found.add("unnamed", failure(), 100.0)
    assert found.named_at(budgets) is None
    found.add("late", failure(retry_after_s=9.0), 100.0)
    found.add("soon", failure(retry_after_s=2.0), 101.0)
    found.add("never", failure(Retry.ELSEWHERE, retry_after_s=1.0), 100.0)
    assert found.named_at(budgets) == pytest.approx(103.0)
    while budgets.spend("soon"):
        pass
    assert found.named_at(budgets) == pytest.approx(109.0)

    spent = tries(max_attempts=1)
    spent.add("a", failure(retry_after_s=2.0), 100.0)
    assert spent.named_at(RetryBudgets(0.2)) is None


def test_pain_13_nobody_is_tried_again_when_the_attempts_are_spent() -> None:
    budgets = RetryBudgets(0.2)
    found = tries(max_attempts=2)
    found.add("a", failure(), 100.0)
    assert found.may_go_on
    found.add("b", failure(), 100.0)

    assert not found.may_go_on
    assert found.rest(100.0, budgets, RNG) is None
    assert not tries(enabled=False).may_go_on


def test_pain_13_nobody_is_tried_again_who_has_had_its_share_of_repeats() -> None:
    budgets = RetryBudgets(0.2)
    while budgets.spend("a"):
        pass
    found = tries(max_attempts=100)
    found.add("a", failure(), 100.0)

    assert found.rest(100.0, budgets, RNG) is None


def test_B5_a_final_failure_is_not_repeated_whatever_it_was_and_still_says_when_others_may_come() -> None:
    found = tries(max_attempts=10)
    found.add("a", failure(scope=Scope.BUCKET, retry_after_s=30.0), 100.0, is_final=True)

    assert found.rest(100.0, RetryBudgets(0.2), RNG) is None
    assert found.soonest_s(100.0) is None
    assert found.retry_after_s(110.0) == pytest.approx(20.0)


def test_B5_with_replacement_those_that_failed_for_now_return_after_the_back_off_and_others_do_not() -> None:
    backoff = BackoffSpec(kind="linear", base_s=0.5, jitter=False)
    found = Tries(FailoverSpec(max_attempts=10, backoff=backoff, with_replacement=True))
    found.add("now", failure(), 100.0)
    found.add("never", failure(Retry.ELSEWHERE), 100.0)
    found.add("late", failure(retry_after_s=9.0), 100.0)

    assert found.replacement_s(100.0, RetryBudgets(0.2), RNG) == pytest.approx(0.5)
    found.wake(100.5)
    assert found.tried == ("never", "late")

    # When nobody could return, there is no pause.
    assert found.replacement_s(100.5, RetryBudgets(0.2), RNG) is None
    found.add("now", failure(), 100.5)
    spent = RetryBudgets(0.2)
    while spent.spend("now"):
        pass
    assert found.replacement_s(100.5, spent, RNG) is None
    assert found.replacement_s(100.5, RetryBudgets(0.2), RNG) == pytest.approx(1.0)


def test_without_replacement_nobody_returns_before_all_were_tried() -> None:
    found = tries()
    found.add("a", failure(), 100.0)

    assert found.replacement_s(100.0, RetryBudgets(0.2), RNG) is None


def test_what_can_never_succeed_is_not_waited_for() -> None:
    found = tries()
    found.add("a", failure(Retry.ELSEWHERE, Scope.CREDENTIAL), 100.0)

    assert found.rest(100.0, RetryBudgets(0.2), RNG) is None
    assert found.soonest_s(100.0) is None


def test_what_all_failures_have_in_common_is_known() -> None:
    limited, keys, mixed = tries(), tries(), tries()
    assert not limited.all_rate_limited()
    assert not keys.all_bad_credentials()
    limited.add("a", failure(scope=Scope.BUCKET, retry_after_s=30.0), 100.0)
    limited.add("b", failure(scope=Scope.BUCKET, retry_after_s=20.0), 100.0)
    keys.add("a", failure(Retry.ELSEWHERE, Scope.CREDENTIAL), 100.0)
    mixed.add("a", failure(scope=Scope.BUCKET), 100.0)
    mixed.add("b", failure(), 100.0)

    assert limited.all_rate_limited()
    assert limited.soonest_s(105.0) == limited.retry_after_s(105.0) == pytest.approx(15.0)
    assert keys.all_bad_credentials()
    assert not mixed.all_rate_limited()
    assert not mixed.all_bad_credentials()
