"""A mailbox keeps the order in which mail came, whatever is put in its place meanwhile; and a turn has one time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kernel import Context, Ref
from messages.envelope import Envelope
from runtime.system.clock import Clock
from runtime.system.mailbox import Mailbox
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
