"""The health report: how a provider stands, made of what, and what comes next (FEATURES D5, C3)."""

import pytest

from messages.calls import Outcome
from messages.control import CircuitSpec, Drain, ProbeSpec
from messages.failures import Scope
from messages.health import CircuitState, GetHealth, HealthReport, Probed, Status
from tests.actors.test_provider import World, failure


def report_of(world: World) -> HealthReport:
    found = world.give(GetHealth())
    assert isinstance(found, HealthReport)
    return found


def fail(world: World, number: int, scope: Scope = Scope.PROVIDER) -> None:
    world.call(f"bad{number}", outcome=Outcome.FAILED, failure=failure(scope))


def test_D5_a_provider_nobody_has_called_is_unchecked_and_healthy() -> None:
    report = report_of(World())

    assert (report.provider, report.status, report.score, report.is_healthy) == ("a", Status.UNCHECKED, 1.0, True)
    assert (report.success_rate, report.error_rate, report.slowness, report.failures_in_a_row) == (1.0, 0.0, 1.0, 0)
    assert (report.heard_s, report.proved_s, report.next_probe_s, report.last_failures) == (None, None, None, ())
    assert report.circuit.state is report.credential.state is CircuitState.CLOSED


def test_D5_the_report_tells_the_parts_the_score_is_made_of() -> None:
    world = World(circuit=CircuitSpec(failures=100))
    world.call("good")
    fail(world, 1)

    report = report_of(world)

    assert report.success_rate == pytest.approx(0.5)
    assert report.error_rate == pytest.approx(0.3)
    # alpha x raw of the failure + (1 - alpha) x the score before, which was 1.
    assert report.score == pytest.approx(0.7 + 0.3 * (0.5 * 0.5 + 0.2 * 0.7 + 0.3))
    assert (report.failures_in_a_row, report.successes, report.failures) == (1, 1, 1)
    assert report.score == world.report().health


def test_D5_the_last_ten_failures_are_told_the_latest_first() -> None:
    world = World(circuit=CircuitSpec(failures=100))
    for number in range(12):
        fail(world, number, Scope.MODEL if number == 11 else Scope.PROVIDER)
        world.context.advance(1.0)

    past = report_of(world).last_failures

    assert [round(one.ago_s) for one in past] == list(range(1, 11))
    assert [one.scope for one in past][:2] == [Scope.MODEL, Scope.PROVIDER]
    assert (past[0].model, past[0].code, past[0].status) == ("m", "http_503", 503)


def test_D6_the_report_follows_the_circuit_through_its_states() -> None:
    world = World(circuit=CircuitSpec(failures=2, failure_rate=0.9, half_open_calls=3))
    fail(world, 1)
    closed = report_of(world).circuit
    assert (closed.state, closed.failures_in_a_row, closed.calls, closed.failed, closed.wait_s) == (
        CircuitState.CLOSED,
        1,
        1,
        1,
        None,
    )

    fail(world, 2)
    world.context.advance(10.0)
    report = report_of(world)
    assert (report.circuit.state, report.circuit.retry_in_s, report.circuit.wait_s) == (CircuitState.OPEN, 20.0, 30.0)
    assert (report.status, report.reason) == (Status.UNAVAILABLE, "circuit_open for another 20.0 s")

    world.context.advance(20.0)
    world.award("trial")
    half_open = report_of(world).circuit
    assert (half_open.state, half_open.trials, half_open.retry_in_s) == (CircuitState.HALF_OPEN, 1, None)


def test_A3_a_refused_key_shows_in_the_circuit_of_the_key() -> None:
    world = World()
    fail(world, 1, Scope.CREDENTIAL)

    report = report_of(world)

    assert (report.status, report.circuit.state, report.credential.state) == (
        Status.AUTH_FAILED,
        CircuitState.CLOSED,
        CircuitState.OPEN,
    )


def test_C3_the_report_says_when_the_next_probe_is_due() -> None:
    world = World(probe=ProbeSpec("models", 30.0))
    assert report_of(world).next_probe_s == 0.0

    world.call("p1")
    world.context.advance(10.0)
    report = report_of(world)
    assert (report.next_probe_s, report.heard_s, report.proved_s) == (20.0, 10.0, 10.0)

    world.open_circuit()
    assert report_of(world).next_probe_s == 30.0
    world.give(Drain())
    assert report_of(world).next_probe_s is None


def test_C3_while_a_circuit_is_open_the_next_probe_is_due_at_the_end_of_its_wait_however_short_the_interval() -> None:
    world = World(probe=ProbeSpec("models", 5.0))
    world.open_circuit()
    world.context.advance(1.0)
    assert report_of(world).next_probe_s == 29.0
    world.context.advance(29.0)
    assert report_of(world).next_probe_s == 0.0


def test_A3_of_a_refused_key_and_an_open_circuit_the_key_is_told() -> None:
    world = World(circuit=CircuitSpec(failures=1))
    for name in ("p1", "p2"):
        world.award(name)
    world.fail("p1", Scope.CREDENTIAL)
    assert world.report().status is Status.AUTH_FAILED
    world.fail("p2", Scope.PROVIDER)
    assert world.report().circuit is CircuitState.OPEN
    assert (world.report().status, report_of(world).status) == (Status.AUTH_FAILED, Status.AUTH_FAILED)


def test_pain_20_the_report_sums_what_probes_have_cost_also_over_a_crash() -> None:
    world = World(probe=ProbeSpec("chat"))
    for _ in range(2):
        world.give(Probed(True, False, 0.1, "", 0.5))
    world.crash()

    assert report_of(world).probes_usd == 1.0


def test_a_report_changes_nothing() -> None:
    world = World(probe=ProbeSpec("models", 30.0))
    world.call("p1")
    world.open_circuit()
    world.context.advance(45.0)

    first = report_of(world)

    assert report_of(world) == first
    assert world.report() == world.report()
    assert first.circuit.state is CircuitState.OPEN


def test_who_cannot_report_is_out() -> None:
    silent = GetHealth().unanswered("provider:a", "out")

    assert isinstance(silent, HealthReport)
    assert (silent.provider, silent.status, silent.reason, silent.is_healthy) == ("a", Status.OUT, "out", False)
