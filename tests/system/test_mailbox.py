"""A mailbox keeps the order in which mail came, whatever is put in its place meanwhile; and a turn has one time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kernel import Context, Ref
from messages.envelope import Envelope
from messages.routing import CallForBids, RequestProfile
from runtime.system.clock import Clock
from runtime.system.mailbox import PLACES, PLACES_KEPT, Mailbox
from runtime.system.system import ActorSystem
from tests.system.world import Note, Puppet, always, refs, run

steps = st.lists(st.one_of(st.just("put"), st.just("take"), st.integers(0, 4)))


@given(steps)
def test_what_came_first_is_taken_first(program: list[Any]) -> None:
    mailbox, line = Mailbox(), list[Envelope]()
    for number, step in enumerate(program):
        match step:
            case "put":
                line.append(Envelope(Note(str(number)), "test"))
                mailbox.append(line[-1])
            case "take" if line:
                assert mailbox.popleft() is line.pop(0)
            case "take":
                with pytest.raises(LookupError):
                    mailbox.popleft()
            case kept:
                line = line[:kept]
                mailbox.put_all(line)
        assert list(mailbox) == line
        assert len(mailbox) == len(line)


def test_a_line_that_never_empties_goes_round_and_grows_without_losing_its_order() -> None:
    mailbox, line = Mailbox(), list[Envelope]()
    for number in range(100):
        for step in range(3):
            line.append(Envelope(Note(f"{number}.{step}"), "test"))
            mailbox.append(line[-1])
        for _ in range(2 if number < 50 else 3):
            assert mailbox.popleft() is line.pop(0)
        assert list(mailbox) == line


def test_what_a_crowd_has_taken_is_given_back_when_all_are_gone() -> None:
    crowd = [Envelope(Note(str(number)), "test") for number in range(PLACES_KEPT + 1)]
    mailbox = Mailbox()
    for envelope in crowd:
        mailbox.append(envelope)
    assert [mailbox.popleft() for _ in crowd] == crowd
    assert len(mailbox._ring) == PLACES
    mailbox.append(crowd[0])
    assert list(mailbox) == crowd[:1]


def test_a_turn_has_one_time_and_so_have_all_that_are_asked_one_question() -> None:
    times: dict[str, list[float]] = {"asker": [], "a": [], "b": []}
    ticks = iter(range(1, 1000))

    def reader(name: str) -> Any:
        def read(puppet: Puppet, message: Any, context: Context) -> None:
            times[name] += [context.now(), context.now()]
            if name == "asker" and isinstance(message, Note):
                context.gather(refs("a", "b"), Note("to both"), "k")

        return always(Puppet(read))

    async def body(_: ActorSystem) -> None:
        system = ActorSystem(clock=Clock(lambda: float(next(ticks)), lambda: 0.0))
        for name in times:
            system.spawn(name, reader(name))
        system.tell(Ref("asker"), Note("go"))
        await system.stop()

    run(body)
    asked, gathered = times["asker"][:2], times["asker"][2:]
    assert asked[0] == asked[1] < times["a"][0] < gathered[0] == gathered[1]
    assert len({*times["a"], *times["b"]}) == 1


def test_bids_in_a_row_are_made_as_of_one_moment_and_whatever_comes_between_has_its_own() -> None:
    times: list[tuple[str, float]] = []
    ticks = iter(range(1, 1000))

    def read(_: Puppet, message: Any, context: Context) -> None:
        times.append((type(message).__name__, context.now()))

    async def body(_: ActorSystem) -> None:
        system = ActorSystem(clock=Clock(lambda: float(next(ticks)), lambda: 0.0))
        for name in ("a", "b"):
            system.spawn(name, always(Puppet(read)))
        call = CallForBids("q", RequestProfile("m"), "m")
        for message in (call, call, Note("n"), Note("n"), call, call):
            system.tell(Ref("a"), message)
        system.tell(Ref("b"), call)
        await system.stop()

    run(body)
    kinds = [kind for kind, _ in times]
    assert kinds == ["CallForBids", "CallForBids", "Note", "Note", "CallForBids", "CallForBids", "CallForBids"]
    first, again, note, another, third, fourth, elsewhere = (at for _, at in times)
    assert first == again < note < another < third == fourth < elsewhere
