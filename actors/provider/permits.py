"""The permits that are out: each call a provider has granted and not yet seen the end of."""

from dataclasses import dataclass

from actors.buckets import Drawn
from actors.provider.circuit import NO_TICKET, Ticket
from actors.provider.evidence import ModelEvidence
from actors.provider.sending import Sending
from messages.base import acyclic
from messages.calls import Permit

PERMITS_MAX = 20_000
"""More than couriers there can be: a bound against our own mistakes."""


@acyclic
@dataclass(slots=True)
class OpenPermit:
    """One call that is out."""

    permit_id: str
    model: str
    tokens: int
    """Reserved by estimate."""
    evidence: ModelEvidence
    """Where its end will be learned from, even if the model is no longer kept."""
    sending: Sending
    """With the time of its grant, or of its sending if it was restored."""
    circuit: Ticket = NO_TICKET
    credential: Ticket = NO_TICKET
    is_restored: bool = False
    """Known from the couriers' table, not granted by this incarnation."""
    has_content: bool = False
    is_elsewhere: bool = False
    """Sent to an endpoint that is no longer configured: its end is counted and teaches nothing."""
    beside: int = 0
    """Calls that were out when it was granted, itself included; 0: it was not counted."""
    is_at_ease: bool = False
    """So few were out that it shows the provider at ease (``concurrency``)."""
    drawn: Drawn | None = None
    """What it holds of the buckets; None: nothing is limited."""


def restored_permit(permit: Permit, evidence: ModelEvidence, drawn: Drawn | None) -> OpenPermit:
    """A call of the couriers' table that an earlier incarnation granted."""
    return OpenPermit(
        permit.permit_id,
        permit.model,
        permit.tokens,
        evidence,
        evidence.restored(permit.stream, permit.granted_at),
        is_restored=True,
        drawn=drawn,
    )
