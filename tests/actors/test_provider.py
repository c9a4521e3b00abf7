"""The provider actor, message by message (DESIGN: Permits, Restarts, Limits, Circuit, Evidence, Failures)."""

import pickle
from dataclasses import replace
from math import exp, log
from random import Random
from typing import Any

import pytest

from actors.kernel import Ref
from actors.provider.actor import ProviderActor
from messages.calls import (
    Award,
    CallEnded,
    ContentStarted,
    Granted,
    LimitsSeen,
    Outcome,
    Permit,
    RefusalReason,
    Refused,
    Restored,
    Usage,
)
from messages.control import CircuitSpec, Drain, HealthSpec, LimitsSpec, ModelSpec, ProbeSpec, ProviderSpec, Reconfigure, Reset
from messages.failures import Blame, Failure, Retry, Scope
from messages.health import CircuitState, GetReport, ProbeCheck, Probed, Status
from messages.routing import Bid, CallForBids, CapacityFreed, NoBid, NoBidReason, RequestProfile
from runtime.system.solo import SoloContext

MODELS = (ModelSpec("m", "m-2024", 2.0, 10.0, 1000, None), ModelSpec("n", "n"))
SPEC = ProviderSpec("a", "openai", "http://a", "key-1", MODELS, probe=ProbeSpec("off"))
ROUTER: Ref[CapacityFreed] = Ref("router")


def failure(scope: Scope, blame: Blame = Blame.UPSTREAM, retry_after_s: float | None = None) -> Failure:
    return Failure(blame, scope, Retry.ELSEWHERE, "http_503", 503, retry_after_s)


class World:
    """One provider and a context, with short words for its mail."""

    def __init__(self, spec: ProviderSpec = SPEC, **changes: Any) -> None:
        self.spec = replace(spec, **changes)
        self.context = SoloContext("provider:a")
        self.actor = ProviderActor(self.spec, HealthSpec(), 1, None, ROUTER)
        self.actor.start(self.context)

    def give(self, message: Any) -> Any:
        replies = self.context.give(self.actor, message)
        assert self.actor.invariant() is None
        return replies[0] if replies else None

    def bid(self, model: str = "m", **profile: Any) -> Any:
        return self.give(CallForBids("q", RequestProfile(model, **profile), model))

    def award(self, permit_id: str, model: str = "m", tokens: int = 100, stream: bool = False) -> Any:
        return self.give(Award(permit_id, "q", model, tokens, stream, 50))

    def end(self, permit_id: str, outcome: Outcome = Outcome.SUCCESS, **changes: Any) -> Any:
        end = CallEnded(permit_id, "q", "a", "m", outcome, False, 0.5)
        return self.give(replace(end, **changes))

    def fail(self, permit_id: str, scope: Scope = Scope.PROVIDER, **changes: Any) -> Any:
        return self.end(permit_id, Outcome.FAILED, failure=failure(scope, **changes))

    def call(self, permit_id: str, **changes: Any) -> None:
        assert isinstance(self.award(permit_id), Granted)
        self.end(permit_id, **changes)

    def open_circuit(self) -> None:
        for number in range(5):
            assert isinstance(self.award(f"open{number}"), Granted)
            self.fail(f"open{number}")

    def report(self) -> Any:
        return self.give(GetReport())

    def freed(self) -> list[int]:
        return [message.slots for _, message in self.context.take_told() if isinstance(message, CapacityFreed)]

    def crash(self) -> None:
        self.actor = ProviderActor(self.spec, HealthSpec(), 1, self.actor, ROUTER)
        self.actor.start(self.context)

    def reconfigure(self, generation: int = 2, **changes: Any) -> None:
        self.spec = replace(self.spec, **changes)
        self.give(Reconfigure(self.spec, HealthSpec(), generation))


def no_bid(answer: Any) -> tuple[NoBidReason, float | None]:
    assert isinstance(answer, NoBid)
    return answer.reason, answer.retry_at


