"""What a status and an error body mean: fault and remedy. And our own errors in OpenAI's shape.

This is the one place above the wire that knows what a status code is (DESIGN, Failures). What cannot be told apart from
the status alone is told by the error's ``code`` and ``type``; its message is for people and is never trusted to hold no
secret, for several providers quote the key they refuse.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson

from messages.failures import Blame, Failure, Retry, Scope
from runtime.dialects.limits import retry_after
from runtime.ports import Headers

DETAIL_CHARACTERS_MAX = 300
BODY_PREFIX_BYTES_MAX = 64 * 1024
OVERLOADED = (503, 529)
"""Statuses, besides a rate limit's, by which a provider says that it has too much to do."""

ERROR_TYPES: Mapping[int, str] = MappingProxyType(
    {
        401: "authentication_error",
        403: "permission_error",
        429: "rate_limit_error",
    }
)
"""OpenAI's names of kinds of errors; the rest go by class."""

_CREDENTIAL = re.compile(
    r"api[_\- ]?key|key_|_key|permission|auth(?!or\b)|credential|forbidden_access|access_denied", re.IGNORECASE
)
_QUOTA = re.compile(r"quota|billing|insufficient_(?:balance|funds|credits)|payment", re.IGNORECASE)
_NO_SUCH_MODEL = re.compile(r"model_not_found|invalid_model|model_not_supported|unknown_model", re.IGNORECASE)
_RATE = re.compile(r"rate_?limit|too_many_requests", re.IGNORECASE)
_SECRET = re.compile(r"\b(?:sk|pk|rk|gsk|xai|key|nvapi|hf|pplx)[-_][\w\-*.]{4,}|\bAIza[\w\-*]{6,}|\b[Bb]earer\s+\S+")


def classify(
    status: int, headers: Headers, body_prefix: bytes, on_status: tuple[str, ...], wall_s: float | None = None
) -> Failure:
    """What an answer that is no 2xx means.

    ``body_prefix`` is what was read of the body; ``on_status`` (``"429"``, ``"5xx"``) lists the statuses after which another
    provider is tried although it need not be; ``wall_s`` is the Unix time, for a ``Retry-After`` that is a date.
    """
    error = _error_object(body_prefix)
    code, detail = _names(error), _detail(status, error)
    wait_s = retry_after(headers, wall_s)
    if status == 401 or (status in (400, 403) and _is_about_key(status, code, body_prefix)):
        # The message is left out: it may quote the key.
        refused = f"HTTP {status}: our key was refused"
        return Failure(Blame.UPSTREAM, Scope.CREDENTIAL, Retry.ELSEWHERE, f"http_{status}", status, None, refused)
    if status == 402 or (status == 429 and _QUOTA.search(code)):
        return Failure(Blame.UPSTREAM, Scope.BUCKET, Retry.ELSEWHERE, "insufficient_quota", status, wait_s, detail)
    if status == 429:
        retry = Retry.LATER if is_listed(status, on_status) else Retry.NEVER
        return Failure(Blame.UPSTREAM, Scope.BUCKET, retry, "http_429", status, wait_s, detail, True)
    if status == 408:
        return Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, "http_408", status, wait_s, detail)
    if status >= 500:
        retry = Retry.LATER if is_listed(status, on_status) else Retry.NEVER
        return Failure(Blame.UPSTREAM, Scope.PROVIDER, retry, f"http_{status}", status, wait_s, detail, status in OVERLOADED)
    if status in (403, 404, 405) or (status == 400 and _NO_SUCH_MODEL.search(code)):
        name = "model_not_found" if status in (400, 404) else f"http_{status}"
        return Failure(Blame.UPSTREAM, Scope.MODEL, Retry.ELSEWHERE, name, status, None, detail)
    if status < 400 or status == 407:
        # A redirect or a proxy that wants a password: the base URL or the network is set up wrongly, whoever asks.
        return Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.ELSEWHERE, f"http_{status}", status, None, detail)
    retry = Retry.ELSEWHERE if is_listed(status, on_status) else Retry.NEVER
    return Failure(Blame.CLIENT, Scope.NONE, retry, f"http_{status}", status, None, detail)


