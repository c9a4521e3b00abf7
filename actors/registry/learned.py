"""Lists of models that providers told of themselves. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from messages.control import ConfigSnapshot, ModelSpec, ProviderSpec

Describe = Callable[[ProviderSpec, ModelSpec], ModelSpec]
"""Adds to a learned model what is known of it elsewhere (prices, context window). A pure function."""

Learned = tuple[str, tuple[ModelSpec, ...]]
"""The endpoint that was asked, and its models."""


def as_it_came(spec: ProviderSpec, model: ModelSpec) -> ModelSpec:
    """A ``Describe`` that knows nothing more."""
    return model


def still_good(learned: Mapping[str, Learned], snapshot: ConfigSnapshot) -> dict[str, Learned]:
    """The lists whose provider is configured, wants one, and would ask at the same endpoint."""
    specs = {spec.id: spec for spec in snapshot.providers}
    return {name: entry for name, entry in learned.items() if is_for(entry, specs.get(name))}


def is_for(learned: Learned, spec: ProviderSpec | None) -> bool:
    """Whether a learned list is good for ``spec``."""
    return spec is not None and spec.lists_models and spec.endpoint == learned[0]


def with_all(snapshot: ConfigSnapshot, learned: Mapping[str, Learned]) -> ConfigSnapshot:
    """``snapshot`` with every provider serving what it told of itself."""
    if not learned:
        return snapshot
    return replace(snapshot, providers=tuple(with_learned(spec, learned.get(spec.id)) for spec in snapshot.providers))


def with_learned(spec: ProviderSpec, learned: Learned | None) -> ProviderSpec:
    """``spec`` serving the models it told of itself, and no other name."""
    if learned is None:
        return spec
    return replace(spec, models=learned[1], takes_any=False)


def sorted_by_name(models: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Each name once, in order of names, so that the same list in another order is no change."""
    by_name = {model.name: model for model in models}
    return [by_name[name] for name in sorted(by_name)]
