"""What a call upstream came to, as its attempt tells the courier, and what a request did."""

from messages.base import acyclic
from messages.failures import Failure
from runtime.courier.words import dollars, header_lines, header_safe, type_line
from runtime.dialects.told import TYPE
from runtime.facts import fact

STATUS_CLIENT_GONE = 499
"""What logs and traces show for a client that left (nginx's number)."""


@acyclic
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


def answer_lines(answer: Whole, request_id: str, label: str, decision_id: str) -> str:
    """The same, as lines (``header_lines``), where ours are known: ``label``, and two that nobody outside can have broken."""
    theirs = answer.headers
    passing = type_line(theirs[0][1]) if len(theirs) == 1 and theirs[0][0] == TYPE else header_lines(theirs)
    ours = f"{passing}\r\nx-request-id: {request_id}{label}\r\nx-pointsman-decision: {decision_id}"
    return ours if answer.cost_nusd is None else f"{ours}\r\nx-pointsman-cost: {dollars(answer.cost_nusd)}"


def label_headers(provider: str, model: str, strategy: str, attempts: int) -> list[tuple[str, str]]:
    """By which way an answer came."""
    return [
        ("x-pointsman-provider", provider),
        ("x-pointsman-model", header_safe(model)),
        ("x-pointsman-strategy", strategy),
        ("x-pointsman-attempts", str(attempts)),
    ]