def refusal(answer: Any) -> tuple[RefusalReason, float | None]:
    assert isinstance(answer, Refused)
    return answer.reason, answer.retry_at


def test_a_new_provider_bids_as_an_unknown_and_says_how_many_explore_it() -> None:
    world = World()
    bid = world.bid(prompt_tokens=100, max_tokens=50)
    assert isinstance(bid, Bid)
    assert (bid.samples, bid.exploring, bid.health, bid.healthy, bid.trial) == (0, 0, 1.0, True, False)
    assert bid.cost_usd == pytest.approx((100 * 2.0 + 50 * 10.0) / 1e6)
    assert world.bid("n").cost_usd is None
    world.award("p1")
    assert (world.bid().samples, world.bid().exploring) == (0, 1)


def test_a_bid_tells_what_was_learned_of_that_model_only() -> None:
    world = World()
    for number in range(20):
        assert isinstance(world.award(f"p{number}", stream=True), Granted)
        world.context.advance(0.2)
        world.give(ContentStarted(f"p{number}", 0.2))
        world.context.advance(0.8)
        world.end(f"p{number}", stream=True, duration_s=1.0, first_content_s=0.2, usage=Usage(10, 50))
    bid = world.bid(stream=True, max_tokens=50)
    assert bid.samples == 20
    assert bid.latency_p50_s == pytest.approx(0.2, rel=0.07)
    assert bid.expected_s == pytest.approx(1.0, rel=0.1)
    assert bid.successes == pytest.approx(20, rel=0.05)
    assert world.bid("n").samples == 0
    assert world.report().latency_p95_ms == pytest.approx(200, rel=0.07)


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({"prompt_tokens": 900, "max_tokens": 101}, NoBidReason.CONTEXT_TOO_LONG),
        ({"needs": ("audio", "chat")}, NoBidReason.MISSING_CAPABILITY),
    ],
)
def test_D1_what_does_not_fit_gets_no_bid(profile: dict[str, Any], reason: NoBidReason) -> None:
    assert no_bid(World().bid(**profile)) == (reason, None)
    assert isinstance(World().bid(prompt_tokens=900, max_tokens=100, needs=("chat", "tools")), Bid)


def test_a_model_it_does_not_serve_gets_no_bid_and_no_permit_unless_it_takes_any() -> None:
    world = World()
    assert no_bid(world.bid("x")) == (NoBidReason.MODEL_UNAVAILABLE, None)
    assert refusal(world.award("p", "x")) == (RefusalReason.MODEL_UNAVAILABLE, None)
    anything = World(takes_any=True, models=())
    assert isinstance(anything.bid("x"), Bid)
    assert anything.award("p", "x") == Granted("p", "x", 1, False)
    assert world.award("p2") == Granted("p2", "m-2024", 1, False)


def test_a_call_for_bids_changes_nothing_in_any_state() -> None:
    worlds = [World(limits=LimitsSpec(2, 1000, 1)) for _ in range(5)]
    worlds[1].award("p")
    World.open_circuit(worlds[2]) if worlds[2].spec.limits.requests_per_minute == 0 else worlds[2].actor.standing.circuit.trip(
        0.0
    )
    worlds[3].actor.standing.credential.trip(worlds[3].context.time)
    worlds[4].award("p", stream=True)
    for world in worlds:
        world.context.advance(31.0)
        before = pickle.dumps(world.actor)
        for model in ("m", "n", "x"):
            world.bid(model, prompt_tokens=5, stream=True, needs=("chat",))
        assert pickle.dumps(world.actor) == before


def test_B3_at_capacity_it_does_not_bid_and_tells_once_there_is_room() -> None:
    world = World(limits=LimitsSpec(max_concurrency=1))
    world.award("p1")
    assert no_bid(world.bid()) == (NoBidReason.AT_CAPACITY, None)
    assert refusal(world.award("p2")) == (RefusalReason.AT_CAPACITY, None)
    assert world.freed() == []
    world.end("p1")
    assert world.freed() == [1]
    assert world.bid().room == 1
    world.call("p3")
    world.freed()
    roomy = World(limits=LimitsSpec(max_concurrency=10))
    roomy.call("p1")
    assert roomy.freed() == []


