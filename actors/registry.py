"""The registry: the one place where the configuration gets its generation.

Owns: the snapshot in force, its generation, and the lists of models that providers told of themselves.
Accepts: ``Propose`` (a validated file), ``ModelsLearned`` (from the prober), ``GetSnapshot``.
Always: the generation only grows; every snapshot that comes into force is told to all subscribers, in order; a provider
whose file names models serves these and no others.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

from actors.kernel import Context, Ref
from messages.control import ConfigSnapshot, Configured, GetSnapshot, ModelsLearned, ModelSpec, Propose, ProviderSpec

RegistryMail = Propose | ModelsLearned | GetSnapshot
"""What the registry takes."""

Describe = Callable[[ProviderSpec, ModelSpec], ModelSpec]
"""Adds to a learned model what is known of it elsewhere (prices, context window). A pure function."""

MODELS_LIMIT = 10_000
"""Models kept of one provider's own list."""

NOTHING = ConfigSnapshot(0, (), "", ())
"""In force before the first file."""

Learned = tuple[str, tuple[ModelSpec, ...]]
"""The endpoint that was asked, and its models."""


def as_it_came(spec: ProviderSpec, model: ModelSpec) -> ModelSpec:
    """A ``Describe`` that knows nothing more."""
    return model


class RegistryActor:
    """Its successor goes on from the snapshot in force, and tells it again."""

    def __init__(
        self,
        subscribers: Sequence[Ref[Configured]],
        describe: Describe = as_it_came,
        before: "RegistryActor | None" = None,
    ) -> None:
        self._subscribers = tuple(subscribers)
        self._describe = describe
        # Both hold facts only, so they are sound whatever befell the predecessor.
        self._snapshot: ConfigSnapshot = before._snapshot if before else NOTHING
        self._learned: dict[str, Learned] = dict(before._learned) if before else {}

    def start(self, context: Context) -> None:
        """Tell the snapshot in force again, for it is not known who has missed it."""
        if self._snapshot.generation:
            self._tell_all(self._snapshot, context)

    def handle(self, message: RegistryMail, context: Context) -> None:
        """Take one message."""
        match message:
            case Propose():
                self._on_propose(message, context)
            case ModelsLearned():
                self._on_models_learned(message, context)
            case GetSnapshot():
                context.reply(Configured(self._snapshot))
            case _:
                assert_never(message)

    def invariant(self) -> str | None:
        """Learned lists belong to providers that are configured and want them."""
        wanting = {spec.id: spec.endpoint for spec in self._snapshot.providers if spec.lists_models}
        for provider, (endpoint, models) in self._learned.items():
            if wanting.get(provider) != endpoint:
                return f"models are kept for {provider}, which does not list its own there"
            if not 0 < len(models) <= MODELS_LIMIT:
                return f"{len(models)} models are kept for {provider}"
        return None

    def _on_propose(self, message: Propose, context: Context) -> None:
        specs = {spec.id: spec for spec in message.snapshot.providers}
        kept = {name: learned for name, learned in self._learned.items() if is_for(learned, specs.get(name))}
        snapshot = self._next(message.snapshot, kept)
        self._tell_all(snapshot, context)
        context.reply(Configured(snapshot))
        self._snapshot, self._learned = snapshot, kept

    def _on_models_learned(self, message: ModelsLearned, context: Context) -> None:
        spec = next((spec for spec in self._snapshot.providers if spec.id == message.provider), None)
        # An empty list is taken for one the server does not keep: it tells nothing about what can be asked for.
        if spec is None or not spec.lists_models or not message.models:
            return
        models = tuple(self._describe(spec, model) for model in sorted_by_name(message.models)[:MODELS_LIMIT])
        if spec.models == models and not spec.takes_any:
            return
        learned = self._learned | {spec.id: (spec.endpoint, models)}
        snapshot = self._next(self._snapshot, learned)
        self._tell_all(snapshot, context)
        self._snapshot, self._learned = snapshot, learned

    def _next(self, proposed: ConfigSnapshot, learned: dict[str, Learned]) -> ConfigSnapshot:
        providers = tuple(with_learned(spec, learned.get(spec.id)) for spec in proposed.providers)
        return replace(proposed, generation=self._snapshot.generation + 1, providers=providers)

    def _tell_all(self, snapshot: ConfigSnapshot, context: Context) -> None:
        told = Configured(snapshot)
        for subscriber in self._subscribers:
            context.tell(subscriber, told)


def is_for(learned: Learned, spec: ProviderSpec | None) -> bool:
    """Whether a learned list is still good for ``spec``: it wants one, and would ask at the same endpoint."""
    return spec is not None and spec.lists_models and spec.endpoint == learned[0]


def with_learned(spec: ProviderSpec, learned: Learned | None) -> ProviderSpec:
    """``spec`` serving the models it told of itself, and no other name."""
    if learned is None:
        return spec
    return replace(spec, models=learned[1], takes_any=False)


def sorted_by_name(models: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Each name once, in order of names, so that the same list in another order is no change."""
    by_name = {model.name: model for model in models}
    return [by_name[name] for name in sorted(by_name)]
