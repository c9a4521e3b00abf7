"""What a provider says that takes no calls because somebody said so: it drains, is disabled, or has a status. Pure."""

from messages.calls import RefusalReason, Refused
from messages.control import ProviderSpec
from messages.routing import NoBid, NoBidReason

AUTH_FAILED_SAID = "auth_failed"
"""The said status that blames our key; any other takes it for unavailable."""


def is_shut(spec: ProviderSpec, is_draining: bool) -> bool:
    """Whether it takes no calls, whatever its circuits and limits say."""
    return is_draining or not spec.enabled or bool(spec.status)


def shut_bid(spec: ProviderSpec, is_draining: bool) -> NoBid:
    """Its answer to a call for bids."""
    if is_draining:
        return NoBid(spec.id, NoBidReason.DRAINING, None, "")
    if not spec.enabled:
        return NoBid(spec.id, NoBidReason.DISABLED, None, "")
    is_key = spec.status == AUTH_FAILED_SAID
    return NoBid(spec.id, NoBidReason.AUTH_FAILED if is_key else NoBidReason.UNAVAILABLE, None, spec.status_reason)


def shut_refusal(permit_id: str, spec: ProviderSpec, is_draining: bool) -> Refused:
    """Its answer to an award."""
    if is_draining:
        return Refused(permit_id, RefusalReason.DRAINING)
    if not spec.enabled:
        return Refused(permit_id, RefusalReason.DISABLED)
    is_key = spec.status == AUTH_FAILED_SAID
    return Refused(permit_id, RefusalReason.AUTH_FAILED if is_key else RefusalReason.UNAVAILABLE)
