"""The queue in the running house: capacity waits, in order, and no longer than it says."""

import asyncio
from typing import Any

import pytest

from messages.calls import Award
from messages.decisions import DecisionFound, GetDecision
from messages.envelope import Envelope
from messages.health import CircuitState
from messages.routing import Bid, Gathered
from runtime.courier.attempt import Attempt
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, Client, World, loaded, provider, run

NARROW = provider("a", limits={"max_concurrency": 1})
PATIENT = {"max_wait": "60s", "max_length": 1000}


async def one_after_another(world: World, count: int, pause_s: float = 0.001) -> list[Client]:
    clients = []
    for _ in range(count):
        clients.append(world.send())
        await asyncio.sleep(pause_s)
    return clients


def test_B3_pain_25_at_capacity_requests_wait_and_are_served_in_the_order_of_their_arrival() -> None:
    async def scene(world: World) -> None:
        clients = await one_after_another(world, 20)
        await world.all_done()

        assert {client.status for client in clients} == {200}
        ends = [client.done_at or 0.0 for client in clients]
        assert ends == sorted(ends)
        # Each takes 190 ms, and the next begins when it ends, not later.
        assert ends[-1] == pytest.approx(20 * 0.19, abs=0.01)
        assert world.watch.most_out == {"a": 1}

    run(loaded([NARROW], queue=PATIENT), scene)


def test_a_hundred_requests_for_room_for_three_use_all_three_all_the_time() -> None:
    async def scene(world: World) -> None:
        for _ in range(99):
            world.send()
        await world.all_done()

        assert {client.status for client in world.clients} == {200}
        assert world.now == pytest.approx(33 * 0.19, abs=0.05)
        assert world.watch.most_out == {"a": 1, "b": 2}

    run(loaded([NARROW, provider("b", limits={"max_concurrency": 2})], queue=PATIENT), scene)


def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    async def scene(world: World) -> None:
        first = world.send()
        await asyncio.sleep(0.01)
        second = world.send()
        await asyncio.sleep(0.1799)
        newcomers = await one_after_another(world, 20, 0.00001)
        await world.all_done()

        order = sorted([first, second, *newcomers], key=lambda client: client.done_at or 0.0)
        assert order[:2] == [first, second]

    run(loaded([NARROW], queue=PATIENT), scene)


def test_pain_12_whoever_waited_too_long_is_told_503_and_when_to_come_back() -> None:
    async def scene(world: World) -> None:
        world.send(max_tokens=1000)
        await asyncio.sleep(0.1)
        client = await world.ask()

        assert (client.status, client.code) == (503, "overloaded")
        assert client.took_s == pytest.approx(2.0, abs=0.01)
        assert int(client.headers["retry-after"]) >= 1
        assert "at capacity" in client.text

    run(loaded([NARROW], queue={"max_wait": "2s"}), scene)


def test_a_full_queue_refuses_at_once() -> None:
    async def scene(world: World) -> None:
        clients = await one_after_another(world, 6)
        await world.all_done()

        assert [client.status for client in clients] == [200, 200, 200, 503, 503, 503]
        assert all(client.took_s < 0.001 and client.headers["retry-after"] for client in clients[3:])

    run(loaded([NARROW], queue={"max_wait": "60s", "max_length": 2}), scene)


def test_clients_that_leave_the_queue_leave_it_to_the_others() -> None:
    async def scene(world: World) -> None:
        clients = await one_after_another(world, 6)
        for client in clients[1:4]:
            client.leave()
        await world.all_done()

        assert [client.fate for client in clients] == ["answer", "left", "left", "left", "answer", "answer"]
        assert clients[5].done_at == pytest.approx(3 * 0.19, abs=0.01)
        assert (await world.router_stats()).waiting == 0
        assert len(world.calls("a")) == 3

    run(loaded([NARROW], queue=PATIENT), scene)


