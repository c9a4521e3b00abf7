"""Questions of the command line to the admin API of a live daemon."""

import urllib.error
import urllib.request
from typing import Any

import orjson

ANSWER_BYTES_MAX = 16 * 1024 * 1024
ASK_S = 30.0
"""A probe may take its 15 s."""


class CannotAsk(Exception):
    """There is no answer, or it is an error; the message says why. ``is_usage``: the question makes no sense."""

    def __init__(self, message: str, *, is_usage: bool = False) -> None:
        super().__init__(message)
        self.is_usage = is_usage


def ask(method: str, url: str, path: str, admin_key: str) -> dict[str, Any]:
    """What the daemon at ``url`` answers to a request without a body. Raises ``CannotAsk``."""
    if not url.startswith(("http://", "https://")):
        raise CannotAsk(f"{url!r} is no http(s) address", is_usage=True)
    headers = {"Content-Type": "application/json"}
    if admin_key:
        headers["Authorization"] = f"Bearer {admin_key}"
    address = url.rstrip("/") + path
    request = urllib.request.Request(address, b"{}" if method == "POST" else None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ASK_S) as answer:
            told = orjson.loads(answer.read(ANSWER_BYTES_MAX))
    except urllib.error.HTTPError as error:
        raise CannotAsk(f"{address} answered {error.code}: {_message(error.read(ANSWER_BYTES_MAX))}") from error
    except (OSError, ValueError) as error:
        raise CannotAsk(f"{address}: {error}") from error
    if not isinstance(told, dict):
        raise CannotAsk(f"{address} gave no object")
    return told


def _message(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "no message"
