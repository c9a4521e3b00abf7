"""What is wrong with a snapshot, as the check of a file would find it. Pure."""

from collections.abc import Iterator, Sequence

from actors.consistency import Fault, policy_faults
from actors.naming import Server
from messages.control import ConfigSnapshot, ProviderSpec


class AnyName:
    """A container that has every name."""

    def __contains__(self, name: object) -> bool:
        return True


def faults_of(snapshot: ConfigSnapshot, strategies: Sequence[str]) -> list[Fault]:
    """Everything that cannot be meant in ``snapshot``. ``strategies``: the known names; none given: any."""
    return [
        *_repeated(snapshot.providers),
        *policy_faults(
            servers=[
                Server(spec.id, spec.kind, frozenset(model.name for model in spec.models), spec.takes_any)
                for spec in snapshot.providers
            ],
            strategies=frozenset(strategies) if strategies else AnyName(),
            aliases=dict(snapshot.aliases),
            rules=snapshot.rules,
            tenants=snapshot.tenants,
            pools=snapshot.pools,
            default_provider=snapshot.default_provider,
            strategy=snapshot.routing.strategy,
        ),
    ]


def public_names(snapshot: ConfigSnapshot) -> frozenset[str] | None:
    """The names of all models; None while a provider takes any name."""
    if any(spec.takes_any for spec in snapshot.providers):
        return None
    return _listed(snapshot)


def _listed(snapshot: ConfigSnapshot) -> frozenset[str]:
    return frozenset(model.name for spec in snapshot.providers for model in spec.models)


def _repeated(specs: Sequence[ProviderSpec]) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for place, spec in enumerate(specs):
        if first.setdefault(spec.id, place) != place:
            yield Fault(("providers", place, "id"), f"is already the id of providers[{first[spec.id]}]")
