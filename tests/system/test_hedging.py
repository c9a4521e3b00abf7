"""Second calls beside overdue ones: what the client, the providers, the record and the books see of them."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.router.actor import RouterActor
from messages.calls import AttemptKind, CallEnded, Outcome
from messages.decisions import Decision, GetDecision
from messages.envelope import Envelope
from messages.stats import GetStats, Stats
from runtime.config.settings import Loaded
from runtime.courier.retries import BUDGET_FLOOR
from runtime.ports import UpstreamAnswer, UpstreamRequest
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, PLAIN, Client, World, loaded, provider, run, url_of

WARM = 20
"""Requests that earn one hedge at 5 %, and teach how long a call takes."""
PRICED = {"models": [{"name": MODEL, "input_price": 1000, "output_price": 1000}]}


def two(hedge: dict[str, Any] | None = None, b: dict[str, Any] | None = None, names: str = "ab", **routing: Any) -> Loaded:
    """Provider a comes first, b beside it; nothing is explored."""
    entries = [provider(name, **PRICED, **(b or {} if name == "b" else {})) for name in names]
    return loaded(entries, **({"strategy": "first", "hedge": hedge or {}, "explore": {"enabled": False}} | routing))


async def warmed(world: World, count: int = WARM, stream: bool = True) -> None:
    for _ in range(count):
        assert (await world.ask(stream=stream)).provider == "a"


async def until(world: World, condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not so after 10 s, at {world.now}")


class Ends:
    """The ends of permits as the mail has them, each told to its provider once."""

    def __init__(self) -> None:
        self.all: list[CallEnded] = []

    def __call__(self, to: str, envelope: Envelope) -> None:
        if isinstance(envelope.message, CallEnded) and to.startswith("provider:"):
            self.all.append(envelope.message)

    def of(self, client: Client) -> list[tuple[str, AttemptKind, Outcome]]:
        """Provider, kind and outcome of each call of a client, in order of their ends."""
        query_id = f"q{client.number}"
        return [(end.provider, end.kind, end.outcome) for end in self.all if end.query_id == query_id]


LOST_A = ("a", AttemptKind.FIRST, Outcome.LOST_HEDGE)
WON_B = ("b", AttemptKind.HEDGE, Outcome.SUCCESS)


@pytest.mark.parametrize("stream", [True, False])
def test_pain_05_a_hanging_provider_costs_a_fraction_of_a_second_and_the_first_content_wins(stream: bool) -> None:
    ends = Ends()

    async def scene(world: World) -> None:
        await warmed(world, stream=stream)
        world.fault("a", FaultKind.HANG)
        client = await world.ask(stream=stream)

        assert (client.provider, client.attempts, client.fate) == ("b", 2, "answer")
        assert client.took_s < 1.0
        assert sorted(ends.of(client)) == [LOST_A, WON_B]
        assert not world.simulation("a").calls, "the loser's connection was cut"
        router = world.cell("router").actor
        assert isinstance(router, RouterActor)
        assert len(router._plans) == 0, "no bid is thought to be promised away"

    run(two(), scene, journal=ends)


@pytest.mark.parametrize("failover", [{"enabled": False}, {"max_attempts": 1}])
def test_without_failover_or_with_one_attempt_nothing_is_made_beside_an_overdue_call(failover: dict[str, Any]) -> None:
    ends = Ends()

    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.SLOW, factor=20.0)
        client = await world.ask(stream=True)

        assert (client.provider, client.attempts, client.fate) == ("a", 1, "answer")
        assert ends.of(client) == [("a", AttemptKind.FIRST, Outcome.SUCCESS)]
        assert world.calls("b") == []

    run(two(failover=failover), scene, journal=ends)


@pytest.mark.parametrize("stream", [True, False])
def test_an_overdue_call_that_answers_before_its_hedge_wins_and_the_hedge_is_called_off(stream: bool) -> None:
    ends = Ends()

    async def scene(world: World) -> None:
        await warmed(world, stream=stream)
        world.fault("a", FaultKind.SLOW, factor=4.0)
        world.fault("b", FaultKind.HANG)
        client = await world.ask(stream=stream)

        assert (client.provider, client.fate) == ("a", "answer")
        assert sorted(ends.of(client)) == [
            ("a", AttemptKind.FIRST, Outcome.SUCCESS),
            ("b", AttemptKind.HEDGE, Outcome.LOST_HEDGE),
        ]

    run(two(), scene, journal=ends)


def test_the_loser_is_booked_and_seen_in_the_record_and_the_statistics() -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.HANG)
        client = await world.ask(stream=True)
        found = (await world.house.system.ask("router", GetDecision(client.headers["x-pointsman-decision"]))).decision
        stats = await world.house.system.ask("aggregator", GetStats())

        assert isinstance(found, Decision)
        assert found.hedges == ("b",)
        assert found.hedge_after_ms is not None
        assert [(one.provider, one.kind, one.outcome) for one in found.attempts] == [LOST_A, WON_B]
        assert isinstance(stats, Stats)
        a, b = stats.providers
        assert (a.hedges, a.lost, b.hedges, b.lost) == (0, 1, 1, 0)
        assert a.lost_cost_nusd > 0
        assert a.cost_nusd > a.lost_cost_nusd

    run(two(), scene)


def test_a_lost_hedge_is_no_failure_of_health_and_opens_no_circuit() -> None:
    async def scene(world: World) -> None:
        await warmed(world, 100)
        world.fault("a", FaultKind.HANG, for_s=5.0)
        for _ in range(5):
            assert (await world.ask(stream=True)).provider == "b"
        report = await world.report("a")

        assert (report.circuit, report.failures) == ("closed", 0)

    run(two(), scene)


@pytest.mark.parametrize("winner", ["b", "c"])
@pytest.mark.parametrize("stream", [True, False])
def test_of_a_first_call_a_copy_and_a_hedge_the_first_content_wins_and_both_others_are_called_off(
    stream: bool, winner: str
) -> None:
    ends = Ends()

    async def scene(world: World) -> None:
        for _ in range(40):
            await world.ask(stream=stream)
        # Long enough for c to be unheard of: the next request is copied to it.
        await asyncio.sleep(5.0)
        hangs = "c" if winner == "b" else "b"
        for name in ("a", hangs):
            world.fault(name, FaultKind.HANG)
        if winner == "c":
            world.fault("c", FaultKind.SLOW, factor=5.0)
        client = await world.ask(stream=stream)

        assert (client.fate, client.provider) == ("answer", winner)
        kinds = {"b": AttemptKind.HEDGE, "c": AttemptKind.EXPLORE}
        assert sorted(ends.of(client)) == sorted(
            [LOST_A, (hangs, kinds[hangs], Outcome.LOST_HEDGE), (winner, kinds[winner], Outcome.SUCCESS)]
        )

    behaviours = {"a": PLAIN, "b": replace(PLAIN, ttfb_ms=150), "c": replace(PLAIN, ttfb_ms=200)}
    explore = {"max_share": 1.0, "idle": "1s"}
    run(two(names="abc", strategy="least_latency", explore=explore), scene, behaviours, journal=ends)


@pytest.mark.parametrize("stream", [True, False])
def test_a_mistake_of_ours_in_a_call_beside_costs_the_request_nothing_where_another_one_answers(
    stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()

    async def scene(world: World) -> None:
        for _ in range(40):
            await world.ask(stream=stream)
        await asyncio.sleep(5.0)
        world.fault("a", FaultKind.HANG)
        call = world.wire.call

        async def broken(request: UpstreamRequest) -> UpstreamAnswer:
            if request.url.startswith(url_of("c")):
                raise RuntimeError("not thought of")
            return await call(request)

        monkeypatch.setattr(world.wire, "call", broken)
        client = await world.ask(stream=stream)

        assert (client.fate, client.provider) == ("answer", "b")
        assert sorted(ends.of(client)) == [LOST_A, WON_B, ("c", AttemptKind.EXPLORE, Outcome.FAILED)]
        assert "a call beside the first one broke" in caplog.text

    behaviours = {"a": PLAIN, "b": replace(PLAIN, ttfb_ms=150), "c": replace(PLAIN, ttfb_ms=200)}
    explore = {"max_share": 1.0, "idle": "1s"}
    run(two(names="abc", strategy="least_latency", explore=explore), scene, behaviours, journal=ends)


def test_a_first_call_that_fails_while_its_hedge_is_out_leaves_the_answer_to_the_hedge() -> None:
    ends = Ends()

    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.HANG)
        client = world.send(stream=True)
        await until(world, lambda: len(world.calls("b")) == 1)
        world.heal("a")
        world.fault("a", FaultKind.OUTAGE)
        await client.wait()

        assert (client.provider, client.attempts, client.fate) == ("b", 2, "answer")
        assert ends.of(client) == [("a", AttemptKind.FIRST, Outcome.FAILED), WON_B]

    run(two(), scene, journal=ends)


def test_a_hedge_that_fails_is_in_the_tried_set_and_the_next_one_goes_elsewhere() -> None:
    ends = Ends()

    async def scene(world: World) -> None:
        await warmed(world, 40)
        world.fault("a", FaultKind.HANG)
        world.fault("b", FaultKind.ERRORS)
        client = await world.ask(stream=True)

        assert (client.provider, client.attempts) == ("c", 3)
        assert client.took_s < 1.0, "the next hedge was made at once"
        assert [end[0] for end in ends.of(client)] == ["b", "a", "c"]

    run(two(names="abc"), scene, journal=ends)


def test_who_failed_as_a_hedge_is_not_asked_again_when_the_first_call_fails_too() -> None:
    ends = Ends()

    async def scene(world: World) -> None:
        await warmed(world)  # For one hedge and no more.
        world.fault("a", FaultKind.HANG)
        world.fault("b", FaultKind.ERRORS)
        client = world.send(stream=True)
        await until(world, lambda: len(world.calls("b")) == 1)
        world.heal("a")
        world.fault("a", FaultKind.OUTAGE)
        await client.wait()

        assert (client.provider, client.attempts) == ("c", 3)
        assert sorted(end[0] for end in ends.of(client)) == ["a", "b", "c"]

    run(two(names="abc"), scene, journal=ends)


def test_a_call_that_got_no_company_is_looked_at_again_at_one_and_a_half_times_its_age() -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.HANG)
        client = world.send(stream=True)
        await asyncio.sleep(0.5)
        held = world.send(stream=True, headers={"x-pointsman-exclude": "a"}, max_tokens=2000)
        await asyncio.sleep(0.7)
        assert len(world.calls("b")) == 1, "at 1 s b was full"
        held.leave()
        await client.wait()

        assert client.provider == "b"
        assert world.calls("b")[1] == pytest.approx(client.begun_at + 1.5, abs=0.01)
        await held.wait()

    run(two({"after": "1s"}, b={"limits": {"max_concurrency": 1}}), scene)


def test_a_hedge_counts_against_max_attempts() -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.HANG, for_s=3.0)
        client = world.send(stream=True)
        await asyncio.sleep(2.0)

        assert len(world.calls("a")) == WARM + 1
        assert not world.calls("b")
        client.leave()
        await client.wait()

    run(two(failover={"max_attempts": 1}), scene)


def test_hedges_neither_earn_nor_spend_of_the_budget_for_repeats() -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        budgets = world.house.budgets
        for _ in range(5):
            budgets.spend("b")
        world.fault("a", FaultKind.SLOW, factor=20.0)
        for _ in range(4):
            assert (await world.ask(stream=True)).provider == "b"

        left = 0
        while budgets.spend("b"):
            left += 1
        assert left == BUDGET_FLOOR - 5

    run(two({"max_share": 1.0}, failover={"retry_share": 1.0}), scene)


@pytest.mark.parametrize("hedge", [{"enabled": False}, {"max_share": 0}])
def test_switched_off_nothing_is_hedged(hedge: dict[str, Any]) -> None:
    async def scene(world: World) -> None:
        await warmed(world, 100)
        world.fault("a", FaultKind.SLOW, factor=30.0)
        client = await world.ask(stream=True)

        assert (client.provider, client.attempts) == ("a", 1)
        assert not world.calls("b")

    run(two(hedge), scene)


def test_no_hedge_goes_to_a_provider_that_has_used_over_80_percent_of_a_limit() -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        held = [world.send(stream=True, headers={"x-pointsman-exclude": "a"}, max_tokens=2000) for _ in range(9)]
        world.fault("a", FaultKind.SLOW, factor=5.0)
        client = await world.ask(stream=True)

        assert (client.provider, len(world.calls("b"))) == ("a", 9)
        for one in held:
            one.leave()
            await one.wait()

    run(two(b={"limits": {"max_concurrency": 10}}), scene)


def test_a_provider_that_was_full_when_the_request_came_takes_the_hedge_if_it_is_free_by_then() -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        held = world.send(stream=True, headers={"x-pointsman-exclude": "a"}, max_tokens=2000)
        await until(world, lambda: bool(world.calls("b")))
        world.fault("a", FaultKind.HANG)
        client = world.send(stream=True)
        await until(world, lambda: bool(world.simulation("a").calls))
        held.leave()
        await client.wait()

        assert (client.provider, client.attempts) == ("b", 2)
        assert client.took_s < 1.5

    # Of one place more than 80 % are used as soon as it is taken, and none when it is not.
    run(two(b={"limits": {"max_concurrency": 1}}), scene)


def test_no_hedge_goes_over_the_price_ceiling_of_the_request() -> None:
    dear = {"models": [{"name": MODEL, "input_price": 900_000, "output_price": 900_000}]}

    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.SLOW, factor=5.0)
        client = await world.ask(stream=True, headers={"x-pointsman-max-cost": "1"})

        assert client.provider == "a"
        assert not world.calls("b")

    entries = [provider("a", **PRICED), provider("b", **dear)]
    run(loaded(entries, strategy="first", explore={"enabled": False}), scene)


def test_no_hedge_is_made_while_requests_wait_in_the_queue() -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.SLOW, factor=5.0)
        slow = world.send(stream=True)
        waits = world.send(stream=True, headers={"x-pointsman-exclude": "b"})
        await slow.wait()
        await waits.wait()

        assert (slow.provider, waits.provider) == ("a", "a")
        assert not world.calls("b")

    entries = [provider("a", limits={"max_concurrency": 1}), provider("b")]
    run(loaded(entries, strategy="first", explore={"enabled": False}), scene)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_both_calls_and_each_permit_once(stream: bool) -> None:
    ends = Ends()

    async def scene(world: World) -> None:
        await warmed(world, stream=stream)
        world.fault("a", FaultKind.HANG)
        world.fault("b", FaultKind.HANG)
        client = world.send(stream=stream)
        await until(world, lambda: len(world.calls("b")) == 1)
        client.leave()
        await client.wait()

        assert sorted(ends.of(client)) == [
            ("a", AttemptKind.FIRST, Outcome.CANCELLED),
            ("b", AttemptKind.HEDGE, Outcome.CANCELLED),
        ]

    run(two(), scene, journal=ends)


def test_a_client_that_leaves_in_the_midst_of_the_hedges_answer_cuts_it() -> None:
    ends = Ends()

    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.HANG)
        client = world.send(stream=True, max_tokens=500)
        await until(world, lambda: bool(client.chunks))
        client.leave()
        await client.wait()

        assert ends.of(client) == [LOST_A, ("b", AttemptKind.HEDGE, Outcome.CANCELLED)]

    run(two(), scene, journal=ends)


def test_a_deadline_ends_both_calls_and_is_told_as_one() -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.HANG)
        world.fault("b", FaultKind.HANG)
        client = await world.ask(stream=True, headers={"x-pointsman-deadline": "3000"})

        assert (client.status, client.code) == (504, "deadline_exceeded")
        assert client.took_s == pytest.approx(3.0, abs=0.1)

    run(two(), scene)


def test_a_shutdown_gives_the_frame_to_a_stream_that_a_hedge_has_begun() -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.HANG)
        client = world.send(stream=True, max_tokens=5000)
        await until(world, lambda: bool(client.chunks))
        await world.house.edge.drain(0.0)
        await client.wait()

        assert client.fate == "frame"
        assert "shutting_down" in client.text
        assert world.house.edge.counters.by_status == {200: WARM + 1}, "what the clients saw"

    run(two(), scene)


def test_a_client_that_takes_nothing_of_the_last_frame_at_a_shutdown_is_no_mistake_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.HANG)
        client = world.send(stream=True, max_tokens=5000)
        await until(world, lambda: bool(client.chunks))
        client.pause_s = 100.0
        await world.house.edge.drain(0.0)
        await client.wait()

        assert client.fate == "cut"
        assert not [record for record in caplog.records if record.name == "pointsman.courier"]

    run(two(), scene)


@pytest.mark.parametrize(("is_drained", "fate"), [(True, "answer"), (False, "left")])
def test_a_shutdown_in_the_turn_in_which_the_loser_ends_does_not_take_the_answer_that_has_won(
    is_drained: bool, fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(world: World) -> None:
        await warmed(world, stream=False)
        call = world.wire.call

        async def slow_to_lose(request: UpstreamRequest) -> UpstreamAnswer:
            if request.url.startswith(url_of("a")):
                return await call(request)
            try:
                await asyncio.sleep(1000.0)
            finally:
                # It has lost, and in this turn the daemon's time is up, or the client leaves.
                world.house.edge.cut() if is_drained else client.leave()
                await asyncio.sleep(0)
            return await call(request)

        monkeypatch.setattr(world.wire, "call", slow_to_lose)
        world.fault("a", FaultKind.SLOW)
        client = world.send(stream=False)
        await client.wait()

        assert (client.fate, len(world.calls("a"))) == (fate, WARM + 1)

    run(two(), scene)


def test_hedging_may_wait_for_a_fixed_time() -> None:
    async def scene(world: World) -> None:
        await warmed(world)
        world.fault("a", FaultKind.HANG)
        client = await world.ask(stream=True)

        assert world.calls("b") == [pytest.approx(client.begun_at + 2.0, abs=0.01)]

    run(two({"after": "2s"}), scene)


@settings(max_examples=15, deadline=None)
@given(
    share=st.sampled_from([0.02, 0.05, 0.2]),
    kinds=st.lists(st.sampled_from([(0.0, 1.0), (0.05, 0.5), (0.3, 4.0)]), min_size=1, max_size=6),
)
def test_hedges_stay_within_their_share_of_requests_whatever_is_slow(share: float, kinds: list[tuple[float, float]]) -> None:
    async def scene(world: World) -> None:
        requests = 0
        for pause_s, factor in kinds:
            world.heal("a")
            if factor > 1.0:
                world.fault("a", FaultKind.SLOW, factor=factor * 10.0, p=0.5)
            for _ in range(40):
                world.send(stream=requests % 2 == 0)
                requests += 1
                await asyncio.sleep(pause_s)
        await world.all_done()
        stats = await world.house.system.ask("aggregator", GetStats())

        assert isinstance(stats, Stats)
        assert sum(line.hedges for line in stats.providers) <= share * requests
        assert all(client.fate == "answer" for client in world.clients), json.dumps([repr(c) for c in world.clients])

    run(two({"max_share": share}), scene)
