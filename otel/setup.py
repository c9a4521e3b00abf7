"""From configuration and environment to a ``Tracing``.

An endpoint in the configuration counts together with its protocol; without one the standard variables say where to send.

The SDK and its exporters are imported only where traces are to be sent, and gRPC only where it is asked for: together
they take a third of a second.
"""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from otel.live_spans import Clock
from otel.queue import QueueLimits, SpanQueue
from otel.sampling import Ids, Sampler
from otel.spans import Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from otel.exporters import OtlpExporter

HTTP_PROTOBUF: Final = "http/protobuf"
GRPC: Final = "grpc"
PROTOCOLS: Final = (HTTP_PROTOBUF, GRPC)

_TRACES_PATH: Final = "/v1/traces"
_EXPORT_TIMEOUT_S: Final = 10.0
_SCHEDULE_DELAY_MS: Final = 1000.0
"""Sooner than the SDK's 5 s: whoever tries a request looks for its trace at once."""
_QUEUE_SPANS_MAX: Final = 2048
_BATCH_SPANS_MAX: Final = 512
_PAUSE_S: Final = 0.0005
"""Between pieces of a batch that are encoded: some 50 000 spans/s can be."""
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)


class BadTelemetry(ValueError):
    """A setting or a variable that cannot be meant. Never holds the value of a header."""


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """``telemetry`` of the configuration."""

    otlp_endpoint: str = ""
    """Base address of the collector; empty: none."""
    otlp_protocol: str = HTTP_PROTOBUF
    sample_ratio: float = 0.1
    service_name: str = "pointsman"
    service_version: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """Where traces go. It has no repr, for headers are secrets."""

    protocol: str
    endpoint: str
    headers: Mapping[str, str]
    timeout_s: float


def build_tracing(
    settings: TracingSettings,
    environ: Mapping[str, str],
    *,
    rng: Random | None = None,
    clock_ns: Clock = time.time_ns,
) -> Tracing:
    """Tracing as configured; off if there is no endpoint, or if ``OTEL_SDK_DISABLED`` or ``OTEL_TRACES_EXPORTER`` say so.

    ``rng`` draws samples and ids; None: one seeded by the system. Raises ``BadTelemetry``.
    """
    chance = rng if rng is not None else Random()
    sampler = _sampler(settings, chance)
    target = find_target(settings, environ)
    if target is None:
        return Tracing.off()

    from otel.delivery import RestingExporter, quiet_the_sdk

    quiet_the_sdk()
    limits = queue_limits(environ)
    try:
        exporter = _exporter(target, settings, environ)
    except Exception as error:
        # The exporters read more variables (certificates, compression, sizes) and raise what they like.
        raise BadTelemetry(f"the OTLP exporter cannot be set up: {type(error).__name__}: {error}") from error
    queue = SpanQueue(RestingExporter(exporter, target.endpoint), limits)
    return Tracing(queue.put, sampler, Ids(chance), clock_ns, queue.close)


def tracing_into(
    exporter: "SpanExporter", settings: TracingSettings, *, rng: Random, clock_ns: Clock = time.time_ns
) -> Tracing:
    """Tracing that hands each span to ``exporter`` as it ends, in the same thread: for simulations and tests."""
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from otel.delivery import translating

    processor, translate = SimpleSpanProcessor(exporter), translating(*_origin(settings, {}))
    return Tracing(lambda span: processor.on_end(translate(span)), _sampler(settings, rng), Ids(rng), clock_ns)


def find_target(settings: TracingSettings, environ: Mapping[str, str]) -> Target | None:
    """Where to send traces, or None. Raises ``BadTelemetry``."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return None
    if exporter != "otlp":
        raise BadTelemetry(f"OTEL_TRACES_EXPORTER: {exporter!r} is not supported by this version; otlp or none")
    whole = "" if settings.otlp_endpoint else environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    base = settings.otlp_endpoint or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    protocol = ("" if settings.otlp_endpoint else _first(environ, "PROTOCOL")) or settings.otlp_protocol
    if protocol not in PROTOCOLS:
        raise BadTelemetry(f"OTLP protocol {protocol!r} is not supported; one of {', '.join(PROTOCOLS)}")
    endpoint = whole or base
    if not endpoint:
        return None
    check_endpoint(endpoint, protocol)
    if protocol == HTTP_PROTOBUF and not whole and not base.rstrip("/").endswith(_TRACES_PATH):
        endpoint = base.rstrip("/") + _TRACES_PATH
    return Target(protocol, endpoint, _headers(_first(environ, "HEADERS")), _timeout_s(environ))


def check_endpoint(endpoint: str, protocol: str) -> None:
    """Raise ``BadTelemetry`` unless traces can be sent there. gRPC also takes ``host:port``, which means TLS."""
    address = endpoint if protocol == HTTP_PROTOBUF or "://" in endpoint else f"https://{endpoint}"
    try:
        parts = urlsplit(address)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise BadTelemetry("the OTLP endpoint is not an address") from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        # The SDK and its transports print the address when they fail.
        raise BadTelemetry("the OTLP endpoint must not hold credentials or a query; use OTEL_EXPORTER_OTLP_HEADERS")
    if not is_good:
        raise BadTelemetry(f"the OTLP endpoint must look like http://host:port, not {endpoint!r}")


def resource_attributes(settings: TracingSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Who we are: ``OTEL_SERVICE_NAME``, else ``service.name`` of ``OTEL_RESOURCE_ATTRIBUTES``, else as configured."""
    attributes = {"service.name": settings.service_name}
    if settings.service_version:
        attributes["service.version"] = settings.service_version
    for part in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, equals, value = part.partition("=")
        if equals and name.strip():
            attributes[unquote(name.strip())] = unquote(value.strip())
    attributes["service.name"] = environ.get("OTEL_SERVICE_NAME", "").strip() or attributes["service.name"]
    return attributes


