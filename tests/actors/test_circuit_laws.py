"""The circuit beside a naive one that remembers every call (FEATURES D6)."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from actors.provider.circuit import Circuit, Closed, Open, Ticket, Verdict
from actors.provider.rate_window import SLICES
from messages.control import CircuitSpec
from messages.health import CircuitState

WINDOW_S = 10.0
SLICE_S = WINDOW_S / SLICES
CALLS = st.lists(st.tuples(st.booleans(), st.floats(0.0, 5.0)), max_size=60)


def counted(calls: list[tuple[bool, float]], now: float) -> tuple[int, int]:
    """Calls and failures in the window at ``now``, as exact as the circuit promises: to a tenth of the window."""
    oldest = int(now // SLICE_S) - SLICES
    inside = [is_failure for is_failure, at in calls if int(at // SLICE_S) > oldest]
    return len(inside), sum(inside)


@given(CALLS, st.integers(1, 8), st.one_of(st.none(), st.floats(0.1, 1.0)), st.integers(1, 12))
def test_D6_it_opens_with_the_call_that_reaches_the_row_or_the_rate_and_with_no_other(
    calls: list[tuple[bool, float]], failures: int, rate: float | None, minimum: int
) -> None:
    spec = CircuitSpec(failures=failures, failure_rate=rate, window_s=WINDOW_S, minimum_calls=minimum)
    circuit = Circuit(spec, has_probes=False)
    past: list[tuple[bool, float]] = []
    in_a_row, now = 0, 0.0
    for is_failure, passed_s in calls:
        now += passed_s
        ticket = circuit.admit(now)
        assert ticket is not None
        past.append((is_failure, now))
        if not is_failure:
            in_a_row = 0
            circuit.succeeded(ticket, now)
            assert circuit.is_closed
            continue
        in_a_row += 1
        total, bad = counted(past, now)
        is_due = in_a_row >= failures or (rate is not None and total >= minimum and bad >= rate * total)
        assert circuit.failed(ticket, now) == is_due
        if is_due:
            assert isinstance(circuit.state, Open)
            assert circuit.state.until == now + spec.open_for_s
            return


@given(st.floats(0.1, 100.0), st.floats(0.1, 1000.0), st.integers(1, 12), st.booleans())
def test_D6_the_wait_doubles_to_open_max_and_never_shrinks(
    open_for_s: float, open_max_s: float, trials: int, has_probes: bool
) -> None:
    circuit = Circuit(CircuitSpec(failures=1, open_for_s=open_for_s, open_max_s=open_max_s), has_probes)
    now, waits = 0.0, list[float]()
    for _ in range(trials):
        ticket = circuit.admit(now)
        assert ticket is not None
        circuit.failed(ticket, now)
        assert isinstance(circuit.state, Open)
        waits.append(circuit.state.wait_s)
        # Twice over: without a word of the prober trials come `open_for` after the wait.
        now = circuit.state.until + open_for_s

    assert waits[0] == open_for_s
    for before, wait in pairwise(waits):
        assert wait == max(before, min(2 * before, open_max_s))


@given(st.integers(1, 10), st.lists(st.sampled_from(["trial", "ignored", "content"]), max_size=60))
def test_D6_of_any_number_of_calls_exactly_K_are_trials_at_once(slots: int, events: list[str]) -> None:
    circuit = Circuit(CircuitSpec(failures=1, half_open_calls=slots), has_probes=False)
    circuit.trip(0.0)
    now, out = 30.0, list[Ticket]()
    for what in events:
        if what == "trial":
            ticket = circuit.admit(now)
            assert (ticket is not None) == (len(out) < slots)
            out += [ticket] if ticket is not None else []
        elif out:
            ticket = out.pop()
            assert ticket.is_trial
            if what == "content":
                assert circuit.succeeded(ticket, now)
                assert circuit.name is CircuitState.CLOSED
                return
            assert circuit.ignored(ticket)
        if not isinstance(circuit.state, Open):
            assert (circuit.verdict(now) is Verdict.TRIAL) == (len(out) < slots)


@given(CALLS, st.floats(0.0, 1000.0))
def test_D6_a_reset_closes_whatever_was_and_counts_from_nothing(calls: list[tuple[bool, float]], later_s: float) -> None:
    circuit = Circuit(CircuitSpec(failures=2, failure_rate=0.5, minimum_calls=2, window_s=WINDOW_S), has_probes=True)
    now, out = 0.0, []
    for is_failure, passed_s in calls:
        now += passed_s
        ticket = circuit.admit(now)
        if ticket is not None:
            out.append((is_failure, ticket))
            if len(out) > 2:
                is_bad, ended = out.pop(0)
                circuit.failed(ended, now) if is_bad else circuit.succeeded(ended, now)

    circuit.reset()

    assert isinstance(circuit.state, Closed)
    assert (circuit.state.in_a_row, circuit.state.recent.totals(now + later_s)) == (0, (0, 0))
    for _, ticket in out:
        # What is out was admitted before: its end moves nothing.
        assert not circuit.failed(ticket, now)
    assert circuit.is_closed