def test_whoever_leaves_with_the_turn_in_hand_passes_it_on() -> None:
    async def scene(world: World) -> None:
        first, second, third = await one_after_another(world, 3)
        await first.wait()
        second.leave()
        await world.all_done()

        assert third.status == 200
        assert third.done_at == pytest.approx(2 * 0.19, abs=0.01)

    run(loaded([NARROW], queue=PATIENT), scene)


def test_D12_whoever_waited_until_the_deadline_is_told_for_whom_and_why_and_where_to_look_it_up() -> None:
    async def scene(world: World) -> None:
        world.send(max_tokens=1000)
        await asyncio.sleep(0.1)
        client = await world.ask(headers={"x-pointsman-deadline": "500"})

        assert (client.status, client.code) == (504, "deadline_exceeded")
        assert "was not done within 0.5 s: a is at capacity" in client.text
        assert client.took_s == pytest.approx(0.495)
        found = await world.house.system.ask("router", GetDecision(client.headers["x-pointsman-decision"]))
        assert isinstance(found, DecisionFound)
        assert found.decision is not None
        assert (found.decision.error, [one.reason for one in found.decision.candidates]) == ("at_capacity", ["at_capacity"])

    run(loaded([NARROW], queue=PATIENT), scene)


def test_the_deadline_holds_in_the_queue_too() -> None:
    async def scene(world: World) -> None:
        world.send(max_tokens=1000)
        await asyncio.sleep(0.1)
        client = await world.ask(headers={"x-pointsman-deadline": "500"})

        assert (client.status, client.code) == (504, "deadline_exceeded")
        assert client.took_s == pytest.approx(0.5, abs=0.01)

    run(loaded([NARROW], queue=PATIENT), scene)


def test_a_rate_limit_of_our_own_is_waited_for_and_never_passed() -> None:
    async def scene(world: World) -> None:
        for _ in range(10):
            world.send()
        await world.all_done()

        assert {client.status for client in world.clients} == {200}
        times = world.calls("a")
        assert times[:2] == [0.0, 0.0]
        assert [round(at, 3) for at in times[2:]] == [pytest.approx(0.5 * number, abs=0.02) for number in range(1, 9)]

    run(loaded([provider("a", limits={"requests_per_minute": 120, "burst": 2})], queue=PATIENT), scene)


def test_pain_28_a_rate_limit_that_cannot_end_in_time_is_answered_429_at_once_and_says_whose_it_is() -> None:
    async def scene(world: World) -> None:
        clients = await one_after_another(world, 2)
        await world.all_done()

        assert [client.status for client in clients] == [200, 429]
        assert clients[1].took_s < 0.01
        assert int(clients[1].headers["retry-after"]) == pytest.approx(60, abs=1)
        assert "a is at its rate limit" in clients[1].text

    run(loaded([provider("a", limits={"requests_per_minute": 1, "burst": 1})], queue={"max_wait": "5s"}), scene)


