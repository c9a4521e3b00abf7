"""An actor alone: a ``Context`` without runtime or event loop, that keeps what the actor said. For ring-one tests and replays.

>>> context = SoloContext("aggregator")
>>> context.give(actor, GetStats())        # doctest: +SKIP
>>> context.replies                        # doctest: +SKIP
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from actors.kernel import Actor, Context, Ref, Refs, ReplySlot, TimerId
from messages.base import Message


@dataclass(slots=True)
class SoloSlot:
    """A question put aside; ``answers`` are those it got."""

    question: Any
    deadline: float | None = None
    answers: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Fan:
    """One ``gather``."""

    to: tuple[Ref[Any], ...]
    message: Any
    key: str
    on_behalf: ReplySlot | None
    within_s: float | None


class SoloContext(Context):
    """Keeps what an actor said, in plain lists. Time stands still until a test moves ``time`` (s) or ``unix`` (s)."""

    def __init__(self, name: str, seed: str = "0", time: float = 1000.0, unix: float = 1_800_000_000.0) -> None:
        self.rng = Random(f"{seed}/{name}")
        self.time = time
        self.unix = unix
        self.told: list[tuple[str, Any]] = []
        """(address, message) pairs."""
        self.replies: list[Any] = []
        self.slots: list[SoloSlot] = []
        self.fans: list[Fan] = []
        self.timers: dict[TimerId, tuple[float, Any]] = {}
        """(due, message) by id; fired and cancelled ones are gone."""
        self._handling: Any = None
        self._next_timer = 0

    def give(self, actor: Actor, message: Any) -> list[Any]:
        """Let ``actor`` handle ``message``; returns the replies of this turn."""
        before = len(self.replies)
        self._handling = message
        actor.handle(message, self)
        return self.replies[before:]

    def fire(self, actor: Actor) -> Any:
        """Move time to the earliest timer, deliver it, and return its message. Raises ``LookupError`` if there is none."""
        if not self.timers:
            raise LookupError("no timer is set")
        timer = min(self.timers, key=lambda key: (self.timers[key][0], key))
        due, message = self.timers.pop(timer)
        self.advance(max(0.0, due - self.time))
        self.give(actor, message)
        return message

    def advance(self, seconds: float) -> None:
        """Move both clocks by ``seconds``."""
        self.time += seconds
        self.unix += seconds

    def take_told(self) -> list[tuple[str, Any]]:
        """What was told since the last call."""
        told, self.told = self.told, []
        return told

    def tell(self, to: Ref[Any], message: Any) -> None:
        """Keep the message in ``told``."""
        self.told.append((to.name, message))

    def reply(self, message: Message) -> None:
        """Keep the message in ``replies``."""
        self.replies.append(message)

    def defer(self) -> ReplySlot:
        """Keep the question in ``slots``."""
        slot = SoloSlot(self._handling)
        self.slots.append(slot)
        return slot

    def answer(self, slot: ReplySlot, message: Message) -> None:
        """Keep the answer in its slot."""
        assert isinstance(slot, SoloSlot)
        slot.answers.append(message)

    def gather(
        self,
        to: Sequence[Ref[Any]] | Refs[Any],
        message: Any,
        key: str,
        on_behalf: ReplySlot | None = None,
        within_s: float | None = None,
    ) -> None:
        """Keep the fan-out in ``fans``."""
        self.fans.append(Fan(to.refs if isinstance(to, Refs) else tuple(to), message, key, on_behalf, within_s))

    def after(self, delay_s: float, message: Message) -> TimerId:
        """Keep the timer in ``timers``."""
        self._next_timer += 1
        timer = TimerId(self._next_timer)
        self.timers[timer] = (self.time + delay_s, message)
        return timer

    def cancel(self, timer: TimerId) -> None:
        """Drop the timer."""
        self.timers.pop(timer, None)

    def now(self) -> float:
        """The time the test has set, in s."""
        return self.time

    def wall(self) -> float:
        """The Unix time the test has set, in s."""
        return self.unix
