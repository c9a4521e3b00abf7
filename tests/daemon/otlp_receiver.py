"""A real OTLP collector on loopback, small: takes spans over HTTP/protobuf or gRPC and gives them as plain dicts.

with OtlpReceiver.http() as collector:          # or OtlpReceiver.grpc()
    ... start something with collector.environ() ...
    spans = collector.wait_for(lambda spans: any(s["name"] == "chat gpt-4o" for s in spans))
"""

import gzip
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, TypedDict

import grpc  # type: ignore[import-untyped] # grpcio ships no types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_STATUS_NAMES = {Status.STATUS_CODE_UNSET: "UNSET", Status.STATUS_CODE_OK: "OK", Status.STATUS_CODE_ERROR: "ERROR"}


class LinkDict(TypedDict):
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


class EventDict(TypedDict):
    name: str
    time_ns: int
    attributes: dict[str, Any]


class SpanDict(TypedDict):
    name: str
    kind: str
    """INTERNAL, SERVER, CLIENT, PRODUCER or CONSUMER."""
    trace_id: str
    span_id: str
    parent: str
    """Span id of the parent; empty: a root."""
    tracestate: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: list[LinkDict]
    events: list[EventDict]
    status: str
    """UNSET, OK or ERROR."""
    resource: dict[str, Any]


class OtlpReceiver:
    """Takes exports until ``close``. ``spans`` are in order of arrival, ``headers`` those of each export, names lower-case."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.endpoint = ""
        self.spans: list[SpanDict] = []
        self.headers: list[dict[str, str]] = []
        self._arrived = threading.Condition()
        self._stop: Callable[[], None] = lambda: None

    @staticmethod
    def http(port: int = 0) -> "OtlpReceiver":
        """One that speaks HTTP/protobuf, on a port of the system's choice unless given."""
        receiver = OtlpReceiver("http/protobuf")
        server = _HttpServer(receiver, port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        receiver.endpoint = f"http://127.0.0.1:{server.server_port}"
        receiver._stop = stop
        return receiver

    @staticmethod
    def grpc() -> "OtlpReceiver":
        """One that speaks gRPC."""
        receiver = OtlpReceiver("grpc")

        def export(request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
            receiver._take(request, {name: str(value) for name, value in context.invocation_metadata()})
            return ExportTraceServiceResponse()

        handler = grpc.unary_unary_rpc_method_handler(
            export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        server = grpc.server(ThreadPoolExecutor(max_workers=2))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        receiver.endpoint = f"http://127.0.0.1:{port}"
        receiver._stop = lambda: server.stop(None).wait(5)
        return receiver

    def environ(self) -> dict[str, str]:
        """The standard variables that send traces here, soon after their spans end."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    def wait_for(self, predicate: Callable[[list[SpanDict]], bool], deadline_s: float = 10.0) -> list[SpanDict]:
        """All spans so far, as soon as ``predicate`` holds for them. Raises ``AssertionError`` after ``deadline_s``."""
        ends_at = monotonic() + deadline_s
        with self._arrived:
            while not predicate(list(self.spans)):
                left_s = ends_at - monotonic()
                if left_s <= 0:
                    raise AssertionError(f"not within {deadline_s} s; spans so far:\n{outline(self.spans)}")
                self._arrived.wait(left_s)
            return list(self.spans)

    def wait_for_names(self, names: Iterable[str], deadline_s: float = 10.0) -> list[SpanDict]:
        """As ``wait_for``, until each of ``names`` has come at least as often as it is given."""
        wanted = list(names)
        return self.wait_for(
            lambda spans: all(sum(s["name"] == name for s in spans) >= wanted.count(name) for name in wanted), deadline_s
        )

    def close(self) -> None:
        """Stop listening."""
        self._stop()

    def __enter__(self) -> "OtlpReceiver":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> None:
        with self._arrived:
            self.headers.append(headers)
            for group in request.resource_spans:
                resource = _attributes(group.resource.attributes)
                for scope in group.scope_spans:
                    self.spans.extend(_span(span, resource) for span in scope.spans)
            self._arrived.notify_all()


def one(spans: Iterable[SpanDict], name: str) -> SpanDict:
    """The only span called ``name``."""
    found = [span for span in spans if span["name"] == name]
    assert len(found) == 1, f"{len(found)} spans are called {name!r}"
    return found[0]


def children(spans: Iterable[SpanDict], parent: SpanDict) -> list[SpanDict]:
    """The spans whose parent is ``parent``, by start."""
    mine = [s for s in spans if s["parent"] == parent["span_id"] and s["trace_id"] == parent["trace_id"]]
    return sorted(mine, key=lambda span: span["start_ns"])


def outline(spans: Iterable[SpanDict]) -> str:
    """The trees as indented text, for messages of failed tests."""
    all_spans = sorted(spans, key=lambda span: span["start_ns"])
    known = {span["span_id"] for span in all_spans}

    def lines(span: SpanDict, depth: int) -> list[str]:
        own = f"{'  ' * depth}{span['kind']} {span['name']} {span['status']}"
        return [own, *(line for child in children(all_spans, span) for line in lines(child, depth + 1))]

    return "\n".join(line for span in all_spans if span["parent"] not in known for line in lines(span, 0))


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, receiver: OtlpReceiver, port: int) -> None:
        super().__init__(("127.0.0.1", port), _HttpHandler)
        self.receiver = receiver


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, _HttpServer)
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
            self.send_error(404)
            return
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.receiver._take(ExportTraceServiceRequest.FromString(body), headers)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the spans tell."""


def _span(span: Span, resource: dict[str, Any]) -> SpanDict:
    return {
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "tracestate": span.trace_state,
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "attributes": _attributes(span.attributes),
        "links": [
            {"trace_id": x.trace_id.hex(), "span_id": x.span_id.hex(), "attributes": _attributes(x.attributes)}
            for x in span.links
        ],
        "events": [{"name": x.name, "time_ns": x.time_unix_nano, "attributes": _attributes(x.attributes)} for x in span.events],
        "status": _STATUS_NAMES[span.status.code],
        "resource": resource,
    }


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind)
