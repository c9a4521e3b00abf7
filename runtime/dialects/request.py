"""Reading a client's request: what choosing needs to know, and what is wrong with it. Sans-I/O.

Only what Pointsman itself relies on is checked; everything else is the upstream's to judge and passes through untouched.
"""

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from messages.base import acyclic
from runtime.dialects.outline import LARGE_BYTES, Outline, outlined

Endpoint = Literal["chat", "completions", "embeddings"]

CHARACTERS_PER_TOKEN = 4
"""FEATURES A4: the estimate where no tokenizer is at hand."""
PART_TOKENS = 85
"""A picture, sound or file counts flat: what OpenAI charges for a low-detail picture."""
MODEL_CHARACTERS_MAX = 256
"""Model names travel in messages, headers and records, so they are bounded."""
NAMES_SEEN_MAX = 1024
_NAMES_SEEN: dict[str, str] = {}
"""Names of models that may be, each as the string that came first: few, the same again and again, and looked up all the way."""
IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})


# A constant is at hand, a module's function is looked up.
LOADS = orjson.loads


class BadRequest(Exception):
    """The request cannot be served by anybody. ``param`` names the field at fault, if it is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@acyclic
@dataclass(slots=True)
class ReadRequest:
    """A request as it was understood."""

    body: bytes
    """As it came."""
    parsed: dict[str, Any]
    """Of a large body its outline: long strings are cut short."""
    model: str
    stream: bool
    max_tokens: int | None
    prompt_tokens: int
    """An estimate."""
    needs: tuple[str, ...]
    """Capabilities, sorted."""
    user: str
    wants_usage: bool
    """The client asked for a stream's usage chunk."""
    has_stream_options: bool
    outline: Outline | None = None
    """What was parsed, if it was not the whole body."""


def read_request(endpoint: Endpoint, body: bytes) -> ReadRequest:
    """Read ``body`` as a request to ``endpoint``. Raises ``BadRequest``."""
    outline = outlined(body) if len(body) >= LARGE_BYTES else None
    return _read(endpoint, body, _parsed(body, outline), outline)


def _parsed(body: bytes, outline: Outline | None) -> Any:
    try:
        return LOADS(body if outline is None else outline.text)
    except orjson.JSONDecodeError as error:
        if outline is not None:
            # Places are told as the client has them.
            return _parsed(body, None)
        where = f"line {error.lineno} column {error.colno} (char {error.pos})"
        raise BadRequest(f"The body is not valid JSON: {error.msg} at {where}.") from None


def _read(endpoint: Endpoint, body: bytes, parsed: Any, outline: Outline | None) -> ReadRequest:
    if type(parsed) is not dict:
        raise BadRequest("The body must be a JSON object.")
    named = parsed.get("model")
    model = _NAMES_SEEN.get(named) if type(named) is str else None
    if model is None:
        model = _checked_model(named)
    stream = parsed.get("stream")
    if stream is not None and stream is not True and stream is not False:
        raise BadRequest("stream must be true or false.", "stream")
    is_stream = stream is True
    max_tokens = None if endpoint == "embeddings" else _max_tokens(endpoint, parsed)
    tools = parsed.get("tools") or parsed.get("functions")
    user = parsed.get("user")
    if outline is not None and type(user) is str and outline.is_cut(user):
        return _read(endpoint, body, _parsed(body, None), None)
    characters = _plain_characters(parsed.get("messages"), outline) if endpoint == "chat" else None
    tokens = opaque = 0
    has_image = False
    if characters is None:
        counted = _counted(endpoint, parsed, outline)
        characters, tokens, opaque, has_image = counted.characters, counted.tokens, counted.opaque, counted.has_image
    if tools:
        characters += _tools_characters(tools, body, characters + opaque, outline)
    has_stream_options = "stream_options" in parsed
    options = parsed["stream_options"] if has_stream_options and is_stream else None
    return ReadRequest(
        body,
        parsed,
        model,
        is_stream,
        max_tokens,
        (characters + CHARACTERS_PER_TOKEN - 1) // CHARACTERS_PER_TOKEN + tokens,
        _needs(endpoint, parsed, bool(tools), has_image, is_stream),
        user if type(user) is str else "",
        type(options) is dict and options.get("include_usage") is True,
        has_stream_options,
        outline,
    )


def _checked_model(model: object) -> str:
    if type(model) is not str or not 0 < len(model) <= MODEL_CHARACTERS_MAX or not model.isprintable():
        raise _model_problem(model)
    if len(_NAMES_SEEN) < NAMES_SEEN_MAX:
        _NAMES_SEEN[model] = model
    return model


def _model_problem(model: object) -> BadRequest:
    if model is None:
        return BadRequest("You must provide a model parameter.", "model")
    if type(model) is not str or not model:
        return BadRequest("model must be a non-empty string.", "model")
    if len(model) > MODEL_CHARACTERS_MAX:
        return BadRequest(f"model must have at most {MODEL_CHARACTERS_MAX} characters.", "model")
    return BadRequest("model must not contain control characters.", "model")


