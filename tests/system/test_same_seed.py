"""Same seed, same run: a small world with traffic, timers and crashes leaves the same journal, byte for byte."""

import asyncio
from random import Random
from typing import Any

from actors.kernel import Actor, Context, Ref, ReplySlot, SupervisionSpec
from messages.base import Message
from messages.calls import Award, CallEnded, Granted, Outcome, RefusalReason, Refused
from messages.control import Timer
from messages.envelope import Envelope
from messages.routing import Bid, CallForBids, Choice, Gathered, NoBid, NoBidReason, NoRoute, RouteError, RoutePlan, RouteQuery
from runtime.system.frontier import encode_envelope
from runtime.system.replies import AskError
from runtime.system.system import ActorSystem
from tests.system.world import PROFILE, run

PROVIDERS = ("a", "b", "c", "d")
COURIERS = 300


class SmallProvider:
    """Bids by chance, falls over by chance, tells time by a timer, and keeps its permits over a restart."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.permits: dict[str, None] = {}
        self.is_broken = False

    def start(self, context: Context) -> None:
        context.after(context.rng.uniform(1.0, 3.0), Timer("tick"))

    def handle(self, message: Any, context: Context) -> None:
        chance = context.rng.random()
        if chance < 0.02:
            self.is_broken = chance < 0.01
            raise ZeroDivisionError
        match message:
            case CallForBids() if chance < 0.2:
                context.reply(NoBid(self.name, NoBidReason.AT_CAPACITY))
            case CallForBids():
                expected_s = context.rng.uniform(0.1, 2.0)
                context.reply(Bid(self.name, 0, 1, 1, 0, 0, 0, 0, 0, expected_s, None, 0, 0, 0, 1.0, True, False))
            case Award() if len(self.permits) < 5:
                self.permits[message.permit_id] = None
                context.reply(Granted(message.permit_id, "gpt-4o", 1))
            case Award():
                context.reply(Refused(message.permit_id, RefusalReason.AT_CAPACITY))
            case CallEnded():
                self.permits.pop(message.permit_id, None)
            case Timer():
                context.after(context.rng.uniform(1.0, 3.0), message)
                context.tell(Ref("book"), message)

    def invariant(self) -> str | None:
        return "broken" if self.is_broken else None


class SmallRouter:
    """Gathers bids for a query and answers with the best."""

    def __init__(self) -> None:
        self.waiting: dict[str, ReplySlot] = {}

    def start(self, context: Context) -> None:
        pass

    def handle(self, message: Any, context: Context) -> None:
        if isinstance(message, RouteQuery):
            slot = self.waiting[message.query_id] = context.defer()
            asked = context.rng.sample(PROVIDERS, 3)
            call = CallForBids(message.query_id, message.profile, "gpt-4o")
            context.gather([Ref(f"provider:{name}") for name in asked], call, message.query_id, slot, 0.05)
        elif isinstance(message, Gathered):
            bids = sorted((answer for answer in message.answers if isinstance(answer, Bid)), key=lambda bid: bid.expected_s)
            choices = tuple(Choice(bid.provider, bid.expected_s, bid.expected_s, None) for bid in bids)
            answer: Message = RoutePlan(message.key, "d", 1, "gpt-4o", "first", choices)
            if not choices:
                answer = NoRoute(message.key, "d", RouteError.AT_CAPACITY, "", ())
            context.answer(self.waiting.pop(message.key), answer)

    def invariant(self) -> str | None:
        return None


async def courier(system: ActorSystem, number: int, rng: Random) -> None:
    await asyncio.sleep(rng.uniform(0.0, 60.0))
    deadline = system.clock.now() + rng.uniform(0.5, 5.0)
    plan = await system.ask("router", RouteQuery(f"q{number}", PROFILE, deadline, system.clock.now()), deadline)
    for choice in plan.choices if isinstance(plan, RoutePlan) else ():
        permit = f"q{number}-{choice.provider}"
        answer = await system.ask(f"provider:{choice.provider}", Award(permit, plan.query_id, "gpt-4o", 1, False), deadline)
        if isinstance(answer, Granted):
            await asyncio.sleep(rng.uniform(0.0, 4.0))
            end = CallEnded(permit, plan.query_id, choice.provider, "gpt-4o", Outcome.SUCCESS, False, 1.0)
            system.tell(f"provider:{choice.provider}", end)
            return


def journal_of(seed: str) -> bytes:
    lines: list[bytes] = []

    def keep(to: str, envelope: Envelope) -> None:
        lines.append(to.encode() + b" " + encode_envelope(envelope))

    async def body(system: ActorSystem) -> None:
        def factory(name: str) -> Any:
            def make(previous: Actor | None) -> SmallProvider:
                return SmallProvider(name)

            return make

        system.port("book", lambda envelope: None)
        system.spawn("router", lambda previous: SmallRouter())
        for name in PROVIDERS:
            spec = SupervisionSpec(limit=3, backoff_s=0.1, fatal=False, out_for_s=10.0)
            system.spawn(f"provider:{name}", factory(name), spec, first_mail=lambda: [Timer("hello again")])
        rng = Random(f"{seed}/clients")
        couriers = [asyncio.ensure_future(courier(system, number, Random(rng.random()))) for number in range(COURIERS)]
        ends = await asyncio.gather(*couriers, return_exceptions=True)
        assert [end for end in ends if isinstance(end, BaseException) and not isinstance(end, AskError)] == []
        lines.append(repr((system.counters, system.dead_letters, system.clock.now())).encode())
        assert system.counters.restarts > 0
        assert system.counters.crashes > system.counters.restarts

    run(body, seed=seed, journal=keep)
    return b"\n".join(lines)


def test_the_same_seed_leaves_the_same_journal_byte_for_byte() -> None:
    first = journal_of("7")

    assert len(first.splitlines()) > 2000
    assert journal_of("7") == first


def test_another_seed_leaves_another_journal() -> None:
    assert journal_of("7") != journal_of("8")


def test_an_actor_more_does_not_shift_the_chance_of_the_others() -> None:
    drawn: dict[str, list[float]] = {}

    class Drawing(SmallRouter):
        def start(self, context: Context) -> None:
            drawn.setdefault(str(self.waiting), []).append(context.rng.random())

    async def alone(system: ActorSystem) -> None:
        system.spawn("a", lambda previous: Drawing())

    async def with_another(system: ActorSystem) -> None:
        system.spawn("another", lambda previous: SmallRouter())
        system.spawn("a", lambda previous: Drawing())

    run(alone)
    run(with_another)
    assert drawn["{}"][0] == drawn["{}"][1]
