"""Permits in the running house: whatever happens between a courier and a provider, each is ended once and none is left out."""

import asyncio

import pytest

from messages.calls import Award, CallEnded, Outcome
from messages.health import GetReport
from messages.stats import GetStats, Stats, UsageLine
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, Client, World, loaded, provider, run

ONE = loaded([provider("a")])
TWO = loaded([provider("a"), provider("b")], strategy="first")
NARROW = loaded([provider("a", limits={"max_concurrency": 1})])


def outcomes(world: World) -> list[str]:
    """Of all permits: how they ended, or why they were refused."""
    return [str(permit.outcome or permit.refusal) for permit in world.watch.permits.values()]


def test_a_client_that_leaves_between_award_and_answer_leaves_no_permit_behind() -> None:
    async def scene(world: World) -> None:
        mail = world.freeze("provider:a", on=Award)
        client = world.send()
        await asyncio.sleep(1.0)
        assert len(world.house.permits) == 1

        client.leave()
        await client.wait()
        assert len(world.house.permits) == 0

        mail.thaw()
        assert (await world.report("a")).in_flight == 0
        assert world.provider_actor("a").unknown_ends == 0
        assert outcomes(world) == ["not_sent"]
        assert world.calls("a") == []
        assert world.house.system.counters.late_replies == 1

    run(ONE, scene)


def test_a_trial_whose_client_left_before_its_award_was_read_takes_nobody_elses_slot() -> None:
    async def scene(world: World) -> None:
        world.crash("provider:a", GetReport)
        await world.report("a")
        circuit = world.provider_actor("a").standing.circuit
        assert (circuit.name, circuit.room()) == ("half_open", 1)
        mail = world.freeze("provider:a", on=Award)
        client = world.send()
        await asyncio.sleep(1.0)
        client.leave()
        await client.wait()
        mail.thaw()

        assert (await world.ask()).fate == "answer"
        assert outcomes(world) == ["not_sent", "success"]
        assert world.watch.most_trials == 1

    run(loaded([provider("a", circuit={"half_open_calls": 1})]), scene)


