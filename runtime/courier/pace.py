"""The least rate of a stream (``timeouts.min_tokens_per_second``): one that begins and then crawls has failed, and fails over.

Always: it is judged before the commit, while another provider can still answer, so the first tokens are held back until they
are all here or the stream is at its end. A stream that grows slow later is left to the timeouts.
"""

from messages.control import TimeoutsSpec

TOKENS = 10
"""Held and judged. Fewer would take the pause between two chunks for a rate; more would let the client wait."""


def tokens_held(times: TimeoutsSpec) -> int:
    """Tokens to be seen before the commit; 0: none, any rate will do."""
    return TOKENS if times.min_tokens_per_s > 0.0 else 0


def allowed_s(times: TimeoutsSpec) -> float | None:
    """Seconds they may take from the first of them; None: as long as they like."""
    return TOKENS / times.min_tokens_per_s if times.min_tokens_per_s > 0.0 else None
