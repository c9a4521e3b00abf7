"""The words of health: how a provider stands, and how it is probed."""

from enum import StrEnum

from messages.base import Message, message


class Status(StrEnum):
    """Whether a provider can be given work. Ready and unchecked take traffic."""

    READY = "ready"
    UNCHECKED = "unchecked"
    UNAVAILABLE = "unavailable"
    AUTH_FAILED = "auth_failed"
    DISABLED = "disabled"
    DRAINING = "draining"
    OUT = "out"


class CircuitState(StrEnum):
    """The three states of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@message("health.probe_check")
class ProbeCheck(Message):
    """The prober asks a provider whether it should be probed now. Answered by ``ProbeWish``."""

    def unanswered(self, actor: str, fault: str) -> Message:
        """Who cannot answer is not probed."""
        return ProbeWish(actor.removeprefix("provider:"), False, fault)


@message("health.probe_wish")
class ProbeWish(Message):
    """Passive first: wanted only while unchecked, silent, open past its wait, or with a bad key."""

    provider: str
    wanted: bool
    why: str


@message("health.run_probe")
class RunProbe(Message):
    """The prober asks the runtime to call a provider's free endpoint. The end comes back as ``ProbeDone``."""

    probe_id: str
    provider: str


@message("health.probe_done")
class ProbeDone(Message):
    """What a probe found."""

    probe_id: str
    provider: str
    ok: bool
    auth_failed: bool
    latency_s: float
    detail: str
    models: tuple[str, ...] | None = None
    """The provider's own list of models, if the probe fetched one."""


@message("health.probed")
class Probed(Message):
    """The prober tells a provider the result of its probe."""

    ok: bool
    auth_failed: bool
    latency_s: float
    detail: str


@message("health.probe_now")
class ProbeNow(Message):
    """The admin API asks the prober to probe a provider whether it wishes or not. Answered by ``ProbeDone`` when it ends."""

    provider: str

    def unanswered(self, actor: str, fault: str) -> Message:
        """No prober, no probe."""
        return ProbeDone("", self.provider, False, False, 0.0, f"prober {fault}")


@message("health.probe_tick")
class ProbeTick(Message):
    """The prober's own timer."""


@message("health.probe_overdue")
class ProbeOverdue(Message):
    """The prober's own timer: a probe that never came back."""

    probe_id: str


@message("health.push_metrics")
class PushMetrics(Message):
    """What somebody else has measured of a provider (FEATURES C2), told through the admin API. None: not told."""

    average_latency_s: float | None = None
    error_rate: float | None = None
    """0–1."""
    load: float | None = None
    """Share of its capacity that others use, 0–1."""


@message("health.get_report")
class GetReport(Message):
    """The admin API asks a provider how it stands. Answered by ``ProviderReport``."""

    def unanswered(self, actor: str, fault: str) -> Message:
        """A provider that cannot report is out."""
        return ProviderReport.silent(actor.removeprefix("provider:"), fault)


@message("health.provider_report")
class ProviderReport(Message):
    """How a provider stands. Times in milliseconds."""

    provider: str
    status: Status
    reason: str
    circuit: CircuitState
    health: float
    in_flight: int
    latency_ewma_ms: float
    latency_p50_ms: float
    latency_p95_ms: float
    requests: int
    successes: int
    failures: int
    requests_left: float | None = None
    """Requests the rate limit would admit now; None: no limit."""
    tokens_left: float | None = None
    concurrency_limit: int | None = None
    """Calls at once it takes now, as configured or as found out; None: no limit."""

    @staticmethod
    def silent(provider: str, fault: str) -> "ProviderReport":
        """The report the runtime gives for a provider that cannot answer."""
        return ProviderReport(provider, Status.OUT, fault, CircuitState.OPEN, 0.0, 0, 0.0, 0.0, 0.0, 0, 0, 0)
