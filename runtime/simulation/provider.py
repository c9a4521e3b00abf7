"""A simulated provider without clock, socket or loop: a call comes in, a plan of its answer goes out.

Owns: the buckets, the places, the faults that hold, the calls in flight, the journal.
Accepts: ``arrive`` when a call is here, ``begin`` when it has a place, ``end`` when it is over, with ``now`` in seconds.
Always: a call that arrived ends once; a 429 takes nothing from a bucket; what is refused takes no place.
"""

import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

import orjson

from runtime.simulation import answers, openai_api
from runtime.simulation.behaviour import Behaviour, Luck, Seed, request_key
from runtime.simulation.faults import Fault, FaultBoard, FaultKind
from runtime.simulation.journal import CallRecord, Journal, record_of
from runtime.simulation.limits import HeaderPairs, Limits
from runtime.simulation.openai_request import BadRequest, Embeddings, Generation, parse
from runtime.simulation.plan import HANG, RESET, AnswerPlan, short
from runtime.simulation.slots import Slots

CREATED_BASE = 1_800_000_000
"""Unix seconds at which every simulated provider starts: its answers depend on the seed, not on the day."""
KEYS_REMEMBERED = 10_000
MODELS_S = 0.002
_POSTS = ("/chat/completions", "/completions", "/embeddings")


def _nobody_listens() -> None:
    """The frame has not taken the call up yet."""


@dataclass(slots=True)
class Call:
    """A call in flight."""

    record: CallRecord
    luck: Luck
    work: AnswerPlan | Generation | Embeddings
    """What there is to do: to carry out a refusal, or to serve a request."""
    break_off: Callable[[], None] = _nobody_listens
    """Called when the provider goes down; the frame sets it."""

    @property
    def needs_place(self) -> bool:
        """Whether it must wait for one of the provider's places."""
        return not isinstance(self.work, AnswerPlan)

    @property
    def model(self) -> str:
        """The model that serves it; empty where none does."""
        return "" if isinstance(self.work, AnswerPlan) else self.work.model


