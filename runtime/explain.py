"""``pointsman explain``: a dry run of a decision, from a configuration file alone or asked of a live daemon."""

from collections.abc import Mapping
from typing import Any

import orjson

from messages.changes import ChangeRefused
from messages.control import Propose
from messages.decisions import DecisionFound, GetDecision
from messages.envelope import Envelope
from messages.routing import NoRoute, RequestProfile, RoutePlan, RouteQuery
from runtime.admin_client import CannotAsk, ask
from runtime.config.problems import ConfigError, ConfigProblem
from runtime.config.settings import Loaded
from runtime.courier.directory import Directory
from runtime.courier.permits import PermitTable
from runtime.http import render
from runtime.http.explain_request import BadQuestion, read_explain
from runtime.system.replies import AskError
from runtime.system.system import ActorSystem
from runtime.tree import Tree

ASK_S = 10.0
BAD_REQUEST = 400


class CannotExplain(Exception):
    """No decision could be had; the message says why. ``is_usage``: because the question makes no sense."""

    def __init__(self, message: str, *, is_usage: bool = False) -> None:
        super().__init__(message)
        self.is_usage = is_usage


async def from_configuration(loaded: Loaded, question: Mapping[str, Any]) -> dict[str, Any]:
    """The decision of idle providers as configured. ``question``: as ``POST /admin/explain``.

    Raises ``CannotExplain``, and ``ConfigError`` if the registry refuses the configuration, as ``serve`` does.
    """
    try:
        profile = read_explain(orjson.dumps(question))
    except BadQuestion as error:
        raise CannotExplain(str(error), is_usage=True) from error
    system = ActorSystem(loaded.snapshot.seed)
    directory = Directory(loaded.snapshot, loaded.credentials.get)
    tree = Tree(system, directory, PermitTable(), _no_probes)
    try:
        tree.start()
        answer = await system.ask("registry", Propose(loaded.snapshot), sender="explain")
        if isinstance(answer, ChangeRefused):
            raise ConfigError([ConfigProblem(answer.path, None, answer.reason)], str(loaded.path or ""))
        return await _decided(system, profile)
    except AskError as error:
        raise CannotExplain(f"nobody decided: {error}") from error
    finally:
        await system.stop()


async def _decided(system: ActorSystem, profile: RequestProfile) -> dict[str, Any]:
    """Ask the router as a courier would, and then for its record."""
    now = system.clock.now()
    query = RouteQuery("explain-1", profile, now + ASK_S, now, may_wait=False)
    answer = await system.ask("router", query, now + ASK_S, sender="explain")
    if not isinstance(answer, RoutePlan | NoRoute):
        raise CannotExplain("the router gave no plan")
    found = await system.ask("router", GetDecision(answer.decision_id), now + ASK_S, sender="explain")
    if not isinstance(found, DecisionFound) or found.decision is None:
        raise CannotExplain("the router kept no record of its decision")
    return render.decision(found.decision)


def _no_probes(envelope: Envelope) -> None:
    """A dry run asks nobody outside."""


def from_daemon(url: str, question: Mapping[str, Any], admin_key: str) -> dict[str, Any]:
    """The decision a live daemon would make now. Raises ``CannotExplain``."""
    try:
        decision = ask("POST", url, "/admin/explain", admin_key, question)
    except CannotAsk as error:
        raise CannotExplain(str(error), is_usage=error.status == BAD_REQUEST) from error
    if not isinstance(decision.get("candidates"), list):
        raise CannotExplain(f"{url} gave no decision")
    return decision
