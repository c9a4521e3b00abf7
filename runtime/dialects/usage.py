"""Reading token counts as OpenAI-compatible providers write them."""

from typing import Any

from messages.calls import Usage
from runtime.dialects.request import CHARACTERS_PER_TOKEN

TOKENS_MAX = 10**12
"""A larger count is nonsense and would only upset sums."""


def read_usage(usage: object) -> Usage | None:
    """The counts in a ``usage`` object; None if there is none worth the name."""
    if not isinstance(usage, dict):
        return None
    read, written = _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))
    if read >= 0 and written >= 0 and len(usage) == 3 and "total_tokens" in usage:
        # Two counts and their sum: there is nothing else in it.
        return Usage(read, written)
    inputs = read if read >= 0 else _count(usage, "input_tokens")
    outputs = written if written >= 0 else _count(usage, "output_tokens")
    if inputs is None and outputs is None:
        return None
    cached = _nested(usage, "prompt_tokens_details", "cached_tokens")
    if cached is None:
        cached = _count(usage, "prompt_cache_hit_tokens", "cached_tokens")
    reasoning = _nested(usage, "completion_tokens_details", "reasoning_tokens")
    return Usage(inputs or 0, outputs or 0, cached or 0, reasoning or 0)


def usage_in(parsed: dict[str, Any]) -> Usage | None:
    """The usage in an answer or event. Groq puts that of a stream under ``x_groq``."""
    usage = parsed.get("usage")
    if usage is None:
        extra = parsed.get("x_groq")
        usage = extra.get("usage") if isinstance(extra, dict) else None
    return read_usage(usage)


def estimated_usage(prompt_tokens: int, characters: int) -> Usage:
    """What a call used, by the length of its text."""
    return Usage(prompt_tokens, -(-characters // CHARACTERS_PER_TOKEN), estimated=True)


def _tokens(value: object) -> int:
    """A count of tokens; -1 if it is none."""
    if type(value) is int and 0 <= value <= TOKENS_MAX:
        return value
    return -1


def _count(usage: dict[str, Any], *names: str) -> int | None:
    for name in names:
        if (found := _tokens(usage.get(name))) >= 0:
            return found
    return None


def _nested(usage: dict[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return _count(details, name) if isinstance(details, dict) else None


def text_characters(value: object) -> int:
    """Characters of output in a delta or message: text, reasoning, refusal, arguments of tool calls."""
    if not isinstance(value, dict):
        return 0
    count = 0
    for name in ("content", "reasoning_content", "reasoning", "refusal"):
        text = value.get(name)
        if type(text) is str:
            count += len(text)
    calls = value.get("tool_calls")
    if isinstance(calls, list):
        count += sum(_function_characters(call.get("function")) for call in calls if isinstance(call, dict))
    return count + _function_characters(value.get("function_call"))


def _function_characters(function: object) -> int:
    if not isinstance(function, dict):
        return 0
    return sum(len(text) for name in ("name", "arguments") if type(text := function.get(name)) is str)


def choice_characters(choice: dict[str, Any]) -> int:
    """Characters of output in one choice, of a stream or not, chat or legacy."""
    text = choice.get("text")
    if type(text) is str:
        return len(text)
    delta = choice.get("delta")
    return text_characters(choice.get("message") if delta is None else delta)
