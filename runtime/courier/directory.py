"""What a call to a provider needs beyond messages: addresses and credentials, which never enter a mailbox.

Owns: the snapshot in force as the couriers see it, one ``Track`` for each provider in it, and the last track of those that
drain: what was granted before they left is still called.
Always: replaced whole, with each generation. A call keeps the track it was granted under.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from messages.control import ConfigSnapshot, ModelSpec, ProviderSpec, RoutingSpec
from otel import names
from runtime.config.quotas import pool_quota, tenant_quota
from runtime.config.settings import Credential
from runtime.courier.results import label_headers
from runtime.courier.words import header_lines
from runtime.dialects.headers import base_headers, request_headers
from runtime.ports import Headers

PATHS = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
"""Where an OpenAI-compatible provider has each endpoint, below its base URL."""


LABELS_MAX = 256
"""Models at one provider, of which the label is kept: it may take any."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a client is told of the way of its answer, as lines of its head."""

    strategy: str
    lines: str


@dataclass(frozen=True, slots=True)
class Track:
    """All that a call to one provider needs."""

    spec: ProviderSpec
    urls: dict[str, str]
    """By endpoint."""
    headers: Headers
    """Of every call there, the key among them."""
    stream_headers: Headers
    """Those of a call for a stream, where there is nothing to add; the same object each time, which is soon recognised."""
    whole_headers: Headers
    """The same, of a call for a whole answer."""
    models: dict[str, ModelSpec]
    host: str
    port: int | None
    system: str
    """The value of ``gen_ai.provider.name``."""
    labels: dict[str, Label]
    """By model, under the strategy that was last in force for it."""

    def __repr__(self) -> str:
        return f"Track({self.spec.id})"

    def cost_nusd(self, model: str, input_tokens: int, output_tokens: int) -> int | None:
        """Price of a call in billionths of a USD, None if a price is not known. USD per million tokens times 1000 is that."""
        found = self.models.get(model)
        # Of embeddings there is no output, and many a list has no price for it.
        if found is None or found.input_price is None or (found.output_price is None and output_tokens):
            return None
        return rounded((input_tokens * found.input_price + output_tokens * (found.output_price or 0.0)) * 1000)

    def label(self, model: str, strategy: str) -> str:
        """The label of an answer to a request's first call."""
        found = self.labels.get(model)
        if found is None or found.strategy != strategy:
            if len(self.labels) >= LABELS_MAX:
                self.labels.clear()
            lines = header_lines(label_headers(self.spec.id, model, strategy, 1))
            found = self.labels[model] = Label(strategy, lines)
        return found.lines


def rounded(value: float) -> int:
    """``round(value)`` of what is not negative: half of it goes to the even one. At a third of what the builtin takes."""
    whole = int(value)
    rest = value - whole
    return whole + 1 if rest > 0.5 or (rest == 0.5 and whole % 2) else whole


class Directory:
    """The tracks by provider. ``credential_of`` gives what identifies us there, None: nothing does."""

    def __init__(self, snapshot: ConfigSnapshot, credential_of: Callable[[str], Credential | None]) -> None:
        self._credential_of = credential_of
        self._tracks: dict[str, Track] = {}
        self._leaving: dict[str, Track] = {}
        self._followers: list[Callable[[ConfigSnapshot], None]] = []
        self.publish(snapshot)

    def follow(self, follower: Callable[[ConfigSnapshot], None]) -> None:
        """Tell ``follower`` every snapshot that comes into force from now on."""
        self._followers.append(follower)

    def publish(self, snapshot: ConfigSnapshot) -> None:
        """Put a new generation in force."""
        self.snapshot = snapshot
        self.routing: RoutingSpec = snapshot.routing
        self.tenant_quotas = {spec.name: tenant_quota(spec.name) for spec in snapshot.tenants if spec.limits.is_limited}
        self.pool_quotas = {spec.model: pool_quota(spec.model) for spec in snapshot.pools if spec.limits.is_limited}
        """Names of the quotas, by tenant and by public model name; who has no limits has none."""
        before = self._tracks
        self._tracks = {spec.id: self._track(spec) for spec in snapshot.providers}
        self._leaving = {name: track for name, track in {**self._leaving, **before}.items() if name not in self._tracks}
        for follower in self._followers:
            follower(snapshot)

    def track(self, provider: str) -> Track | None:
        """A provider's track; None if the configuration has no such provider."""
        return self._tracks.get(provider)

    def track_of_call(self, provider: str) -> Track | None:
        """The track of a call that was granted: also there if the provider has left since."""
        return self._tracks.get(provider) or self._leaving.get(provider)

    def forget(self, provider: str) -> None:
        """The last call of one that has left has ended."""
        self._leaving.pop(provider, None)

    def _track(self, spec: ProviderSpec) -> Track:
        credential = self._credential_of(spec.id)
        headers = base_headers("", credential.call_headers if credential is not None else ())
        base = spec.endpoint.rstrip("/")
        parts = urlsplit(base)
        return Track(
            spec,
            {endpoint: base + path for endpoint, path in PATHS.items()},
            headers,
            request_headers(headers, (), is_stream=True),
            request_headers(headers, ()),
            {model.name: model for model in spec.models},
            parts.hostname or "",
            parts.port,
            names.provider_name(spec.kind),
            {},
        )
