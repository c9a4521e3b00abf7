"""The body of ``POST /admin/explain``: a request told in numbers instead of sent, read into a profile."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from messages.routing import RequestProfile
from runtime.courier.problems import Problem
from runtime.http.hints import BadHint, ClientHints, read_hints
from runtime.http.notes import noted

LABELS_MAX = 64

_FIELDS: Mapping[str, type] = {
    "model": str,
    "endpoint": str,
    "prompt_tokens": int,
    "max_tokens": int,
    "tools": bool,
    "vision": bool,
    "json": bool,
    "stream": bool,
    "strategy": str,
    "tenant": str,
    "user": str,
    "labels": dict,
    "headers": dict,
}
_AS_JSON: Mapping[type, str] = {str: "a string", int: "a whole number", bool: "true or false", dict: "an object"}
_NEEDS = {"chat": "chat", "completions": "chat", "embeddings": "embeddings"}
_FLAGS = ("tools", "vision", "json")


class BadQuestion(ValueError):
    """A question that cannot be understood; ``problem`` is its answer, a 400."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(400, "invalid_request", message, param)


def read_explain(body: bytes) -> RequestProfile:
    """A request profile from the body of ``POST /admin/explain``. Raises ``BadQuestion``."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadQuestion(f"The body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise BadQuestion("The body must be a JSON object.")
    for name, value in given.items():
        wanted = _FIELDS.get(name)
        if wanted is None:
            raise BadQuestion(f"'{name}' is not known; there are {', '.join(_FIELDS)}.", name)
        if value is not None and type(value) is not wanted:
            raise BadQuestion(f"'{name}' must be {_AS_JSON[wanted]}.", name)
    if not given.get("model"):
        raise BadQuestion("'model' is missing.", "model")
    endpoint = given.get("endpoint") or "chat"
    if endpoint not in _NEEDS:
        raise BadQuestion(f"'endpoint' must be one of {', '.join(_NEEDS)}.", "endpoint")
    for name in ("prompt_tokens", "max_tokens"):
        if (given.get(name) or 0) < 0:
            raise BadQuestion(f"'{name}' must not be negative.", name)
    said = _hints(given)
    return RequestProfile(
        given["model"],
        endpoint,
        bool(given.get("stream")),
        given.get("prompt_tokens") or 0,
        given.get("max_tokens"),
        _needs(endpoint, given),
        said.tenant,
        said.user,
        said.hints,
        _labels(given.get("labels") or {}),
    )


def _needs(endpoint: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    needs = {_NEEDS[endpoint]} | {name for name in _FLAGS if given.get(name)}
    return tuple(sorted(needs | ({"streaming"} if given.get("stream") else set())))


def _labels(given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    if len(given) > LABELS_MAX:
        raise BadQuestion(f"'labels' has more than {LABELS_MAX} entries.", "labels")
    for name, value in given.items():
        if not isinstance(value, str):
            raise BadQuestion(f"'labels' must be strings, and {name!r} is none.", "labels")
    return tuple(sorted(given.items()))


def _hints(given: Mapping[str, Any]) -> ClientHints:
    """What headers say. Fields that stand for a header are read as that header, so the two cannot differ."""
    headers = []
    for name, value in (given.get("headers") or {}).items():
        if not re.fullmatch(r"(?i)x-pointsman-[a-z-]+", name):
            raise BadQuestion(f"'headers' takes x-pointsman-* headers only, not {name!r}.", "headers")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadQuestion(f"'headers' must be strings or numbers, and {name!r} is neither.", "headers")
        headers.append((name, str(value)))
    fields = {f"x-pointsman-{name}": name for name in ("strategy", "tenant", "user") if given.get(name)}
    headers += [(header, given[name]) for header, name in fields.items()]
    try:
        return read_hints(noted(headers))
    except BadHint as error:
        is_field = error.header in fields and not any(name.lower() == error.header for name in given.get("headers") or {})
        raise BadQuestion(str(error), fields[error.header] if is_field else "headers") from error