def queue_limits(environ: Mapping[str, str]) -> QueueLimits:
    """The bounds of the queue of spans: ``OTEL_BSP_*``, else as the SDK has them but for the delay. Raises ``BadTelemetry``."""
    delay_ms = _positive(environ, "OTEL_BSP_SCHEDULE_DELAY", _SCHEDULE_DELAY_MS)
    spans_max = _whole(environ, "OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE_SPANS_MAX)
    batch_max = _whole(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", min(_BATCH_SPANS_MAX, spans_max))
    if batch_max > spans_max:
        raise BadTelemetry("OTEL_BSP_MAX_EXPORT_BATCH_SIZE must not exceed OTEL_BSP_MAX_QUEUE_SIZE")
    return QueueLimits(delay_ms / 1000.0, spans_max, batch_max)


def _first(environ: Mapping[str, str], what: str) -> str:
    """The variable for traces, else the one for all signals."""
    for name in (f"OTEL_EXPORTER_OTLP_TRACES_{what}", f"OTEL_EXPORTER_OTLP_{what}"):
        value = environ.get(name, "").strip()
        if value:
            return value
    return ""


def _headers(text: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for position, part in enumerate(text.split(",") if text else (), start=1):
        if not part.strip():
            continue
        raw_name, equals, raw_value = part.partition("=")
        name, value = unquote(raw_name.strip()).lower(), unquote(raw_value.strip())
        if not equals or not _HEADER_NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise BadTelemetry(f"entry {position} of OTEL_EXPORTER_OTLP_HEADERS is not name=value")
        headers[name] = value
    return headers


def _timeout_s(environ: Mapping[str, str]) -> float:
    """In seconds, as the Python exporters read it."""
    name = "OTEL_EXPORTER_OTLP_TIMEOUT"
    special = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"
    return _positive(environ, special if environ.get(special) else name, _EXPORT_TIMEOUT_S)


def _positive(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise BadTelemetry(f"{name} must be a positive number, not {text!r}")
    return value


def _whole(environ: Mapping[str, str], name: str, default: int) -> int:
    value = _positive(environ, name, default)
    if value % 1:
        raise BadTelemetry(f"{name} must be a whole number, not {environ[name]!r}")
    return int(value)


def _sampler(settings: TracingSettings, rng: Random) -> Sampler:
    try:
        return Sampler(settings.sample_ratio, rng)
    except ValueError as error:
        raise BadTelemetry(str(error)) from error


def _origin(settings: TracingSettings, environ: Mapping[str, str]) -> "tuple[Resource, InstrumentationScope]":
    """Who and what made the spans."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    resource = Resource.create(dict(resource_attributes(settings, environ)))
    return resource, InstrumentationScope("pointsman", settings.service_version or None)


def _exporter(target: Target, settings: TracingSettings, environ: Mapping[str, str]) -> "OtlpExporter":
    """Certificates and compression the SDK's exporters take from the standard variables themselves."""
    from otel.delivery import translating
    from otel.encoding import SpanEncoder
    from otel.exporters import Destination, grpc_exporter, http_exporter

    resource, scope = _origin(settings, environ)
    make = grpc_exporter if target.protocol == GRPC else http_exporter
    to = Destination(target.endpoint, target.headers, target.timeout_s)
    return make(to, SpanEncoder(resource, scope, _let_others_run).encode, translating(resource, scope))


def _let_others_run() -> None:
    """Give requests time of their own.

    Python lets go of its lock for a sleep of no length too, but takes it again as soon as the thread of the requests has dealt
    with one event, for that one lets go after each: they would stand still until a batch is encoded all the same.
    """
    time.sleep(_PAUSE_S)