def _max_tokens(endpoint: Endpoint, parsed: dict[str, Any]) -> int | None:
    name = "max_completion_tokens"
    value = parsed.get(name)
    if value is None:
        name = "max_tokens"
        value = parsed.get(name)
        if value is None:
            return None
    # Legacy completions may ask for no output at all: that is how prompts are scored.
    if type(value) is not int or value < (0 if endpoint == "completions" else 1):
        raise BadRequest(f"{name} must be a positive integer.", name)
    return value


def _needs(endpoint: Endpoint, parsed: dict[str, Any], has_tools: bool, has_image: bool, stream: bool) -> tuple[str, ...]:
    # Written in alphabetical order, so there is nothing to sort.
    if endpoint == "embeddings":
        return ("embeddings",)
    if not has_tools and not has_image and "response_format" not in parsed:
        return ("chat", "streaming") if stream else ("chat",)
    answer_format = parsed.get("response_format")
    kind = answer_format.get("type") if type(answer_format) is dict else None
    is_json = kind in ("json_object", "json_schema")
    flags = (("chat", True), ("json", is_json), ("streaming", stream), ("tools", has_tools), ("vision", has_image))
    return tuple(name for name, is_needed in flags if is_needed)


@dataclass(slots=True)
class _Counted:
    """What the input amounts to. ``opaque`` is the length of data that is in the body but is no text."""

    outline: Outline | None
    characters: int = 0
    tokens: int = 0
    opaque: int = 0
    has_image: bool = False

    def length(self, text: str) -> int:
        """The length of a string of the input, in characters."""
        return len(text) if self.outline is None else self.outline.characters(text)


def _plain_characters(messages: object, outline: Outline | None) -> int | None:
    """Characters of messages that are text and nothing else, as they mostly are; None: look closer (``_counted``)."""
    if type(messages) is not list:
        return None
    characters = 0
    for entry in messages:
        if type(entry) is not dict or "tool_calls" in entry:
            return None
        content = entry.get("content")
        if type(content) is not str:
            return None
        characters += len(content) if outline is None else outline.characters(content)
    return characters


def _counted(endpoint: Endpoint, parsed: dict[str, Any], outline: Outline | None) -> _Counted:
    counted = _Counted(outline)
    if endpoint == "chat":
        messages = parsed.get("messages")
        if type(messages) is not list:
            problem = "You must provide a messages parameter." if messages is None else "messages must be a list."
            raise BadRequest(problem, "messages")
        for entry in messages:
            if type(entry) is dict:
                _count_message(entry, counted)
        return counted
    name = "prompt" if endpoint == "completions" else "input"
    given = parsed.get(name)
    if given is None:
        raise BadRequest(f"You must provide {'a prompt' if name == 'prompt' else 'an input'} parameter.", name)
    _count_input(given, counted)
    return counted


def _count_message(entry: dict[str, Any], counted: _Counted) -> None:
    content = entry.get("content")
    if type(content) is str:
        counted.characters += counted.length(content)
    elif type(content) is list:
        for part in content:
            if type(part) is dict:
                _count_part(part, counted)
    calls = entry.get("tool_calls")
    if type(calls) is list:
        for call in calls:
            function = call.get("function") if type(call) is dict else None
            arguments = function.get("arguments") if type(function) is dict else None
            if type(arguments) is str:
                counted.characters += counted.length(arguments)


def _count_part(part: dict[str, Any], counted: _Counted) -> None:
    text = part.get("text")
    if type(text) is str:
        counted.characters += counted.length(text)
        return
    kind = part.get("type")
    counted.tokens += PART_TOKENS
    if type(kind) is not str:
        return
    counted.has_image = counted.has_image or kind in IMAGE_PARTS
    data = part.get(kind)
    values = data.values() if type(data) is dict else (data,)
    counted.opaque += sum(counted.length(value) for value in values if type(value) is str)


def _count_input(given: object, counted: _Counted) -> None:
    """A string, a list of strings, a list of token numbers, or a list of such lists."""
    if type(given) is str:
        counted.characters += counted.length(given)
    elif type(given) is list:
        for item in given:
            if type(item) is str:
                counted.characters += counted.length(item)
            elif type(item) is list:
                counted.tokens += len(item)
            else:
                counted.tokens += 1


def _tools_characters(tools: object, body: bytes, others: int, outline: Outline | None) -> int:
    """The length of the tools as JSON: what is left of the body once the ``others`` characters are taken off.

    That is no measure where text was escaped or is not ASCII; only then the tools are written out to be measured.
    """
    if body.isascii() and b"\\u" not in (body if outline is None else outline.text):
        return max(0, len(body) - others)
    if outline is not None:
        whole = _parsed(body, None)
        tools = whole.get("tools") or whole.get("functions")
    return len(orjson.dumps(tools))
