"""Spans of turns: for sampled messages only. Tracing that fails must not cost a message."""

import logging
from typing import Protocol

from messages.envelope import Envelope, TraceContext
from runtime.system.clock import Clock

log = logging.getLogger("pointsman.system")


class TurnSpan(Protocol):
    """A span around one turn."""

    @property
    def context(self) -> TraceContext:
        """What the messages told in this turn have as parent."""

    def end(self, error: str | None) -> None:
        """The turn is over; ``error`` names the exception that ended it."""


class TurnTracing(Protocol):
    """Makes spans for turns; asked for sampled messages only."""

    def process(self, actor: str, message_name: str, parent: TraceContext, queue_wait_s: float) -> TurnSpan:
        """Open the span of one turn."""


def open_span(tracing: TurnTracing | None, actor: str, envelope: Envelope, clock: Clock) -> TurnSpan | None:
    """A span for a sampled message; None: there is none."""
    if envelope.trace is None or tracing is None:
        return None
    wait_s = max(0.0, clock.now() - envelope.posted_at)
    try:
        return tracing.process(actor, type(envelope.message).__name__, envelope.trace, wait_s)
    except Exception as error:
        log.error("no span for a turn of %s", actor, exc_info=error)
        return None


def end_span(span: TurnSpan, error: str | None) -> None:
    """The turn is over."""
    try:
        span.end(error)
    except Exception as failure:
        log.error("a span could not be ended", exc_info=failure)
