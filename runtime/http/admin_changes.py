"""Changes at run time: what the admin API asks of the registry, and how it tells the outcome.

Always: a body is read whole before anything is asked; a refused change leaves the configuration, its generation and every
credential as they were. Credentials go to their store, never into a message.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from actors.provider.pushed import PUSHED_FOR_S
from messages.changes import (
    Change,
    Changed,
    ChangeFault,
    ChangeRefused,
    DeleteAlias,
    DeleteRule,
    EnableRule,
    PutAlias,
    PutRule,
    RegisterProvider,
    SetDefault,
    SetStrategy,
    UnregisterProvider,
)
from messages.control import ConfigSnapshot
from messages.health import PushMetrics
from runtime.config.entries import provider_from, rule_from
from runtime.config.settings import Credential
from runtime.courier.problems import Problem
from runtime.credentials import Credentials
from runtime.http.admin_bodies import (
    NAME_CHARACTERS_MAX,
    AdminError,
    bad,
    parsed,
    read_fields,
    read_flag,
    read_name,
    read_object,
    read_patch,
    read_strategy,
)

Ask = Callable[[str, Any], Awaitable[Any]]
"""Puts a question to an actor by its name. Raises ``AdminError`` if no answer comes."""
Tell = Callable[[str, Any], None]

Pushed = dict[str, float]
"""Metrics as they were pushed, by the names the admin API gives them."""


class Changes:
    """Writes through the registry. Every method raises ``AdminError``, and then nothing has changed."""

    def __init__(
        self,
        ask: Ask,
        tell: Tell,
        now: Callable[[], float],
        snapshot: Callable[[], ConfigSnapshot],
        credentials: Credentials | None = None,
    ) -> None:
        self._ask = ask
        self._tell = tell
        self._now = now
        self._snapshot = snapshot
        self._credentials = credentials
        self._pushed: dict[tuple[str, str], tuple[float, Pushed]] = {}
        """Until when (monotonic s) what is believed, by provider and endpoint: another door is another provider."""

    def pushed(self, provider: str, endpoint: str) -> Pushed | None:
        """What was last pushed of a provider; None: nothing, or so long ago that the provider has forgotten it."""
        until, pushed = self._pushed.get((provider, endpoint), (0.0, None))
        return pushed if self._now() < until else None

    async def register(self, body: bytes) -> str:
        """Add a provider; returns its id."""
        spec, credential = parsed(provider_from, read_object(body))
        if self._credentials is None:
            raise AdminError(Problem(500, "internal_error", "There is no store for credentials here."))
        self._credentials.offer(credential)
        await self._register(RegisterProvider(spec), self._credentials, credential)
        return spec.id

    async def _register(self, change: RegisterProvider, credentials: Credentials, credential: Credential) -> None:
        """Ask, and take the credential back once the registry has answered, also if who asked has left by then."""

        def answered(done: asyncio.Future[int]) -> None:
            credentials.withdraw(credential)
            if not done.cancelled():
                # Nobody may be left to hear of a refusal; that is no fault of ours to be logged.
                done.exception()

        asking = asyncio.ensure_future(self._change(change))
        asking.add_done_callback(answered)
        await asyncio.shield(asking)

    async def unregister(self, provider: str) -> dict[str, Any]:
        """Take a provider out; what it has in flight runs to its end."""
        generation = await self._change(UnregisterProvider(provider))
        self._forget_pushed()
        return {"generation": generation, "id": provider, "status": "draining"}

    async def patch(self, provider: str, body: bytes) -> None:
        """Change a provider's part of the configuration, then tell it what was measured of it."""
        change, metrics = read_patch(provider, body)
        endpoint = next((spec.endpoint for spec in self._snapshot().providers if spec.id == provider), None)
        if endpoint is None:
            raise not_found("provider", provider)
        if change is not None:
            await self._change(change)
        if metrics is not None:
            self._tell(f"provider:{provider}", metrics)
            self._forget_pushed()
            self._pushed[provider, endpoint] = (self._now() + PUSHED_FOR_S, _shown(metrics))

    async def set_default(self, body: bytes) -> dict[str, Any]:
        """Make a provider the default."""
        provider = read_name(read_fields(body, ("provider",)), "provider")
        return {"generation": await self._change(SetDefault(provider)), "default": provider}

    async def set_strategy(self, body: bytes) -> None:
        """Set or take back the strategy of all, of a pool or of a tenant."""
        await self._change(read_strategy(body))

    async def put_alias(self, name: str, body: bytes) -> dict[str, Any]:
        """Let a name stand for another."""
        target = read_name(read_fields(body, ("target",)), "target")
        return {"generation": await self._change(PutAlias(_named(name), target)), "name": name, "target": target}

    async def delete_alias(self, name: str) -> dict[str, Any]:
        """Forget an alias."""
        return {"generation": await self._change(DeleteAlias(_named(name))), "name": name}

    async def put_rule(self, name: str, body: bytes) -> None:
        """Add or replace a rule."""
        given = read_object(body)
        if given.get("name", name) != name:
            raise bad("name: is not the name in the path", "name")
        await self._change(PutRule(parsed(rule_from, {**given, "name": _named(name)})))

    async def enable_rule(self, name: str, body: bytes) -> None:
        """Switch a rule on or off."""
        enabled = read_flag(read_fields(body, ("enabled",)), "enabled")
        await self._change(EnableRule(_named(name), enabled))

    async def delete_rule(self, name: str) -> dict[str, Any]:
        """Forget a rule."""
        return {"generation": await self._change(DeleteRule(_named(name))), "name": name}

    async def _change(self, change: Change) -> int:
        answer = await self._ask("registry", change)
        if isinstance(answer, Changed):
            return answer.generation
        if isinstance(answer, ChangeRefused):
            raise _refusal(answer, change)
        raise AdminError(Problem(500, "internal_error", f"The registry answered {type(answer).__name__}."))

    def _forget_pushed(self) -> None:
        known = {(spec.id, spec.endpoint) for spec in self._snapshot().providers}
        self._pushed = {door: pushed for door, pushed in self._pushed.items() if door in known}


