"""What a valid configuration comes to: the snapshot for the actors, and what never becomes a message.

Credentials stay here, outside messages; their repr and str tell nothing.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from messages.control import ConfigSnapshot, TimeoutsSpec
from runtime.config.sources import Sources

_SALT = secrets.token_bytes(16)


@dataclass(frozen=True, slots=True)
class Credential:
    """How one provider is called: where, with which key and headers, and how long it may take."""

    provider: str
    kind: str
    base_url: str
    api_key: SecretStr | None = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    timeouts: TimeoutsSpec

    call_headers: tuple[tuple[str, str], ...] = field(init=False, repr=False)
    """Every header that identifies us: ``Authorization`` with the key, unless ``headers`` has its own, then ``headers``."""

    def __post_init__(self) -> None:
        has_own = any(name.lower() == "authorization" for name, _ in self.headers)
        key = self.api_key.get_secret_value() if self.api_key else ""
        bearer = (("Authorization", f"Bearer {key}"),) if key and not has_own else ()
        object.__setattr__(self, "call_headers", bearer + self.headers)

    def fingerprint(self, salt: bytes = _SALT) -> str:
        """12 hex digits that change with key or headers; salted per process, so that they tell nothing about them."""
        digest = hashlib.sha256(salt)
        for name, value in self.call_headers:
            digest.update(f"{len(name)} {name} {len(value)} {value}".encode())
        return digest.hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Who the listener is to clients that speak TLS: PEM files, the certificate with those it needs on its way to a root."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the gateway listens and what it takes. Times in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8080
    admin_key: SecretStr | None = field(default=None, repr=False)
    """None: the admin API answers loopback peers only."""
    allow_anonymous: bool = False
    drain_s: float = 30.0
    max_body_bytes: int = 20 << 20
    max_requests: int = 10_000
    client_idle_s: float = 60.0
    lane: Literal["raw", "aiohttp"] = "raw"
    tls: TlsFiles | None = None
    """None: plain HTTP."""


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Where traces go. An empty ``otlp_endpoint`` leaves it to the standard ``OTEL_EXPORTER_OTLP_*`` variables."""

    otlp_endpoint: str = ""
    otlp_protocol: str = "http/protobuf"
    sample_ratio: float = 0.1
    service_name: str = "pointsman"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A whole valid configuration. ``path`` None: found in the environment."""

    snapshot: ConfigSnapshot
    credentials: Mapping[str, Credential]
    """By provider id."""
    server: ServerSettings
    telemetry: TelemetrySettings
    path: Path | None
    notes: tuple[str, ...] = ()
    """What the user should know though it is no error."""
    sources: Sources = field(default_factory=dict)
    """The files it was read from, as they were then."""
    given: frozenset[str] = frozenset()
    """Fields of ``server`` that the command line gave in place of the file."""
