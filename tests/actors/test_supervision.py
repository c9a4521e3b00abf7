"""The restart decision: a pure function of (history, now, limit)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kernel import SupervisionSpec
from runtime.system.supervision import UNLIMITED_DELAY_S, GiveUp, Restart, decide

FIVE_IN_THIRTY = SupervisionSpec(limit=5, period_s=30.0)
BACKING_OFF = SupervisionSpec(limit=5, period_s=30.0, backoff_s=1.0, backoff_max_s=5.0)
FOR_EVER = SupervisionSpec(limit=None, period_s=30.0, backoff_s=0.5, backoff_max_s=30.0)
FOR_EVER_AT_ONCE = SupervisionSpec(limit=None)


@pytest.mark.parametrize(
    ("history", "now", "spec", "verdict"),
    [
        ([], 0.0, FIVE_IN_THIRTY, Restart(0.0)),
        ([1.0, 2.0, 3.0, 4.0], 5.0, FIVE_IN_THIRTY, Restart(0.0)),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 6.0, FIVE_IN_THIRTY, GiveUp(6)),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 30.9, FIVE_IN_THIRTY, GiveUp(6)),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 31.0, FIVE_IN_THIRTY, Restart(0.0)),
        ([], 0.0, SupervisionSpec(limit=0), GiveUp(1)),
        ([], 0.0, BACKING_OFF, Restart(1.0)),
        ([0.0], 1.0, BACKING_OFF, Restart(2.0)),
        ([0.0, 1.0], 2.0, BACKING_OFF, Restart(4.0)),
        ([0.0, 1.0, 2.0], 3.0, BACKING_OFF, Restart(5.0)),
        ([0.0], 100.0, BACKING_OFF, Restart(1.0)),
        ([], 0.0, FOR_EVER, Restart(0.5)),
        ([1.0] * 64, 1.0, FOR_EVER, Restart(30.0)),
        ([], 0.0, FOR_EVER_AT_ONCE, Restart(UNLIMITED_DELAY_S)),
        ([1.0, 1.0], 1.0, FOR_EVER_AT_ONCE, Restart(UNLIMITED_DELAY_S * 4)),
    ],
)
def test_the_decision_for_a_history(history: list[float], now: float, spec: SupervisionSpec, verdict: Restart | GiveUp) -> None:
    assert decide(history, now, spec) == verdict


times = st.floats(0.0, 1e6)
histories = st.lists(times, max_size=80).map(sorted)
specs = st.builds(
    SupervisionSpec,
    limit=st.none() | st.integers(0, 70),
    period_s=st.floats(0.1, 1e4),
    backoff_s=st.floats(0.0, 100.0),
    backoff_max_s=st.floats(0.0, 1000.0),
)


@given(histories, specs, st.floats(0.0, 1e6))
def test_who_has_no_limit_never_gives_up_and_never_restarts_at_once(
    history: list[float], spec: SupervisionSpec, later_s: float
) -> None:
    verdict = decide(history, (history[-1] if history else 0.0) + later_s, spec)
    if spec.limit is None:
        assert isinstance(verdict, Restart)
        assert verdict.delay_s >= UNLIMITED_DELAY_S


@given(histories, specs)
def test_a_failure_more_never_makes_it_milder(history: list[float], spec: SupervisionSpec) -> None:
    now = history[-1] if history else 0.0
    before, after = decide(history, now, spec), decide([*history, now], now, spec)
    if isinstance(before, GiveUp):
        assert isinstance(after, GiveUp)
    elif isinstance(after, Restart):
        assert after.delay_s >= before.delay_s


@given(histories, specs, times)
def test_what_lies_further_back_than_the_period_does_not_count(
    history: list[float], spec: SupervisionSpec, later_s: float
) -> None:
    now = (history[-1] if history else 0.0) + spec.period_s + later_s
    assert decide([at for at in history if now - at < spec.period_s], now, spec) == decide(history, now, spec)


@given(specs, st.floats(0.0, 1e6))
def test_no_more_restarts_than_the_limit_fall_in_any_period(spec: SupervisionSpec, start: float) -> None:
    history: list[float] = []
    now = start
    for _ in range(100):
        verdict = decide(history, now, spec)
        history.append(now)
        if isinstance(verdict, GiveUp):
            assert spec.limit is not None
            assert sum(1 for at in history if now - at < spec.period_s) == spec.limit + 1
            return
        if spec.limit is not None:
            assert sum(1 for at in history if now - at < spec.period_s) <= spec.limit
        now += verdict.delay_s
