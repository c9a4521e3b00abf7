"""What is served: the list of models in OpenAI's shape, and the description of the API."""

import re
from typing import Any

from actors.router.table import RoutingTable
from messages.control import ConfigSnapshot
from runtime.http.admin_bodies import STATUSES, WEIGHT_MAX


class Catalogue:
    """The models in OpenAI's shape, made once for each generation."""

    def __init__(self) -> None:
        self._of: ConfigSnapshot | None = None
        self._models: dict[str, dict[str, Any]] = {}

    def models(self, snapshot: ConfigSnapshot) -> dict[str, dict[str, Any]]:
        """By public name, sorted, aliases included. ``owned_by`` names the providers."""
        if self._of is not snapshot:
            self._of, self._models = snapshot, _models(snapshot)
        return self._models


def _models(snapshot: ConfigSnapshot) -> dict[str, dict[str, Any]]:
    table = RoutingTable.build(snapshot)
    owners: dict[str, list[str]] = {}
    for name, route in {**table.aliased, **table.listed}.items():
        # What a provider that takes any name would make of an alias is not known.
        found = [entry.id for entry in route.entries if entry.spec.enabled and route.model in entry.models] if route else []
        if found:
            owners[name] = found
    return {
        name: {"id": name, "object": "model", "created": 0, "owned_by": ",".join(providers)}
        for name, providers in sorted(owners.items())
    }


def openapi(version: str) -> dict[str, Any]:
    """The description of the HTTP API (OpenAPI 3.1)."""
    error = {"description": "An error in OpenAI's shape", "content": {"application/json": {"schema": _ERROR}}}
    paths: dict[str, Any] = {}
    for method, path, summary, *more in _PATHS:
        status = {"post /admin/providers": "201", "delete /admin/providers/{id}": "202"}.get(f"{method} {path}", "200")
        operation: dict[str, Any] = {"summary": summary, "responses": {status: {"description": "OK"}, "default": error}}
        for name in re.findall(r"{(\w+)}", path):
            operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
        if more:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": more[0]}}}
        paths.setdefault(path, {})[method] = operation
    return {"openapi": "3.1.0", "info": {"title": "Pointsman", "version": version}, "paths": paths}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": list(required)} if required else {})


_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": ["string", "null"]},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
_CALL = {
    "type": "object",
    "required": ["model"],
    "properties": {"model": {"type": "string"}, "stream": {"type": "boolean"}},
    "additionalProperties": True,
}
_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_METRICS = _object(average_latency_ms={"type": "number", "minimum": 0}, error_rate=_SHARE, load=_SHARE)
_PATCH = _object(
    enabled=_FLAG,
    status={"enum": list(STATUSES)},
    reason=_TEXT,
    weight={"type": "integer", "minimum": 0, "maximum": WEIGHT_MAX},
    priority={"type": "integer"},
    metrics=_METRICS,
)
_ENTRY = {"type": "object", "description": "As in the configuration file", "required": ["id", "kind"]}
_RULE = {"type": "object", "description": "As in the configuration file; the name is in the path"}
_SET_STRATEGY = _object(("strategy",), strategy={"type": ["string", "null"]}, model=_TEXT, tenant=_TEXT)
_ASKED = {"type": "object", "required": ["model"], "properties": {"model": _TEXT}, "additionalProperties": True}
_PATHS: tuple[tuple[Any, ...], ...] = (
    ("post", "/v1/chat/completions", "OpenAI's chat completions, streaming and not", _CALL),
    ("post", "/v1/completions", "OpenAI's legacy completions, streaming and not", _CALL),
    ("post", "/v1/embeddings", "OpenAI's embeddings", _CALL),
    ("get", "/v1/models", "The models that are served"),
    ("get", "/v1/models/{id}", "One model"),
    ("get", "/healthz", "Liveness"),
    ("get", "/readyz", "Readiness: at least one provider can take calls, and not draining"),
    ("get", "/admin/providers", "Providers and how they stand"),
    ("post", "/admin/providers", "Register a provider", _ENTRY),
    ("get", "/admin/providers/{id}", "One provider and how it stands"),
    ("patch", "/admin/providers/{id}", "Change a provider, or tell what was measured of it", _PATCH),
    ("delete", "/admin/providers/{id}", "Take a provider out; calls in flight finish"),
    ("get", "/admin/providers/{id}/health", "How a provider's health came about"),
    ("post", "/admin/providers/{id}/probe", "Probe a provider now"),
    ("post", "/admin/providers/{id}/reset", "Close a provider's circuits and forget its failures"),
    ("put", "/admin/default", "Set the default provider", _object(("provider",), provider=_TEXT)),
    ("get", "/admin/strategy", "The strategies in force, and those there are"),
    ("put", "/admin/strategy", "Set the strategy of all, of a model's pool or of a tenant", _SET_STRATEGY),
    ("get", "/admin/aliases", "Names that stand for others"),
    ("put", "/admin/aliases/{name}", "Let a name stand for another", _object(("target",), target=_TEXT)),
    ("delete", "/admin/aliases/{name}", "Forget an alias"),
    ("get", "/admin/rules", "Rules in the order in which they are asked, with their matches"),
    ("get", "/admin/rules/{name}", "One rule with its matches"),
    ("put", "/admin/rules/{name}", "Add or replace a rule", _RULE),
    ("patch", "/admin/rules/{name}", "Switch a rule on or off", _object(("enabled",), enabled=_FLAG)),
    ("delete", "/admin/rules/{name}", "Forget a rule"),
    ("get", "/admin/stats", "Usage by provider and model, limits of tenants and pools, router, system"),
    ("get", "/admin/decisions", "The last decisions, newest first"),
    ("get", "/admin/decisions/{id}", "Why a request went where it went"),
    ("post", "/admin/reload", "Put the configuration file as it is now in force, whole or not at all"),
    ("post", "/admin/explain", "A dry run of a decision", _ASKED),
)
"""Method, path, summary and, where one is taken, the schema of the body."""
