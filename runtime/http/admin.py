"""The admin API without its wire: questions to the actors, answers as plain data.

Always: asks, never touches an actor's state; every question has a deadline, so a stuck actor costs an error and no hang.
"""

import asyncio
import re
from collections.abc import Mapping
from itertools import count
from typing import Any, TypeVar

import orjson

from messages.control import ConfigSnapshot
from messages.decisions import DecisionFound, Decisions, GetDecision, GetRouterStats, RecentDecisions, RouterStats
from messages.health import CircuitState, GetReport, ProbeDone, ProbeNow, ProviderReport, Status
from messages.routing import Hints, NoRoute, RequestProfile, RoutePlan, RouteQuery
from messages.stats import GetStats, Stats
from runtime.courier.directory import Directory
from runtime.courier.problems import Problem
from runtime.http import render
from runtime.http.hints import BadHint, read_hints
from runtime.system.replies import ActorGone, AskError
from runtime.system.system import ActorSystem

T = TypeVar("T")

ASK_S = 5.0
PROBE_S = 20.0

_EXPLAIN_FIELDS: Mapping[str, type] = {
    "model": str,
    "endpoint": str,
    "prompt_tokens": int,
    "max_tokens": int,
    "tools": bool,
    "vision": bool,
    "stream": bool,
    "strategy": str,
    "headers": dict,
}
_NEEDS = {"chat": "chat", "completions": "chat", "embeddings": "embeddings"}


