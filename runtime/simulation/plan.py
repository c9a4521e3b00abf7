"""A plan of an answer: what a provider will send and when. The model writes it, a frame carries it out."""

from dataclasses import dataclass
from enum import StrEnum

from runtime.simulation.limits import HeaderPairs


class Ending(StrEnum):
    """How an answer ends."""

    WHOLE = "whole"
    CUT = "cut"
    """The connection breaks after the last piece, before the answer is whole."""
    RESET = "reset"
    """The connection breaks before anything is sent."""
    HANG = "hang"
    """Nothing is ever sent and the connection stays open."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of the body."""

    at_s: float
    """Seconds after the beginning of service."""
    data: bytes
    tokens: int = 0
    """Tokens of output in it."""


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """One answer, planned whole when its service begins."""

    outcome: str
    """What it is called in counts and records when it has been carried out: ``ok``, ``http_503``, ``cut``, ..."""
    status: int = 0
    headers: HeaderPairs = ()
    wait_s: float = 0.0
    """Seconds from the beginning of service to status and headers."""
    pieces: tuple[Piece, ...] = ()
    ending: Ending = Ending.WHOLE
    length: int | None = None
    """Bytes the whole body would have; None: sent in chunks, its length told to nobody."""
    input_tokens: int = 0


RESET = AnswerPlan("reset", ending=Ending.RESET)
HANG = AnswerPlan("hang", ending=Ending.HANG)


def short(outcome: str, status: int, headers: HeaderPairs, body: bytes, wait_s: float) -> AnswerPlan:
    """An answer of one piece, sent whole after ``wait_s`` seconds."""
    return AnswerPlan(outcome, status, headers, wait_s, (Piece(wait_s, body),), length=len(body))
