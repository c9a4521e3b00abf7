"""Failures as values: by fault and remedy. Status codes are translated to these in one place, the upstream door."""

from enum import StrEnum

from messages.base import Message, message


class Blame(StrEnum):
    """Whose fault a failure is."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    US = "us"


class Scope(StrEnum):
    """How far a failure reaches: what must not be used again."""

    CREDENTIAL = "credential"
    """Our key there."""
    MODEL = "model"
    """That model at that provider."""
    PROVIDER = "provider"
    """The provider as a whole: its circuit counts it."""
    BUCKET = "bucket"
    """A rate limit: says nothing about health."""
    NONE = "none"
    """This request only."""


class Retry(StrEnum):
    """What can be done about a failure."""

    ELSEWHERE = "elsewhere"
    """Another provider may do; this one will not, for this request."""
    LATER = "later"
    """Another provider now, or this one after ``retry_after_s``."""
    NEVER = "never"
    """The same answer would come from everybody."""


DEADLINE = "deadline"
"""The ``Failure.code`` of a call that the end of its request's time broke off."""


@message("failures.failure")
class Failure(Message):
    """Why an attempt did not succeed."""

    blame: Blame
    scope: Scope
    retry: Retry
    code: str
    """A short name for logs, records and metrics: ``connect``, ``first_byte_timeout``, ``http_503``, ``empty`` ..."""
    status: int = 0
    """The upstream's HTTP status; 0 where there was none."""
    retry_after_s: float | None = None
    """The wait the upstream asked for."""
    detail: str = ""
    """One line for people; never a secret."""
    is_overload: bool = False
    """It took too much at once, by its own word: fewer calls side by side would have fared better."""
