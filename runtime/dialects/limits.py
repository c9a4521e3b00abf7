"""What response headers say of limits and of waiting. Nonsense counts as nothing said."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from messages.calls import LimitsSeen
from runtime.ports import Headers

WAIT_S_MAX = 3600.0
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,12})?")
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|d|h|m|s)")
LIMITS = {f"x-ratelimit-{what}": what for what in ("remaining-requests", "remaining-tokens", "reset-requests", "reset-tokens")}
"""The headers that tell of limits, and what each tells (``told``)."""
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def retry_after(headers: Headers, wall_s: float | None) -> float | None:
    """Seconds the upstream asks us to wait, 0 to 3600; None if it does not say.

    ``retry-after-ms`` (OpenAI) is finer and wins. A date is measured from the answer's own ``Date``, so that our clock need
    not agree with theirs; without one from ``wall_s``, our Unix time.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in ("retry-after", "retry-after-ms", "date"):
            found.setdefault(lower, value.strip())
    in_ms = found.get("retry-after-ms", "")
    if _NUMBER.fullmatch(in_ms):
        return min(float(in_ms) / 1000.0, WAIT_S_MAX)
    given = found.get("retry-after", "")
    if _NUMBER.fullmatch(given):
        return min(float(given), WAIT_S_MAX)
    until = _unix_s(given)
    if until is None:
        return None
    since = _unix_s(found.get("date", ""))
    since = wall_s if since is None else since
    return None if since is None else min(max(until - since, 0.0), WAIT_S_MAX)


def limits_of(seen: Mapping[str, str]) -> LimitsSeen | None:
    """What the values of ``LIMITS`` say; None if nothing."""
    requests, tokens = _count(seen.get("remaining-requests")), _count(seen.get("remaining-tokens"))
    requests_s, tokens_s = _span_s(seen.get("reset-requests")), _span_s(seen.get("reset-tokens"))
    if requests is None and tokens is None and requests_s is None and tokens_s is None:
        return None
    return LimitsSeen(requests, requests_s, tokens, tokens_s)


def _unix_s(date: str) -> float | None:
    if not date or len(date) > 64:
        return None
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _count(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) <= 15 else None


def _span_s(value: str | None) -> float | None:
    """``1s``, ``6m0s``, ``12ms`` or plain seconds."""
    if not value:
        return None
    seconds = 0.0
    if value[-1].isdecimal():
        if not _NUMBER.fullmatch(value):
            return None
        seconds = float(value)
    else:
        characters = 0
        for number, unit in _SPAN.findall(value):
            seconds += float(number) * _UNIT_S[unit]
            characters += len(number) + len(unit)
        if characters != len(value):
            # There is something else between the parts.
            return None
    # Some send the Unix time of the reset instead; that is no span.
    return seconds if seconds <= 86400.0 else None
