"""Reading an answer that is no stream: is it one, and what did it use? Sans-I/O; the bytes themselves pass through."""

import re
from typing import Any

import orjson

from messages.base import acyclic
from messages.calls import Usage
from messages.failures import Blame, Failure, Retry, Scope
from runtime.dialects.errors import error_in, failure_of_error
from runtime.dialects.request import Endpoint
from runtime.dialects.shapes import COMPLETION, EMBEDDINGS, NO_SHAPE, PARTS, Counts
from runtime.dialects.told import told
from runtime.dialects.usage import choice_characters, estimated_usage, read_usage, usage_in
from runtime.ports import Headers

PARSED_BYTES_MAX = 1024 * 1024
"""A longer list of embeddings is only looked at: parsing it would hold up everybody for milliseconds."""
GLANCE_BYTES = 4096

REASONS_MAX = 16
"""Finish reasons that are told."""

_USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*\})')
_MODEL = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.){0,256}")')


# A constant is at hand, a module's function is looked up.
LOADS = orjson.loads
READ_COMPLETION, READ_EMBEDDINGS, PARTS_OF = COMPLETION, EMBEDDINGS, PARTS


@acyclic
class Answer:
    """A whole answer, and what traces and statistics want of it. Most requests are not traced: what is only for them waits."""

    __slots__ = ("_has_choices", "_parsed", "body", "usage")

    def __init__(self, body: bytes, usage: Usage, has_choices: bool, parsed: dict[str, Any] | None = None) -> None:
        self.body = body
        self.usage = usage
        self._has_choices = has_choices
        self._parsed = parsed

    @property
    def response_id(self) -> str:
        """The provider's name for it; empty if it gave none."""
        return _text(self._told().get("id"))

    @property
    def model(self) -> str:
        """The model that has answered, as the provider has it; empty if it does not say."""
        return _text(self._told().get("model"))

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """Why the choices end, as far as they tell."""
        choices = self._told().get("choices", []) if self._has_choices else []
        told = [choice.get("finish_reason") for choice in choices if type(choice) is dict]
        return tuple([reason for reason in told if type(reason) is str][:REASONS_MAX])

    def _told(self) -> dict[str, Any]:
        """What it says, parsed when somebody asks."""
        parsed = self._parsed
        if parsed is None:
            try:
                parsed = LOADS(self.body)
            except orjson.JSONDecodeError:
                # There is a number in it that no double can hold.
                parsed = {}
            self._parsed = parsed
        return parsed


def read_answer(endpoint: Endpoint, status: int, headers: Headers, body: bytes, prompt_tokens: int) -> Answer | Failure:
    """Read a 2xx answer. ``prompt_tokens`` is the estimate to use where the provider counts nothing."""
    return encoded(status) if told(headers).is_encoded else read_body(endpoint, status, body, prompt_tokens)


def read_body(endpoint: Endpoint, status: int, body: bytes, prompt_tokens: int) -> Answer | Failure:
    """The same, where the headers have been looked at."""
    if endpoint == "embeddings" and len(body) > PARSED_BYTES_MAX and not body.isspace():
        return _glance(status, body, prompt_tokens)
    usage = _usage_told(endpoint, body)
    if usage is not None:
        return Answer(body, usage, endpoint != "embeddings")
    try:
        parsed = LOADS(body)
    except orjson.JSONDecodeError as error:
        if not body or body.isspace():
            return unreadable("empty", status, "the body is empty")
        return unreadable("not_json", status, f"not JSON: {error.msg}")
    if not isinstance(parsed, dict):
        return unreadable("not_json", status, "JSON, but no object")
    name = "data" if endpoint == "embeddings" else "choices"
    items = parsed.get(name)
    if not isinstance(items, list):
        fault = error_in(parsed)
        return failure_of_error(fault, status) if fault else unreadable(f"no_{name}", status, f"no {name} in it")
    if not items and name == "choices":
        return unreadable("no_choices", status, "no choices in it")
    usage = usage_in(parsed)
    if usage is None:
        choices = items if name == "choices" else []
        characters = sum(choice_characters(choice) for choice in choices if isinstance(choice, dict))
        usage = estimated_usage(prompt_tokens, characters)
    return Answer(body, usage, name == "choices", parsed)


def unreadable(code: str, status: int, detail: str) -> Failure:
    """An answer that is none: the provider's fault, and another one may do."""
    return Failure(Blame.UPSTREAM, Scope.PROVIDER, Retry.ELSEWHERE, code, status, None, detail)


def encoded(status: int) -> Failure:
    """An answer that is compressed, so that nobody here can read it."""
    return unreadable("content_encoding", status, "compressed although we asked for identity")


def _usage_told(endpoint: Endpoint, body: bytes) -> Usage | None:
    """The usage of an answer that is as most are; None: it has to be read whole to know what it is."""
    # Of what is skipped nobody asks whether it is UTF-8, and long texts of other scripts are read sooner by orjson.
    if not body.isascii():
        return None
    try:
        if endpoint == "embeddings":
            return read_usage(READ_EMBEDDINGS(body).usage)
        found = READ_COMPLETION(body)
    except NO_SHAPE:
        return None
    counts = found.usage
    return _usage(counts) if counts is not None and found.choices else None


def _usage(counts: Counts) -> Usage:
    """The same as ``read_usage`` makes of it."""
    read, written, of_read, of_written, hits, flat = PARTS_OF(counts)
    cached = of_read.cached_tokens if of_read is not None else None
    if cached is None:
        cached = flat if hits is None else hits
    reasoning = of_written.reasoning_tokens if of_written is not None else None
    return Usage(read, written, cached or 0, reasoning or 0)


def _text(value: object) -> str:
    return value if type(value) is str else ""


def _glance(status: int, body: bytes, prompt_tokens: int) -> Answer | Failure:
    """A long list of embeddings: begins and ends as it should, has data, and its usage stands near either end."""
    head, tail = body[:GLANCE_BYTES], body[-GLANCE_BYTES:]
    if not head.lstrip().startswith(b"{") or not tail.rstrip().endswith(b"}"):
        return unreadable("not_json", status, "JSON, but no object" if head.lstrip().startswith(b"[") else "not JSON")
    if b'"data"' not in head and b'"data"' not in body:
        return unreadable("no_data", status, "no data in it")
    found = _USAGE.search(tail) or _USAGE.search(head)
    usage = None
    if found is not None:
        try:
            usage = read_usage(orjson.loads(found.group(1)))
        except orjson.JSONDecodeError:
            usage = None
    named = _MODEL.search(tail) or _MODEL.search(head)
    parsed = {"model": orjson.loads(named.group(1))} if named is not None else {}
    return Answer(body, usage or estimated_usage(prompt_tokens, 0), False, parsed)