def test_who_waited_is_told_of_every_place_until_all_are_free() -> None:
    world = World(limits=LimitsSpec(max_concurrency=3))
    for name in ("p1", "p2", "p3"):
        world.award(name)
    for name in ("p1", "p2", "p3"):
        world.end(name)
    assert world.freed() == [1, 2, 3]
    world.call("p4")
    assert world.freed() == []


def test_over_its_rate_it_says_when_it_may_be_asked_again() -> None:
    world = World(limits=LimitsSpec(requests_per_minute=60, burst=1))
    world.award("p1")
    assert no_bid(world.bid()) == (NoBidReason.RATE_LIMITED, 1001.0)
    assert refusal(world.award("p2")) == (RefusalReason.RATE_LIMITED, 1001.0)
    world.context.advance(1.0)
    assert isinstance(world.bid(), Bid)


def test_a_bid_says_what_its_award_will_reserve() -> None:
    world = World()
    assert world.bid(prompt_tokens=50, max_tokens=30).tokens == 80
    assert world.bid(prompt_tokens=50).tokens == 50 + 1000
    assert world.bid(prompt_tokens=50, endpoint="embeddings").tokens == 50


def test_an_award_without_max_tokens_reserves_the_p90_of_that_models_answers() -> None:
    world, rng = World(), Random(1)
    lengths = [round(exp(rng.gauss(log(200.0), 0.5))) for _ in range(300)]
    for number, length in enumerate(lengths):
        world.call(f"p{number}", usage=Usage(50, length))
    reserved = world.bid(prompt_tokens=50).tokens - 50
    assert 0.85 <= sum(length <= reserved for length in lengths) / len(lengths) <= 0.95
    # Another model, and a request that says how much it wants, go by something else.
    assert world.bid("n", prompt_tokens=50).tokens == 50 + 1000
    assert world.bid(prompt_tokens=50, max_tokens=30).tokens == 80


def test_tokens_are_reserved_by_estimate_and_settled_to_what_was_used() -> None:
    world = World(limits=LimitsSpec(tokens_per_minute=1000))
    world.award("p1", tokens=900)
    assert world.report().tokens_left == pytest.approx(100)
    assert no_bid(world.bid(prompt_tokens=200, max_tokens=10))[0] is NoBidReason.RATE_LIMITED
    world.end("p1", usage=Usage(50, 50))
    assert world.report().tokens_left == pytest.approx(900)
    world.award("p2", tokens=900)
    world.end("p2", Outcome.NOT_SENT)
    assert world.report().tokens_left == pytest.approx(900)


def test_a_permit_ends_once_and_an_unknown_end_is_counted_and_ignored() -> None:
    world = World(limits=LimitsSpec(max_concurrency=2))
    world.call("p1")
    world.award("p2")
    before = world.report()
    world.end("p1")
    world.end("never")
    assert world.actor.unknown_ends == 2
    assert world.report() == before
    assert world.bid().in_flight == 1


def test_a_permit_id_that_is_out_is_refused_as_a_duplicate() -> None:
    world = World()
    world.award("p1")
    assert refusal(world.award("p1")) == (RefusalReason.DUPLICATE, None)
    assert world.bid().in_flight == 1


