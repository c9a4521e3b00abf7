"""Open spans, as the runtime holds them: thin, and safe to use in any order. A span that has ended takes nothing more.

What comes from clients and upstreams is cut to a length and made valid text before it gets into a span: one bad string
would cost the whole batch it is exported with.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.trace import SpanKind

from messages.calls import Usage
from messages.envelope import TraceContext
from messages.routing import LeftOut
from otel import names

TEXT_LENGTH_MAX = 256
ITEMS_MAX = 32
_SERVER_ERROR = 500

Value = str | bool | int | float | Sequence[str]
"""What an attribute may be. Texts are cut at 256 characters, sequences at 32 items."""
Clock = Callable[[], int]
"""Unix nanoseconds."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened within a span, at ``at_ns`` Unix nanoseconds."""

    name: str
    attributes: Mapping[str, Value]
    at_ns: int


class Shape:
    """What many spans have in common. Made once, bounded here and encoded once, for it is most of what a span says."""

    __slots__ = ("attributes", "is_linked", "is_parent_remote", "kind", "name", "wire")

    def __init__(self, name: str, kind: SpanKind, attributes: Mapping[str, Value]) -> None:
        self.name = str(bounded(name))
        self.kind = kind
        self.attributes = bounded_all(attributes)
        self.is_linked = kind is SpanKind.CONSUMER
        """Whether the parent is linked too, as consumers of messages are by the conventions."""
        self.is_parent_remote = kind is SpanKind.SERVER
        self.wire = b""
        """Room for the encoder's work."""


class LiveSpan:
    """One span. ``context`` is what its children and the messages sent on its behalf carry.

    A plain record of our own while it is open: the SDK's costs five times as much, in locks and checks that a span which
    only one thread sees does not need. ``emit`` is given it once, when it ends. ``attributes`` are those that its shape
    has not, within their bounds.
    """

    __slots__ = (
        "_clock_ns",
        "_emit",
        "attributes",
        "context",
        "end_ns",
        "happenings",
        "is_error",
        "parent",
        "shape",
        "start_ns",
    )

    def __init__(
        self,
        shape: Shape,
        context: TraceContext,
        parent: TraceContext | None,
        attributes: dict[str, Value],
        emit: "Callable[[LiveSpan], None]",
        clock_ns: Clock,
    ) -> None:
        self.shape = shape
        self.context = context
        self.parent = parent
        self.attributes = attributes
        self.happenings: Sequence[Happening] = ()
        self.is_error = False
        self.start_ns = clock_ns()
        self.end_ns = 0
        self._emit = emit
        self._clock_ns = clock_ns

    @property
    def _is_open(self) -> bool:
        return not self.end_ns

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""
        if not self._is_open:
            return
        if name in self.shape.attributes:
            self.attributes = {**self.shape.attributes, **self.attributes}
            self.shape = Shape(self.shape.name, self.shape.kind, {})
        self.attributes[name] = bounded(value)

    def event(self, name: str, attributes: Mapping[str, Value]) -> None:
        """Note that something happened now."""
        if self._is_open:
            self.happenings = (*self.happenings, Happening(name, bounded_all(attributes), self._clock_ns()))

    def _close(self, error_type: str | None, is_error: bool) -> None:
        if self.end_ns:
            return
        if error_type:
            self.attributes[names.ERROR_TYPE] = bounded(error_type)
        self.is_error = is_error
        self.end_ns = self._clock_ns()
        self._emit(self)


class ServerSpan(LiveSpan):
    """A client's request, from its arrival to the last byte of the answer."""

    __slots__ = ()

    def decision(
        self,
        decision_id: str,
        *,
        strategy: str = "",
        chosen: Iterable[str] = (),
        generation: int = 0,
        left_out: Sequence[LeftOut] = (),
        error: str = "",
    ) -> None:
        """Note a decision of the router: the chosen providers in order, or ``error``; and who was left out, and why."""
        attributes: dict[str, Value] = {names.DECISION_ID: decision_id}
        if strategy:
            attributes[names.DECISION_STRATEGY] = strategy
        if generation:
            attributes[names.CONFIGURATION_GENERATION] = generation
        if error:
            attributes[names.DECISION_ERROR] = error
        attributes[names.DECISION_CHOSEN] = tuple(chosen)
        if left_out:
            attributes[names.DECISION_LEFT_OUT] = tuple(f"{one.provider}: {one.reason}" for one in left_out[:ITEMS_MAX])
            attributes[names.DECISION_LEFT_OUT_COUNT] = len(left_out)
        self.event(names.ROUTING_DECISION, attributes)

    def end(self, status: int, error_type: str | None = None) -> None:
        """The answer has ended with HTTP ``status`` (0: none was sent).

        An error for the trace is a status from 500 or a named ``error_type`` (a cut stream has status 200); the client's
        own 4xx is none, by the HTTP conventions.
        """
        if status and self._is_open:
            self.attributes[names.HTTP_RESPONSE_STATUS_CODE] = status
        is_error = error_type is not None or status >= _SERVER_ERROR
        self._close(error_type or (str(status) if is_error else None), is_error)


class ProcessSpan(LiveSpan):
    """An actor's turn with one message."""

    __slots__ = ()

    def end(self, error: str | None = None) -> None:
        """The turn is over. ``error`` names the class of what the handler raised."""
        self._close(error, error is not None)


class AttemptSpan(LiveSpan):
    """One call to a provider, from sending to the end of its answer."""

    __slots__ = ()

    def kind(self, kind: str) -> None:
        """Why it is made, unless it is the first one."""
        self.set(names.ATTEMPT_KIND, kind)

    def first_chunk(self, seconds: float) -> None:
        """The first content came ``seconds`` after sending."""
        self.set(names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, seconds)

    def response(self, response_id: str = "", model: str = "", finish_reasons: Sequence[str] = ()) -> None:
        """What the answer says of itself; empty values are left out."""
        if response_id:
            self.set(names.GEN_AI_RESPONSE_ID, response_id)
        if model:
            self.set(names.GEN_AI_RESPONSE_MODEL, model)
        if finish_reasons:
            self.set(names.GEN_AI_RESPONSE_FINISH_REASONS, finish_reasons)

    def usage(self, usage: Usage) -> None:
        """The tokens of the call."""
        self.set(names.GEN_AI_USAGE_INPUT_TOKENS, usage.input_tokens)
        self.set(names.GEN_AI_USAGE_OUTPUT_TOKENS, usage.output_tokens)
        if usage.cache_read_tokens:
            self.set(names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, usage.cache_read_tokens)
        if usage.reasoning_tokens:
            self.set(names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, usage.reasoning_tokens)
        if usage.estimated:
            self.set(names.USAGE_ESTIMATED, True)

    def end(self, error_type: str | None = None, status: int = 0) -> None:
        """The call is over: ``error_type`` is a failure's code or an outcome, None a success; ``status`` 0: none came."""
        if status:
            self.set(names.HTTP_RESPONSE_STATUS_CODE, status)
        self._close(error_type, error_type is not None)


def bounded_all(attributes: Mapping[str, Value]) -> dict[str, Value]:
    """All attributes within their bounds."""
    return {name: bounded(value) for name, value in attributes.items()}


def bounded(value: Value) -> Value:
    """``value`` within its bounds, and text that is valid UTF-8 whatever a header or a body held."""
    if isinstance(value, str):
        text = value[:TEXT_LENGTH_MAX]
        return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, bool | int | float):
        return value
    return tuple(str(bounded(item)) for item in value[:ITEMS_MAX])
