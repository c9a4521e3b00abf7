"""The circuit breaker: its states, its trials, and that it is stuck for ever in none of them (FEATURES D6)."""

from hypothesis import given
from hypothesis import strategies as st

from actors.provider.circuit import WAIT_S_MAX, Circuit, Ticket, Verdict
from messages.control import CircuitSpec
from messages.health import CircuitState


def admitted(circuit: Circuit, now: float) -> Ticket:
    ticket = circuit.admit(now)
    assert ticket is not None
    return ticket


def state_of(circuit: Circuit) -> CircuitState:
    return circuit.name


def opened(has_probes: bool = False, **changes: int) -> Circuit:
    """A circuit with a wait of 30 s that opened at 0."""
    circuit = Circuit(CircuitSpec(**{"failures": 1, **changes}), has_probes)
    assert circuit.failed(admitted(circuit, 0.0), 0.0)
    return circuit


def test_D6_it_opens_after_so_many_failures_in_a_row_and_no_sooner() -> None:
    circuit = Circuit(CircuitSpec(failures=3), has_probes=False)
    tickets = [admitted(circuit, 0.0) for _ in range(6)]
    circuit.failed(tickets[0], 1.0)
    circuit.failed(tickets[1], 1.0)
    circuit.succeeded(tickets[2], 1.0)
    circuit.failed(tickets[3], 1.0)
    circuit.failed(tickets[4], 1.0)
    assert state_of(circuit) is CircuitState.CLOSED
    circuit.failed(tickets[5], 1.0)
    assert state_of(circuit) is CircuitState.OPEN
    assert repr(circuit) == "open until 31.000 (wait 30 s), epoch 1"


def test_D6_it_opens_at_a_failure_rate_once_there_were_enough_calls_in_the_window() -> None:
    circuit = Circuit(CircuitSpec(failures=100, failure_rate=0.5, minimum_calls=4, window_s=60.0), has_probes=False)
    for now, is_good in ((0.0, False), (1.0, True), (2.0, False)):
        ticket = admitted(circuit, now)
        circuit.succeeded(ticket, now) if is_good else circuit.failed(ticket, now)
    assert state_of(circuit) is CircuitState.CLOSED
    circuit.failed(admitted(circuit, 3.0), 3.0)
    assert state_of(circuit) is CircuitState.OPEN


def test_D6_failures_that_left_the_window_count_no_more() -> None:
    circuit = Circuit(CircuitSpec(failures=100, failure_rate=0.5, minimum_calls=4, window_s=60.0), has_probes=False)
    for _ in range(3):
        circuit.failed(admitted(circuit, 0.0), 0.0)
    circuit.failed(admitted(circuit, 100.0), 100.0)
    assert state_of(circuit) is CircuitState.CLOSED


def test_without_probes_the_trial_comes_after_the_wait_itself() -> None:
    circuit = opened()
    assert (circuit.verdict(29.9), circuit.retry_at(29.9)) == (Verdict.WAIT, 30.0)
    assert circuit.admit(29.9) is None
    assert circuit.verdict(30.0) is Verdict.TRIAL
    assert admitted(circuit, 30.0).is_trial


def test_D6_at_most_K_trials_are_out_at_once() -> None:
    circuit = opened(half_open_calls=2)
    assert [circuit.admit(30.0) is not None for _ in range(4)] == [True, True, False, False]
    assert circuit.admit(30.0, explores=True) is None, "nor for one that explores"
    assert circuit.retry_at(30.0) == 30.5
    assert repr(circuit) == "half-open, 2 of 2 trials out, epoch 2"


def test_a_trial_that_says_nothing_gives_its_slot_back_and_the_circuit_stays_half_open() -> None:
    circuit = opened()
    trial = admitted(circuit, 30.0)
    assert circuit.admit(30.0) is None
    assert circuit.ignored(trial)
    assert state_of(circuit) is CircuitState.HALF_OPEN
    assert admitted(circuit, 30.0).is_trial


def test_a_trial_that_succeeds_closes_and_forgets_the_wait() -> None:
    circuit = opened()
    circuit.failed(admitted(circuit, 30.0), 31.0)
    assert circuit.retry_at(31.0) == 91.0
    assert circuit.succeeded(admitted(circuit, 91.0), 92.0)
    assert state_of(circuit) is CircuitState.CLOSED
    circuit.failed(admitted(circuit, 100.0), 100.0)
    assert circuit.retry_at(100.0) == 130.0


