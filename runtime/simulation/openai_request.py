"""Reads OpenAI-shaped requests as far as a simulated provider needs them. What it does not know it lets be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from runtime.simulation.behaviour import ANSWER_TOKENS_MAX

INPUTS_MAX = 2048
DIMENSIONS_MAX = 3072
_CHARS_PER_TOKEN = 4
ANSWER_TOKENS_FIELD = "simulated_output_tokens"
"""In ``metadata``, as text: how long the answer would be if ``max_tokens`` did not end it. Real providers pay no heed."""


class BadRequest(Exception):
    """The client's own fault, with what OpenAI says to it."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The tool the answer must call."""

    name: str
    parameters: Mapping[str, Any]
    """JSON Schema of its arguments."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A request for a text: a chat completion, or a legacy completion (``chat`` is False)."""

    chat: bool
    model: str
    stream: bool
    include_usage: bool
    max_tokens: int | None
    prompt_tokens: int
    tool: ToolChoice | None
    wanted_tokens: int | None = None
    """How long the answer would be without ``max_tokens``; None: as chance has it."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A request for vectors."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int
    base64: bool
    prompt_tokens: int


def parse(kind: str, body: bytes) -> Generation | Embeddings:
    """Read the body of a POST to ``/chat/completions``, ``/completions`` or ``/embeddings``. Raises ``BadRequest``."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("We could not parse the JSON body of your request.") from None
    if not isinstance(data, dict):
        raise BadRequest("The JSON body of your request must be an object.")
    model = data.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter", param="model")
    if data.get("n") not in (None, 1):
        raise BadRequest("This simulated provider gives one choice only.", param="n", code="unsupported_value")
    if kind == "/embeddings":
        return _embeddings(model, data)
    return _generation(kind == "/chat/completions", model, data)


def _generation(chat: bool, model: str, data: dict[str, Any]) -> Generation:
    prompt = data.get("messages" if chat else "prompt")
    if chat and (not isinstance(prompt, list) or not prompt or not all(isinstance(item, dict) for item in prompt)):
        raise _invalid("messages", "a non-empty array of objects")
    if not chat and not isinstance(prompt, str | list):
        raise _invalid("prompt", "a string or an array")
    options = data.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise _invalid("stream_options", "an object")
    return Generation(
        chat=chat,
        model=model,
        stream=_flag(data, "stream"),
        include_usage=_flag(options or {}, "include_usage"),
        max_tokens=_max_tokens(data),
        prompt_tokens=tokens_of(prompt),
        tool=_tool(data) if chat else None,
        wanted_tokens=_wanted_tokens(data.get("metadata")),
    )


def _wanted_tokens(metadata: Any) -> int | None:
    wanted = metadata.get(ANSWER_TOKENS_FIELD) if isinstance(metadata, dict) else None
    if not isinstance(wanted, str) or not wanted.isascii() or not wanted.isdecimal() or len(wanted) > 9:
        return None
    return min(max(1, int(wanted)), ANSWER_TOKENS_MAX)


def _flag(data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise _invalid(name, "a boolean")
    return bool(value)


def _max_tokens(data: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = data.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _invalid(name, "an integer of at least 1")
        if value > ANSWER_TOKENS_MAX:
            raise BadRequest(f"{name} is too large: {value}. At most {ANSWER_TOKENS_MAX} can be made.", param=name)
        return value
    return None


def _tool(data: Mapping[str, Any]) -> ToolChoice | None:
    tools, choice = data.get("tools"), data.get("tool_choice")
    if tools is None:
        if choice not in (None, "none", "auto"):
            raise BadRequest("'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise _invalid("tools", "an array of objects")
    functions = [tool["function"] for tool in tools if isinstance(tool.get("function"), dict)]
    schemas: dict[str, Any] = {str(function.get("name", "")): function.get("parameters") for function in functions}
    if choice in (None, "none", "auto"):
        return None
    if choice == "required":
        wanted = next(iter(schemas), "")
    elif isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        wanted = str(choice["function"].get("name", ""))
    else:
        raise _invalid("tool_choice", "'none', 'auto', 'required' or a function's name in an object")
    if not wanted or wanted not in schemas:
        raise BadRequest("Tool choice not found in 'tools' parameter.", param="tool_choice")
    parameters = schemas[wanted]
    return ToolChoice(wanted, parameters if isinstance(parameters, dict) else {})


def _embeddings(model: str, data: Mapping[str, Any]) -> Embeddings:
    given = data.get("input")
    if isinstance(given, str):
        inputs = [given]
    elif isinstance(given, list) and given and all(isinstance(item, int) for item in given):
        inputs = [_text(given)]
    elif isinstance(given, list) and given and all(isinstance(item, str | list) for item in given):
        inputs = [item if isinstance(item, str) else _text(item) for item in given]
    else:
        raise _invalid("input", "a string, an array of strings, or arrays of tokens")
    if len(inputs) > INPUTS_MAX:
        raise BadRequest(f"'input' has more than {INPUTS_MAX} items.", param="input")
    dimensions = data.get("dimensions", 16)
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or not 1 <= dimensions <= DIMENSIONS_MAX:
        raise _invalid("dimensions", f"an integer from 1 to {DIMENSIONS_MAX}")
    encoding = data.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise _invalid("encoding_format", "'float' or 'base64'")
    return Embeddings(model, tuple(inputs), dimensions, encoding == "base64", sum(map(tokens_of, inputs)))


def tokens_of(value: Any) -> int:
    """An estimate of the tokens in a prompt, the same at every provider: a quarter of its characters, at least 1."""
    return max(1, math.ceil(len(_text(value)) / _CHARS_PER_TOKEN))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _invalid(param: str, wanted: str) -> BadRequest:
    return BadRequest(f"Invalid value for '{param}': expected {wanted}.", param=param, code="invalid_value")