def test_D6_failures_open_the_circuit_and_a_trial_with_content_closes_it() -> None:
    world = World()
    world.open_circuit()
    assert no_bid(world.bid()) == (NoBidReason.CIRCUIT_OPEN, 1030.0)
    assert refusal(world.award("p")) == (RefusalReason.CIRCUIT_OPEN, 1030.0)
    assert (world.report().status, world.report().circuit) == (Status.UNAVAILABLE, CircuitState.OPEN)
    world.context.advance(30.0)
    bid = world.bid()
    assert (bid.trial, bid.room) == (True, 1)
    assert world.award("trial", stream=True) == Granted("trial", "m-2024", 1, True)
    assert no_bid(world.bid()) == (NoBidReason.CIRCUIT_OPEN, 1030.5)
    world.freed()
    world.give(ContentStarted("trial", 0.2))
    assert len(world.freed()) == 1
    assert world.bid().trial is False
    assert world.report().status is Status.READY


@pytest.mark.parametrize(
    "ignored",
    [
        {"outcome": Outcome.CANCELLED},
        {"outcome": Outcome.LOST_HEDGE},
        {"outcome": Outcome.CANCELLED, "duration_s": 300.0},
        {"outcome": Outcome.DRAINED},
        {"outcome": Outcome.NOT_SENT},
        {"outcome": Outcome.FAILED, "failure": failure(Scope.NONE, Blame.CLIENT)},
        {"outcome": Outcome.FAILED, "failure": failure(Scope.BUCKET, retry_after_s=0.0)},
        {"outcome": Outcome.FAILED, "failure": failure(Scope.PROVIDER, Blame.US)},
    ],
)
def test_a_trial_that_says_nothing_leaves_the_circuit_half_open_with_its_slot_back(ignored: dict[str, Any]) -> None:
    world = World()
    world.open_circuit()
    world.context.advance(30.0)
    world.award("trial")
    world.freed()
    world.end("trial", **ignored)
    assert world.freed() == [1]
    assert world.report().circuit is CircuitState.HALF_OPEN
    assert world.award("next").trial is True


def test_a_clients_own_error_and_a_429_open_no_circuit() -> None:
    world = World()
    for number in range(20):
        world.award(f"p{number}")
        world.end(f"p{number}", Outcome.FAILED, failure=failure(Scope.NONE, Blame.CLIENT))
        world.award(f"r{number}")
        world.fail(f"r{number}", Scope.BUCKET, retry_after_s=0.0)
    assert world.report().circuit is CircuitState.CLOSED
    assert (world.bid().failure_p, world.bid().health) == (0.0, 1.0)


def test_a_retry_after_is_honoured() -> None:
    world = World()
    world.award("p1")
    world.fail("p1", Scope.BUCKET, retry_after_s=7.0)
    assert no_bid(world.bid()) == (NoBidReason.RATE_LIMITED, 1007.0)
    world.context.advance(7.0)
    assert isinstance(world.bid(), Bid)


def test_a_failure_of_its_own_that_names_a_wait_is_left_alone_until_then_as_well() -> None:
    world = World()
    world.award("p1")
    world.fail("p1", retry_after_s=7.0)
    assert no_bid(world.bid()) == (NoBidReason.RATE_LIMITED, 1007.0)
    assert refusal(world.award("p2")) == (RefusalReason.RATE_LIMITED, 1007.0)
    world.context.advance(7.0)
    assert isinstance(world.bid(), Bid)


def test_a_wait_named_with_a_failure_of_a_model_or_of_the_client_is_no_limit_of_the_provider() -> None:
    world = World()
    for number, (scope, blame) in enumerate([(Scope.MODEL, Blame.UPSTREAM), (Scope.NONE, Blame.CLIENT)]):
        world.award(f"p{number}", model="n")
        world.end(f"p{number}", Outcome.FAILED, failure=failure(scope, blame, 7.0))
        assert isinstance(world.bid(), Bid), scope


@pytest.mark.parametrize("stream", [True, False])
def test_refusals_that_name_no_wait_back_off_the_longer_until_a_call_is_answered(stream: bool) -> None:
    world, waits = World(), []
    for number in range(5):
        if number == 3:
            # A stream has been taken once its first content is here, though it goes on for long.
            world.award("answered", stream=stream)
            world.give(ContentStarted("answered", 0.1)) if stream else world.end("answered")
        world.award(f"p{number}")
        world.fail(f"p{number}", Scope.BUCKET)
        _, retry_at = no_bid(world.bid())
        assert retry_at is not None
        waits.append(retry_at - world.context.time)
        world.context.advance(waits[-1])
    assert waits == [1.0, 2.0, 4.0, 1.0, 2.0]