@pytest.fixture
def awards_ask_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bids that are stale when they are taken up: each award asks for 1000 tokens more than was bid for."""

    def begin(attempt: Attempt, *arguments: Any) -> None:
        as_it_is(attempt, *arguments)
        attempt._tokens += 1000

    as_it_is = Attempt.__init__
    monkeypatch.setattr(Attempt, "__init__", begin)


@pytest.mark.usefixtures("awards_ask_for_more")
def test_requests_whose_awards_are_refused_wait_in_the_queue_like_others() -> None:

    async def scene(world: World) -> None:
        for _ in range(5):
            await world.ask(max_tokens=None)
        clients = [world.send(max_tokens=None) for _ in range(40)]
        await world.all_done()

        assert "rate_limited" in {permit.refusal for permit in world.watch.permits.values()}
        # What was refused was no attempt.
        assert {(client.status, client.attempts) for client in clients} == {(200, 1)}

    run(loaded([provider("a", limits={"tokens_per_minute": 6000})], queue=PATIENT), scene)


@pytest.mark.usefixtures("awards_ask_for_more")
def test_B6_with_on_rate_limit_false_an_award_refused_at_the_limit_goes_to_nobody_else() -> None:
    async def scene(world: World) -> None:
        # Five take what is in the bucket; for the sixth there would be enough by its bid.
        for _ in range(6):
            world.send()
        await world.all_done()

        assert "rate_limited" in {permit.refusal for permit in world.watch.permits.values()}
        assert [(client.provider, client.attempts) for client in world.clients] == [("a", 1)] * 6

    entries = [provider("a", limits={"tokens_per_minute": 6000}), provider("b")]
    run(loaded(entries, strategy="first", queue=PATIENT, failover={"on_rate_limit": False}), scene)


@pytest.mark.usefixtures("awards_ask_for_more")
def test_requests_whose_awards_are_refused_wait_no_longer_than_others() -> None:
    async def scene(world: World) -> None:
        await world.ask()
        clients = [world.send(max_tokens=10) for _ in range(5)]
        await world.all_done()

        assert [client.status for client in clients] == [200, *[503] * 4]
        assert all(client.took_s <= 2.2 for client in clients[1:])

    slow = Behaviour("a", ttfb_ms=20_000, sigma=0, models=(MODEL,))
    run(loaded([provider("a", limits={"tokens_per_minute": 1500})], queue={"max_wait": "1s"}), scene, {"a": slow})


def test_a_request_whose_first_attempt_failed_waits_for_the_second_provider_and_keeps_its_place() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.HANG)
        running = world.send(max_tokens=100, headers={"x-pointsman-exclude": "a"})
        await asyncio.sleep(0.01)
        failed_over = world.send()
        await asyncio.sleep(0.2)
        # It is in the queue before the other one is, but came after it.
        later = world.send(headers={"x-pointsman-exclude": "a"})
        await world.all_done()

        assert [client.status for client in (running, failed_over, later)] == [200, 200, 200]
        assert (failed_over.provider, failed_over.attempts) == ("b", 2)
        assert (failed_over.done_at or 0.0) < (later.done_at or 0.0)

    entries = [provider("a", timeouts={"total": "300ms"}), provider("b", limits={"max_concurrency": 1})]
    run(loaded(entries, strategy="first", queue=PATIENT, failover={"max_attempts": 2}), scene)


def test_who_waits_is_served_when_a_circuit_lets_a_trial_through() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS, for_s=0.5)
        for _ in range(2):
            await world.ask()
        waiting = await one_after_another(world, 3)
        await world.all_done()

        assert [client.status for client in waiting] == [200, 200, 200]
        first = min(world.calls("a")[2:])
        assert first >= 2.0

    entry = provider("a", circuit={"failures": 2, "open_for": "2s"})
    run(loaded([entry], queue=PATIENT, failover={"enabled": False}), scene)


def test_providers_that_refuse_in_turns_do_not_keep_a_request_from_the_queue() -> None:
    """With a fan-out of one each plan is of one provider; neither can grant what it bids for."""

    async def scene(world: World) -> None:
        for _ in range(10):
            await world.ask(max_tokens=None)
        clients = [world.send(max_tokens=None) for _ in range(20)]
        await world.all_done()

        assert {(client.status, client.attempts) for client in clients} == {(200, 1)}
        assert len(world.watch.permits) < 500

    entries = [provider(name, limits={"tokens_per_minute": 6000}) for name in "ab"]
    run(loaded(entries, strategy="least_connections", fanout=1, queue=PATIENT), scene)


def test_a_repeat_without_budget_is_not_waited_for_even_where_others_have_refused() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        for _ in range(60):
            await world.ask(max_tokens=None)

        # What ``b`` takes now and then is more than its bucket holds, so nobody else gets anything of it for long.
        assert [client.status for client in world.clients].count(502) > 50
        assert len(world.watch.permits) < 300

    entries = [provider("a", circuit={"failures": 100_000}), provider("b", limits={"tokens_per_minute": 60})]
    failover = {"max_attempts": 4, "retry_share": 0, "backoff": {"kind": "none"}}
    run(loaded(entries, strategy="first", queue={"max_wait": "500ms"}, failover=failover), scene)


def test_a_repeat_is_not_held_back_by_an_untried_provider_whose_circuit_is_open() -> None:
    """DESIGN, Attempts: when no untried provider can take the call, the tried ones come back after their back-off."""

    async def scene(world: World) -> None:
        # Given b open for half a minute, and a that fails for the next tenth of a second
        world.fault("b", FaultKind.ERRORS)
        world.fault("a", FaultKind.ERRORS)
        await world.ask()
        assert (await world.report("b")).circuit is CircuitState.OPEN

        # When a request fails at a, which is well again a moment later
        asking = asyncio.ensure_future(world.ask())
        await asyncio.sleep(0.25)
        world.heal("a")
        client = await asking

        # Then it goes to a again after its back-off, not to the queue until b may be tried
        assert (client.status, client.provider) == (200, "a")
        assert client.took_s < 5.0

    backoff = {"kind": "linear", "base": "300ms", "jitter": False}
    failover = {"backoff": backoff, "max_attempts": 4}
    entries = [
        provider("a", circuit={"failures": 100_000}),
        provider("b", circuit={"failures": 1, "open_for": "30s"}),
    ]
    run(loaded(entries, strategy="first", failover=failover), scene)


def test_after_a_back_off_whoever_was_not_tried_and_can_take_the_call_now_goes_before_who_failed() -> None:
    """DESIGN, Attempts: while an untried provider can take the call, no tried one competes."""

    async def scene(world: World) -> None:
        # Given b at a limit of ours for a second, and a that fails
        await world.ask(headers={"x-pointsman-exclude": "a"})
        world.fault("a", FaultKind.ERRORS)
        client = await world.ask()

        assert (client.status, client.provider, client.attempts) == (200, "b", 2)

    entries = [provider("a"), provider("b", limits={"requests_per_minute": 60, "burst": 1})]
    backoff = {"kind": "linear", "base": "2s", "jitter": False}
    run(loaded(entries, strategy="first", failover={"backoff": backoff, "max_attempts": 3}), scene)


@pytest.mark.parametrize(("b_s", "provider_id", "took_s"), [(30.0, "a", 3.19), (1.0, "b", 1.19)])
def test_pain_12_a_wait_that_was_named_ends_the_wait_for_an_untried_provider_that_is_full(
    b_s: float, provider_id: str, took_s: float
) -> None:
    """DESIGN, Attempts: who failed for now is a candidate again after its wait; until then whoever was not tried goes first."""

    async def scene(world: World) -> None:
        # Given a that is limited for three seconds, and b with its only place taken for so long
        world.fault("a", FaultKind.RATE_LIMIT, for_s=2.0, retry_after_s=3.0)
        running = world.send(stream=True, max_tokens=10_000, headers={"x-pointsman-provider": "b"})
        asking = asyncio.ensure_future(world.ask())
        await asyncio.sleep(b_s)
        running.leave()
        client = await asking

        assert (client.status, client.attempts) == (200, 2)
        assert client.provider == provider_id
        assert client.took_s == pytest.approx(took_s, abs=0.02)

    entries = [provider("a"), provider("b", limits={"max_concurrency": 1})]
    backoff = {"kind": "linear", "base": "2s", "jitter": False}
    run(loaded(entries, strategy="first", queue=PATIENT, failover={"backoff": backoff, "max_attempts": 3}), scene)


def test_an_award_reserves_what_its_bid_said() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(max_tokens=None)
        assert client.status == 200
        (reserved,) = {award.tokens for award in awards}
        assert reserved == bids[0].tokens > 1000

    awards: list[Award] = []
    bids: list[Bid] = []

    def journal(to: str, envelope: Envelope) -> None:
        message = envelope.message
        if isinstance(message, Award):
            awards.append(message)
        elif isinstance(message, Gathered):
            bids.extend(answer for answer in message.answers if isinstance(answer, Bid))

    run(loaded([provider("a", limits={"tokens_per_minute": 100_000})]), scene, journal=journal)