@pytest.mark.parametrize("turns", range(6))
def test_a_hundred_clients_that_leave_in_the_same_turn_of_the_loop_leave_no_permit_behind(turns: int) -> None:
    async def scene(world: World) -> set[str]:
        clients = [world.send() for _ in range(100)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for client in clients:
            client.leave()
        await world.all_done()

        assert (await world.report("a")).in_flight == 0
        assert all(client.fate == "left" for client in clients)
        return set(outcomes(world))

    assert run(ONE, scene) <= {"not_sent", "cancelled"}


def test_an_answer_to_an_award_after_its_deadline_leaves_no_permit_behind() -> None:
    async def scene(world: World) -> None:
        mail = world.freeze("provider:a", on=Award)
        client = await world.ask(headers={"x-pointsman-deadline": "200"})

        assert (client.status, client.code) == (504, "deadline_exceeded")
        assert client.took_s == pytest.approx(0.2)
        assert len(world.house.permits) == 0

        mail.thaw()
        assert (await world.report("a")).in_flight == 0
        assert world.provider_actor("a").unknown_ends == 1
        assert outcomes(world) == ["not_sent"]

    run(ONE, scene)


async def three_streams(world: World) -> list[Client]:
    clients = [world.send(stream=True, max_tokens=200) for _ in range(3)]
    await asyncio.sleep(0.5)
    return clients


def test_a_restarted_provider_knows_at_once_how_many_calls_are_out_and_each_ends_once() -> None:
    async def scene(world: World) -> None:
        clients = await three_streams(world)
        world.crash("provider:a", GetReport)
        await world.report("a")
        assert world.house.system.counters.restarts == 1

        assert (await world.report("a")).in_flight == 3
        await world.all_done()

        assert [client.fate for client in clients] == ["answer"] * 3
        assert (await world.report("a")).in_flight == 0
        assert world.provider_actor("a").unknown_ends == 0
        assert outcomes(world) == ["success"] * 3

    run(ONE, scene)


def test_a_provider_restarted_again_and_again_still_knows_what_is_out() -> None:
    async def scene(world: World) -> None:
        await three_streams(world)
        for _ in range(4):
            world.crash("provider:a", GetReport)
            await world.report("a")
            assert (await world.report("a")).in_flight == 3
        await world.all_done()
        assert (await world.report("a")).in_flight == 0

    run(ONE, scene)


@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize("is_broken", [True, False])
def test_an_end_that_met_a_crash_counts_as_ended_and_whoever_waits_is_served(mode: str, is_broken: bool) -> None:
    async def scene(world: World) -> None:
        world.crash("provider:a", CallEnded, mode=mode, is_broken=is_broken)
        first = world.send()
        await asyncio.sleep(0.05)
        second = world.send()
        await world.all_done()

        assert (first.status, second.status) == (200, 200)
        assert second.took_s < 2.0
        assert (await world.report("a")).in_flight == 0
        assert world.watch.most_out == {"a": 1}

    run(NARROW, scene)


@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize("is_broken", [True, False])
def test_an_award_that_met_a_crash_is_refused_and_leaves_nothing_behind(mode: str, is_broken: bool) -> None:
    async def scene(world: World) -> None:
        world.crash("provider:a", Award, mode=mode, is_broken=is_broken)
        client = await world.ask()

        assert (client.status, client.provider, client.attempts) == (200, "b", 1)
        assert outcomes(world) == ["crashed", "success"]
        assert (await world.report("a")).in_flight == 0

    run(TWO, scene)


def test_an_award_that_lies_in_the_mailbox_of_a_crashed_provider_is_granted_once() -> None:
    async def scene(world: World) -> None:
        running = world.send(max_tokens=500)
        await asyncio.sleep(0.1)
        mail = world.freeze("provider:a", on=GetReport)
        world.crash("provider:a", GetReport)
        question = asyncio.ensure_future(world.report("a"))
        await asyncio.sleep(0)
        mail.thaw()
        waiting = world.send()
        await question
        await world.all_done()

        assert (running.status, waiting.status) == (200, 200)
        assert outcomes(world) == ["success", "success"]
        assert (await world.report("a")).in_flight == 0

    run(ONE, scene)


@pytest.mark.parametrize("stream", [True, False])
def test_pain_17_a_client_that_leaves_ends_its_call_upstream_at_once(stream: bool) -> None:
    async def scene(world: World) -> None:
        client = world.send(stream=stream, max_tokens=500)
        await asyncio.sleep(1.0)
        assert len(world.simulation("a").calls) == 1
        client.leave()
        await client.wait()

        assert len(world.simulation("a").calls) == 0
        assert outcomes(world) == ["cancelled"]
        assert (await world.report("a")).in_flight == 0

    run(ONE, scene)


PRICED = {"models": [{"name": MODEL, "input_price": 1000, "output_price": 2000}]}
METERED = loaded([provider("a", **PRICED, limits={"tokens_per_minute": 60_000})])
SLOWLY_METERED = loaded([provider("a", **PRICED, limits={"tokens_per_minute": 1200})])
"""20 tokens flow in within a second."""


async def booked(world: World) -> UsageLine:
    """What the statistics have of the one provider there is."""
    stats = await world.house.system.ask("aggregator", GetStats())
    assert isinstance(stats, Stats)
    (line,) = stats.providers
    assert line.cost_nusd == 1000 * (1000 * line.input_tokens + 2000 * line.output_tokens)
    return line


async def missing(world: World, limit: float = 60_000) -> float:
    """Tokens that the bucket of the one provider is short of."""
    left = (await world.report("a")).tokens_left
    assert left is not None
    return limit - left


def test_pain_17_of_a_stream_its_client_left_what_was_read_is_booked_and_taken_from_the_limit() -> None:
    async def scene(world: World) -> None:
        client = world.send(stream=True, max_tokens=500)
        await asyncio.sleep(1.0)
        client.leave()
        await client.wait()

        line = await booked(world)
        # 90 tokens in 0.9 s, as their length tells; the prompt beside.
        assert (line.requests, line.cancelled, line.estimated) == (1, 1, 1)
        assert line.output_tokens == pytest.approx(92, rel=0.3)
        assert line.input_tokens > 0
        assert await missing(world, 1200) == pytest.approx(line.input_tokens + line.output_tokens - 20, abs=2.0)

    run(SLOWLY_METERED, scene)


@pytest.mark.parametrize(("stream", "after_s"), [(True, 0.05), (False, 1.0)], ids=["before-its-first-byte", "no-stream"])
def test_pain_17_of_an_answer_its_client_never_saw_the_prompt_is_booked_and_the_limit_keeps_what_was_reserved(
    stream: bool, after_s: float
) -> None:
    async def scene(world: World) -> None:
        client = world.send(stream=stream, max_tokens=8000)
        await asyncio.sleep(after_s)
        client.leave()
        await client.wait()

        line = await booked(world)
        assert (line.cancelled, line.estimated, line.output_tokens) == (1, 1, 0)
        assert line.input_tokens > 0
        # Nobody can tell how much of it was made by then.
        assert await missing(world) > 6900

    run(METERED, scene)


def test_what_a_shutdown_breaks_off_is_booked_too() -> None:
    async def scene(world: World) -> None:
        client = world.send(stream=True, max_tokens=5000)
        await asyncio.sleep(1.0)
        await world.house.edge.drain(0.0)
        await client.wait()

        line = await booked(world)
        assert (client.fate, line.cancelled, line.estimated) == ("frame", 1, 1)
        assert line.output_tokens == pytest.approx(92, rel=0.3)

    run(METERED, scene)


def test_a_client_that_takes_nothing_ends_its_call_as_cancelled_not_as_the_providers_failure() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=500, patience=3)

        assert client.fate == "left"
        assert outcomes(world) == ["cancelled"]
        report = await world.report("a")
        assert (report.failures, report.in_flight) == (0, 0)
        line = await booked(world)
        assert (line.cancelled, line.estimated) == (1, 1)
        assert line.output_tokens > 0

    run(METERED, scene)