def test_what_the_provider_says_is_left_is_believed_where_it_is_less() -> None:
    world = World(limits=LimitsSpec(requests_per_minute=60))
    world.award("p1")
    world.end("p1", limits=LimitsSeen(remaining_requests=3, reset_requests_s=30.0))
    assert world.report().requests_left == pytest.approx(3)


def test_A3_a_401_sets_auth_failed_and_a_good_probe_admits_a_trial_whose_success_makes_it_ready() -> None:
    world = World(probe=ProbeSpec("models", 30.0))
    world.award("p1")
    world.fail("p1", Scope.CREDENTIAL)
    assert world.report().status is Status.AUTH_FAILED
    assert no_bid(world.bid()) == (NoBidReason.AUTH_FAILED, 1030.0)
    assert refusal(world.award("p2"))[0] is RefusalReason.AUTH_FAILED
    assert world.report().circuit is CircuitState.CLOSED
    world.context.advance(30.0)
    assert world.give(ProbeCheck()).why == "auth_failed"
    world.freed()
    world.give(Probed(True, False, 0.1, ""))
    assert world.freed() == [1]
    assert world.report().status is Status.AUTH_FAILED
    assert world.award("trial").trial is True
    world.end("trial")
    assert world.report().status is Status.READY


def test_A3_a_changed_key_clears_auth_failed_at_once_and_nothing_else() -> None:
    world = World()
    world.open_circuit()
    world.actor.standing.credential.trip(1000.0)
    world.reconfigure(credential="key-2")
    assert world.report().status is Status.UNAVAILABLE
    assert no_bid(world.bid())[0] is NoBidReason.CIRCUIT_OPEN


def test_a_probe_that_finds_a_bad_key_counts_only_before_calls_have_worked() -> None:
    bad = Probed(False, True, 0.1, "401")
    fresh, proved = World(probe=ProbeSpec()), World(probe=ProbeSpec())
    fresh.give(bad)
    proved.call("p1")
    proved.give(bad)
    assert fresh.report().status is Status.AUTH_FAILED
    assert proved.report().status is Status.READY


def test_a_missing_model_is_that_model_only_and_its_wait_doubles() -> None:
    world = World()
    world.award("p1")
    world.award("p2")
    world.fail("p1", Scope.MODEL)
    world.fail("p2", Scope.MODEL)
    assert no_bid(world.bid()) == (NoBidReason.MODEL_UNAVAILABLE, 1030.0)
    assert refusal(world.award("p3")) == (RefusalReason.MODEL_UNAVAILABLE, 1030.0)
    assert isinstance(world.bid("n"), Bid)
    world.context.advance(30.0)
    world.award("p4")
    world.fail("p4", Scope.MODEL)
    assert no_bid(world.bid()) == (NoBidReason.MODEL_UNAVAILABLE, 1090.0)
    world.context.advance(60.0)
    world.call("p5")
    assert world.actor.standing.absences.until("m") == 0.0


def test_a_hanging_provider_whose_clients_leave_opens_its_circuit() -> None:
    world = World()
    for number in range(20):
        world.call(f"p{number}", usage=Usage(10, 50))
    for number in range(5):
        world.award(f"h{number}", stream=True)
        world.context.advance(20.0)
        world.end(f"h{number}", Outcome.CANCELLED, stream=True, duration_s=20.0)
    assert world.report().circuit is CircuitState.OPEN
    assert world.report().successes == 20


def test_draining_takes_nothing_new_and_lets_what_is_out_end() -> None:
    world = World()
    world.award("p1")
    world.give(Drain())
    assert no_bid(world.bid())[0] is NoBidReason.DRAINING
    assert refusal(world.award("p2"))[0] is RefusalReason.DRAINING
    world.end("p1")
    assert (world.report().status, world.report().successes) == (Status.DRAINING, 1)
    world.reconfigure()
    assert world.report().status is Status.READY


