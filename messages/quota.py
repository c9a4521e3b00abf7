"""The words of quotas: a courier reserves from the limits of a tenant or a pool, and settles exactly once."""

from messages.base import Message, message
from messages.limits import LimitsSpec


@message("quota.reserve")
class Reserve(Message):
    """Take one request, its place among those at once, and ``tokens`` for it: together or not at all.

    Answered by ``Reserved`` or ``QuotaRefused`` at once. The courier has noted ``reservation_id`` before it tells this. Asked
    twice of the same reservation, the answer is the same and nothing is taken again.
    """

    quota: str
    """Whose limits: a name such as ``tenant:acme`` or ``pool:gpt-4o``."""
    reservation_id: str
    tokens: int
    """Estimate of prompt and output together."""


@message("quota.reserved")
class Reserved(Message):
    """The reservation is the courier's until its ``Settle``."""

    reservation_id: str


@message("quota.quota_refused")
class QuotaRefused(Message):
    """Nothing was taken and nothing is owed."""

    reservation_id: str
    quota: str
    limit: str
    """The key of the limit that is reached: ``requests_per_minute``, ``tokens_per_minute`` or ``max_concurrency``."""
    allowed: float
    """What that key says."""
    retry_at: float | None = None
    """Monotonic seconds when there will be enough again, if nobody else takes it; None: when a request ends."""


@message("quota.settle")
class Settle(Message):
    """The one end of a reservation."""

    reservation_id: str
    tokens: int | None
    """What was really used; None: nothing was sent upstream, so that all of it is given back, the request too."""


@message("quota.reservation")
class Reservation(Message):
    """An open reservation as the couriers' table has it."""

    reservation_id: str
    tokens: int


@message("quota.reservations_restored")
class ReservationsRestored(Message):
    """First mail of a restarted quota: the reservations that are out, according to the couriers."""

    reservations: tuple[Reservation, ...]


@message("quota.quota_reconfigured")
class QuotaReconfigured(Message):
    """The limits of the snapshot in force."""

    limits: LimitsSpec
    generation: int


@message("quota.get_quota")
class GetQuota(Message):
    """The admin API asks a quota how it stands. Answered by ``QuotaReport``."""


@message("quota.quota_report")
class QuotaReport(Message):
    """How a quota stands. Counts since it is there, over crashes too."""

    quota: str
    limits: LimitsSpec
    in_flight: int
    """Requests that hold something of it."""
    requests_left: float | None
    """What its buckets would admit now, below zero while there is a debt; None: no limit. This and ``tokens_left``."""
    tokens_left: float | None
    reserved: int
    """Requests that it let through."""
    refused: tuple[tuple[str, int], ...]
    """Requests that it did not, by the key of the limit that was reached, sorted."""
