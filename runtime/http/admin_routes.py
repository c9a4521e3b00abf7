"""Where the paths of the admin API lead. Knows no wire: takes method, path, query and body, gives status and plain data.

Always: who may ask at all is looked at before anything here (``guard``).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from runtime.http.admin import Admin
from runtime.http.admin_bodies import bad
from runtime.http.admin_reload import reload

PREFIX = "/admin/"
DECISIONS_SHOWN = 100
BODILESS = frozenset({"GET", "HEAD"})
"""Methods whose body nobody reads."""


@dataclass(frozen=True, slots=True)
class AdminCall:
    """One request."""

    name: str
    """The part of the path that its route leaves open, decoded."""
    query: str
    body: bytes


Answer = tuple[int, Any]
"""HTTP status, and data for JSON."""
AdminHandler = Callable[[AdminCall], Awaitable[Answer]]
Methods = Mapping[str, AdminHandler]


class AdminRoutes:
    """The table. ``edge``: what the edge counts, for ``/admin/stats``."""

    def __init__(self, admin: Admin, edge: Callable[[], Any]) -> None:
        self._admin = admin
        self._edge = edge
        self._paths: dict[str, Methods] = {
            "/admin/providers": _with_head({"GET": self._providers, "POST": self._register}),
            "/admin/default": {"PUT": self._set_default},
            "/admin/strategy": _with_head({"GET": self._strategy, "PUT": self._set_strategy}),
            "/admin/aliases": _with_head({"GET": self._aliases}),
            "/admin/rules": _with_head({"GET": self._rules}),
            "/admin/stats": _with_head({"GET": self._stats}),
            "/admin/decisions": _with_head({"GET": self._decisions}),
            "/admin/explain": {"POST": self._explain},
            "/admin/reload": {"POST": self._reload},
        }
        one_provider = {"GET": self._provider, "PATCH": self._patch, "DELETE": self._unregister}
        one_rule = {"GET": self._rule, "PUT": self._put_rule, "PATCH": self._enable_rule, "DELETE": self._delete_rule}
        self._templates: tuple[tuple[str, str, Methods], ...] = (
            ("/admin/decisions/", "", _with_head({"GET": self._decision})),
            ("/admin/providers/", "/probe", {"POST": self._probe}),
            ("/admin/providers/", "/reset", {"POST": self._reset}),
            ("/admin/providers/", "/health", _with_head({"GET": self._health})),
            ("/admin/providers/", "", _with_head(one_provider)),
            ("/admin/aliases/", "", {"PUT": self._put_alias, "DELETE": self._delete_alias}),
            ("/admin/rules/", "", _with_head(one_rule)),
        )
        """What comes before and after the open part of a path; the first that fits is meant."""

    def match(self, path: str) -> tuple[Methods, str]:
        """The methods of a raw path and what it leaves open; no methods: it leads nowhere."""
        methods = self._paths.get(path)
        if methods is not None:
            return methods, ""
        for before, after, methods in self._templates:
            if path.startswith(before) and path.endswith(after) and len(path) > len(before) + len(after):
                return methods, unquote(path[len(before) : len(path) - len(after)], errors="replace")
        return {}, ""

    # Providers.

    async def _providers(self, call: AdminCall) -> Answer:
        return 200, await self._admin.providers(only_available=_flag(call.query, "available"))

    async def _provider(self, call: AdminCall) -> Answer:
        return 200, await self._admin.provider(call.name)

    async def _register(self, call: AdminCall) -> Answer:
        return 201, await self._admin.provider(await self._admin.changes.register(call.body))

    async def _patch(self, call: AdminCall) -> Answer:
        await self._admin.changes.patch(call.name, call.body)
        return 200, await self._admin.provider(call.name)

    async def _unregister(self, call: AdminCall) -> Answer:
        return 202, await self._admin.changes.unregister(call.name)

    async def _probe(self, call: AdminCall) -> Answer:
        return 200, await self._admin.probe(call.name)

    async def _health(self, call: AdminCall) -> Answer:
        return 200, await self._admin.health(call.name)

    async def _reset(self, call: AdminCall) -> Answer:
        return 200, await self._admin.reset(call.name)

    async def _set_default(self, call: AdminCall) -> Answer:
        return 200, await self._admin.changes.set_default(call.body)

    # Strategy, aliases, rules.

    async def _strategy(self, call: AdminCall) -> Answer:
        return 200, self._admin.strategy()

    async def _set_strategy(self, call: AdminCall) -> Answer:
        await self._admin.changes.set_strategy(call.body)
        return 200, self._admin.strategy()

    async def _aliases(self, call: AdminCall) -> Answer:
        return 200, self._admin.aliases()

    async def _put_alias(self, call: AdminCall) -> Answer:
        return 200, await self._admin.changes.put_alias(call.name, call.body)

    async def _delete_alias(self, call: AdminCall) -> Answer:
        return 200, await self._admin.changes.delete_alias(call.name)

    async def _rules(self, call: AdminCall) -> Answer:
        return 200, await self._admin.rules()

    async def _rule(self, call: AdminCall) -> Answer:
        return 200, await self._admin.rule(call.name)

    async def _put_rule(self, call: AdminCall) -> Answer:
        await self._admin.changes.put_rule(call.name, call.body)
        return 200, await self._admin.rule(call.name)

    async def _enable_rule(self, call: AdminCall) -> Answer:
        await self._admin.changes.enable_rule(call.name, call.body)
        return 200, await self._admin.rule(call.name)

    async def _delete_rule(self, call: AdminCall) -> Answer:
        return 200, await self._admin.changes.delete_rule(call.name)

    # What happens and why.

    async def _stats(self, call: AdminCall) -> Answer:
        return 200, await self._admin.stats() | {"edge": self._edge()}

    async def _decisions(self, call: AdminCall) -> Answer:
        return 200, {"decisions": await self._admin.decisions(DECISIONS_SHOWN)}

    async def _decision(self, call: AdminCall) -> Answer:
        return 200, await self._admin.decision(call.name)

    async def _reload(self, call: AdminCall) -> Answer:
        return 200, await reload(self._admin.reloader)

    async def _explain(self, call: AdminCall) -> Answer:
        return 200, await self._admin.explain(call.body)


def must_be_json(method: str, said: str, *, has_body: bool) -> bool:
    """Whether a request's body must say that it is JSON. What a page of another site can send without asking first is not.

    ``said`` is its content type. Who sends no body need not say any: ``curl -X POST …/admin/reload`` is enough.
    """
    return has_body if method == "DELETE" or not said else method not in BODILESS


def _with_head(methods: Methods) -> Methods:
    return {**methods, "HEAD": methods["GET"]}


def _flag(query: str, name: str) -> bool:
    """Whether a query says ``name=true``. Raises ``AdminError`` for anything else in it."""
    is_set = False
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key != name:
            raise bad(f"The query takes '{name}' only.", name)
        if value not in ("true", "false"):
            raise bad(f"{name}: expected true or false", name)
        is_set = value == "true"
    return is_set
