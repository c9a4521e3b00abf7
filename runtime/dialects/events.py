"""What one event of an OpenAI-compatible stream is: still nothing, content, an error, or the end. Sans-I/O."""

import re
from enum import Enum
from typing import Any

import orjson

from runtime.dialects.errors import error_in
from runtime.dialects.sse import event_data


class Verdict(Enum):
    """What an event before the commit leads to (DESIGN, Commit)."""

    HOLD = "hold"
    COMMIT = "commit"
    FAIL = "fail"
    DONE = "done"


_NULL_REASON, _REASON = b'"finish_reason":null', b'"finish_reason"'
_NULL_USAGE, _USAGE = b'"usage":null', b'"usage"'
# With spaces, as json.dumps writes them; slower, so asked only where the plain search could not tell.
_TELLING = re.compile(rb'"usage"\s*:\s*\{|"finish_reason"\s*:\s*(?!null)["{\[\d]')


def is_dull(data: bytes) -> bool:
    """True if none of the events in ``data`` has a finish reason, usage, an error, or is the end: just text.

    May say False of an event that is dull, never True of one that is not. Text cannot mimic the names: its quotation marks
    are escaped.
    """
    if b"[DONE]" in data or b'"error"' in data:
        return False
    if _REASON in data and data.count(_REASON) != data.count(_NULL_REASON):
        return _TELLING.search(data) is None
    if _USAGE in data and data.count(_USAGE) != data.count(_NULL_USAGE):
        return _TELLING.search(data) is None
    return True


_PLAIN = re.compile(rb'"delta":\{(?:"role":"assistant",)?"content":"([^"\\]*)"\}')


def plain_characters(data: bytes) -> int | None:
    """How many characters of text dull events hold, if each is of the shape nearly all have; None: they have to be read."""
    texts = _PLAIN.findall(data)
    if len(texts) != data.count(b"data:"):
        return None
    text: bytes = texts[0] if len(texts) == 1 else b"".join(texts)
    return len(text) if text.isascii() else len(text.decode("utf-8", "replace"))


def verdict_on(event: bytes) -> tuple[Verdict, dict[str, Any] | None]:
    """What an event before the commit leads to, and the object in it, if there is one."""
    data = event_data(event)
    if data is None or not (text := data.strip()):
        return Verdict.HOLD, None
    if text == b"[DONE]":
        return Verdict.DONE, None
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Verdict.FAIL, None
    if not isinstance(parsed, dict):
        return Verdict.COMMIT, None
    if error_in(parsed):
        return Verdict.FAIL, parsed
    choices = parsed.get("choices")
    if not isinstance(choices, list):
        return Verdict.COMMIT, parsed
    return (Verdict.COMMIT if any(_has_content(choice) for choice in choices) else Verdict.HOLD), parsed


def _has_content(choice: object) -> bool:
    """True for all but a choice that is known to say nothing yet."""
    if not isinstance(choice, dict) or choice.get("finish_reason"):
        return True
    if choice.get("text"):
        return True
    delta = choice.get("delta")
    if delta is None:
        return "delta" not in choice and "text" not in choice
    if not isinstance(delta, dict):
        return True
    return any(value not in (None, "", [], {}) for name, value in delta.items() if name != "role")
