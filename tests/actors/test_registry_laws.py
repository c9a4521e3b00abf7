"""Whatever comes in whatever order, the registry keeps its law; and to change at run time is to edit the file."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actors.kernel import Ref
from actors.registry import RegistryActor, RegistryMail
from actors.registry.overlay import Overlay, compose
from messages.changes import (
    Change,
    Changed,
    ChangeRefused,
    DeleteAlias,
    DeleteRule,
    EnableRule,
    PatchProvider,
    PutAlias,
    PutRule,
    RegisterProvider,
    SetDefault,
    SetStrategy,
    UnregisterProvider,
)
from messages.control import ConfigSnapshot, Configured, ModelsLearned, ModelSpec, Propose, ProviderSpec
from messages.policy import Action, ActionKind, PoolSpec, Rule, TenantSpec
from tests.actors.test_registry import Registry

STRATEGIES = ("adaptive", "cost", "random")
M = (ModelSpec("m", "m"),)
IDS = st.sampled_from("abcd")
NAMES = st.sampled_from(("one", "two", "three"))
WHO = st.sampled_from(("acme", "bolt"))
SPECS = st.builds(
    ProviderSpec,
    id=IDS,
    kind=st.just("openai"),
    endpoint=st.sampled_from(("http://x", "http://y")),
    credential=st.just("fp"),
    models=st.just(M),
    lists_models=st.booleans(),
    weight=st.integers(0, 3),
    enabled=st.booleans(),
)
ACTIONS = st.one_of(
    st.builds(lambda name: Action(ActionKind.PROVIDERS, (name,)), IDS),
    st.builds(lambda name: Action(ActionKind.STRATEGY, (name,)), st.sampled_from(STRATEGIES)),
)
RULES = st.builds(Rule, NAMES, st.integers(0, 2), st.booleans(), then=ACTIONS.map(lambda action: (action,)))
STATUSES = st.sampled_from((None, None, "ready", "unavailable", "auth_failed", "disabled", "nonsense"))
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(RegisterProvider, SPECS),
    st.builds(UnregisterProvider, IDS),
    st.builds(
        PatchProvider, IDS, st.none() | st.booleans(), STATUSES, weight=st.none() | st.integers(0, 3), priority=st.none()
    ),
    st.builds(SetDefault, IDS),
    st.builds(SetStrategy, st.sampled_from(("", *STRATEGIES, "luck"))),
    st.builds(SetStrategy, st.sampled_from(("", *STRATEGIES)), model=st.just("m")),
    st.builds(SetStrategy, st.sampled_from(("", *STRATEGIES)), tenant=WHO),
    st.builds(PutAlias, NAMES, NAMES | st.just("m")),
    st.builds(DeleteAlias, NAMES),
    st.builds(PutRule, RULES),
    st.builds(DeleteRule, NAMES),
    st.builds(EnableRule, NAMES, st.booleans()),
)


@st.composite
def files(draw: st.DrawFn) -> ConfigSnapshot:
    """A file; often one that is wrong by itself."""
    providers = draw(st.lists(SPECS, max_size=4, unique_by=lambda spec: spec.id))
    rules = draw(st.lists(RULES, max_size=2, unique_by=lambda rule: rule.name))
    aliases = draw(st.dictionaries(NAMES, st.just("m"), max_size=2))
    tenants = draw(st.lists(st.builds(TenantSpec, WHO, st.none() | st.tuples(IDS)), max_size=2, unique_by=lambda t: t.name))
    return ConfigSnapshot(
        0,
        tuple(providers),
        draw(st.sampled_from([spec.id for spec in providers])) if providers else "",
        tuple(sorted(aliases.items())),
        rules=tuple(rules),
        tenants=tuple(tenants),
    )


MAIL = st.one_of(
    CHANGES,
    CHANGES,
    files().map(Propose),
    st.builds(ModelsLearned, IDS, st.sampled_from((M, (), (*M, ModelSpec("n", "n"))))),
    st.just("crash"),
)


def fresh() -> Registry:
    return Registry(RegistryActor([Ref("router"), Ref("prober")], strategies=STRATEGIES))


@given(mail=st.lists(MAIL, max_size=16))
def test_whatever_comes_what_is_in_force_is_what_file_and_overlay_say_and_each_change_is_told_once(
    mail: list[RegistryMail | str],
) -> None:
    registry = fresh()
    file = registry.in_force
    for message in mail:
        before, said = registry.in_force, registry.actor._overlay
        registry.context.take_told()
        if isinstance(message, str):
            registry = Registry(RegistryActor([Ref("router"), Ref("prober")], before=registry.actor, strategies=STRATEGIES))
            assert registry.in_force == before
            continue
        answers = registry.context.give(registry.actor, message)
        told, now = registry.context.take_told(), registry.in_force
        if answers and isinstance(answers[0], ChangeRefused):
            assert now == before
            assert registry.actor._overlay == said
        elif isinstance(message, Propose):
            file = message.snapshot
            assert registry.actor._overlay == said

        if now == before:
            assert told == []
        else:
            assert now.generation == before.generation + 1
            assert told == [("router", Configured(now)), ("prober", Configured(now))]
        assert len(answers) == (0 if isinstance(message, ModelsLearned) else 1)
        assert without_learned(now) == without_learned(
            replace(compose(file, registry.actor._overlay), generation=now.generation)
        )
        assert registry.actor.invariant() is None


def without_learned(snapshot: ConfigSnapshot) -> ConfigSnapshot:
    return replace(snapshot, providers=tuple(replace(spec, models=(), takes_any=False) for spec in snapshot.providers))


@given(file=files(), changes=st.lists(CHANGES, max_size=16))
def test_to_change_at_run_time_is_to_edit_the_file(file: ConfigSnapshot, changes: list[Change]) -> None:
    registry = fresh()
    (answer,) = registry.context.give(registry.actor, Propose(file))
    if not isinstance(answer, Configured):
        return
    editor = Editor(file)
    for change in changes:
        (answer,) = registry.context.give(registry.actor, change)
        if isinstance(answer, Changed):
            editor.edit(change)
        now = registry.in_force
        assert replace(now, generation=0) == editor.file
        # What is in force would be taken as a file: nothing in it contradicts itself.
        (again,) = (other := fresh()).context.give(other.actor, Propose(now))
        assert again == Configured(replace(now, generation=1))


@given(file=files(), changes=st.lists(CHANGES, max_size=12))
def test_the_same_file_again_changes_the_generation_and_nothing_else(file: ConfigSnapshot, changes: list[Change]) -> None:
    registry = fresh()
    for message in (Propose(file), *changes):
        registry.give(message)
    before = registry.in_force
    (answer,) = registry.context.give(registry.actor, Propose(registry.actor._file))

    assert answer == Configured(replace(before, generation=before.generation + 1))


def test_an_overlay_that_says_nothing_leaves_the_file_as_it_is() -> None:
    file = ConfigSnapshot(0, (ProviderSpec("a", "openai", "http://a", "fp", models=M),), "a", (("one", "m"),))

    assert compose(file, Overlay()) == file


class Editor:
    """Somebody who writes each change into the file by hand, knowing nothing of overlays."""

    def __init__(self, file: ConfigSnapshot) -> None:
        self.file = file
        self._default = file.default_provider
        self._original = file
        self._slots: dict[str, Rule | None] = {rule.name: rule for rule in file.rules}
        """A rule of the file that was deleted keeps its place."""
        self._was_out: set[str] = set()

    def edit(self, change: Change) -> None:
        file = self.file
        match change:
            case RegisterProvider(spec):
                self._set(providers=(*file.providers, spec))
            case UnregisterProvider(name):
                self._was_out.add(name)
                if self._default == name:
                    first = self._original.default_provider
                    self._default = first if first not in self._was_out else ""
                self._set(providers=tuple(spec for spec in file.providers if spec.id != name))
            case PatchProvider():
                self._set(providers=tuple(self._patched(spec, change) for spec in file.providers))
            case SetDefault(name):
                self._default = name
            case SetStrategy():
                self._strategy(change)
            case PutAlias(name, target):
                self._set(aliases=tuple(sorted({**dict(file.aliases), name: target}.items())))
            case DeleteAlias(name):
                self._set(aliases=tuple(pair for pair in file.aliases if pair[0] != name))
            case PutRule(rule):
                self._slots[rule.name] = rule
            case DeleteRule(name):
                if name in {rule.name for rule in self._original.rules}:
                    self._slots[name] = None
                else:
                    del self._slots[name]
            case EnableRule(name, enabled):
                rule_there = self._slots[name]
                assert rule_there is not None
                self._slots[name] = replace(rule_there, enabled=enabled)
        ids = [spec.id for spec in self.file.providers]
        default = self._default or (ids[0] if ids else "")
        self._set(rules=tuple(rule for rule in self._slots.values() if rule is not None), default_provider=default)

    def _set(self, **parts: Any) -> None:
        self.file = replace(self.file, **parts)

    def _patched(self, spec: ProviderSpec, change: PatchProvider) -> ProviderSpec:
        if spec.id != change.provider:
            return spec
        if change.weight is not None:
            spec = replace(spec, weight=change.weight)
        if change.status is not None:
            said = change.status if change.status in ("unavailable", "auth_failed") else ""
            return replace(spec, status=said, enabled=change.status != "disabled")
        return spec if change.enabled is None else replace(spec, enabled=change.enabled)

    def _strategy(self, change: SetStrategy) -> None:
        if change.model:
            pools = {pool.model: pool.strategy for pool in self.file.pools} | {change.model: change.strategy}
            self._set(pools=tuple(PoolSpec(model, strategy) for model, strategy in pools.items() if strategy))
        elif change.tenant:
            known = {tenant.name: tenant for tenant in self.file.tenants}
            tenant = known.get(change.tenant, TenantSpec(change.tenant))
            known[change.tenant] = replace(tenant, strategy=change.strategy)
            kept = {spec.name for spec in self._original.tenants}
            self._set(tenants=tuple(spec for spec in known.values() if spec.strategy or spec.name in kept))
        else:
            strategy = change.strategy or self._original.routing.strategy
            self._set(routing=replace(self.file.routing, strategy=strategy))
