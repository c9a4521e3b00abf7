"""Plans of the answers a simulated provider gives: texts, vectors, and what comes instead of them. Pure.

The prompt is read before the first token. Tokens come evenly: token ``i`` (from 0) is there ``i / tokens_per_second`` after the
first. The first chunk of a stream has one token, so that its time is the time to the first byte; a whole answer comes when its
last token is made.
"""

from dataclasses import dataclass, replace

from runtime.simulation import openai_api
from runtime.simulation.behaviour import Luck, answer_tokens
from runtime.simulation.limits import HeaderPairs, retry_headers
from runtime.simulation.openai_request import BadRequest, Embeddings, Generation
from runtime.simulation.plan import AnswerPlan, Ending, Piece, short

ERROR_S = 0.005
"""Seconds in which an error is answered."""
JSON: HeaderPairs = (("Content-Type", "application/json"),)
_STREAM: HeaderPairs = (("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache"))


@dataclass(frozen=True, slots=True)
class Service:
    """The circumstances of one answer when its service begins."""

    luck: Luck
    slowness: float
    """By what all times are multiplied."""
    is_cut: bool
    created: int
    """Unix seconds."""


def output_tokens(request: Generation | Embeddings, luck: Luck) -> int:
    """How long the answer will be, for the token limit."""
    if isinstance(request, Embeddings):
        return 0
    if request.tool is not None:
        return len(openai_api.argument_tokens(request.tool))
    if request.wanted_tokens is not None:
        return request.wanted_tokens if request.max_tokens is None else min(request.wanted_tokens, request.max_tokens)
    return answer_tokens(luck.seed, luck.key) if request.max_tokens is None else request.max_tokens


def planned(request: Generation | Embeddings, service: Service) -> AnswerPlan:
    """The answer to a request that is served."""
    if isinstance(request, Embeddings):
        body = openai_api.embeddings(request, service.luck.seed)
        plan = short("ok", 200, JSON, body, _token_at_s(service, request.prompt_tokens, 1))
    elif request.stream:
        plan = _stream(_answer(request, service), service)
    else:
        answer = _answer(request, service)
        wait_s = _token_at_s(service, answer.prompt_tokens, len(answer.tokens))
        body = openai_api.whole(answer)
        plan = replace(short("ok", 200, JSON, body, wait_s), pieces=(Piece(wait_s, body, len(answer.tokens)),))
    plan = replace(plan, input_tokens=request.prompt_tokens)
    return _cut(plan, service.luck) if service.is_cut else plan


def _answer(request: Generation, service: Service) -> openai_api.Answer:
    luck = service.luck
    if request.tool is not None:
        tokens, reason = openai_api.argument_tokens(request.tool), "tool_calls"
    else:
        tokens = openai_api.text_tokens(luck.behaviour.name, luck.key, output_tokens(request, luck))
        is_ended = request.max_tokens is not None and (request.wanted_tokens or request.max_tokens) >= request.max_tokens
        reason = "length" if is_ended else "stop"
    prefix = "chatcmpl" if request.chat else "cmpl"
    return openai_api.Answer(
        id=f"{prefix}-{luck.behaviour.name}-{luck.key}-{luck.attempt}",
        created=service.created,
        model=request.model,
        chat=request.chat,
        fingerprint=f"fp_{luck.behaviour.name}",
        tokens=tokens,
        tool=request.tool,
        finish_reason=reason,
        prompt_tokens=request.prompt_tokens,
        include_usage=request.include_usage,
    )


def _token_at_s(service: Service, prompt_tokens: int, count: int) -> float:
    luck, behaviour = service.luck, service.luck.behaviour
    return (luck.first_byte_s() + behaviour.prefill_s(prompt_tokens) + behaviour.generation_s(count)) * service.slowness


def _stream(answer: openai_api.Answer, service: Service) -> AnswerPlan:
    first_s = _token_at_s(service, answer.prompt_tokens, 1)
    pieces = [Piece(first_s, frame) for frame in openai_api.opening_frames(answer)]
    start, end = 0, 1
    while start < len(answer.tokens):
        tokens = answer.tokens[start:end]
        made = start + len(tokens)
        pieces.append(
            Piece(_token_at_s(service, answer.prompt_tokens, made), openai_api.content_frame(answer, tokens), len(tokens))
        )
        start, end = made, made + service.luck.behaviour.chunk_tokens
    last_s = pieces[-1].at_s
    pieces.extend(Piece(last_s, frame) for frame in openai_api.closing_frames(answer))
    return AnswerPlan("ok", 200, _STREAM, first_s, tuple(pieces))


def _cut(plan: AnswerPlan, luck: Luck) -> AnswerPlan:
    """Break a plan off in its middle: after some content, before the finish reason; half of the time within a frame."""
    if plan.length is not None:
        whole = plan.pieces[0]
        half = Piece(whole.at_s, whole.data[: len(whole.data) // 2], whole.tokens // 2)
        return replace(plan, outcome="cut", pieces=(half,), ending=Ending.CUT)
    with_content = [index for index, piece in enumerate(plan.pieces) if piece.tokens]
    last = with_content[int(luck.draw("cut where") * len(with_content))]
    pieces = plan.pieces[: last + 1]
    if luck.draw("cut within") < 0.5:
        torn = plan.pieces[last + 1]
        pieces += (Piece(torn.at_s, torn.data[: len(torn.data) // 2]),)
    return replace(plan, outcome="cut", pieces=pieces, ending=Ending.CUT)


def error(status: int, message: str, kind: str, code: str | None = None, param: str | None = None) -> AnswerPlan:
    """An error in OpenAI's shape."""
    return short(f"http_{status}", status, JSON, openai_api.error(message, kind, code, param), ERROR_S)


def bad_request(error_: BadRequest) -> AnswerPlan:
    """The answer to a client's own fault."""
    return error(error_.status, error_.message, "invalid_request_error", error_.code, error_.param)


def bad_key(is_missing: bool) -> AnswerPlan:
    """401; the key itself is never repeated."""
    message = "You didn't provide an API key." if is_missing else "Incorrect API key provided."
    return error(401, message, "invalid_request_error", "invalid_api_key")


def server_error(status: int) -> AnswerPlan:
    """A 5xx."""
    return error(status, "The server had an error while processing your request.", "server_error")


def rate_limited(limit: str, wait_s: float, headers: HeaderPairs) -> AnswerPlan:
    """429 with the headers of the limits and of the wait."""
    message = f"Rate limit reached for {limit} per minute. Please try again in {wait_s:.3f}s."
    plan = error(429, message, limit, "rate_limit_exceeded")
    return replace(plan, headers=(*plan.headers, *headers, *retry_headers(wait_s)))


def garbage(luck: Luck) -> AnswerPlan:
    """Status 200 with nothing in it, or with a page of HTML."""
    if luck.draw("garbage kind") < 0.5:
        return short("garbage", 200, JSON, b"", ERROR_S)
    page = b"<html><body><h1>It works!</h1></body></html>"
    return short("garbage", 200, (("Content-Type", "text/html; charset=utf-8"),), page, ERROR_S)
