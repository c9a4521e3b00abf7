"""A permit, as whoever wants to make a call comes by it: asked for, waited for, granted or refused.

Owns: one permit's note in the couriers' table, until the attempt that comes of it ends it.
Always: it is noted before the question leaves, and what the provider says is seen in the turn it says it, by the table and by
the router alike, whoever waits for it or does not any more.
"""

from contextlib import suppress
from typing import Any, Protocol

from messages.calls import AttemptKind, Award, Granted, Permit, RefusalReason, Refused
from messages.envelope import Fault
from messages.routing import Choice, Claimed, RoutePlan
from runtime.courier.call import ClientCall, CourierHouse
from runtime.courier.permits import Noted
from runtime.system.replies import Ask, AskError, Follower, Hearer

_EXPLORE = AttemptKind.EXPLORE
"""A global is read faster than a member of an enum."""


class Decided(Follower, Protocol):
    """Who hears of a permit without waiting for it."""

    __slots__ = ()

    def decided(self) -> None:
        """The provider has answered."""


class Permission(Noted, Hearer):
    """One permit. ``ask``; then ``award``, or ``refusal`` if it ``is_decided``."""

    def __init__(
        self, house: CourierHouse, call: ClientCall, plan: RoutePlan, choice: Choice, permit_id: str, kind: AttemptKind
    ) -> None:
        super().__init__(choice.provider, permit_id)
        self._house = house
        self._client = call
        self._plan = plan
        self._address = "provider:" + choice.provider
        self._tokens = choice.tokens
        self._kind = kind
        self._noted_at = self._begun_at = house.clock.now()
        self._owes_end = False
        """It may have been granted, and nobody has told its end."""
        self._asked: Ask | None = None
        self._granted: Granted | None = None
        self.follower: Decided | None = None
        """Who does not wait for the answer; let go at the end, for the two know each other."""
        self.claims = False
        """The router is to be told, in the turn of the provider's answer, what came of its plan's winner."""

    def ask(self) -> None:
        """Ask for the permit. It is noted before the question leaves."""
        house, client = self._house, self._client
        read, model = client.read, self._plan.model
        house.permits.note(self)
        self._owes_end = True
        explores = self._kind is _EXPLORE
        question = Award(
            self.permit_id, client.query_id, model, self._tokens, read.stream, read.max_tokens, explores, read.prompt_tokens
        )
        self._asked = house.system.put(self._address, question, client.deadline, client.trace, "courier", self)

    @property
    def is_decided(self) -> bool:
        """Whether the answer to ``ask`` is here, and ``refusal`` tells it."""
        return self._asked is not None and not self._asked.is_open

    async def award(self) -> RefusalReason | None:
        """Wait for the permit. None: granted."""
        if self._asked is None:
            self.ask()
        asked = self._asked
        if asked is not None and asked.is_open:
            with suppress(AskError):
                await self._house.system.wait_for(asked)
        return self.refusal()

    def refusal(self) -> RefusalReason | None:
        """What came of ``ask``. None: granted."""
        asked, self._asked = self._asked, None
        if self._granted is not None:
            return None
        try:
            answer = asked.outcome() if asked is not None else None
        except AskError:
            return RefusalReason.EXPIRED
        reason = answer.reason if type(answer) is Refused else RefusalReason.EXPIRED
        if reason is RefusalReason.CRASHED:
            self._client.has_felled(f"award {self.permit_id}", Fault.CRASHED)
        return reason

    def heard(self, answer: Any) -> None:
        """The provider's answer, in the turn it was given: the table must be right before anything else happens.

        And the router must hear of it before it gets a bid that counts this call.
        """
        if self.claims:
            self.claims = False
            self._house.system.tell(self._house.router, claimed(self._plan, type(answer) is Granted), None, "courier")
        if type(answer) is Granted:
            self._granted = answer
        else:
            self._owes_end = False
        if self.follower is not None:
            self.follower.decided()

    def follow(self, follower: Decided) -> None:
        """Let ``follower`` be told what comes of ``ask``. It was asked in this very turn: there is no answer yet."""
        self.follower = follower
        if self._asked is not None:
            self._asked.follower = follower

    @property
    def is_granted(self) -> bool:
        """Whether the provider has said so."""
        return self._granted is not None

    def permit(self) -> Permit:
        """What a restarted provider is told of it."""
        client = self._client
        return Permit(self.permit_id, client.query_id, self._plan.model, self._tokens, client.read.stream, self._noted_at)

    def abandon(self, fault: Fault) -> None:
        """The system stops: there will be no answer."""
        if self._asked is not None:
            self._asked.abandon(fault)

    def _forget_question(self) -> None:
        """Nobody waits for the answer any more; and the two know each other."""
        self.follower = None
        if self._asked is not None:
            self._asked.is_open, self._asked = False, None


def claimed(plan: RoutePlan, is_granted: bool) -> Claimed:
    """What the router is to know of its plan's winner."""
    return Claimed(plan.query_id, plan.choices[0].provider, is_granted)
