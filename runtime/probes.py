"""The prober's hands: calls a provider's free endpoint, and a model where that was ordered, and tells what it found.

Always: every ``RunProbe`` ends in one ``ProbeDone``, whatever happens. A probe costs no tokens unless a model was ordered,
and then it says so: a call that was cut counts as made.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson

from actors.probe_bill import INPUT_TOKENS, OUTPUT_TOKENS
from messages.calls import Usage
from messages.envelope import Envelope
from messages.failures import Failure, Scope
from messages.health import ProbeDone, RunProbe
from runtime.courier.directory import Directory, Track
from runtime.dialects.answer import read_answer
from runtime.dialects.errors import classify, is_there
from runtime.ports import CallFailed, Headers, Upstream, UpstreamRequest
from runtime.system.system import ActorSystem

PROBE_TIMEOUT_S = 10.0
LIST_BYTES_MAX = 8 * 1024 * 1024
MODELS_MAX = 10_000


@dataclass(slots=True)
class Found:
    """What a probe has found so far."""

    is_good: bool = False
    is_auth_failed: bool = False
    detail: str = ""
    models: tuple[str, ...] | None = None
    is_paid: bool = False
    usage: Usage | None = None

    def refused(self, failure: Failure) -> None:
        """No 2xx. Who answers at all is there: not everybody has a list of models, and a rate limit is no illness."""
        self.is_auth_failed = failure.scope is Scope.CREDENTIAL
        self.is_good = is_there(failure.status) and not self.is_auth_failed
        self.detail = failure.detail

    def told(self, order: RunProbe, took_s: float) -> ProbeDone:
        """As the prober is told."""
        return ProbeDone(
            order.probe_id,
            order.provider,
            self.is_good,
            self.is_auth_failed,
            took_s,
            self.detail,
            self.models,
            self.is_paid,
            self.usage,
        )


class Probes:
    """The port ``probes``."""

    def __init__(self, system: ActorSystem, upstream: Upstream, directory: Directory) -> None:
        self._system = system
        self._upstream = upstream
        self._directory = directory
        self._tasks: dict[asyncio.Task[None], None] = {}

    def take(self, envelope: Envelope) -> None:
        """Begin a probe."""
        message = envelope.message
        if isinstance(message, RunProbe):
            task = asyncio.get_running_loop().create_task(self._run(message))
            self._tasks[task] = None
            task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def stop(self) -> None:
        """Cut the probes that are under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, order: RunProbe) -> None:
        begun_at = self._system.clock.now()
        found = Found()
        try:
            track = self._directory.track(order.provider)
            if track is None:
                found.detail = "no longer configured"
            else:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await self._probe(track, order.model, found)
        except TimeoutError:
            found.is_good, found.detail = False, f"no answer within {PROBE_TIMEOUT_S:g} s"
        except CallFailed as error:
            found.is_good, found.detail = False, f"{error.failure.code} {error.failure.detail}".strip()
        except asyncio.CancelledError:
            found.is_good, found.detail = False, "cancelled"
            raise
        finally:
            took_s = self._system.clock.now() - begun_at
            self._system.tell("prober", found.told(order, took_s), sender="probes")

    async def _probe(self, track: Track, model: str, found: Found) -> None:
        """Ask the free endpoint, then ``model`` if it is given and nothing says that the provider is down."""
        wants_list = track.spec.probe.kind != "http"
        base = track.spec.endpoint.rstrip("/")
        url = base + "/models" if wants_list else base
        status, headers, body = await self._call(track, "GET", url, b"")
        if 200 <= status < 300:
            found.is_good = True
            found.models = _names(body) if wants_list else None
        else:
            found.refused(classify(status, headers, body, (), self._system.clock.wall()))
        # A refused key is no reason to stop: the list may want rights that calls do not, and a refused call costs nothing.
        if model and (found.is_good or found.is_auth_failed):
            await self._probe_model(track, model, found)

    async def _probe_model(self, track: Track, model: str, found: Found) -> None:
        """Let a model say a word. What it is told to be wrong with the question is no fault of the provider."""
        found.is_paid, found.is_good, found.is_auth_failed = True, False, False
        status, headers, body = await self._call(track, "POST", track.urls["chat"], _question(model))
        if not 200 <= status < 300:
            # Refusals are not charged.
            found.is_paid = False
            found.refused(classify(status, headers, body, (), self._system.clock.wall()))
            return
        answer = read_answer("chat", status, headers, body, INPUT_TOKENS)
        if isinstance(answer, Failure):
            found.detail = f"{answer.code} {answer.detail}"
            return
        found.is_good, found.detail = True, f"{model} answered"
        found.usage = None if answer.usage.estimated else answer.usage

    async def _call(self, track: Track, method: str, url: str, body: bytes) -> tuple[int, Headers, bytes]:
        """Status, headers and body of one call. Raises ``CallFailed``."""
        headers = [*track.headers, ("Accept", "application/json")]
        if body:
            headers.append(("Content-Type", "application/json"))
        times, transport = track.spec.timeouts, track.spec.transport
        request = UpstreamRequest(method, url, headers, body, times.connect_s, PROBE_TIMEOUT_S, PROBE_TIMEOUT_S, transport)
        answer = await self._upstream.call(request)
        try:
            return answer.status, answer.headers, await answer.read(LIST_BYTES_MAX)
        finally:
            answer.close()


def _question(model: str) -> bytes:
    messages = [{"role": "user", "content": "Say ok."}]
    return orjson.dumps({"model": model, "messages": messages, "max_tokens": OUTPUT_TOKENS})


def _names(body: bytes) -> tuple[str, ...] | None:
    """The ids in a list of models in OpenAI's shape; None if it is not one."""
    try:
        parsed: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    data = parsed.get("data") if isinstance(parsed, dict) else None
    if not isinstance(data, list):
        return None
    names = [entry["id"] for entry in data[:MODELS_MAX] if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    return tuple(dict.fromkeys(names))
