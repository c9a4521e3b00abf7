"""The laws of the queue under any interleaving: no lost wake-up, no dead waiter, every query answered exactly once.

A small world plays providers, tenants and couriers by the book: a provider that says no for want of room owes one
``CapacityFreed`` and tells it when a call ends; a courier claims its plan or leaves. A seed decides who moves next; mail to
the router stays in the order in which it was sent.
"""

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.control import Configured
from messages.policy import CRITICAL, LOW, NORMAL
from messages.routing import (
    CapacityFreed,
    Claimed,
    Gathered,
    Hints,
    NoBidReason,
    NoRoute,
    RequestProfile,
    RoutePlan,
    RouteQuery,
    Withdraw,
)
from tests.actors.router_kit import Answer, Desk, bid, full, no, provider, snapshot

NAMES = ("a", "b", "c")
MODELS = {"m": ("a", "b"), "n": ("b", "c"), "o": ("c",)}


@dataclass
class Place:
    """A provider: ``room`` calls at once, perhaps a rate limit that opens at ``open_at``."""

    room: int
    calls: list[str] = field(default_factory=list)
    owes: bool = False
    open_at: float = 0.0


@dataclass
class Round:
    """A fan-out under way."""

    key: str
    left: list[str]
    answers: list[Answer]


class World:
    """Providers, couriers and the mail between them and the router."""

    def __init__(self, seed: int, *, is_unruly: bool) -> None:
        self.rng = Random(seed)
        self.is_unruly = is_unruly
        specs = [provider(name, *(model for model, at in MODELS.items() if name in at)) for name in NAMES]
        strategy = self.rng.choice(["first", "adaptive", "least_connections", "round_robin"])
        self.config: dict[str, Any] = {"strategy": strategy, "queue_max_length": 1000, "fanout": self.rng.choice([1, 16])}
        self.specs = specs
        self.desk = Desk(*specs, seed=str(seed), **self.config)
        self.places = {name: Place(self.rng.randint(1, 2)) for name in NAMES}
        self.inbox: deque[Any] = deque()
        self.rounds: list[Round] = []
        self.plans: list[tuple[RouteQuery, RoutePlan]] = []
        self.asked: dict[str, int] = {}
        self.refused: list[str] = []
        self.served: list[str] = []
        self._fans = 0
        self._generation = 1

    # -- moves

    def step(self, *, may_ask: bool) -> bool:
        """One move of somebody; False if nobody has any left."""
        moves: list[Any] = []
        moves += [self.deliver] * 3 if self.inbox else []
        moves += [self.bid_or_not] * 3 if self.rounds else []
        moves += [self.claim] * 2 if self.plans else []
        moves += [self.end_a_call] if any(place.calls for place in self.places.values()) else []
        if may_ask:
            moves += [self.ask] * 2
            moves += [self.leave, self.limit, self.forget, self.reload] if self.is_unruly else []
        if not moves:
            return False
        self.rng.choice(moves)()
        self.look()
        return True

    def deliver(self) -> None:
        self.desk.give(self.inbox.popleft())

    def ask(self) -> None:
        query_id = f"q{len(self.asked)}"
        self.asked[query_id] = 0
        model, tenant = self.rng.choice(list(MODELS)), self.rng.choice(["", "x", "y"])
        hints = Hints(priority=self.rng.choice([LOW, NORMAL, NORMAL, CRITICAL]))
        profile = RequestProfile(model, tenant=tenant, max_tokens=self.rng.choice([None, 10, 5000]), hints=hints)
        self.send(query_id, profile, ())

    def send(self, query_id: str, profile: RequestProfile, refused: tuple[str, ...], arrived_at: float | None = None) -> None:
        now = self.desk.context.now()
        self.asked[query_id] += 1
        came = now if arrived_at is None else arrived_at
        self.inbox.append(RouteQuery(query_id, profile, now + 600.0, came, refused=refused))

    def bid_or_not(self) -> None:
        found = self.rng.choice(self.rounds)
        name = found.left.pop(self.rng.randrange(len(found.left)))
        place, now = self.places[name], self.desk.context.now()
        if place.open_at > now:
            found.answers.append(no(name, NoBidReason.RATE_LIMITED, place.open_at))
        elif len(place.calls) < place.room:
            found.answers.append(bid(name, room=place.room - len(place.calls), in_flight=len(place.calls)))
        else:
            place.owes = True
            found.answers.append(full(name))
        if not found.left:
            self.rounds.remove(found)
            self.inbox.append(Gathered(found.key, tuple(found.answers)))

    def claim(self) -> None:
        query, plan = self.plans.pop(self.rng.randrange(len(self.plans)))
        if self.is_unruly and self.rng.random() < 0.1:
            self.inbox.append(Withdraw(query.query_id))
            return
        for choice in plan.choices:
            place = self.places[choice.provider]
            is_granted = len(place.calls) < place.room and place.open_at <= self.desk.context.now()
            self.inbox.append(Claimed(query.query_id, choice.provider, is_granted))
            if is_granted:
                place.calls.append(query.query_id)
                self.served.append(query.query_id)
                return
        refused = tuple(sorted({*query.refused, *(choice.provider for choice in plan.choices)}))
        self.send(query.query_id, query.profile, refused, query.arrived_at)

    def end_a_call(self) -> None:
        name = self.rng.choice([name for name in NAMES if self.places[name].calls])
        place = self.places[name]
        place.calls.pop(self.rng.randrange(len(place.calls)))
        if place.owes:
            place.owes = False
            self.inbox.append(CapacityFreed(name, place.room - len(place.calls)))

    def leave(self) -> None:
        self.inbox.append(Withdraw(self.rng.choice([*self.asked, "nobody"])))

    def limit(self) -> None:
        place = self.places[self.rng.choice(NAMES)]
        place.open_at = self.desk.context.now() + self.rng.choice([0.0, 0.2, 3.0, 30.0])

    def forget(self) -> None:
        self.places[self.rng.choice(NAMES)].owes = False

    def reload(self) -> None:
        if self.rng.random() < 0.1:
            self._generation += 1
            self.inbox.append(Configured(snapshot(*self.specs, generation=self._generation, **self.config)))

    def look(self) -> None:
        """Take up what the router has said since the last look."""
        fans = self.desk.context.fans
        for fan in fans[self._fans :]:
            self.rounds.append(Round(fan.key, [ref.name.removeprefix("provider:") for ref in fan.to], []))
        self._fans = len(fans)
        slots = self.desk.context.slots
        for slot in slots:
            if len(slot.answers) == 1 and slot.deadline is None:
                slot.deadline = 0.0
                answer = slot.answers[0]
                if isinstance(answer, RoutePlan):
                    self.plans.append((slot.question, answer))
                else:
                    assert isinstance(answer, NoRoute)
                    self.refused.append(answer.query_id)

    # -- what must hold at the end

    def settle(self) -> None:
        """Let everybody move until nobody can, without any help of the clock."""
        for _ in range(100_000):
            if not self.step(may_ask=False):
                return
        raise AssertionError("the router never comes to rest")

    def all_answered_once(self) -> bool:
        slots = self.desk.context.slots
        assert len(slots) == sum(self.asked.values())
        assert all(len(slot.answers) <= 1 for slot in slots)
        return all(slot.answers for slot in slots)

    def has_nothing_left(self) -> bool:
        actor = self.desk.actor
        return not (actor._open or actor._rounds or actor._queue.waiting or actor._queue.lines or len(actor._plans))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_no_wake_up_is_lost_though_the_clock_never_moves(seed: int) -> None:
    world = World(seed, is_unruly=False)
    for _ in range(150):
        world.step(may_ask=True)
    world.settle()
    # Who waits now has met two rounds of refusals and waits out a back-off: a time that is known.
    for pending in world.desk.actor._queue.waiting.values():
        lines = [world.desk.actor._queue.lines[name] for name in pending.waits_on]
        assert any(line.wake_at is not None for line in lines), f"{pending.query.query_id} sleeps for ever"
    while world.desk.actor._queue.waiting:
        world.desk.context.fire(world.desk.actor)
        world.look()
        world.settle()
    assert world.all_answered_once()
    assert not world.refused
    assert sorted(world.served) == sorted(world.asked)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_every_query_is_answered_exactly_once_whatever_happens(seed: int) -> None:
    world = World(seed, is_unruly=True)
    for _ in range(250):
        world.step(may_ask=True)
        if world.desk.context.timers and world.rng.random() < 0.05:
            world.desk.context.fire(world.desk.actor)
            world.look()
    for _ in range(2000):
        world.settle()
        if not world.desk.context.timers:
            break
        world.desk.context.fire(world.desk.actor)
        world.look()
    assert world.all_answered_once()
    assert world.has_nothing_left()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_waiters_of_one_provider_are_served_in_the_order_of_their_arrival(seed: int, count: int) -> None:
    world = World(seed, is_unruly=False)
    world.places["c"] = Place(1, ["busy"])
    for number in range(count):
        world.asked[f"q{number}"] = 0
        world.send(f"q{number}", RequestProfile("o"), ())
    while world.inbox or world.rounds:
        world.deliver() if world.inbox else world.bid_or_not()
        world.look()
    assert len(world.desk.actor._queue.waiting) == count
    world.settle()
    assert world.served == [f"q{number}" for number in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_answers(seed: int) -> None:
    def run() -> list[Any]:
        world = World(seed, is_unruly=True)
        for _ in range(200):
            world.step(may_ask=True)
        return [slot.answers for slot in world.desk.context.slots]

    assert run() == run()
