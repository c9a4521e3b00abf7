"""The constants of health, circuit and probes in the file (FEATURES D5, D6; pain 20)."""

import pytest

from messages.control import HealthSpec, ProbeSpec
from runtime.config.describe import notes
from tests.daemon.config_files import MINIMAL, load, problems_of


def probing(probe: str, models: str = "[{name: m, input_price: 1, output_price: 2}]") -> str:
    return MINIMAL + f"    models: {models}\n    probe: {probe}\n"


def said_of(text: str) -> list[tuple[str, str]]:
    return [(problem.path, problem.message) for problem in problems_of(text)]


def test_pain_20_a_paid_probe_is_asked_for_by_its_kind_and_has_a_cap_of_its_own() -> None:
    (spec,) = load(probing("{kind: chat}")).snapshot.providers
    assert spec.probe == ProbeSpec("chat", 30.0, None, 0.05)
    (spec,) = load(probing("{kind: chat, interval: 10m, model: m, max_spend_per_day: 1.5}")).snapshot.providers
    assert spec.probe == ProbeSpec("chat", 600.0, "m", 1.5)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (probing("{kind: models, model: m}"), "providers[0].probe.model", "needs kind: chat, for only that calls a model"),
        (probing("{max_spend_per_day: 1}"), "providers[0].probe.max_spend_per_day",
         "needs kind: chat, for only that calls a model"),
        (probing("{kind: chat, model: n}"), "providers[0].probe.model", "is none of its models"),
        (probing("{kind: chat, max_spend_per_day: -1}"), "providers[0].probe.max_spend_per_day", "must be 0 or more"),
        (MINIMAL + "    circuit: {open_max: 0}\n", "providers[0].circuit.open_max", "must be longer than 0"),
        (MINIMAL + "health: {weights: {success: 0.9}}\n", "health.weights", "success, errors and latency must make 1 together"),
        (MINIMAL + "health: {weights: {success: 2, errors: 0, latency: 0}}\n", "health.weights.success", "must be 1 or less"),
        (MINIMAL + "health: {slow_at: 1}\n", "health.slow_at", "must be more than 1"),
        (MINIMAL + "health: {stale_windows: -1}\n", "health.stale_windows", "must be 0 or more"),
        (MINIMAL + "health: {minimum_calls: 0}\n", "health.minimum_calls", "must be 1 or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_its_path_and_reason(text: str, path: str, message: str) -> None:
    assert said_of(text) == [(path, message)]


def test_D5_weights_are_taken_as_they_are_written() -> None:
    health = load(
        MINIMAL + "health: {weights: {success: 0.4, errors: 0.4, latency: 0.2}, failures_factor: 0}\n"
    ).snapshot.health
    assert health == HealthSpec(success_weight=0.4, error_weight=0.4, latency_weight=0.2, failures_factor=0.0)


def test_pain_20_check_notes_a_paid_probe_that_cannot_be_priced() -> None:
    unpriced, priced = probing("{kind: chat}", "[nobody-prices-this]"), probing("{kind: chat}")

    assert any("probes call no model" in note for note in notes(load(unpriced)))
    assert not any("probes call no model" in note for note in notes(load(priced)))
