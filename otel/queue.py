"""Spans that have ended wait here for a thread of their own to deliver them: a bounded queue, sent in batches.

The SDK's queue does the same with a system call and several checks for each span, and takes only the SDK's spans.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from otel.live_spans import LiveSpan

DROPS_LOG_PERIOD_S: Final = 60.0

_log = logging.getLogger("pointsman.tracing")


class Exporter(Protocol):
    """Sends spans away."""

    def export(self, spans: Sequence[LiveSpan]) -> bool:
        """True: the collector has taken them. May block."""

    def shutdown(self) -> None:
        """Give up what is under way, and send nothing more."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many spans wait, at most, for how long, and how many are sent at once."""

    delay_s: float = 1.0
    spans_max: int = 2048
    batch_max: int = 512


class SpanQueue:
    """Gathers spans and gives them to ``exporter`` after ``delay_s`` seconds, or once there are ``batch_max``.

    When it is full the oldest go. ``clock_s`` tells monotonic seconds, for the log's sake.
    """

    def __init__(self, exporter: Exporter, limits: QueueLimits, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._exporter = exporter
        self._limits = limits
        self._clock_s = clock_s
        self._waiting: deque[LiveSpan] = deque(maxlen=limits.spans_max)
        self._wake = threading.Event()
        self._is_closed = False
        self.dropped = 0
        """Spans that found the queue full, or closed."""
        self._told = 0
        self._tells_again_at = float("-inf")
        # A daemon, so that an export under way cannot hold the process.
        self._worker = threading.Thread(target=self._work, name="tracing-export", daemon=True)
        self._worker.start()

    def put(self, span: LiveSpan) -> None:
        """Take a span that has ended. For one thread only; never blocks."""
        waiting = self._waiting
        if self._is_closed:
            self.dropped += 1
            return
        if len(waiting) == self._limits.spans_max:
            self.dropped += 1
        waiting.append(span)
        if len(waiting) >= self._limits.batch_max and not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Take nothing more and deliver what is left in at most ``timeout_s`` seconds; then the exporter is to give up."""
        self._is_closed = True
        self._wake.set()
        self._worker.join(max(0.0, timeout_s))
        try:
            self._exporter.shutdown()
        except Exception as error:
            _log.warning("tracing did not shut down cleanly: %s", type(error).__name__)

    def _work(self) -> None:
        while not self._is_closed:
            self._wake.wait(self._limits.delay_s)
            # Before the export, so that what comes meanwhile wakes us again.
            self._wake.clear()
            self._send_all()
            self._tell_drops()
        self._send_all()

    def _send_all(self) -> None:
        waiting = self._waiting
        while waiting:
            # Nobody else takes from the queue, but a put that finds it full replaces what is there.
            count = min(len(waiting), self._limits.batch_max)
            self._exporter.export([waiting.popleft() for _ in range(count)])

    def _tell_drops(self) -> None:
        if not self._is_closed and self.dropped > self._told and self._clock_s() >= self._tells_again_at:
            self._told = self.dropped
            self._tells_again_at = self._clock_s() + DROPS_LOG_PERIOD_S
            _log.warning("spans come faster than they can be sent; %d were dropped so far", self._told)
