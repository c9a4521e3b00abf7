"""How long a client is waited for, the same on both lanes. Pure; times in seconds.

A client that stops is given up after ``server.client_idle``. One that drips, a byte now and then so as never to stop, would
hold a place among ``server.max_requests`` for days: its body must also come at some pace (as mod_reqtimeout of Apache has it).
"""

from runtime.courier.problems import Problem

BODY_BYTES_PER_S_MIN = 512
"""Over the whole body, beyond the first ``UNPACED_S``: slower than any line somebody works on."""
UNPACED_S = 20.0
LINGER_S = 10.0
"""So long a client may go on sending after it was refused: closed at once, it might never see why."""
WRITE_HIGH_WATER_BYTES = 64 * 1024
"""An answer with more than this unsent waits for its client."""


def body_patience_s(idle_s: float, waited_s: float, came_bytes: int) -> float:
    """How long the next bytes of a body may take, when ``came_bytes`` came in ``waited_s``. 0 or less: not a moment more."""
    return min(idle_s, max(idle_s, UNPACED_S) + came_bytes / BODY_BYTES_PER_S_MIN - waited_s)


def too_slow(idle_s: float) -> Problem:
    """The answer to a body that does not come."""
    pace = f"no byte within {idle_s:g} s (server.client_idle), or less than {BODY_BYTES_PER_S_MIN} bytes/s"
    return Problem(408, "request_timeout", f"The body came too slowly: {pace}.")


def too_large(max_body_bytes: int) -> Problem:
    """The answer to a body of more than ``server.max_body``."""
    return Problem(413, "request_too_large", f"The body has more than {max_body_bytes} bytes (server.max_body).")


class Progress:
    """Whether a client took anything of what waits for it since it was last looked."""

    __slots__ = ("_unsent_bytes",)

    def __init__(self, unsent_bytes: int) -> None:
        self._unsent_bytes = unsent_bytes

    def is_made(self, unsent_bytes: int) -> bool:
        """Look again. Nothing may have been written in between."""
        before, self._unsent_bytes = self._unsent_bytes, unsent_bytes
        return unsent_bytes < before
