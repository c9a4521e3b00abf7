"""What a call upstream came to, as its attempt tells the courier."""

from messages.failures import Failure
from runtime.facts import fact


@fact
class Whole:
    """An answer to pass on: a success, or an error that is the client's own."""

    status: int
    headers: list[tuple[str, str]]
    """For whoever gets it to add to."""
    body: bytes
    cost_nusd: int | None = None


@fact
class Relayed:
    """A stream went to the client. ``failure`` tells why it broke after the commit; None: it is whole."""

    failure: Failure | None


@fact
class Failed:
    """Nothing has gone to the client; another attempt may do."""

    failure: Failure