def test_disabled_takes_nothing() -> None:
    world = World(enabled=False)
    assert no_bid(world.bid())[0] is NoBidReason.DISABLED
    assert refusal(world.award("p"))[0] is RefusalReason.DISABLED
    assert world.report().status is Status.DISABLED


def test_B9_lowered_concurrency_drains_down_and_raised_is_told() -> None:
    world = World(limits=LimitsSpec(max_concurrency=3))
    for name in ("p1", "p2", "p3"):
        world.award(name)
    world.reconfigure(2, limits=LimitsSpec(max_concurrency=1))
    assert world.freed() == []
    world.end("p1")
    assert world.freed() == []
    assert refusal(world.award("p4"))[0] is RefusalReason.AT_CAPACITY
    world.reconfigure(3, limits=LimitsSpec(max_concurrency=4))
    assert world.freed() == [2]


@pytest.mark.parametrize("changed", [{"endpoint": "http://b"}, {"kind": "vllm"}], ids=["base_url", "kind"])
def test_B9_another_endpoint_resets_what_was_learned_and_keeps_permits_and_buckets(changed: dict[str, Any]) -> None:
    world = World(limits=LimitsSpec(requests_per_minute=60))
    world.call("p1")
    world.award("p2")
    world.open_circuit()
    left = world.report().requests_left
    world.reconfigure(**changed)
    report = world.report()
    assert (report.circuit, report.health, report.status) == (CircuitState.CLOSED, 1.0, Status.UNCHECKED)
    assert (report.in_flight, report.requests_left, report.latency_p50_ms) == (1, left, 0.0)
    world.end("p2")
    assert world.report().in_flight == 0


def test_a_configuration_older_than_the_one_in_force_is_ignored() -> None:
    world = World()
    world.reconfigure(5, enabled=False)
    world.reconfigure(4, enabled=True)
    assert world.report().status is Status.DISABLED


def test_reset_closes_the_circuit_and_forgets_what_health_has_learned() -> None:
    world = World()
    world.open_circuit()
    world.freed()
    world.give(Reset())
    assert len(world.freed()) == 1
    bid = world.bid()
    assert (bid.health, bid.failure_p, bid.trial) == (1.0, 0.0, False)


def test_probes_are_wanted_only_of_who_is_unchecked_silent_open_or_has_a_bad_key() -> None:
    world = World(probe=ProbeSpec("models", 30.0))
    assert world.give(ProbeCheck()).why == "unchecked"
    world.call("p1")
    assert world.give(ProbeCheck()).wanted is False
    world.context.advance(30.0)
    assert world.give(ProbeCheck()).why == "silent"
    world.give(Probed(True, False, 0.1, ""))
    assert world.give(ProbeCheck()).wanted is False
    world.open_circuit()
    assert world.give(ProbeCheck()).wanted is False
    world.context.advance(30.0)
    assert world.give(ProbeCheck()).why == "circuit_open"
    assert World(probe=ProbeSpec("off")).give(ProbeCheck()).wanted is False


def test_a_good_probe_lets_the_trials_go_and_the_router_knows() -> None:
    world = World(probe=ProbeSpec("models", 30.0), circuit=CircuitSpec(half_open_calls=2))
    world.open_circuit()
    world.context.advance(30.0)
    assert no_bid(world.bid()) == (NoBidReason.CIRCUIT_OPEN, 1060.0)
    world.freed()
    world.give(Probed(True, False, 0.1, ""))
    assert world.freed() == [2]
    assert world.bid().trial is True