def is_listed(status: int, on_status: tuple[str, ...]) -> bool:
    """True if ``status`` is in the list, itself (``"429"``) or by its class (``"5xx"``)."""
    return str(status) in on_status or f"{status // 100}xx" in on_status


def is_there(status: int) -> bool:
    """Whether who answers so, be it with a refusal, has nothing wrong with itself."""
    return status < 500


def error_in(parsed: Mapping[str, Any]) -> object:
    """The error that an object is or holds; None if it is none. Old vLLM puts its fields at the top."""
    return parsed.get("error") or (parsed if parsed.get("object") == "error" else None)


def failure_of_error(error: object, status: int) -> Failure:
    """What an ``error`` inside a 200 means, be it a whole body or an event of a stream.

    Never the client's fault: whoever answers 200 has taken the request, and another provider may do better.
    """
    fields = error if isinstance(error, dict) else {"message": error}
    code, detail = _names(fields), _detail(status, fields)
    number = next((n for name in ("code", "status_code") if type(n := fields.get(name)) is int), 0)
    if number in (401, 403) or (not number and _is_about_key(403, code, b"")):
        refused = "the answer says that our key was refused"
        return Failure(Blame.UPSTREAM, Scope.CREDENTIAL, Retry.ELSEWHERE, "error_event", status, None, refused)
    if number == 402 or _QUOTA.search(code):
        return Failure(Blame.UPSTREAM, Scope.BUCKET, Retry.ELSEWHERE, "insufficient_quota", status, None, detail)
    if number == 429 or _RATE.search(code):
        return Failure(Blame.UPSTREAM, Scope.BUCKET, Retry.LATER, "error_event", status, None, detail, True)
    if number == 404 or _NO_SUCH_MODEL.search(code):
        return Failure(Blame.UPSTREAM, Scope.MODEL, Retry.ELSEWHERE, "model_not_found", status, None, detail)
    if 400 <= number < 500 or "invalid_request" in code:
        return Failure(Blame.UPSTREAM, Scope.NONE, Retry.ELSEWHERE, "error_event", status, None, detail)
    return Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.LATER, "error_event", status, None, detail, number in OVERLOADED)


def error_type(status: int) -> str:
    """OpenAI's name for the kind of error that ``status`` stands for."""
    return ERROR_TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")


def error_body(message: str, type_: str, code: str, param: str | None = None) -> bytes:
    """An error as OpenAI writes it."""
    return orjson.dumps({"error": {"message": message, "type": type_, "code": code, "param": param}})


def error_frame(message: str, type_: str, code: str, param: str | None = None) -> bytes:
    """The event that ends a broken stream: an error, and no ``[DONE]`` after it."""
    return b"data: " + error_body(message, type_, code, param) + b"\n\n"


def redacted(text: str) -> str:
    """One line for people: no key, no control character, no more than ``DETAIL_CHARACTERS_MAX`` characters."""
    clean = _SECRET.sub("***", text[: 4 * DETAIL_CHARACTERS_MAX])
    return "".join(c if c.isprintable() else " " for c in clean)[:DETAIL_CHARACTERS_MAX].strip()


def _error_object(body: bytes) -> dict[str, Any]:
    """The error in a body, in any of the shapes that are about; empty if there is none to be read."""
    if len(body) > BODY_PREFIX_BYTES_MAX:
        return {}
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {**parsed, "message": parsed.get("message") or error}
    return parsed


def _names(error: Mapping[str, Any]) -> str:
    """The machine-readable part of an error: its code, type and status, in lower case."""
    return " ".join(str(error[name]).lower() for name in ("code", "type", "status") if isinstance(error.get(name), str))


def _detail(status: int, error: Mapping[str, Any]) -> str:
    message = error.get("message") or error.get("detail")
    return f"HTTP {status}: {redacted(message)}" if isinstance(message, str) and message else f"HTTP {status}"


def _is_about_key(status: int, code: str, body: bytes) -> bool:
    if b"API_KEY_INVALID" in body:
        return True
    if status == 400:
        return "api_key" in code or "authentication" in code
    return _CREDENTIAL.search(code) is not None
