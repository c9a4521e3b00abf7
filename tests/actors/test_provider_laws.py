"""No sequence of events leaks or frees a permit twice, takes too many calls, or reaches an open circuit early (hypothesis)."""

import pickle
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.kernel import Ref
from actors.provider.actor import ProviderActor
from actors.provider.circuit import Open
from messages.calls import Award, CallEnded, ContentStarted, Granted, Outcome, Permit, Refused, Restored, Usage
from messages.control import CircuitSpec, Drain, HealthSpec, LimitsSpec, ModelSpec, ProbeSpec, ProviderSpec, Reconfigure, Reset
from messages.failures import Blame, Failure, Retry, Scope
from messages.health import GetReport, ProbeCheck, Probed, PushMetrics
from messages.routing import Bid, CallForBids, CapacityFreed, NoBid, RequestProfile
from runtime.system.solo import SoloContext

ROUTER: Ref[CapacityFreed] = Ref("router")
MODELS = (ModelSpec("m", "m", 1.0, 1.0, 100_000), ModelSpec("n", "n"))
HEALTH = HealthSpec()
AUTO = 0
"""Calls at once, to be found out."""


class Laws(RuleBasedStateMachine):
    """Couriers, prober and registry around one provider; ``out`` is the couriers' table."""

    def __init__(self) -> None:
        super().__init__()
        self.context = SoloContext("provider:a")
        self.generation = 1
        self.spec = self.specified(3, None, "models", 1, "k0", "http://a")
        self.actor = ProviderActor(self.spec, HEALTH, 1, None, ROUTER)
        self.actor.start(self.context)
        self.out: dict[str, Permit] = {}
        self.over: list[str] = []
        self.number = 0

    @staticmethod
    def specified(
        concurrency: int | None, per_minute: float | None, probe: str, trials: int, key: str, endpoint: str
    ) -> ProviderSpec:
        return ProviderSpec(
            "a",
            "openai",
            endpoint,
            key,
            MODELS,
            limits=LimitsSpec(
                per_minute,
                None if per_minute is None else per_minute * 100,
                concurrency or None,
                adaptive=concurrency == AUTO,
            ),
            circuit=CircuitSpec(failures=2, half_open_calls=trials),
            probe=ProbeSpec(probe),
        )

    def give(self, message: Any) -> Any:
        replies = self.context.give(self.actor, message)
        return replies[0] if replies else None

    @rule(model=st.sampled_from(["m", "n", "x"]), tokens=st.integers(0, 500), stream=st.booleans())
    def award(self, model: str, tokens: int, stream: bool) -> None:
        now = self.context.time
        before = (self.actor.standing.circuit.state, self.actor.standing.circuit.verdict(now).value, self.actor.limits.room)
        self.number += 1
        permit_id = f"p{self.number}"
        answer = self.give(Award(permit_id, "q", model, tokens, stream, None))
        if isinstance(answer, Refused):
            assert answer.retry_at is None or answer.retry_at > now
            return
        assert isinstance(answer, Granted)
        assert model != "x"
        assert before[1] != "wait"
        assert before[2] is None or before[2] > 0
        if isinstance(before[0], Open):
            assert now >= before[0].until
            assert answer.trial
        self.out[permit_id] = Permit(permit_id, "q", model, tokens, stream, now)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def award_again(self, data: st.DataObject) -> None:
        permit = self.out[data.draw(st.sampled_from(sorted(self.out)))]
        if self.actor.permits[permit.permit_id].is_restored:
            return
        assert isinstance(self.give(Award(permit.permit_id, "q", permit.model, 1, False)), Refused)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def content(self, data: st.DataObject) -> None:
        self.give(ContentStarted(data.draw(st.sampled_from(sorted(self.out))), data.draw(st.floats(0.0, 60.0))))

    @precondition(lambda self: self.out)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(Outcome),
        scope=st.sampled_from(Scope),
        blame=st.sampled_from(Blame),
        duration_s=st.floats(0.0, 100.0),
        used=st.one_of(st.none(), st.integers(0, 1000)),
    )
    def end(
        self, data: st.DataObject, outcome: Outcome, scope: Scope, blame: Blame, duration_s: float, used: int | None
    ) -> None:
        permit = self.out.pop(data.draw(st.sampled_from(sorted(self.out))))
        self.over.append(permit.permit_id)
        failure = Failure(blame, scope, Retry.ELSEWHERE, "x") if outcome is Outcome.FAILED else None
        usage = None if used is None else Usage(used, used)
        end = CallEnded(permit.permit_id, "q", "a", permit.model, outcome, permit.stream, duration_s, None, failure, usage)
        self.give(end)

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def end_again(self, data: st.DataObject) -> None:
        before = pickle.dumps(self.actor.limits), len(self.actor.permits)
        permit_id = data.draw(st.sampled_from(self.over))
        self.give(CallEnded(permit_id, "q", "a", "m", Outcome.SUCCESS, False, 1.0))
        assert (pickle.dumps(self.actor.limits), len(self.actor.permits)) == before

    @rule(is_good=st.booleans(), is_auth_failed=st.booleans())
    def probe(self, is_good: bool, is_auth_failed: bool) -> None:
        was_closed = self.actor.standing.is_closed
        self.give(Probed(is_good and not is_auth_failed, is_auth_failed, 0.1, ""))
        assert was_closed or not self.actor.standing.is_closed

    @rule(passed_s=st.one_of(st.floats(0.0, 5.0), st.floats(5.0, 900.0)))
    def wait(self, passed_s: float) -> None:
        self.context.advance(passed_s)

    @rule(
        concurrency=st.one_of(st.none(), st.just(AUTO), st.integers(1, 4)),
        per_minute=st.one_of(st.none(), st.floats(1.0, 100.0)),
        probe=st.sampled_from(["models", "off"]),
        trials=st.integers(1, 3),
        key=st.sampled_from(["k0", "k1"]),
        endpoint=st.sampled_from(["http://a", "http://a", "http://b"]),
    )
    def reconfigure(
        self, concurrency: int | None, per_minute: float | None, probe: str, trials: int, key: str, endpoint: str
    ) -> None:
        self.generation += 1
        self.spec = self.specified(concurrency, per_minute, probe, trials, key, endpoint)
        self.give(Reconfigure(self.spec, HEALTH, self.generation))

    @rule(status=st.sampled_from(["", "unavailable", "auth_failed"]))
    def say(self, status: str) -> None:
        self.generation += 1
        self.spec = replace(self.spec, status=status)
        self.give(Reconfigure(self.spec, HEALTH, self.generation))
        if status:
            assert isinstance(self.give(Award("said", "q", "m", 1, False)), Refused)

    @rule(latency_s=st.floats(), error_rate=st.floats(), load=st.floats())
    def push(self, latency_s: float, error_rate: float, load: float) -> None:
        self.give(PushMetrics(latency_s, error_rate, load))

    @rule(message=st.sampled_from([Drain(), Reset(), ProbeCheck(), GetReport()]))
    def control(self, message: Any) -> None:
        self.give(message)

    @rule()
    def crash(self) -> None:
        until = self.actor.standing.circuit.state.until if isinstance(self.actor.standing.circuit.state, Open) else None
        self.actor = ProviderActor(self.spec, HEALTH, self.generation, self.actor, ROUTER)
        self.actor.start(self.context)
        self.give(Restored(tuple(self.out[permit_id] for permit_id in sorted(self.out))))
        assert self.actor.standing.circuit.verdict(self.context.time).value != "pass"
        if until is not None:
            state = self.actor.standing.circuit.state
            assert isinstance(state, Open)
            assert state.until == until
        for bucket in (self.actor.limits.requests, self.actor.limits.tokens):
            assert bucket is None or bucket.level_at(self.context.time) <= 0.0

    @invariant()
    def permits_are_those_of_the_couriers(self) -> None:
        assert sorted(self.actor.permits) == sorted(self.out)
        assert self.actor.limits.in_flight == len(self.out)
        assert self.actor.invariant() is None

    @invariant()
    def a_call_for_bids_changes_nothing_and_its_answer_is_sound(self) -> None:
        before = pickle.dumps(self.actor)
        for model in ("m", "n", "x"):
            answer = self.give(CallForBids("q", RequestProfile(model, "chat", True, 10, 20), model))
            if isinstance(answer, Bid):
                assert answer.room is None or answer.room > 0
                assert 0.0 <= answer.failure_p <= 1.0
                assert 0.0 < answer.expected_s < float("inf")
                assert 0.0 <= answer.latency_peak_s < float("inf")
                assert answer.tokens_per_s >= 0.0
                assert not self.spec.status
            else:
                assert isinstance(answer, NoBid)
                assert answer.retry_at is None or answer.retry_at > self.context.time
        assert pickle.dumps(self.actor) == before

    def teardown(self) -> None:
        """Whatever happened: once all calls are over and enough time has passed, it takes a call again."""
        for permit_id in sorted(self.out):
            self.give(CallEnded(permit_id, "q", "a", "m", Outcome.CANCELLED, False, 0.1))
        self.out.clear()
        self.give(Reconfigure(replace(self.spec, status=""), HEALTH, self.generation))
        # A debt of tokens of at most a few thousand is paid in this time even at the lowest limit.
        self.context.advance(36_000.0)
        assert self.actor.invariant() is None
        assert isinstance(self.give(Award("last", "q", "m", 1, False)), Granted)


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
