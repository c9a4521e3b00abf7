"""Builds OpenAI-shaped bodies: answers whole and in frames, embeddings, lists of models, errors. Pure."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from runtime.simulation.behaviour import unit
from runtime.simulation.openai_request import Embeddings, ToolChoice

DONE = b"data: [DONE]\n\n"
_WORDS = (
    *("the", "signal", "at", "the", "junction", "is", "set", "and", "every", "train", "takes", "the", "track", "that"),
    *("suits", "it", "best", "today", "while", "the", "points", "are", "swept", "of", "snow", "and", "the", "lamps"),
    *("are", "lit", "before", "the", "night", "mail", "comes", "through"),
)
_SPOKEN = tuple(f" {word}" for word in _WORDS)
_ARGUMENT_CHARS = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """What all frames of one answer share."""

    id: str
    created: int
    """Unix seconds."""
    model: str
    chat: bool
    fingerprint: str
    tokens: tuple[str, ...]
    """The text in tokens; of a tool call: its arguments."""
    tool: ToolChoice | None
    finish_reason: str
    prompt_tokens: int
    include_usage: bool = False

    @property
    def usage(self) -> dict[str, int]:
        """Tokens as OpenAI counts them."""
        made = len(self.tokens)
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": made, "total_tokens": self.prompt_tokens + made}


def text_tokens(provider: str, key: str, count: int) -> tuple[str, ...]:
    """``count`` tokens of text that begin with the provider's name and depend on ``key``."""
    offset = int(unit(key, "words") * len(_WORDS))
    repeats = (offset + count) // len(_SPOKEN) + 1
    return (f"[{provider}]", *(_SPOKEN * repeats)[offset : offset + count - 1])


def argument_tokens(tool: ToolChoice) -> tuple[str, ...]:
    """The JSON arguments of a call of ``tool`` in tokens: a plain value for each property its schema requires."""
    properties = tool.parameters.get("properties")
    schemas: Mapping[str, Any] = properties if isinstance(properties, dict) else {}
    required = tool.parameters.get("required")
    names = [str(name) for name in required] if isinstance(required, list) else list(schemas)
    text = orjson.dumps({name: _example(schemas.get(name)) for name in names}).decode()
    return tuple(text[start : start + _ARGUMENT_CHARS] for start in range(0, len(text), _ARGUMENT_CHARS))


def _example(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return "simulated"
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    plain: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}
    kind = schema.get("type")
    return plain.get(kind, "simulated") if isinstance(kind, str) else "simulated"


def whole(answer: Answer) -> bytes:
    """A ``chat.completion`` or ``text_completion`` object."""
    text = "".join(answer.tokens)
    content: dict[str, Any]
    if not answer.chat:
        content = {"text": text}
    elif answer.tool is None:
        content = {"message": {"role": "assistant", "content": text, "refusal": None}}
    else:
        content = {"message": {"role": "assistant", "content": None, "tool_calls": [_tool_call(answer, text)]}}
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": answer.finish_reason}
    kind = "chat.completion" if answer.chat else "text_completion"
    return orjson.dumps(_head(answer, kind) | {"choices": [choice], "usage": answer.usage})


def opening_frames(answer: Answer) -> list[bytes]:
    """The frames before the first content: the role, and the name of the tool that is called."""
    if not answer.chat:
        return []
    frames = [_frame(answer, {"delta": {"role": "assistant", "content": None if answer.tool else ""}})]
    if answer.tool:
        frames.append(_frame(answer, {"delta": {"tool_calls": [{"index": 0, **_tool_call(answer, "")}]}}))
    return frames


def content_frame(answer: Answer, tokens: Sequence[str]) -> bytes:
    """One frame with some tokens of text or arguments."""
    text = "".join(tokens)
    if not answer.chat:
        return _frame(answer, {"text": text})
    if answer.tool:
        return _frame(answer, {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}})
    return _frame(answer, {"delta": {"content": text}})


def closing_frames(answer: Answer) -> list[bytes]:
    """The finish reason, the usage if it was asked for, and the end."""
    frames = [_frame(answer, {"delta": {}} if answer.chat else {"text": ""}, answer.finish_reason)]
    if answer.include_usage:
        frames.append(_data(_head(answer, _frame_kind(answer)) | {"choices": [], "usage": answer.usage}))
    return [*frames, DONE]


def embeddings(request: Embeddings, seed: object) -> bytes:
    """A list of vectors that depend on nothing but seed, model and text."""
    data = []
    for index, text in enumerate(request.inputs):
        vector = [2 * unit(seed, request.model, text, place) - 1 for place in range(request.dimensions)]
        coded: Any = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if request.base64 else vector
        data.append({"object": "embedding", "index": index, "embedding": coded})
    usage = {"prompt_tokens": request.prompt_tokens, "total_tokens": request.prompt_tokens}
    return orjson.dumps({"object": "list", "data": data, "model": request.model, "usage": usage})


def model(name: str, owner: str, created: int) -> dict[str, Any]:
    """One entry of the list of models."""
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def model_list(names: Sequence[str], owner: str, created: int) -> bytes:
    """The answer to ``GET /models``."""
    return orjson.dumps({"object": "list", "data": [model(name, owner, created) for name in names]})


def error(message: str, kind: str, code: str | None = None, param: str | None = None) -> bytes:
    """An error in OpenAI's shape."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": answer.id,
        "object": kind,
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": answer.fingerprint,
    }


def _frame_kind(answer: Answer) -> str:
    return "chat.completion.chunk" if answer.chat else "text_completion"


def _frame(answer: Answer, content: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}
    frame = _head(answer, _frame_kind(answer)) | {"choices": [choice]}
    if answer.include_usage:
        frame["usage"] = None
    return _data(frame)


def _data(frame: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(frame) + b"\n\n"


def _tool_call(answer: Answer, arguments: str) -> dict[str, Any]:
    assert answer.tool is not None
    return {"id": f"call_{answer.id}", "type": "function", "function": {"name": answer.tool.name, "arguments": arguments}}
