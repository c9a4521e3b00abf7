"""What a model's name leads to, as the routing table resolves it, told from a configuration alone. Pure.

A test holds the two together (``actors.router.table``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Route = tuple[str, tuple[str, ...]]
"""A public name, and the ids of those who are asked for it, in the order of their definition."""


@dataclass(frozen=True, slots=True)
class Server:
    """A provider, as far as names are concerned."""

    id: str
    kind: str
    models: frozenset[str] = frozenset()
    """Public names it lists."""
    takes_any: bool = False
    """It is asked for names it does not list, too."""

    def can_take(self, model: str) -> bool:
        """Whether it lists ``model``, or takes any name."""
        return self.takes_any or model in self.models


class Naming:
    """Names to routes. ``default``: the id of the default provider; one that is not there is the first."""

    def __init__(self, servers: Sequence[Server], default: str | None, aliases: Mapping[str, str]) -> None:
        self._by_id = {server.id: server for server in servers}
        self._by_kind: dict[str, list[Server]] = {}
        self._listed: dict[str, list[str]] = {}
        for server in servers:
            self._by_kind.setdefault(server.kind, []).append(server)
            for model in sorted(server.models):
                self._listed.setdefault(model, []).append(server.id)
        self._default = self._by_id.get(default or "") or next(iter(servers), None)
        self._aliases = aliases
        self._places: dict[Route, str] = {}

    def place(self, name: str) -> str:
        """One name for all that lead where ``name`` does: that of the model if it does, else the first that was asked for."""
        route = self.find(name)
        if route is None:
            return name
        return route[0] if self.find(route[0]) == route else self._places.setdefault(route, name)

    def model_of(self, name: str) -> str | None:
        """The public name after aliases and pins; None: it leads nowhere."""
        route = self.find(name)
        return None if route is None else route[0]

    def find(self, name: str) -> Route | None:
        """Exact, then alias, then pin, then the default provider that takes any name; None: it leads nowhere."""
        for _ in range(len(self._aliases) + 1):
            if name in self._listed:
                return name, tuple(self._listed[name])
            if name not in self._aliases:
                return self._unlisted(name)
            name = self._aliases[name]
        return None

    def _unlisted(self, name: str) -> Route | None:
        prefix, pinned = split(name)
        if prefix in self._by_id or prefix in self._by_kind:
            allowed = [self._by_id[prefix]] if prefix in self._by_id else self._by_kind[prefix]
            found = tuple(server.id for server in allowed if pinned and server.can_take(pinned))
            return (pinned, found) if found else None
        if name and self._default is not None and self._default.takes_any:
            return name, (self._default.id,)
        return None


def split(name: str) -> tuple[str, str]:
    """What stands before and after the first ``:`` or ``/``; two empty strings where there is neither."""
    for position, character in enumerate(name):
        if character in ":/":
            return name[:position], name[position + 1 :]
    return "", ""
