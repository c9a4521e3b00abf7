"""The queue of spans that have ended: gathered, sent in batches, bounded, and let go of at the end."""

import logging
import threading
from collections.abc import Sequence

import pytest
from opentelemetry.trace import SpanKind

from messages.envelope import TraceContext
from otel.live_spans import LiveSpan, Shape
from otel.queue import QueueLimits, SpanQueue

SHAPE = Shape("one", SpanKind.SERVER, {})
PATIENCE_S = 10.0
NEVER_S = 3600.0


def a_span(number: int) -> LiveSpan:
    return LiveSpan(SHAPE, TraceContext("1" * 32, f"{number:016x}"), None, {}, lambda span: None, lambda: 1)


class Collector:
    """Keeps the batches; while ``gate`` is shut an export waits at it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.shutdowns = 0
        self.came = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def export(self, spans: Sequence[LiveSpan]) -> bool:
        self.batches.append([int(span.context.span_id, 16) for span in spans])
        self.came.release()
        self.gate.wait(PATIENCE_S)
        return True

    def shutdown(self) -> None:
        self.shutdowns += 1
        self.gate.set()


def filled(collector: Collector, count: int, limits: QueueLimits) -> SpanQueue:
    queue = SpanQueue(collector, limits)
    for number in range(count):
        queue.put(a_span(number))
    return queue


def test_what_waits_is_sent_after_the_delay() -> None:
    collector = Collector()
    queue = filled(collector, 1, QueueLimits(delay_s=0.01))
    assert collector.came.acquire(timeout=PATIENCE_S)
    queue.close(PATIENCE_S)
    assert collector.batches == [[0]]


def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    collector = Collector()
    queue = filled(collector, 4, QueueLimits(delay_s=NEVER_S, batch_max=4))
    assert collector.came.acquire(timeout=PATIENCE_S)
    queue.close(PATIENCE_S)
    assert collector.batches == [[0, 1, 2, 3]]


def test_close_sends_what_is_left_in_order_and_in_batches_and_then_shuts_the_exporter() -> None:
    collector = Collector()
    filled(collector, 5, QueueLimits(delay_s=NEVER_S, batch_max=2000)).close(PATIENCE_S)
    assert collector.batches == [[0, 1, 2, 3, 4]]
    assert collector.shutdowns == 1


def test_a_full_queue_loses_its_oldest_and_counts_them_and_the_log_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    # Given an export that is held up
    collector = Collector()
    collector.gate.clear()
    queue = filled(collector, 2, QueueLimits(delay_s=NEVER_S, spans_max=4, batch_max=2))
    assert collector.came.acquire(timeout=PATIENCE_S)

    # When more come than may wait
    for number in range(2, 9):
        queue.put(a_span(number))

    # Then the last four are sent when it is over
    assert queue.dropped == 3
    collector.gate.set()
    for _ in range(2):
        assert collector.came.acquire(timeout=PATIENCE_S)
    queue.close(PATIENCE_S)
    assert collector.batches == [[0, 1], [5, 6], [7, 8]]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == ["spans come faster than they can be sent; 3 were dropped so far"]


def test_close_waits_no_longer_than_it_may_and_takes_nothing_more() -> None:
    collector = Collector()
    collector.gate.clear()
    queue = filled(collector, 1, QueueLimits(delay_s=0.001))
    assert collector.came.acquire(timeout=PATIENCE_S)
    queue.close(0.01)
    assert collector.shutdowns == 1
    queue.put(a_span(9))
    assert queue.dropped == 1


def test_a_shutdown_that_raises_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Collector):
        def shutdown(self) -> None:
            raise OSError("with a token in the text")

    filled(Broken(), 1, QueueLimits()).close(PATIENCE_S)
    assert [record.getMessage() for record in caplog.records] == ["tracing did not shut down cleanly: OSError"]
