"""The admin API without its wire: questions to the actors, answers as plain data.

Always: asks, never touches an actor's state; every question has a deadline, so a stuck actor costs an error and no hang.
"""

import asyncio
from itertools import count
from typing import Any, TypeVar

from messages.control import ConfigSnapshot, ProviderSpec, Reset
from messages.decisions import DecisionFound, Decisions, GetDecision, GetRouterStats, RecentDecisions, RouterStats
from messages.health import GetHealth, GetReport, HealthReport, ProbeDone, ProbeNow, ProviderReport
from messages.quota import GetQuota, QuotaReport
from messages.routing import NoRoute, RequestProfile, RoutePlan, RouteQuery
from messages.stats import GetStats, Stats
from runtime.config.entries import rule_data
from runtime.config.quotas import quotas_of
from runtime.courier.directory import Directory
from runtime.courier.problems import Problem
from runtime.credentials import Credentials
from runtime.http import render
from runtime.http.admin_bodies import AdminError
from runtime.http.admin_changes import Changes, not_found
from runtime.http.explain_request import BadQuestion, read_explain
from runtime.plugins import all_strategies
from runtime.reload import Reloader
from runtime.system.replies import ActorGone, AskError
from runtime.system.system import ActorSystem

T = TypeVar("T")

ASK_S = 5.0
PROBE_S = 20.0
QUOTAS_SHOWN = 1000
"""Of more tenants and pools with limits the first ones: each is asked."""


