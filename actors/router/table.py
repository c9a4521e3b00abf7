"""The routing table: which providers may be asked for a model's name.

Owns: nothing that changes. A table is built from one ``ConfigSnapshot`` and replaced whole.
Always: a lookup costs the same however many models are configured; candidates keep the order of their definition.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from actors.kernel import Ref, Refs
from actors.naming import split
from actors.router.tally import Tally
from messages.control import ConfigSnapshot, ModelSpec, ProviderSpec
from messages.routing import CallForBids

_NOBODY: Refs[CallForBids] = Refs(())


@dataclass(frozen=True, slots=True)
class Entry:
    """A provider as the table knows it."""

    id: str
    spec: ProviderSpec
    ref: Ref[CallForBids]
    models: frozenset[str]
    """Public names it lists; asked for membership only."""
    tags: frozenset[str]
    offers: Mapping[str, ModelSpec] = field(default_factory=dict, repr=False, compare=False)
    """What it lists, by public name."""
    number: int = field(default=0, repr=False, compare=False)
    """Its place in the order of definition."""
    tally: Tally = field(default_factory=Tally, repr=False, compare=False)
    """How many plans that go there are open: kept by the router, here to be at hand."""

    def can_take(self, model: str) -> bool:
        """Whether it lists ``model``, or takes any name."""
        return model in self.models or self.spec.takes_any


@dataclass(frozen=True, slots=True)
class Route:
    """What a name leads to."""

    model: str
    """The public name after aliases and pins."""
    entries: tuple[Entry, ...]
    """Candidates in the order of their definition; disabled ones too, for they say so themselves."""
    pinned_out: tuple[str, ...] = ()
    """Providers that have the model, but the name pins others."""
    refs: Refs[CallForBids] = field(default=_NOBODY, repr=False, compare=False)
    """Of all entries."""
    has_zero_weight: bool = False
    is_plain: bool = False
    """True: nobody is left out but for what a request says."""
    places: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    """Where each entry stands, by its id."""

    @staticmethod
    def to(model: str, entries: Iterable[Entry], pinned_out: tuple[str, ...] = ()) -> "Route":
        """A route with what is derived from its entries filled in."""
        found = tuple(entries)
        has_zero_weight = any(entry.spec.weight == 0 for entry in found)
        places = {entry.id: position for position, entry in enumerate(found)}
        refs = Refs([entry.ref for entry in found])
        return Route(model, found, pinned_out, refs, has_zero_weight, not (pinned_out or has_zero_weight), places)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Names to routes, as of one generation."""

    generation: int
    ids: tuple[str, ...]
    """Everybody, in the order of their definition."""
    by_id: dict[str, Entry]
    by_kind: dict[str, tuple[Entry, ...]]
    default: Entry | None
    listed: dict[str, Route] = field(repr=False)
    """Exact public names."""
    aliased: dict[str, Route | None] = field(repr=False)
    """Aliases, followed to their end; None where that is nobody's."""

    @staticmethod
    def build(snapshot: ConfigSnapshot, tally: Callable[[str], Tally] = Tally) -> "RoutingTable":
        """Index a snapshot. Costs what the configuration holds; done once for each generation.

        ``tally`` gives the count of open plans of a provider.
        """
        entries = [_entry(spec, number, tally(spec.id)) for number, spec in enumerate(snapshot.providers)]
        by_model: dict[str, list[Entry]] = {}
        by_kind: dict[str, list[Entry]] = {}
        for entry in entries:
            by_kind.setdefault(entry.spec.kind, []).append(entry)
            for model in dict.fromkeys(model.name for model in entry.spec.models):
                by_model.setdefault(model, []).append(entry)
        by_id = {entry.id: entry for entry in entries}
        table = RoutingTable(
            generation=snapshot.generation,
            ids=tuple(by_id),
            by_id=by_id,
            by_kind={kind: tuple(found) for kind, found in by_kind.items()},
            default=by_id.get(snapshot.default_provider) or (entries[0] if entries else None),
            listed={model: Route.to(model, found) for model, found in by_model.items()},
            aliased={},
        )
        aliases = dict(snapshot.aliases)
        for alias in aliases:
            table.aliased[alias] = _follow(alias, aliases, table)
        return table

    def is_listed(self, name: str) -> bool:
        """Whether the configuration itself has the name; of others there is no end."""
        return name in self.listed or name in self.aliased

    def find(self, name: str) -> Route | None:
        """The route of a name as a client wrote it: exact, then alias, then pin, then the default that takes any; or None."""
        route = self.listed.get(name)
        if route is not None:
            return route
        if name in self.aliased:
            return self.aliased[name]
        return self._unlisted(name)

    def _unlisted(self, name: str) -> Route | None:
        prefix, model = split(name)
        if prefix in self.by_id:
            return self._pinned((self.by_id[prefix],), model)
        if prefix in self.by_kind:
            return self._pinned(self.by_kind[prefix], model)
        if name and self.default is not None and self.default.spec.takes_any:
            return Route.to(name, (self.default,))
        return None

    def _pinned(self, allowed: tuple[Entry, ...], model: str) -> Route | None:
        entries = [entry for entry in allowed if entry.can_take(model)] if model else []
        if not entries:
            return None
        listed = self.listed.get(model)
        others = tuple(entry.id for entry in listed.entries if entry not in allowed) if listed else ()
        return Route.to(model, entries, others)


def refs_of(entries: Iterable[Entry]) -> Refs[CallForBids]:
    """The addresses of ``entries``, each of which is there once."""
    return Refs([entry.ref for entry in entries], True)


def _entry(spec: ProviderSpec, number: int, tally: Tally) -> Entry:
    offers = {model.name: model for model in spec.models}
    return Entry(spec.id, spec, Ref(f"provider:{spec.id}"), frozenset(offers), frozenset(spec.tags), offers, number, tally)


def _follow(alias: str, aliases: dict[str, str], table: RoutingTable) -> Route | None:
    """Follow a chain of aliases; a circle leads nowhere."""
    name = alias
    for _ in range(len(aliases)):
        name = aliases[name]
        if name in table.listed:
            return table.listed[name]
        if name not in aliases:
            return table._unlisted(name)
    return None
