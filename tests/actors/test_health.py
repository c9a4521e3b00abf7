"""The health score and its way back (FEATURES D5)."""

import pytest

from actors.provider.health import Health
from messages.control import HealthSpec


def test_D5_idle_at_the_start_is_healthy_however_long_it_idles() -> None:
    health = Health(HealthSpec())
    assert (health.score(1e6), health.is_healthy(1e6)) == (1.0, True)


def test_D5_the_score_is_the_weighted_sum_of_success_errors_and_relative_latency() -> None:
    health = Health(HealthSpec(ewma_alpha=1.0))
    health.succeeded(1.0, 0.0)
    assert health.score(0.0) == pytest.approx(1.0)
    health.succeeded(2.5, 0.0)
    assert health.score(0.0) == pytest.approx(0.5 + 0.2 + 0.3 * 0.5)
    health.succeeded(50.0, 0.0)
    assert health.score(0.0) == pytest.approx(0.7)
    health.failed(0.0)
    assert health.score(0.0) == pytest.approx(0.5 * 3 / 4)


def test_E1_D5_alpha_smooths_and_is_clamped() -> None:
    health = Health(HealthSpec(ewma_alpha=0.3))
    health.failed(0.0)
    raw = 0.2 * (1 - 0.3) + 0.3
    assert health.score(0.0) == pytest.approx(1.0 + 0.3 * (raw - 1.0))
    assert Health(HealthSpec(ewma_alpha=0.0)).alpha == 0.01
    assert Health(HealthSpec(ewma_alpha=7.0)).alpha == 1.0


def test_D5_five_failures_in_a_row_halve_it_and_a_success_ends_the_row() -> None:
    health = Health(HealthSpec(ewma_alpha=0.01))
    for _ in range(4):
        health.failed(0.0)
    before = health.score(0.0)
    health.failed(0.0)
    assert before > 0.9
    assert health.score(0.0) == pytest.approx(before / 2, abs=0.02)
    assert not health.is_healthy(0.0)
    health.succeeded(1.0, 0.0)
    assert health.score(0.0) > 0.9


def test_D5_a_row_of_failures_is_forgotten_after_two_windows_of_silence() -> None:
    soon, late = Health(HealthSpec(ewma_alpha=0.01)), Health(HealthSpec(ewma_alpha=0.01))
    for health in (soon, late):
        for _ in range(4):
            health.failed(0.0)

    soon.failed(119.0)
    late.failed(121.0)

    assert (soon.failures_in_a_row, late.failures_in_a_row) == (5, 1)
    assert soon.score(119.0) < 0.5 < 0.9 < late.score(121.0)


def test_D5_staleness_takes_five_percent_a_window_after_two_and_alone_never_makes_it_unhealthy() -> None:
    health = Health(HealthSpec())
    health.succeeded(1.0, 0.0)
    assert health.score(120.0) == pytest.approx(1.0)
    assert health.score(180.0) == pytest.approx(0.95)
    assert health.score(1e6) == pytest.approx(0.7)
    assert health.is_healthy(1e6)


def test_D5_a_bad_score_finds_its_way_back_by_time_alone() -> None:
    health = Health(HealthSpec())
    for _ in range(10):
        health.failed(0.0)
    assert not health.is_healthy(100.0)
    assert health.is_healthy(3600.0)


def test_D5_good_probes_lift_a_bad_score() -> None:
    health = Health(HealthSpec())
    for _ in range(10):
        health.failed(0.0)
    probes = 0
    while not health.is_healthy(1.0):
        health.probed(True, 1.0)
        probes += 1
    assert 1 <= probes <= 5


def test_D5_bad_probes_make_an_idle_provider_second_tier() -> None:
    health = Health(HealthSpec())
    health.probed(False, 0.0)
    health.probed(False, 30.0)
    assert not health.is_healthy(30.0)


def test_a_low_success_rate_counts_from_enough_calls_and_fades() -> None:
    health = Health(HealthSpec(ewma_alpha=0.01))
    for number in range(HealthSpec().minimum_calls + 10):
        if number % 5 == 0:
            health.failed(0.0)
        else:
            health.succeeded(1.0, 0.0)
        if number < HealthSpec().minimum_calls - 1:
            assert health.is_healthy(0.0)
    assert not health.is_healthy(0.0)
    assert health.is_healthy(100.0)


def test_a_call_called_off_late_is_no_success_but_no_error() -> None:
    late, failed = Health(HealthSpec(ewma_alpha=1.0)), Health(HealthSpec(ewma_alpha=1.0))
    late.called_off_late(0.0)
    failed.failed(0.0)
    assert late.score(0.0) == pytest.approx(0.5)
    assert failed.score(0.0) == pytest.approx(0.3)
