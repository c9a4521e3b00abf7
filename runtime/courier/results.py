"""What a call upstream came to, as its attempt tells the courier, and what a request did."""

from messages.failures import Failure
from runtime.courier.words import dollars
from runtime.facts import fact

STATUS_CLIENT_GONE = 499
"""What logs and traces show for a client that left (nginx's number)."""


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


@fact
class Ended:
    """How a request ended, for traces and counters: the HTTP status sent, and an error's name or an empty string."""

    status: int
    error: str


def answer_headers(answer: Whole, ours: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of an answer as the client gets them, with ``ours``."""
    headers = answer.headers
    headers += ours
    if answer.cost_nusd is not None:
        headers.append(("x-pointsman-cost", dollars(answer.cost_nusd)))
    return headers