class Admin:
    """Reads the state of the house, and shows what ``changes`` made of it."""

    def __init__(
        self,
        system: ActorSystem,
        directory: Directory,
        credentials: Credentials | None = None,
        reloader: Reloader | None = None,
    ) -> None:
        self.reloader = reloader
        self._system = system
        self._directory = directory
        self._serials = count(1)
        self.changes = Changes(self._ask, self._tell, system.clock.now, lambda: directory.snapshot, credentials)

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
        return any(render.is_available(report) for report in reports.values())

    async def providers(self, *, only_available: bool = False) -> dict[str, Any]:
        """``GET /admin/providers``; ``only_available``: those that can take calls."""
        reports = await self.reports()
        snapshot = self.snapshot
        shown = [self._shown(spec, reports[spec.id]) for spec in snapshot.providers if spec.id in reports]
        shown = [one for one in shown if one["available"] or not only_available]
        return {"generation": snapshot.generation, "default": snapshot.default_provider, "providers": shown}

    async def provider(self, provider: str) -> dict[str, Any]:
        """``GET /admin/providers/{id}``. Raises a 404."""
        report = await self._report(provider) if self._directory.track(provider) is not None else None
        snapshot = self.snapshot
        # It may have gone while it was asked.
        spec = next((spec for spec in snapshot.providers if spec.id == provider), None)
        if spec is None or report is None:
            raise not_found("provider", provider)
        return {"generation": snapshot.generation, **self._shown(spec, report)}

    def _shown(self, spec: ProviderSpec, report: ProviderReport) -> dict[str, Any]:
        return render.provider(spec, report, self.changes.pushed(spec.id, spec.endpoint))

    def aliases(self) -> dict[str, Any]:
        """``GET /admin/aliases``."""
        snapshot = self.snapshot
        return {"generation": snapshot.generation, "aliases": dict(snapshot.aliases)}

    def strategy(self) -> dict[str, Any]:
        """``GET /admin/strategy``: the one for all, and where another holds."""
        snapshot = self.snapshot
        return {
            "generation": snapshot.generation,
            "strategy": snapshot.routing.strategy,
            "pools": {pool.model: pool.strategy for pool in snapshot.pools if pool.strategy},
            "tenants": {tenant.name: tenant.strategy for tenant in snapshot.tenants if tenant.strategy},
            "available": sorted(all_strategies()),
        }

    async def rules(self) -> dict[str, Any]:
        """``GET /admin/rules``: in the order in which they are asked, as the file writes them, with matches since start."""
        hits = await self._hits()
        snapshot = self.snapshot
        rules = sorted(snapshot.rules, key=lambda rule: -rule.priority)
        shown = [rule_data(rule) | {"hits": hits.get(rule.name, 0)} for rule in rules]
        return {"generation": snapshot.generation, "rules": shown}

    async def rule(self, name: str) -> dict[str, Any]:
        """``GET /admin/rules/{name}``. Raises a 404."""
        hits = await self._hits()
        snapshot = self.snapshot
        for rule in snapshot.rules:
            if rule.name == name:
                return {"generation": snapshot.generation, **rule_data(rule), "hits": hits.get(name, 0)}
        raise not_found("rule", name)

    async def _hits(self) -> dict[str, int]:
        return dict(_expect(RouterStats, await self._ask("router", GetRouterStats())).rule_hits)

    async def stats(self) -> dict[str, Any]:
        """``GET /admin/stats``."""
        counted = _expect(Stats, await self._ask("aggregator", GetStats()))
        router = _expect(RouterStats, await self._ask("router", GetRouterStats()))
        counters = self._system.counters
        system = {name: getattr(counters, name) for name in counters.__dataclass_fields__}
        quotas = await self._quotas()
        return render.stats(counted, router, quotas, self.snapshot.routing.strategy) | {"system": system}

    async def _quotas(self) -> list[QuotaReport]:
        """How tenants and pools with limits stand; one that cannot answer now is left out."""
        names = list(quotas_of(self.snapshot))[:QUOTAS_SHOWN]
        asked = (self._ask(f"quota:{name}", GetQuota()) for name in names)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, QuotaReport)]

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
            raise not_found("provider", provider)
        done = _expect(ProbeDone, await self._ask("prober", ProbeNow(provider), PROBE_S))
        return {"provider": provider, "ok": done.ok, "auth_failed": done.auth_failed, "detail": done.detail} | {
            "latency_ms": round(done.latency_s * 1000, 3),
            "cost_usd": done.cost_usd,
        }

    async def health(self, provider: str) -> dict[str, Any]:
        """``GET /admin/providers/{id}/health``: how a provider's health came about. Raises a 404."""
        if self._directory.track(provider) is None:
            raise not_found("provider", provider)
        report = _expect(HealthReport, await self._ask(f"provider:{provider}", GetHealth()))
        return render.health(report, self.snapshot.health)

    async def reset(self, provider: str) -> dict[str, Any]:
        """Close a provider's circuits and forget its failures; the health report that is left. Raises a 404.

        One that crashed too often and is out of service comes back at once.
        """
        if self._directory.track(provider) is None:
            raise not_found("provider", provider)
        self._system.revive(f"provider:{provider}")
        self._tell(f"provider:{provider}", Reset())
        return await self.health(provider)

    async def explain(self, body: bytes) -> dict[str, Any]:
        """``POST /admin/explain``: the decision that a request like this would get, made for real but never followed."""
        try:
            profile = read_explain(body)
        except BadQuestion as error:
            raise AdminError(error.problem) from error
        return await self.explain_profile(profile)

    async def explain_profile(self, profile: RequestProfile) -> dict[str, Any]:
        """A dry run for a profile."""
        now = self._system.clock.now()
        query = RouteQuery(f"explain-{next(self._serials)}", profile, now + ASK_S, now, may_wait=False)
        answer = await self._ask("router", query)
        if not isinstance(answer, RoutePlan | NoRoute):
            raise AdminError(Problem(500, "internal_error", "The router gave no plan."))
        return await self.decision(answer.decision_id)

    def _tell(self, actor: str, message: Any) -> None:
        self._system.tell(actor, message, sender="admin")

    async def _ask(self, actor: str, question: Any, within_s: float = ASK_S) -> Any:
        try:
            return await self._system.ask(actor, question, self._system.clock.now() + within_s, sender="admin")
        except ActorGone as gone:
            raise AdminError(Problem(503, "overloaded", f"{actor} is {gone.fault}.", None, 1.0)) from gone
        except AskError as error:
            raise AdminError(Problem(503, "overloaded", f"{actor} did not answer: {error}.", None, 1.0)) from error


def _expect(kind: type[T], answer: Any) -> T:
    if not isinstance(answer, kind):
        raise AdminError(Problem(500, "internal_error", f"expected {kind.__name__}, got {type(answer).__name__}"))
    return answer
