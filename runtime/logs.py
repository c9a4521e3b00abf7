"""Logging: one line per event to stderr, and no secret in it whatever was logged.

Never on a request's way: only lifecycle, crashes and changes are logged.
"""

import logging
import sys
from collections.abc import Iterable

SECRET_CHARACTERS_MIN = 6
"""Shorter values are not looked for: they would tear holes into ordinary words."""


class Redaction(logging.Formatter):
    """Formats a record, then takes every known secret out of the finished line, tracebacks included."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(name)s: %(message)s")
        self._secrets = sorted({secret for secret in secrets if len(secret) >= SECRET_CHARACTERS_MIN}, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """The line, redacted."""
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line


def configure(secrets: Iterable[str], level: str = "INFO") -> None:
    """Send the logs of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Redaction(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("aiohttp.server").setLevel("ERROR")
