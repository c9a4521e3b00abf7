"""How far an exchange on a connection is, and who keeps the connections."""

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from runtime.upstream.raw_connection import RawConnection


class State(Enum):
    """How far the exchange is."""

    RESTING = "resting"
    """No request is under way."""
    HEAD = "head"
    """A request was sent; status and headers have not come."""
    BODY = "body"
    """Status and headers are here, the end is not."""
    WHOLE = "whole"
    """The answer is here to its end."""
    BROKEN = "broken"
    """It will never be whole; ``error`` tells why."""


class Keeper(Protocol):
    """Who keeps the connections."""

    def enter(self, connection: "RawConnection") -> None:
        """It is connected."""

    def take_out(self, connection: "RawConnection") -> None:
        """It ended, or was spoilt, while RESTING."""

    def forget(self, connection: "RawConnection") -> None:
        """Its socket is closed."""