def test_at_the_end_of_the_drain_streams_are_told_others_are_refused_and_every_permit_is_drained() -> None:
    async def scene(world: World) -> None:
        stream, whole = world.send(stream=True, max_tokens=500), world.send(max_tokens=500)
        await asyncio.sleep(1.0)
        waiting = world.send()
        await asyncio.sleep(0.1)
        draining = asyncio.ensure_future(world.house.edge.drain(2.0))
        await asyncio.sleep(0.1)
        late = world.send()
        await draining
        await world.all_done()

        assert (stream.status, stream.fate, "shutting down" in stream.text) == (200, "frame", True)
        assert [client.status for client in (whole, waiting, late)] == [503, 503, 503]
        assert whole.took_s == pytest.approx(3.1)
        assert sorted(outcomes(world)) == ["drained", "drained"]
        report = await world.report("a")
        assert (report.failures, report.in_flight) == (0, 0)
        assert len(world.simulation("a").calls) == 0

    run(loaded([provider("a", limits={"max_concurrency": 2})], queue={"max_wait": "60s"}), scene)


def test_calls_that_end_within_the_drain_end_well() -> None:
    async def scene(world: World) -> None:
        client = world.send(max_tokens=100)
        await asyncio.sleep(0.2)
        await world.house.edge.drain(30.0)

        assert (client.status, client.fate) == (200, "answer")
        assert world.now == pytest.approx(1.09)

    run(ONE, scene)


def test_a_failed_call_gives_its_permit_back_before_the_next_is_taken() -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        client = await world.ask()

        assert (client.provider, client.attempts) == ("b", 2)
        permits = list(world.watch.permits.values())
        assert [permit.outcome for permit in permits] == [Outcome.FAILED, Outcome.SUCCESS]
        assert permits[0].ended_at is not None
        assert permits[0].ended_at <= permits[1].awarded_at

    run(TWO, scene)


def test_a_client_too_slow_for_its_answers_time_is_no_failure_of_the_provider() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=40, pause_s=1.0)

        assert client.fate == "frame"
        assert "client_too_slow" in client.text
        report = await world.report("a")
        assert (report.failures, report.health, report.in_flight) == (0, 1.0, 0)

    run(loaded([provider("a", timeouts={"total": "5s"})]), scene)


def test_a_provider_too_slow_for_its_answers_time_is_at_fault_itself() -> None:
    async def scene(world: World) -> None:
        client = await world.ask(stream=True, max_tokens=1000)

        assert client.fate == "frame"
        assert "total_timeout" in client.text
        assert (await world.report("a")).failures == 1

    run(loaded([provider("a", timeouts={"total": "5s"})]), scene)
