"""The words of health: how a provider stands, and how it is probed."""

from enum import StrEnum

from messages.base import Message, message
from messages.calls import Usage
from messages.failures import Scope


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
    model: str = ""
    """The provider's name of a model to call where the free endpoint does not say that it is down; empty: nothing is paid."""


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
    is_paid: bool = False
    """A model was called."""
    usage: Usage | None = None
    """What that used, where the provider said so."""
    cost_usd: float = 0.0
    """What the prober booked for it."""


@message("health.probed")
class Probed(Message):
    """The prober tells a provider the result of its probe."""

    ok: bool
    auth_failed: bool
    latency_s: float
    detail: str
    cost_usd: float = 0.0


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

    @staticmethod
    def silent(provider: str, fault: str) -> "ProviderReport":
        """The report the runtime gives for a provider that cannot answer."""
        return ProviderReport(provider, Status.OUT, fault, CircuitState.OPEN, 0.0, 0, 0.0, 0.0, 0.0, 0, 0, 0)


@message("health.get_health")
class GetHealth(Message):
    """The admin API asks a provider how its health came about. Answered by ``HealthReport``."""

    def unanswered(self, actor: str, fault: str) -> Message:
        """A provider that cannot report is out."""
        return HealthReport.silent(actor.removeprefix("provider:"), fault)


@message("health.circuit_report")
class CircuitReport(Message):
    """One circuit breaker. Times in seconds."""

    state: CircuitState
    failures_in_a_row: int = 0
    calls: int = 0
    """Within its window, and only where it counts them (``failure_rate``)."""
    failed: int = 0
    """Of those calls."""
    trials: int = 0
    """Trial calls that are out."""
    retry_in_s: float | None = None
    """When it is worth asking again; None: now."""
    wait_s: float | None = None
    """The wait it has grown to; None: it is closed."""


@message("health.past_failure")
class PastFailure(Message):
    """A call that failed by the provider's fault."""

    ago_s: float
    model: str
    scope: Scope
    code: str
    status: int = 0
    detail: str = ""


@message("health.health_report")
class HealthReport(Message):
    """How a provider's health came about. Latency in milliseconds, other times in seconds before or after now."""

    provider: str
    status: Status
    reason: str
    score: float
    is_healthy: bool
    success_rate: float
    error_rate: float
    slowness: float
    """Time to first content as a multiple of what is normal for the model."""
    failures_in_a_row: int
    circuit: CircuitReport
    credential: CircuitReport
    """The circuit of our key there."""
    latency_ewma_ms: float = 0.0
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    successes: int = 0
    failures: int = 0
    last_failures: tuple[PastFailure, ...] = ()
    """The latest first."""
    heard_s: float | None = None
    """Since a call or a probe last told something; None: never."""
    proved_s: float | None = None
    """Since one last went well; None: never."""
    next_probe_s: float | None = None
    """None: no probe is planned."""
    probes_usd: float = 0.0
    """What paid probes have cost since the daemon began."""

    @staticmethod
    def silent(provider: str, fault: str) -> "HealthReport":
        """The report the runtime gives for a provider that cannot answer."""
        shut = CircuitReport(CircuitState.OPEN)
        return HealthReport(provider, Status.OUT, fault, 0.0, False, 0.0, 0.0, 0.0, 0, shut, shut)
