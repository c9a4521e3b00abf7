"""The prober's hands: calls a provider's free endpoint and tells the prober what it found.

Always: every ``RunProbe`` ends in one ``ProbeDone``, whatever happens; a probe costs no tokens.
"""

import asyncio
from typing import Any

import orjson

from messages.envelope import Envelope
from messages.failures import Scope
from messages.health import ProbeDone, RunProbe
from runtime.courier.directory import Directory, Track
from runtime.dialects.errors import classify
from runtime.ports import CallFailed, Upstream, UpstreamRequest
from runtime.system.system import ActorSystem

PROBE_TIMEOUT_S = 10.0
LIST_BYTES_MAX = 8 * 1024 * 1024
MODELS_MAX = 10_000


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
        ok, auth_failed, detail, models = False, False, "", None
        try:
            track = self._directory.track(order.provider)
            if track is None:
                detail = "no longer configured"
            else:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    ok, auth_failed, detail, models = await self._probe(track)
        except TimeoutError:
            detail = f"no answer within {PROBE_TIMEOUT_S:g} s"
        except CallFailed as error:
            detail = f"{error.failure.code} {error.failure.detail}".strip()
        except asyncio.CancelledError:
            detail = "cancelled"
            raise
        finally:
            took_s = self._system.clock.now() - begun_at
            done = ProbeDone(order.probe_id, order.provider, ok, auth_failed, took_s, detail, models)
            self._system.tell("prober", done, sender="probes")

    async def _probe(self, track: Track) -> tuple[bool, bool, str, tuple[str, ...] | None]:
        """(ok, auth_failed, detail, models)."""
        spec = track.spec
        wants_list = spec.probe.kind == "models"
        base = spec.endpoint.rstrip("/")
        url = base + "/models" if wants_list else base
        headers = [*track.headers, ("Accept", "application/json")]
        times = spec.timeouts
        request = UpstreamRequest("GET", url, headers, b"", times.connect_s, PROBE_TIMEOUT_S, PROBE_TIMEOUT_S, spec.transport)
        answer = await self._upstream.call(request)
        try:
            body = await answer.read(LIST_BYTES_MAX)
            if 200 <= answer.status < 300:
                return True, False, "", _names(body) if wants_list else None
            failure = classify(answer.status, answer.headers, body, (), self._system.clock.wall())
            # Who answers at all is there: not everybody has a list of models, and a rate limit says nothing about health.
            is_there = answer.status < 500 and failure.scope is not Scope.CREDENTIAL
            return is_there, failure.scope is Scope.CREDENTIAL, failure.detail, None
        finally:
            answer.close()


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
