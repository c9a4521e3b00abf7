"""A call that is out, as evidence sees it."""

from dataclasses import dataclass

from messages.base import acyclic


@acyclic
@dataclass(slots=True, eq=False)
class Sending:
    """Times in monotonic s or a span of s."""

    sent_at: float
    stream: bool
    max_tokens: int | None
    predicted_s: float
    overdue_s: float
    """Age in s from which it is evidence by itself."""
    load: int
    """Calls out for this model when it was sent, itself included."""
    explores: bool = False
    is_waiting: bool = True
    """No content yet."""
    prompt_tokens: int | None = None
    """None: not known, as of a call that was out before a restart."""