def test_a_trial_that_fails_doubles_the_wait_to_ten_minutes_at_most() -> None:
    circuit, now, waits = opened(), 0.0, []
    for _ in range(7):
        now = circuit.retry_at(now) or now
        circuit.failed(admitted(circuit, now), now)
        waits.append((circuit.retry_at(now) or 0.0) - now)
    assert waits == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0, 600.0]


def test_an_end_of_an_earlier_epoch_moves_no_state() -> None:
    circuit = Circuit(CircuitSpec(failures=1), has_probes=False)
    early, other = admitted(circuit, 0.0), admitted(circuit, 0.0)
    circuit.failed(other, 0.0)
    assert not circuit.succeeded(early, 1.0)
    assert state_of(circuit) is CircuitState.OPEN
    trial = admitted(circuit, 30.0)
    assert not circuit.failed(early, 31.0)
    assert not circuit.ignored(Ticket(early.epoch, True))
    assert circuit.trials == 1
    assert circuit.succeeded(trial, 32.0)


def test_with_probes_a_good_one_after_the_wait_admits_the_trials_and_closes_nothing() -> None:
    circuit = opened(has_probes=True)
    assert not circuit.probed(True, 29.0)
    assert state_of(circuit) is CircuitState.OPEN
    assert not circuit.wants_probe(29.0)
    assert circuit.wants_probe(30.0)
    assert circuit.verdict(30.0) is Verdict.WAIT
    assert circuit.probed(True, 31.0)
    assert state_of(circuit) is CircuitState.HALF_OPEN


def test_with_probes_a_bad_one_doubles_the_wait() -> None:
    circuit = opened(has_probes=True)
    assert not circuit.probed(False, 30.0)
    assert circuit.retry_at(30.0) == 90.0


def test_a_lost_prober_does_not_bench_a_provider_for_ever() -> None:
    circuit = opened(has_probes=True)
    assert (circuit.verdict(59.9), circuit.retry_at(59.9)) == (Verdict.WAIT, 60.0)
    assert admitted(circuit, 60.0).is_trial


def test_a_probe_that_is_always_bad_does_not_bench_a_provider_for_ever() -> None:
    circuit, now = opened(has_probes=True), 0.0
    for _ in range(10):
        now = circuit.retry_at(now) or now
        if circuit.probed(False, now):
            break
    assert state_of(circuit) is CircuitState.HALF_OPEN
    assert now < 2 * WAIT_S_MAX * 2


def test_after_a_crash_open_stays_open_and_closed_becomes_half_open() -> None:
    assert opened().after_crash(stays_closed=False).retry_at(10.0) == 30.0
    closed = Circuit(CircuitSpec(), has_probes=False)
    assert closed.after_crash(stays_closed=False).name is CircuitState.HALF_OPEN
    assert closed.after_crash(stays_closed=True).name is CircuitState.CLOSED
    half_open = opened()
    trial = admitted(half_open, 30.0)
    heir = half_open.after_crash(stays_closed=False)
    assert (heir.name, heir.trials) == (CircuitState.HALF_OPEN, 0)
    assert not heir.succeeded(trial, 31.0)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["admit", "succeed", "fail", "ignore", "good probe", "bad probe"]), st.floats(0.0, 100.0)),
    max_size=60,
)


@given(EVENTS, st.booleans(), st.integers(1, 3))
def test_whatever_happens_trials_are_bounded_nothing_passes_early_and_a_way_back_remains(
    events: list[tuple[str, float]], has_probes: bool, slots: int
) -> None:
    circuit = Circuit(CircuitSpec(failures=2, open_for_s=30.0, half_open_calls=slots), has_probes)
    now, out = 0.0, list[Ticket]()
    for what, passed_s in events:
        now += passed_s
        match what:
            case "admit":
                verdict = circuit.verdict(now)
                ticket = circuit.admit(now)
                assert (ticket is None) == (verdict is Verdict.WAIT)
                out += [] if ticket is None else [ticket]
            case "good probe" | "bad probe":
                circuit.probed(what == "good probe", now)
            case _ if out:
                ticket = out.pop(0)
                if what == "succeed":
                    circuit.succeeded(ticket, now)
                elif what == "fail":
                    circuit.failed(ticket, now)
                else:
                    circuit.ignored(ticket)
        assert circuit.flaw() is None
        assert circuit.trials == sum(1 for ticket in out if ticket.is_trial and ticket.epoch == circuit.epoch) <= slots
        if circuit.verdict(now) is Verdict.WAIT:
            retry_at = circuit.retry_at(now)
            assert retry_at is not None
            assert now < retry_at <= now + WAIT_S_MAX + 30.0
    for ticket in out:
        circuit.ignored(ticket)
    assert circuit.admit(now + WAIT_S_MAX + 30.0) is not None