def not_found(what: str, name: str) -> AdminError:
    """A 404 for a provider, an alias or a rule."""
    shown = "".join(char if char.isprintable() else "?" for char in name[:NAME_CHARACTERS_MAX])
    return AdminError(Problem(404, f"{what}_not_found", f"There is no {what} '{shown}'."))


_KINDS: dict[type[Any], str] = {
    DeleteAlias: "alias",
    PutAlias: "alias",
    PutRule: "rule",
    DeleteRule: "rule",
    EnableRule: "rule",
    SetStrategy: "model",
}


def _refusal(answer: ChangeRefused, change: Change) -> AdminError:
    kind = _KINDS.get(type(change), "provider")
    told = f"{answer.path}: {answer.reason}" if answer.path else answer.reason
    if answer.fault is ChangeFault.NOT_FOUND:
        return AdminError(Problem(404, f"{kind}_not_found", told, answer.path or None))
    if answer.fault is ChangeFault.CONFLICT:
        return AdminError(Problem(409, f"{kind}_exists", told, answer.path or None))
    return bad(told, answer.path or None)


def _named(name: str) -> str:
    """A name from a path. Raises ``AdminError`` if it is none."""
    if not name or len(name) > NAME_CHARACTERS_MAX or not name.isprintable() or "\N{REPLACEMENT CHARACTER}" in name:
        raise bad(f"The name in the path must have 1 to {NAME_CHARACTERS_MAX} printable characters, as UTF-8.", "name")
    return name


def _shown(metrics: PushMetrics) -> Pushed:
    latency_ms = None if metrics.average_latency_s is None else metrics.average_latency_s * 1000
    told = {"average_latency_ms": latency_ms, "error_rate": metrics.error_rate, "load": metrics.load}
    return {name: value for name, value in told.items() if value is not None}
