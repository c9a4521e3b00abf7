"""Questions of the command line to the admin API of a live daemon."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import orjson

ANSWER_BYTES_MAX = 16 * 1024 * 1024
ASK_S = 30.0
"""A probe may take its 15 s."""


class CannotAsk(Exception):
    """There is no answer, or it is an error; the message says why. ``status``: of the answer, 0: there is none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def ask(method: str, url: str, path: str, admin_key: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the daemon at ``url`` answers to a request. Raises ``CannotAsk``."""
    if not url.startswith(("http://", "https://")):
        raise CannotAsk(f"{url!r} is no http(s) address")
    headers = {"Content-Type": "application/json"}
    if admin_key:
        headers["Authorization"] = f"Bearer {admin_key}"
    address = url.rstrip("/") + path
    sent = None if body is None else orjson.dumps(body)
    request = urllib.request.Request(address, sent, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ASK_S) as answer:
            told = orjson.loads(answer.read(ANSWER_BYTES_MAX))
    except urllib.error.HTTPError as error:
        text = f"{address} answered {error.code}: {_message(error.read(ANSWER_BYTES_MAX))}"
        raise CannotAsk(text, error.code) from error
    except (OSError, ValueError) as error:
        raise CannotAsk(f"{address}: {_reason(error)}") from error
    if not isinstance(told, dict):
        raise CannotAsk(f"{address} gave no object")
    return told


def _reason(error: Exception) -> str:
    """Why there was no answer, without the names of Python's classes."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{text}; is the daemon running there?" if isinstance(error, ConnectionRefusedError) else text


def _message(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "no message"
