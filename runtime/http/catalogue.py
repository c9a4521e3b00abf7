"""What is served: the list of models in OpenAI's shape, and the description of the API."""

from typing import Any

from messages.control import ConfigSnapshot


def model_list(snapshot: ConfigSnapshot) -> list[dict[str, Any]]:
    """The public names, aliases included, sorted. ``owned_by`` names the providers."""
    owners: dict[str, list[str]] = {}
    for spec in snapshot.providers:
        if spec.enabled:
            for model in spec.models:
                owners.setdefault(model.name, []).append(spec.id)
    for alias, target in snapshot.aliases:
        if alias not in owners and target in owners:
            owners[alias] = owners[target]
    return [
        {"id": name, "object": "model", "created": 0, "owned_by": ",".join(providers)}
        for name, providers in sorted(owners.items())
    ]


def openapi(version: str) -> dict[str, Any]:
    """The description of the HTTP API (OpenAPI 3.1)."""
    error = {"description": "An error in OpenAI's shape", "content": {"application/json": {"schema": _ERROR}}}
    paths: dict[str, Any] = {}
    for method, path, summary in _PATHS:
        operation: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "OK"}, "default": error}}
        if "{id}" in path:
            operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
        if method == "post" and path.startswith("/v1/"):
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _CALL}}}
        paths.setdefault(path, {})[method] = operation
    return {"openapi": "3.1.0", "info": {"title": "Pointsman", "version": version}, "paths": paths}


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
_PATHS = (
    ("post", "/v1/chat/completions", "OpenAI's chat completions, streaming and not"),
    ("post", "/v1/completions", "OpenAI's legacy completions, streaming and not"),
    ("post", "/v1/embeddings", "OpenAI's embeddings"),
    ("get", "/v1/models", "The models that are served"),
    ("get", "/v1/models/{id}", "One model"),
    ("get", "/healthz", "Liveness"),
    ("get", "/readyz", "Readiness: at least one provider can take calls, and not draining"),
    ("get", "/admin/providers", "Providers and how they stand"),
    ("post", "/admin/providers/{id}/probe", "Probe a provider now"),
    ("get", "/admin/stats", "Usage by provider and model, router, system"),
    ("get", "/admin/decisions", "The last decisions, newest first"),
    ("get", "/admin/decisions/{id}", "Why a request went where it went"),
    ("post", "/admin/explain", "A dry run of a decision"),
)