class ProviderSimulation:
    """One provider. ``now`` at construction is when it starts, in seconds of whatever clock the frame has."""

    def __init__(self, behaviour: Behaviour, seed: Seed, now: float) -> None:
        self.behaviour = behaviour
        self.seed = seed
        self.started_at = now
        self.slots = Slots(behaviour.capacity)
        self.faults = FaultBoard()
        self.journal = Journal()
        self.calls: dict[int, Call] = {}
        self.billed_usd = 0.0
        """Input when service begins, output as it is sent, also of answers nobody used."""
        self._limits = Limits(behaviour, now)
        self._attempts: OrderedDict[str, int] = OrderedDict()
        self._number = 0

    def arrive(self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, now: float) -> Call:
        """Take a call; ``path`` is without the base URL's own and without the query."""
        key = request_key(f"{method} {path}\n".encode() + body)
        luck = Luck(self.behaviour, self.seed, key, self._attempt(key))
        self._number += 1
        credential = self._credential(headers)
        record = record_of(self._number, method, path, headers, body, credential, luck.attempt, now - self.started_at)
        self.journal.keep(path if path in _POSTS else "", record)
        call = Call(record, luck, self._receive(record, luck, body, now))
        self.calls[record.number] = call
        return call

    def begin(self, call: Call, now: float) -> AnswerPlan:
        """Plan the answer of a call whose service begins now; the faults of this moment are what counts."""
        call.record.served_at = now - self.started_at
        extra: HeaderPairs = (("x-simulated-provider", self.behaviour.name), ("x-request-id", f"req-{call.record.number}"))
        if isinstance(call.work, AnswerPlan):
            return replace(call.work, headers=(*call.work.headers, *extra))
        slowness = self._slowness(call.record, call.luck, now)
        cut = self._struck(FaultKind.CUT, call.record, call.luck, now)
        service = answers.Service(call.luck, slowness, cut is not None, self._created(now))
        plan = answers.planned(call.work, service)
        self.billed_usd += self.behaviour.cost_usd(plan.input_tokens, 0, call.model)
        return replace(plan, headers=(*plan.headers, *self._limits.headers(now), *extra))

    def sent(self, call: Call, data_bytes: int, tokens: int) -> None:
        """Note that so much of the answer is on its way."""
        call.record.sent_bytes += data_bytes
        call.record.output_tokens += tokens
        self.billed_usd += self.behaviour.cost_usd(0, tokens, call.model)

    def end(self, call: Call, outcome: str, now: float) -> None:
        """A call is over. A second time is ignored."""
        if self.calls.pop(call.record.number, None) is None:
            return
        call.record.outcome = outcome
        call.record.ended_at = now - self.started_at
        if call.record.path in _POSTS:
            self.journal.counts[outcome] += 1

    def switch_on(self, fault: Fault, now: float) -> None:
        """Let a fault hold. An outage breaks off every call in flight."""
        self.faults.switch_on(fault, now)
        if fault.kind is FaultKind.OUTAGE:
            for call in list(self.calls.values()):
                call.break_off()

    def state(self, now: float) -> dict[str, object]:
        """What ``GET /control`` shows."""
        return {
            "provider": self.behaviour.name,
            "models": list(self.behaviour.models),
            "seed": self.seed,
            "up_s": round(now - self.started_at, 3),
            "in_flight": len(self.calls),
            "served": self.slots.served,
            "waiting": self.slots.waiting,
            "capacity": self.slots.capacity,
            "counts": dict(sorted(self.journal.counts.items())),
            "billed_usd": round(self.billed_usd, 9),
            "limits_left": self._limits.remaining(now),
            "faults": self.faults.state(now),
        }

    def _receive(self, record: CallRecord, luck: Luck, body: bytes, now: float) -> AnswerPlan | Generation | Embeddings:
        """Let a call in, or say what becomes of it instead. The order is that of a real provider's layers."""
        if self._struck(FaultKind.OUTAGE, record, luck, now):
            return RESET
        if self._struck(FaultKind.HANG, record, luck, now):
            return HANG
        if self._struck(FaultKind.AUTH, record, luck, now):
            return answers.bad_key(is_missing=False)
        if record.key in ("wrong", "missing"):
            return answers.bad_key(record.key == "missing")
        if record.path not in _POSTS or record.method != "POST":
            return self._broken(record, luck, now) or self._look_up(record, luck, now)
        try:
            request = parse(record.path, body)
            self._check_model(request.model)
        except BadRequest as error:
            return answers.bad_request(error)
        if fault := self._struck(FaultKind.RATE_LIMIT, record, luck, now):
            headers = tuple(pair for pair in self._limits.headers(now) if "remaining-requests" not in pair[0])
            return answers.rate_limited("requests", fault.retry_after_s, (*headers, ("x-ratelimit-remaining-requests", "0")))
        if excess := self._limits.take(request.prompt_tokens + answers.output_tokens(request, luck), now):
            return answers.rate_limited(excess.limit, excess.wait_s, self._limits.headers(now))
        return self._broken(record, luck, now) or request

    def _broken(self, record: CallRecord, luck: Luck, now: float) -> AnswerPlan | None:
        if fault := self._struck(FaultKind.ERRORS, record, luck, now):
            return answers.server_error(fault.status)
        if self._struck(FaultKind.GARBAGE, record, luck, now):
            return answers.garbage(luck)
        if record.path in _POSTS and luck.is_struck("habit", self.behaviour.error_share):
            record.fault = "habit"
            return answers.server_error(503)
        return None

    def _struck(self, kind: FaultKind, record: CallRecord, luck: Luck, now: float) -> Fault | None:
        fault = self.faults.get(kind, now)
        if fault is None or not luck.is_struck(kind, fault.p):
            return None
        record.fault = str(kind)
        return fault

    def _slowness(self, record: CallRecord, luck: Luck, now: float) -> float:
        slow = self._struck(FaultKind.SLOW, record, luck, now)
        return 1.0 if slow is None else slow.factor

    def _look_up(self, record: CallRecord, luck: Luck, now: float) -> AnswerPlan:
        wait_s = MODELS_S * self._slowness(record, luck, now)
        name = self.behaviour.name
        if record.method != "GET":
            code = "method_not_allowed" if record.path == "/models" or record.path in _POSTS else "unknown_url"
            status = 405 if code == "method_not_allowed" else 404
            return answers.error(status, f"Invalid URL ({record.method} {record.path})", "invalid_request_error", code)
        if record.path == "/models":
            return short("ok", 200, answers.JSON, openai_api.model_list(self.behaviour.models, name, CREATED_BASE), wait_s)
        if not record.path.startswith("/models/"):
            return answers.error(404, f"Invalid URL (GET {record.path})", "invalid_request_error", "unknown_url")
        model = unquote(record.path.removeprefix("/models/"))
        try:
            self._check_model(model)
        except BadRequest as error:
            return answers.bad_request(error)
        return short("ok", 200, answers.JSON, orjson.dumps(openai_api.model(model, name, CREATED_BASE)), wait_s)

    def _check_model(self, model: str) -> None:
        if model not in self.behaviour.models:
            message = f"The model `{model[:200]}` does not exist or you do not have access to it."
            raise BadRequest(message, param="model", code="model_not_found", status=404)

    def _credential(self, headers: Sequence[tuple[str, str]]) -> str:
        given = next((value for name, value in headers if name.lower() == "authorization"), "")
        if not self.behaviour.api_key:
            return "unchecked"
        if not given:
            return "missing"
        return "right" if hmac.compare_digest(given.encode(), f"Bearer {self.behaviour.api_key}".encode()) else "wrong"

    def _attempt(self, key: str) -> int:
        attempt = self._attempts.pop(key, -1) + 1
        self._attempts[key] = attempt
        if len(self._attempts) > KEYS_REMEMBERED:
            self._attempts.popitem(last=False)
        return attempt

    def _created(self, now: float) -> int:
        return CREATED_BASE + int(now - self.started_at)
