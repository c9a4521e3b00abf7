"""Our encoding, the SDK's transport: its exporters know certificates, compression, retries and reconnecting.

They offer no way to send what is encoded already, so each has one seam, inside the SDK, that this file reaches through. Where
an SDK to come has closed it, spans go through the SDK's own encoder: dearer, the same on the wire. A test tells us then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel.live_spans import LiveSpan

SEAM_OF_HTTP: Final = "_client"
"""The exporter's client, whose ``export`` takes bytes and answers with something that has ``success``."""
SEAM_OF_GRPC: Final = "_translate_data"
"""The method that makes a request of what ``export`` was given. The exporter asks it in each try."""

Encode = Callable[[Sequence[LiveSpan]], bytes]


@dataclass(frozen=True, slots=True, repr=False)
class Destination:
    """Where to send, with which headers (secrets, so it has no repr), and for how many seconds to try."""

    endpoint: str
    headers: Mapping[str, str]
    timeout_s: float


class OtlpExporter:
    """Sends batches with ``inner``: encoded by us if ``send`` is given, else as the SDK's spans that ``translate`` makes."""

    def __init__(
        self,
        inner: SpanExporter,
        send: Callable[[Sequence[LiveSpan]], bool] | None,
        translate: Callable[[LiveSpan], ReadableSpan],
    ) -> None:
        self._inner = inner
        self._send = send
        self._translate = translate

    @property
    def has_seam(self) -> bool:
        """Whether spans are encoded by us."""
        return self._send is not None

    def export(self, spans: Sequence[LiveSpan]) -> bool:
        """True: the collector has taken them. Blocks, and may raise what the transport raises."""
        if self._send is not None:
            return self._send(spans)
        return self._inner.export([self._translate(span) for span in spans]) is SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Give up what is under way."""
        self._inner.shutdown()


def http_exporter(to: Destination, encode: Encode, translate: Callable[[LiveSpan], ReadableSpan]) -> OtlpExporter:
    """Over HTTP. Raises what the SDK's exporter raises."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    inner = OTLPSpanExporter(endpoint=to.endpoint, headers=dict(to.headers), timeout=to.timeout_s)
    post: Callable[[bytes], Any] | None = getattr(getattr(inner, SEAM_OF_HTTP, None), "export", None)
    if post is None:
        return OtlpExporter(inner, None, translate)
    return OtlpExporter(inner, lambda spans: bool(post(encode(spans)).success), translate)


def grpc_exporter(to: Destination, encode: Encode, translate: Callable[[LiveSpan], ReadableSpan]) -> OtlpExporter:
    """Over gRPC. Raises what the SDK's exporter raises."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    inner = OTLPSpanExporter(endpoint=to.endpoint, headers=dict(to.headers), timeout=to.timeout_s)
    if not hasattr(inner, SEAM_OF_GRPC):
        return OtlpExporter(inner, None, translate)
    # gRPC takes a message, not bytes. To parse ours into one is work in C: a fraction of a µs a span.
    setattr(inner, SEAM_OF_GRPC, lambda spans: ExportTraceServiceRequest.FromString(encode(spans)))
    export: Callable[[Any], SpanExportResult] = inner.export
    return OtlpExporter(inner, lambda spans: export(spans) is SpanExportResult.SUCCESS, translate)
