"""A router on a desk: specs, bids and answers by hand."""

from collections.abc import Iterable
from typing import Any

from actors.router.actor import RouterActor
from messages.control import ConfigSnapshot, ModelSpec, ProviderSpec, RoutingSpec
from messages.decisions import Candidate, DecisionFound, GetDecision
from messages.routing import Bid, Gathered, NoBid, NoBidReason, NoRoute, RequestProfile, RoutePlan, RouteQuery
from runtime.system.solo import SoloContext, SoloSlot

Answer = Bid | NoBid


def provider(name: str, *models: str, **fields: Any) -> ProviderSpec:
    listed = fields.pop("models", None) or tuple(ModelSpec(m, m) for m in models)
    return ProviderSpec(name, fields.pop("kind", "openai"), "http://x", "c", listed, **fields)


def snapshot(
    *specs: ProviderSpec, aliases: dict[str, str] | None = None, generation: int = 1, **routing: Any
) -> ConfigSnapshot:
    default = routing.pop("default", specs[0].id if specs else "")
    pairs = tuple(sorted((aliases or {}).items()))
    policy: dict[str, Any] = {name: tuple(routing.pop(name, ())) for name in ("rules", "tenants", "pools")}
    return ConfigSnapshot(generation, specs, default, pairs, RoutingSpec(**routing), **policy)


BID = Bid("", 0, None, 1, 0, 50, 0.3, 0.6, 0.3, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, True, False)
_USUAL: dict[str, Any] = {field: getattr(BID, field) for field in Bid.__dataclass_fields__}


def bid(name: str, **fields: Any) -> Bid:
    # Where a test says one price, it is the likely one too.
    return Bid(**{**_USUAL, "likely_usd": fields.get("cost_usd", BID.cost_usd), "provider": name, **fields})


def no(name: str, reason: NoBidReason, retry_at: float | None = None, detail: str = "") -> NoBid:
    return NoBid(name, reason, retry_at, detail)


def full(name: str) -> NoBid:
    return no(name, NoBidReason.AT_CAPACITY)


class Desk:
    """A router alone, and what a test does with it."""

    def __init__(self, *specs: ProviderSpec, seed: str = "0", **config: Any) -> None:
        self.context = SoloContext("router", seed=seed)
        self.actor = RouterActor(snapshot(*specs, **config))
        self._queries = 0
        self._given = 0
        self.invariant_every = 1
        """After so many messages the invariant is asked for: it goes over all that is open."""

    def give(self, message: Any) -> list[Any]:
        replies = self.context.give(self.actor, message)
        self._given += 1
        if self._given % self.invariant_every == 0:
            assert self.actor.invariant() is None
        return replies

    def ask(self, model: str = "m", query_id: str = "", profile: RequestProfile | None = None, **fields: Any) -> str:
        """Put a query; returns its id."""
        self._queries += 1
        query_id = query_id or f"q{self._queries}"
        now = self.context.now()
        values: dict[str, Any] = {"deadline": now + 600.0, "arrived_at": now, **fields}
        self.give(RouteQuery(query_id, profile or RequestProfile(model), **values))
        return query_id

    def asked(self) -> tuple[str, ...]:
        """Whom the last fan-out went to."""
        return tuple(ref.name.removeprefix("provider:") for ref in self.context.fans[-1].to)

    def gathered(self, *answers: Answer, fan: int = -1) -> None:
        """Let the answers of a fan-out come home."""
        self.give(Gathered(self.context.fans[fan].key, tuple(answers)))

    def gathered_quickly(self, *answers: Answer) -> None:
        """The same without asking for the invariant each time."""
        self.actor.handle(Gathered(self.context.fans.pop().key, answers), self.context)

    def slot(self, query_id: str) -> SoloSlot:
        return next(slot for slot in reversed(self.context.slots) if slot.question.query_id == query_id)

    def answer(self, query_id: str) -> Any:
        """The one answer a query has got."""
        (answer,) = self.slot(query_id).answers
        return answer

    def is_waiting(self, query_id: str) -> bool:
        return not self.slot(query_id).answers

    def plan(self, query_id: str) -> RoutePlan:
        answer = self.answer(query_id)
        assert isinstance(answer, RoutePlan), answer
        return answer

    def refusal(self, query_id: str) -> NoRoute:
        answer = self.answer(query_id)
        assert isinstance(answer, NoRoute), answer
        return answer

    def decide(self, *answers: Answer, **fields: Any) -> Any:
        """One whole decision."""
        query_id = self.ask(**fields)
        self.gathered(*answers)
        return self.answer(query_id)

    def candidates(self, decision_id: str) -> dict[str, Candidate]:
        (found,) = self.give(GetDecision(decision_id))
        assert isinstance(found, DecisionFound)
        assert found.decision is not None
        return {candidate.provider: candidate for candidate in found.decision.candidates}


def chain(plan: RoutePlan) -> list[str]:
    return [choice.provider for choice in plan.choices]


def names(entries: Iterable[Any]) -> list[str]:
    return [entry.id for entry in entries]
