"""The registry gives every change of the configuration its generation and tells all who depend on it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from actors.kernel import Ref
from actors.registry import MODELS_LIMIT, RegistryActor, RegistryMail
from messages.control import ConfigSnapshot, Configured, GetSnapshot, ModelsLearned, ModelSpec, Propose, ProviderSpec
from runtime.system.solo import SoloContext

LISTS = ProviderSpec("lister", "openai", "http://a", "fp-1", takes_any=True, lists_models=True)
NAMED = ProviderSpec("named", "openai", "http://b", "fp-2", models=(ModelSpec("gpt", "gpt"),))
SMALL = ModelSpec("small", "small")
LARGE = ModelSpec("large", "large")


def snapshot(*providers: ProviderSpec) -> ConfigSnapshot:
    return ConfigSnapshot(0, providers, providers[0].id if providers else "", ())


class Registry:
    """A registry with two subscribers, and what it told them."""

    def __init__(self, actor: RegistryActor | None = None) -> None:
        self.actor = actor or RegistryActor([Ref("router"), Ref("prober")])
        self.context = SoloContext("registry")
        self.actor.start(self.context)

    def give(self, message: RegistryMail) -> None:
        self.context.give(self.actor, message)

    @property
    def in_force(self) -> ConfigSnapshot:
        (answer,) = self.context.give(self.actor, GetSnapshot())
        assert isinstance(answer, Configured)
        return answer.snapshot

    def spec(self, provider: str) -> ProviderSpec:
        return next(spec for spec in self.in_force.providers if spec.id == provider)


def test_a_proposed_snapshot_gets_the_next_generation_and_is_told_to_all_in_order() -> None:
    registry = Registry()

    (answer,) = registry.context.give(registry.actor, Propose(snapshot(NAMED)))

    assert answer == Configured(replace(snapshot(NAMED), generation=1))
    assert registry.context.told == [("router", answer), ("prober", answer)]
    assert registry.in_force == answer.snapshot


def test_the_generation_a_proposal_brings_along_does_not_count() -> None:
    registry = Registry()
    registry.give(Propose(snapshot(NAMED)))
    registry.give(Propose(replace(snapshot(NAMED), generation=99)))

    assert registry.in_force.generation == 2


def test_before_the_first_file_nothing_is_in_force_and_nothing_is_told() -> None:
    registry = Registry()

    assert registry.in_force == ConfigSnapshot(0, (), "", ())
    assert registry.context.told == []


def test_a_learned_list_becomes_the_models_of_a_provider_that_names_none() -> None:
    registry = Registry()
    registry.give(Propose(snapshot(LISTS)))
    registry.context.take_told()

    registry.give(ModelsLearned("lister", (SMALL, LARGE)))

    assert registry.spec("lister").models == (LARGE, SMALL)
    assert not registry.spec("lister").takes_any
    assert registry.in_force.generation == 2
    assert registry.context.told == [("router", Configured(registry.in_force)), ("prober", Configured(registry.in_force))]


def test_a_list_that_did_not_change_makes_no_new_generation() -> None:
    registry = Registry()
    registry.give(Propose(snapshot(LISTS)))
    registry.give(ModelsLearned("lister", (SMALL, LARGE)))
    registry.context.take_told()

    registry.give(ModelsLearned("lister", (LARGE, SMALL, SMALL)))

    assert registry.in_force.generation == 2
    assert registry.context.told == []


def test_a_list_that_changed_replaces_the_one_before() -> None:
    registry = Registry()
    registry.give(Propose(snapshot(LISTS)))
    registry.give(ModelsLearned("lister", (SMALL, LARGE)))
    registry.give(ModelsLearned("lister", (SMALL,)))

    assert registry.spec("lister").models == (SMALL,)
    assert registry.in_force.generation == 3


def test_a_provider_whose_file_names_models_learns_none() -> None:
    registry = Registry()
    registry.give(Propose(snapshot(NAMED)))
    registry.give(ModelsLearned("named", (SMALL,)))
    registry.give(ModelsLearned("stranger", (SMALL,)))

    assert registry.in_force == replace(snapshot(NAMED), generation=1)


def test_an_empty_list_teaches_nothing() -> None:
    registry = Registry()
    registry.give(Propose(snapshot(LISTS)))
    registry.give(ModelsLearned("lister", ()))

    assert registry.spec("lister").takes_any
    assert registry.in_force.generation == 1


def test_learned_models_survive_a_new_file_with_the_same_endpoint() -> None:
    registry = Registry()
    registry.give(Propose(snapshot(LISTS)))
    registry.give(ModelsLearned("lister", (SMALL,)))

    registry.give(Propose(snapshot(replace(LISTS, weight=7), NAMED)))

    assert registry.spec("lister") == replace(LISTS, weight=7, models=(SMALL,), takes_any=False)


def test_learned_models_are_forgotten_with_another_endpoint_a_list_in_the_file_or_removal() -> None:
    elsewhere = replace(LISTS, endpoint="http://c")
    told_by_file = replace(LISTS, lists_models=False, takes_any=False, models=(LARGE,))
    for changed in (elsewhere, told_by_file, NAMED):
        registry = Registry()
        registry.give(Propose(snapshot(LISTS)))
        registry.give(ModelsLearned("lister", (SMALL,)))

        registry.give(Propose(snapshot(changed)))
        assert registry.in_force.providers == (changed,)
        assert registry.actor.invariant() is None

        registry.give(Propose(snapshot(LISTS)))
        assert registry.in_force.providers == (LISTS,)


def test_a_learned_model_is_described_by_what_is_known_of_it() -> None:
    def priced(spec: ProviderSpec, model: ModelSpec) -> ModelSpec:
        return replace(model, input_price=1.5) if spec.kind == "openai" else model

    registry = Registry(RegistryActor([], priced))
    registry.give(Propose(snapshot(LISTS)))
    registry.give(ModelsLearned("lister", (SMALL,)))
    registry.give(ModelsLearned("lister", (SMALL,)))

    assert registry.spec("lister").models == (replace(SMALL, input_price=1.5),)
    assert registry.in_force.generation == 2


def test_a_learned_list_is_bounded() -> None:
    registry = Registry()
    registry.give(Propose(snapshot(LISTS)))
    registry.give(ModelsLearned("lister", tuple(ModelSpec(f"m{n}", f"m{n}") for n in range(MODELS_LIMIT + 5))))

    assert len(registry.spec("lister").models) == MODELS_LIMIT
    assert registry.actor.invariant() is None


def test_a_successor_goes_on_from_the_snapshot_in_force_and_tells_it_again() -> None:
    before = Registry()
    before.give(Propose(snapshot(LISTS)))
    before.give(ModelsLearned("lister", (SMALL,)))
    in_force = before.in_force

    after = Registry(RegistryActor([Ref("router")], before=before.actor))

    assert after.context.told == [("router", Configured(in_force))]
    after.give(Propose(snapshot(LISTS)))
    assert after.spec("lister").models == (SMALL,)
    assert after.in_force.generation == in_force.generation + 1


SPECS = st.lists(
    st.builds(
        replace,
        st.sampled_from([LISTS, NAMED]),
        endpoint=st.sampled_from(["http://a", "http://b"]),
        lists_models=st.booleans(),
    ),
    unique_by=lambda spec: spec.id,
)
MAIL = st.one_of(
    st.builds(lambda specs: Propose(snapshot(*specs)), SPECS),
    st.builds(
        ModelsLearned, st.sampled_from(["lister", "named", "nobody"]), st.lists(st.sampled_from([SMALL, LARGE])).map(tuple)
    ),
)


@given(mail=st.lists(MAIL, max_size=12))
def test_whatever_comes_the_generation_only_grows_and_every_change_is_told(mail: list[RegistryMail]) -> None:
    registry = Registry()
    in_force = registry.in_force
    for message in mail:
        registry.context.take_told()
        registry.give(message)

        told = registry.context.take_told()
        now = registry.in_force
        if now == in_force:
            assert told == []
        else:
            assert now.generation == in_force.generation + 1
            assert told == [("router", Configured(now)), ("prober", Configured(now))]
        assert registry.actor.invariant() is None
        in_force = now