class AdminError(Exception):
    """An admin request that cannot be served; ``problem`` is its answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def bad(message: str, param: str | None = None) -> AdminError:
    """A 400."""
    return AdminError(Problem(400, "invalid_request", message, param))


class Admin:
    """Reads the state of the house."""

    def __init__(self, system: ActorSystem, directory: Directory) -> None:
        self._system = system
        self._directory = directory
        self._serials = count(1)

    @property
    def snapshot(self) -> ConfigSnapshot:
        """The configuration in force."""
        return self._directory.snapshot

    async def reports(self) -> dict[str, ProviderReport]:
        """How every provider stands, in order of definition."""
        ids = [spec.id for spec in self.snapshot.providers]
        found = await asyncio.gather(*(self._report(provider) for provider in ids))
        return dict(zip(ids, found, strict=True))

    async def _report(self, provider: str) -> ProviderReport:
        try:
            return _expect(ProviderReport, await self._ask(f"provider:{provider}", GetReport()))
        except AdminError as error:
            return ProviderReport.silent(provider, error.problem.message)

    async def is_ready(self) -> bool:
        """Whether at least one provider can take calls."""
        reports = await self.reports()
        good = (Status.READY, Status.UNCHECKED)
        return any(report.status in good and report.circuit is not CircuitState.OPEN for report in reports.values())

    async def providers(self) -> dict[str, Any]:
        """``GET /admin/providers``."""
        reports = await self.reports()
        snapshot = self.snapshot
        shown = [render.provider(spec, reports[spec.id]) for spec in snapshot.providers if spec.id in reports]
        return {"generation": snapshot.generation, "default": snapshot.default_provider, "providers": shown}

    async def stats(self) -> dict[str, Any]:
        """``GET /admin/stats``."""
        counted = _expect(Stats, await self._ask("aggregator", GetStats()))
        router = _expect(RouterStats, await self._ask("router", GetRouterStats()))
        counters = self._system.counters
        system = {name: getattr(counters, name) for name in counters.__dataclass_fields__}
        return render.stats(counted, router) | {"system": system}

    async def decision(self, decision_id: str) -> dict[str, Any]:
        """``GET /admin/decisions/{id}``. Raises a 404 for one that never was or is no longer kept."""
        found = _expect(DecisionFound, await self._ask("router", GetDecision(decision_id)))
        if found.decision is None:
            text = f"There is no decision {decision_id!r}, or it is no longer kept."
            raise AdminError(Problem(404, "decision_not_found", text))
        return render.decision(found.decision)

    async def decisions(self, limit: int) -> list[dict[str, Any]]:
        """The last decisions, newest first."""
        found = _expect(Decisions, await self._ask("router", RecentDecisions(limit)))
        return [render.decision(one) for one in found.decisions]

    async def probe(self, provider: str) -> dict[str, Any]:
        """Probe a provider now and tell what was found."""
        if self._directory.track(provider) is None:
            raise AdminError(Problem(404, "provider_not_found", f"There is no provider {provider!r}."))
        done = _expect(ProbeDone, await self._ask("prober", ProbeNow(provider), PROBE_S))
        return {"provider": provider, "ok": done.ok, "auth_failed": done.auth_failed, "detail": done.detail} | {
            "latency_ms": round(done.latency_s * 1000, 3)
        }

    async def explain(self, body: bytes) -> dict[str, Any]:
        """``POST /admin/explain``: the decision that a request like this would get, made for real but never followed."""
        return await self.explain_profile(read_explain(body))

    async def explain_profile(self, profile: RequestProfile) -> dict[str, Any]:
        """A dry run for a profile."""
        now = self._system.clock.now()
        query = RouteQuery(f"explain-{next(self._serials)}", profile, now + ASK_S, now, may_wait=False)
        answer = await self._ask("router", query)
        if not isinstance(answer, RoutePlan | NoRoute):
            raise AdminError(Problem(500, "internal_error", "The router gave no plan."))
        return await self.decision(answer.decision_id)

    async def _ask(self, actor: str, question: Any, within_s: float = ASK_S) -> Any:
        try:
            return await self._system.ask(actor, question, self._system.clock.now() + within_s, sender="admin")
        except ActorGone as gone:
            raise AdminError(Problem(503, "overloaded", f"{actor} is {gone.fault}.", None, 1.0)) from gone
        except AskError as error:
            raise AdminError(Problem(503, "overloaded", f"{actor} did not answer: {error}.", None, 1.0)) from error


def read_explain(body: bytes) -> RequestProfile:
    """A request profile from the body of ``POST /admin/explain``. Raises ``AdminError``."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad(f"The body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise bad("The body must be a JSON object.")
    for name, value in given.items():
        wanted = _EXPLAIN_FIELDS.get(name)
        if wanted is None:
            raise bad(f"'{name}' is not known or not supported by this version.", name)
        if value is not None and type(value) is not wanted:
            raise bad(f"'{name}' must be a {wanted.__name__}.", name)
    if not given.get("model"):
        raise bad("'model' is missing.", "model")
    endpoint = given.get("endpoint") or "chat"
    if endpoint not in _NEEDS:
        raise bad(f"'endpoint' must be one of {', '.join(_NEEDS)}.", "endpoint")
    for name in ("prompt_tokens", "max_tokens"):
        if (given.get(name) or 0) < 0:
            raise bad(f"'{name}' must not be negative.", name)
    return RequestProfile(
        given["model"],
        endpoint,
        bool(given.get("stream")),
        given.get("prompt_tokens") or 0,
        given.get("max_tokens"),
        _needs(endpoint, given),
        hints=_hints(given),
    )


def _needs(endpoint: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    needs = {_NEEDS[endpoint]} | {name for name in ("tools", "vision") if given.get(name)}
    return tuple(sorted(needs | ({"streaming"} if given.get("stream") else set())))


def _hints(given: Mapping[str, Any]) -> Hints:
    headers = [(str(name), str(value)) for name, value in (given.get("headers") or {}).items()]
    if given.get("strategy"):
        headers.append(("x-pointsman-strategy", given["strategy"]))
    for name, _ in headers:
        if not re.fullmatch(r"(?i)x-pointsman-[a-z-]+", name):
            raise bad(f"'headers' takes x-pointsman-* headers only, not {name!r}.", "headers")
    try:
        return read_hints(headers).hints
    except BadHint as error:
        raise bad(str(error), "headers") from error


def _expect(kind: type[T], answer: Any) -> T:
    if not isinstance(answer, kind):
        raise AdminError(Problem(500, "internal_error", f"expected {kind.__name__}, got {type(answer).__name__}"))
    return answer