def test_a_successor_starts_most_cautious_and_keeps_what_it_was_told_since() -> None:
    world = World(limits=LimitsSpec(requests_per_minute=60, max_concurrency=5))
    world.award("p1")
    stale = world.spec
    world.reconfigure(limits=LimitsSpec(requests_per_minute=120, max_concurrency=4))
    world.freed()
    world.spec = stale
    world.crash()
    assert world.freed() == [1]
    assert (world.actor.generation, world.actor.spec.limits.max_concurrency) == (2, 4)
    world.give(Restored((Permit("p1", "q", "m", 100, False, 999.0),)))
    assert (world.report().circuit, world.report().in_flight, world.report().requests_left) == (CircuitState.HALF_OPEN, 1, 0.0)
    assert no_bid(world.bid())[0] is NoBidReason.RATE_LIMITED
    world.context.advance(0.5)
    assert world.award("p2").trial is True
    world.end("p1")
    assert world.report().circuit is CircuitState.HALF_OPEN
    world.end("p2")
    assert world.report().circuit is CircuitState.CLOSED


def test_a_successor_of_an_open_circuit_waits_as_long_as_its_predecessor_would_have() -> None:
    world = World()
    world.open_circuit()
    world.context.advance(10.0)
    world.crash()
    assert no_bid(world.bid()) == (NoBidReason.CIRCUIT_OPEN, 1030.0)


def test_an_award_that_lay_in_the_mailbox_during_the_crash_is_decided_once() -> None:
    world = World(limits=LimitsSpec(max_concurrency=1))
    world.crash()
    world.give(Restored((Permit("p1", "q", "m", 100, False, 999.0),)))
    assert isinstance(world.award("p1"), Granted)
    assert world.report().in_flight == 1
    world.end("p1")
    assert world.report().in_flight == 0
    world.give(Restored((Permit("p2", "q", "m", 100, False, 999.0),)))
    world.give(Drain())
    assert refusal(world.award("p2"))[0] is RefusalReason.DRAINING
    assert world.report().in_flight == 0


def test_calls_called_off_late_count_as_failures_and_the_client_who_leaves_early_teaches_nothing() -> None:
    world = World()
    for number in range(20):
        world.call(f"p{number}", usage=Usage(10, 50))
        world.award(f"c{number}")
        world.end(f"c{number}", Outcome.CANCELLED, duration_s=0.1)
    assert (world.bid().failure_p, world.bid().health, world.report().failures) == (0.0, 1.0, 0)
    assert world.report().successes == 20
    # Nor does one who has had content, however long that went on.
    world.award("begun", stream=True)
    world.give(ContentStarted("begun", 0.4))
    world.context.advance(60.0)
    world.end("begun", Outcome.CANCELLED, stream=True, duration_s=60.0, first_content_s=0.4)
    assert (world.bid().failure_p, world.bid().health, world.report().successes) == (0.0, 1.0, 20)
    world.context.advance(1.0)
    world.award("drained")
    world.context.advance(30.0)
    world.end("drained", Outcome.DRAINED, duration_s=30.0)
    assert (world.bid().failure_p, world.bid().health, world.report().failures) == (0.0, 1.0, 0), "it was we who ended it"
    world.award("late")
    world.context.advance(3.0)
    world.end("late", Outcome.LOST_HEDGE, duration_s=3.0)
    assert world.bid().failure_p > 0.1
    assert world.bid().health < 1.0


def test_it_says_its_state_in_one_line() -> None:
    world = World(limits=LimitsSpec(max_concurrency=2))
    world.award("p1")
    assert repr(world.actor) == (
        "<provider a: unchecked, circuit closed, 0 failures in a row, epoch 0, "
        "1 of 2 in flight, blocked until 0.000, score 1.00, 0 failures in a row>"
    )


def test_the_invariant_sees_a_leak_and_never_raises() -> None:
    world = World()
    world.actor.limits.in_flight = 1
    assert world.actor.invariant() == "1 in flight, 0 permits"
    world.actor.permits = None  # type: ignore[assignment] # broken on purpose
    assert (world.actor.invariant() or "").startswith("cannot tell: TypeError")
