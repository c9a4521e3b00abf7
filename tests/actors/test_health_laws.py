"""What holds of the health score whatever its constants are and whatever happens (FEATURES D5)."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from actors.provider.health import Health
from messages.control import HealthSpec

SHARES = st.floats(0.0, 1.0)
WINDOW_S = 60.0
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["success", "failure", "late", "good probe", "bad probe"]), st.floats(0.1, 20.0), st.floats(0.0, 200.0)
    ),
    max_size=40,
)


@st.composite
def specs(draw: st.DrawFn) -> HealthSpec:
    """Any constants that the configuration takes. Weights make 1 together."""
    success, error = sorted((draw(SHARES), draw(SHARES)))
    return HealthSpec(
        min_score=draw(st.floats(0.05, 0.95)),
        ewma_alpha=draw(st.floats(0.01, 1.0)),
        failures=draw(st.integers(1, 8)),
        min_success_rate=draw(SHARES),
        window_s=WINDOW_S,
        decay=draw(st.floats(0.01, 0.5)),
        success_weight=success,
        error_weight=error - success,
        latency_weight=1.0 - error,
        slow_at=draw(st.floats(1.1, 10.0)),
        failures_factor=draw(SHARES),
        minimum_calls=draw(st.integers(1, 30)),
        stale_windows=draw(st.floats(0.0, 5.0)),
    )


def play(health: Health, events: list[tuple[str, float, float]]) -> float:
    """Let it all happen; returns the time (s) it is then. Each step checks what must always hold."""
    now = 0.0
    for what, slowness, passed_s in events:
        now += passed_s
        match what:
            case "success":
                health.succeeded(slowness, now)
            case "failure":
                health.failed(now)
            case "late":
                health.called_off_late(now)
            case _:
                health.probed(what == "good probe", now)
        score, is_healthy = health.view(now)
        assert -1e-9 <= score <= 1.0 + 1e-9
        assert health.flaw() is None
        assert 0.0 <= health.success_rate <= 1.0
        assert 0.0 <= health.error_rate <= 1.0
        assert (score, is_healthy) == (health.score(now), health.is_healthy(now))
        if is_healthy:
            assert score >= health.spec.min_score - 1e-6
    return now


@given(specs(), EVENTS)
def test_D5_the_score_stays_a_share_and_nobody_below_the_minimum_is_healthy(
    spec: HealthSpec, events: list[tuple[str, float, float]]
) -> None:
    play(Health(spec), events)


@given(specs(), EVENTS)
def test_D5_however_bad_it_was_silence_alone_makes_it_healthy_again(
    spec: HealthSpec, events: list[tuple[str, float, float]]
) -> None:
    health = Health(spec)
    now = play(health, events)

    windows = spec.stale_windows + spec.min_score / spec.decay
    # Calls in the window fade by 1/e each: forty of them are none after ten more.
    assert health.is_healthy(now + (windows + 11.0) * WINDOW_S)


@given(specs(), EVENTS)
def test_D5_looking_at_it_changes_nothing(spec: HealthSpec, events: list[tuple[str, float, float]]) -> None:
    looked_at, left_alone = Health(spec), Health(spec)
    now = play(looked_at, events)
    for what, slowness, at in _at_times(events):
        _tell(left_alone, what, slowness, at)

    assert looked_at.view(now + 500.0) == left_alone.view(now + 500.0)


@given(specs(), EVENTS, st.floats(0.0, 300.0))
def test_D5_after_a_failure_it_stands_no_better_than_after_a_success(
    spec: HealthSpec, events: list[tuple[str, float, float]], passed_s: float
) -> None:
    failing, working = Health(spec), Health(spec)
    now = play(failing, events) + passed_s
    play(working, events)

    failing.failed(now)
    working.succeeded(1.0, now)

    assert failing.score(now) <= working.score(now) + 1e-9
    assert (failing.failures_in_a_row >= 1, working.failures_in_a_row) == (True, 0)


@given(specs(), EVENTS, st.integers(1, 20))
def test_D5_good_probes_lift_it_until_it_is_healthy(
    spec: HealthSpec, events: list[tuple[str, float, float]], count: int
) -> None:
    health = Health(replace(spec, minimum_calls=1_000_000))
    now = play(health, events)
    scores = [health.score(now)]
    for _ in range(count):
        health.probed(True, now)
        scores.append(health.score(now))

    assert scores == sorted(scores)
    for _ in range(1000):
        health.probed(True, now)
    assert health.is_healthy(now)


def _at_times(events: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    now, told = 0.0, []
    for what, slowness, passed_s in events:
        now += passed_s
        told.append((what, slowness, now))
    return told


def _tell(health: Health, what: str, slowness: float, now: float) -> None:
    match what:
        case "success":
            health.succeeded(slowness, now)
        case "failure":
            health.failed(now)
        case "late":
            health.called_off_late(now)
        case _:
            health.probed(what == "good probe", now)
