"""Delivery when the collector does not answer: drop, count, say so once, try again later."""

import logging
from collections.abc import Sequence

import pytest
from opentelemetry.trace import SpanKind

from messages.envelope import TraceContext
from otel.delivery import LogThrottle, RestingExporter
from otel.live_spans import LiveSpan, Shape

ONE = LiveSpan(Shape("one", SpanKind.SERVER, {}), TraceContext("1" * 32, "2" * 16), None, {}, lambda span: None, lambda: 1)
BATCH = (ONE, ONE)


class Collector:
    def __init__(self) -> None:
        self.is_up = True
        self.calls = 0
        self.shutdowns = 0

    def export(self, spans: Sequence[LiveSpan]) -> bool:
        self.calls += 1
        if not self.is_up:
            raise ConnectionError("refused, with a token in the text")
        return True

    def shutdown(self) -> None:
        self.shutdowns += 1


class Case:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.collector = Collector()
        self.exporter = RestingExporter(self.collector, "http://c:4318", lambda: self.now_s)


def next_try_s(case: Case) -> float:
    """Export twice a second until the collector is asked; tell how long that took."""
    start_s, calls = case.now_s, case.collector.calls
    while True:
        case.exporter.export(BATCH)
        if case.collector.calls > calls:
            return case.now_s - start_s
        case.now_s += 0.5


@pytest.fixture
def case() -> Case:
    return Case()


def test_batches_pass_while_the_collector_takes_them(case: Case) -> None:
    assert case.exporter.export(BATCH)
    assert (case.exporter.exported, case.exporter.dropped) == (2, 0)


def test_after_a_failure_batches_are_dropped_at_once_until_the_rest_is_over(case: Case) -> None:
    case.collector.is_up = False
    for _ in range(10):
        assert not case.exporter.export(BATCH)
    assert case.collector.calls == 1
    assert case.exporter.dropped == 20

    case.now_s += 1.0
    case.collector.is_up = True
    assert case.exporter.export(BATCH)


def test_the_rest_doubles_with_each_failure_up_to_a_minute_and_starts_anew_after_a_success(case: Case) -> None:
    case.collector.is_up = False
    assert [next_try_s(case) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]

    case.collector.is_up = True
    next_try_s(case)
    case.collector.is_up = False
    assert [next_try_s(case) for _ in range(3)] == [0, 1, 2]


def test_the_log_has_one_line_when_delivery_fails_and_one_when_it_is_back(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    case.collector.is_up = False
    for _ in range(100):
        case.exporter.export(BATCH)
        case.now_s += 0.5
    case.collector.is_up = True
    case.now_s += 60
    case.exporter.export(BATCH)
    case.exporter.export(BATCH)

    failed, back = (record.getMessage() for record in caplog.records)
    assert failed == "traces cannot be delivered to http://c:4318; they are dropped until it answers"
    assert back == "traces are delivered to http://c:4318 again; 200 spans were dropped so far"


def test_pain_23_what_a_transport_raises_stays_out_of_the_log(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    case.collector.is_up = False
    case.exporter.export(BATCH)
    assert "token" not in caplog.text


def test_after_shutdown_nothing_is_tried_and_a_second_shutdown_does_nothing(case: Case) -> None:
    case.exporter.shutdown()
    case.exporter.shutdown()
    assert not case.exporter.export(BATCH)
    assert (case.collector.shutdowns, case.collector.calls, case.exporter.dropped) == (1, 0, 2)


def test_the_throttle_lets_one_record_pass_in_each_period() -> None:
    now_s = 0.0
    throttle = LogThrottle(60.0, lambda: now_s)
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "again", None, None)
    passed = []
    for second in range(180):
        now_s = float(second)
        passed.append(throttle.filter(record))
    assert [second for second, has_passed in enumerate(passed) if has_passed] == [0, 60, 120]
