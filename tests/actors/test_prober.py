"""The prober probes what traffic leaves unknown: only who wishes it, few at a time, each in its turn."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kernel import Ref
from actors.prober import ASKERS_LIMIT, MODELS_LIMIT, NAME_LENGTH_LIMIT, OVERDUE_S, PROBES_LIMIT, TICK_S, ProberActor
from messages.control import ConfigSnapshot, Configured, ModelsLearned, ModelSpec, ProbeSpec, ProviderSpec
from messages.health import Probed, ProbeDone, ProbeNow, ProbeOverdue, ProbeTick, ProbeWish, RunProbe
from messages.routing import Gathered
from runtime.system.solo import SoloContext


def spec(name: str) -> ProviderSpec:
    return ProviderSpec(name, "openai", f"http://{name}", f"key-{name}", takes_any=True, lists_models=True)


class Prober:
    """A prober among the providers named, with the answers of the world given by hand."""

    def __init__(self, *names: str, before: ProberActor | None = None) -> None:
        self.actor = ProberActor(Ref("probes"), Ref("registry"), before)
        self.context = SoloContext("prober")
        self.actor.start(self.context)
        if names:
            self.configure(*map(spec, names))

    def give(self, message: Any) -> list[Any]:
        return self.context.give(self.actor, message)

    def configure(self, *specs: ProviderSpec) -> None:
        self.give(Configured(ConfigSnapshot(1, specs, "", ())))

    def asked_for_wishes(self) -> list[str]:
        """Whom the last fan-out went to."""
        return [ref.name for ref in self.context.fans[-1].to]

    def wish(self, *names: str, unwilling: Iterable[str] = ()) -> list[str]:
        """Answer the last fan-out; returns the providers whose probes began."""
        self.context.take_told()
        wishes = [ProbeWish(name, True, "unchecked") for name in names]
        wishes += [ProbeWish(name, False, "traffic tells") for name in unwilling]
        self.give(Gathered(self.context.fans[-1].key, tuple(wishes)))
        return [probe.provider for probe in self.begun()]

    def begun(self) -> list[RunProbe]:
        """Probes the runtime was told to make since the last look."""
        return [message for to, message in self.context.take_told() if to == "probes"]

    def tick(self) -> None:
        while not isinstance(self.context.fire(self.actor), ProbeTick):
            pass

    def done(self, probe: RunProbe, **found: Any) -> ProbeDone:
        made = replace(ProbeDone(probe.probe_id, probe.provider, True, False, 0.1, "200"), **found)
        self.give(made)
        return made


def test_every_tick_asks_all_providers_what_they_wish() -> None:
    prober = Prober("b", "a")
    prober.wish()
    before = prober.context.now()

    prober.tick()

    assert prober.context.now() == before + TICK_S
    assert len(prober.context.fans) == 2
    assert prober.asked_for_wishes() == ["provider:a", "provider:b"]
    assert [type(message) for _, message in prober.context.timers.values()] == [ProbeTick]


def test_a_new_configuration_is_looked_at_at_once() -> None:
    prober = Prober("a")

    assert prober.asked_for_wishes() == ["provider:a"]


def test_without_providers_nobody_is_asked_and_the_tick_goes_on() -> None:
    prober = Prober()
    prober.tick()
    prober.tick()

    assert prober.context.fans == []
    assert len(prober.context.timers) == 1


def test_a_second_round_does_not_begin_before_the_first_has_come_back() -> None:
    prober = Prober("a")
    prober.tick()

    assert len(prober.context.fans) == 1


def test_pain_20_only_who_wishes_it_is_probed() -> None:
    prober = Prober("a", "b", "c")

    assert prober.wish("b", unwilling=["a", "c"]) == ["b"]


def test_pain_20_who_is_disabled_or_has_its_probe_off_is_not_even_asked() -> None:
    prober = Prober()
    prober.configure(spec("a"), replace(spec("b"), enabled=False), replace(spec("c"), probe=ProbeSpec("off")))

    assert prober.asked_for_wishes() == ["provider:a"]


def test_a_provider_with_a_probe_in_flight_is_left_alone() -> None:
    prober = Prober("a", "b")
    prober.wish("a")

    prober.tick()

    assert prober.asked_for_wishes() == ["provider:b"]


def test_at_most_eight_probes_are_in_flight_and_the_rest_come_in_turn() -> None:
    names = [f"p{n:02}" for n in range(20)]
    prober = Prober(*names)

    first = prober.wish(*names)
    assert first == names[:PROBES_LIMIT]
    prober.tick()
    assert prober.wish(*names) == []

    for probe_id, name in enumerate(first, start=2):
        prober.done(RunProbe(f"probe-{probe_id}", name))
    prober.tick()
    assert prober.wish(*names) == names[PROBES_LIMIT : 2 * PROBES_LIMIT]


def test_the_turn_begins_behind_who_was_probed_last() -> None:
    prober = Prober("a", "b", "c")
    prober.wish("b")
    prober.done(RunProbe("probe-2", "b"))
    prober.tick()

    assert prober.wish("a", "b", "c") == ["c", "a", "b"]


def test_what_a_probe_found_is_told_to_its_provider() -> None:
    prober = Prober("a")
    prober.wish("a")
    prober.done(RunProbe("probe-2", "a"), ok=False, auth_failed=True, latency_s=0.3, detail="401")

    assert prober.context.told == [("provider:a", Probed(False, True, 0.3, "401"))]
    assert len(prober.context.timers) == 1


def test_a_list_of_models_is_told_to_the_registry_sorted_and_each_once() -> None:
    prober = Prober("a")
    prober.wish("a")
    prober.done(RunProbe("probe-2", "a"), models=("z", "y", "z", "", "n" * (NAME_LENGTH_LIMIT + 1)))

    learned = ModelsLearned("a", (ModelSpec("y", "y"), ModelSpec("z", "z")))
    assert prober.context.told[1:] == [("registry", learned)]


def test_a_list_of_models_is_bounded() -> None:
    prober = Prober("a")
    prober.wish("a")
    prober.done(RunProbe("probe-2", "a"), models=tuple(f"m{n}" for n in range(MODELS_LIMIT + 1)))

    _, learned = prober.context.told[1]
    assert len(learned.models) == MODELS_LIMIT


def test_models_of_a_provider_whose_file_names_them_are_told_to_nobody() -> None:
    prober = Prober()
    prober.configure(replace(spec("a"), lists_models=False))
    prober.wish("a")
    prober.done(RunProbe("probe-2", "a"), models=("m",))

    assert [to for to, _ in prober.context.told] == ["provider:a"]


def test_a_probe_that_never_comes_back_is_given_up_and_counts_as_failed() -> None:
    prober = Prober("a")
    prober.wish("a")
    while not isinstance(prober.context.fire(prober.actor), ProbeOverdue):
        prober.context.take_told()

    assert prober.context.told == [("provider:a", Probed(False, False, OVERDUE_S, "no answer within 15 s"))]
    prober.tick()
    assert prober.asked_for_wishes() == ["provider:a"]


def test_the_answer_to_a_probe_given_up_is_counted_and_ignored() -> None:
    prober = Prober("a")
    prober.wish("a")
    prober.give(ProbeOverdue("probe-2"))
    prober.context.take_told()

    prober.done(RunProbe("probe-2", "a"))
    prober.done(RunProbe("probe-77", "nobody"))
    prober.give(ProbeOverdue("probe-2"))

    assert prober.context.told == []
    assert prober.actor.unknown == 2


def test_a_probe_of_an_address_or_key_no_longer_configured_teaches_nothing() -> None:
    for changed in (replace(spec("a"), endpoint="http://elsewhere"), replace(spec("a"), credential="new"), spec("b")):
        prober = Prober("a")
        prober.wish("a")
        prober.configure(changed)
        prober.context.take_told()

        prober.done(RunProbe("probe-2", "a"), models=("m",))

        assert prober.context.told == []
        assert prober.actor.invariant() is None


def test_an_admins_question_is_answered_when_its_probe_ends() -> None:
    prober = Prober("a")

    assert prober.give(ProbeNow("a")) == []
    (probe,) = prober.begun()
    done = prober.done(probe, ok=False)

    (slot,) = prober.context.slots
    assert slot.answers == [done]
    assert prober.context.told[0] == ("provider:a", Probed(False, False, 0.1, "200"))


def test_two_questions_about_one_provider_share_one_probe() -> None:
    prober = Prober("a")
    prober.give(ProbeNow("a"))
    prober.give(ProbeNow("a"))
    (probe,) = prober.begun()
    done = prober.done(probe)

    assert [slot.answers for slot in prober.context.slots] == [[done], [done]]


def test_a_question_is_answered_too_if_the_probe_never_comes_back() -> None:
    prober = Prober("a")
    prober.give(ProbeNow("a"))
    (probe,) = prober.begun()
    prober.give(ProbeOverdue(probe.probe_id))

    (answer,) = prober.context.slots[0].answers
    assert not answer.ok
    assert answer.provider == "a"


def test_a_question_that_meets_eight_probes_waits_for_the_first_to_end_and_comes_before_wishes() -> None:
    names = [f"p{n}" for n in range(9)]
    prober = Prober(*names)
    prober.wish(*names)
    prober.give(ProbeNow("p8"))
    assert prober.begun() == []

    prober.done(RunProbe("probe-2", "p0"))

    assert [probe.provider for probe in prober.begun()] == ["p8"]


def test_a_question_is_answered_if_its_provider_is_removed_while_it_waits() -> None:
    names = [f"p{n}" for n in range(9)]
    prober = Prober(*names)
    prober.wish(*names)
    prober.give(ProbeNow("p8"))

    prober.configure(*map(spec, names[:8]))

    (answer,) = prober.context.slots[0].answers
    assert (answer.ok, answer.detail) == (False, "it is no longer configured")


def test_a_question_no_probe_can_answer_is_answered_at_once() -> None:
    prober = Prober()
    prober.configure(replace(spec("a"), probe=ProbeSpec("off")))

    assert [answer.detail for answer in prober.give(ProbeNow("a"))] == ["its probe is off"]
    assert [answer.detail for answer in prober.give(ProbeNow("b"))] == ["no such provider"]
    assert prober.begun() == []


def test_questions_that_wait_are_bounded() -> None:
    prober = Prober("a")
    for _ in range(ASKERS_LIMIT):
        assert prober.give(ProbeNow("a")) == []

    assert [answer.detail for answer in prober.give(ProbeNow("a"))] == ["too many are waiting for probes"]
    assert prober.actor.invariant() is None


def test_a_successor_knows_the_providers_and_takes_no_old_answer_for_its_own() -> None:
    before = Prober("a")
    before.wish("a")

    after = Prober(before=before.actor)
    after.tick()
    assert after.asked_for_wishes() == ["provider:a"]
    assert after.wish("a") == ["a"]
    after.done(RunProbe("probe-2", "a"))

    assert after.context.told == []
    assert after.actor.unknown == 1


def test_a_turn_left_half_way_breaks_the_invariant_so_that_its_lost_timers_are_set_anew() -> None:
    prober = Prober("a")

    class Broken(SoloContext):
        def gather(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError

    prober.wish()
    with pytest.raises(RuntimeError):
        Broken("prober").give(prober.actor, ProbeTick())

    assert prober.actor.invariant() == "a turn was left half-way"


NAMES = [f"p{n:02}" for n in range(12)]
EVENTS = st.one_of(
    st.tuples(st.just("configure"), st.lists(st.sampled_from(NAMES), unique=True)),
    st.tuples(st.just("ask"), st.sampled_from(NAMES)),
    st.tuples(st.just("wishes"), st.lists(st.sampled_from(NAMES), unique=True)),
    st.tuples(st.just("done"), st.integers(0, 100)),
    st.tuples(st.just("fire"), st.none()),
)


@given(events=st.lists(EVENTS, max_size=40))
def test_whatever_happens_probes_are_bounded_and_every_question_gets_one_answer(events: list[tuple[str, Any]]) -> None:
    prober = Prober(*NAMES)
    out: list[RunProbe] = []
    for what, value in events:
        match what:
            case "configure":
                prober.configure(*map(spec, value))
            case "ask":
                prober.give(ProbeNow(value))
            case "wishes":
                wishes = tuple(ProbeWish(name, True, "") for name in value)
                prober.give(Gathered(prober.context.fans[-1].key, wishes))
            case "done" if out:
                prober.done(out[value % len(out)])
            case "fire":
                prober.context.fire(prober.actor)
        out += prober.begun()
        assert prober.actor.invariant() is None

    for _ in range(200):
        prober.context.fire(prober.actor)
    assert all(len(slot.answers) == 1 for slot in prober.context.slots)
    assert len({probe.probe_id for probe in out}) == len(out)
