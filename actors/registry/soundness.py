"""What is wrong with a snapshot, as the check of a file would find it. Pure."""

from collections.abc import Iterator, Sequence

from actors.consistency import Fault, policy_faults
from actors.naming import Naming, Server
from actors.redirects import Redirects
from actors.registry.paths import path_text
from messages.control import ConfigSnapshot, ProviderSpec

DOUBTS_TOLD_MAX = 10
UNFINISHED_TOLD_MAX = 10


class AnyName:
    """A container that has every name."""

    def __contains__(self, name: object) -> bool:
        return True


def faults_of(snapshot: ConfigSnapshot, strategies: Sequence[str]) -> list[Fault]:
    """Everything that cannot be meant in ``snapshot``. ``strategies``: the known names; none given: any."""
    return [
        *_repeated(snapshot.providers),
        *policy_faults(
            servers=_servers(snapshot),
            strategies=frozenset(strategies) if strategies else AnyName(),
            aliases=dict(snapshot.aliases),
            rules=snapshot.rules,
            tenants=snapshot.tenants,
            pools=snapshot.pools,
            default_provider=snapshot.default_provider,
            strategy=snapshot.routing.strategy,
        ),
    ]


def notes_of(snapshot: ConfigSnapshot) -> list[str]:
    """What the search for circles of redirects leaves open in ``snapshot``, which is sound. Not looked for at run time."""
    servers, aliases = _servers(snapshot), dict(snapshot.aliases)
    naming = Naming(servers, snapshot.default_provider, aliases)
    names = sorted({name for server in servers for name in server.models})
    pins = dict.fromkeys(f"{one}:{name}" for server in servers for one in (server.id, server.kind) for name in server.models)
    search = Redirects(snapshot.rules, snapshot.pools, naming.place, naming.model_of, [*names, *aliases], sorted(pins))
    # What it finds for certain is refused. Where that search did not come to its end, what is left open is open anyway.
    certain = list(search.circles())
    doubts = [] if certain or search.unfinished else list(search.doubts())
    notes = [f"{path_text(one.steps[0].path)}: {one.reason}, and be answered 500" for one in doubts[:DOUBTS_TOLD_MAX]]
    if len(doubts) > DOUBTS_TOLD_MAX:
        notes.append(f"redirects: {len(doubts) - DOUBTS_TOLD_MAX} more that may lead in a circle")
    if search.unfinished:
        told = list(search.unfinished)
        more = f" and {len(told) - UNFINISHED_TOLD_MAX} more" if len(told) > UNFINISHED_TOLD_MAX else ""
        named = ", ".join(told[:UNFINISHED_TOLD_MAX]) + more
        notes.append(
            "redirects: too many to try them all, so one may lead in a circle, which would be answered 500; "
            f"not seen through: {named}"
        )
    return notes


def public_names(snapshot: ConfigSnapshot) -> frozenset[str] | None:
    """The names of all models; None while a provider takes any name."""
    if any(spec.takes_any for spec in snapshot.providers):
        return None
    return _listed(snapshot)


def _listed(snapshot: ConfigSnapshot) -> frozenset[str]:
    return frozenset(model.name for spec in snapshot.providers for model in spec.models)


def _servers(snapshot: ConfigSnapshot) -> list[Server]:
    return [
        Server(spec.id, spec.kind, frozenset(model.name for model in spec.models), spec.takes_any)
        for spec in snapshot.providers
    ]


def _repeated(specs: Sequence[ProviderSpec]) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for place, spec in enumerate(specs):
        if first.setdefault(spec.id, place) != place:
            yield Fault(("providers", place, "id"), f"is already the id of providers[{first[spec.id]}]")
