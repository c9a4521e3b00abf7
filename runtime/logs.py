"""Logging: one line per event to stderr, and no secret in it whatever was logged.

Never on a request's way: only lifecycle, crashes and changes are logged.
"""

import logging
import sys
from collections.abc import Iterable

SECRET_CHARACTERS_MIN = 6
"""Shorter values are not looked for: they would tear holes into ordinary words."""
SECRETS_MAX = 10_000
"""Secrets looked for; of more, the oldest are forgotten."""


class Redaction(logging.Formatter):
    """Formats a record, then takes every known secret out of the finished line, tracebacks included."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(name)s: %(message)s")
        self._known: dict[str, None] = {}
        """In the order they became known."""
        self._secrets: list[str] = []
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Look for these as well. A secret stays known when its provider is gone: what still runs may name it."""
        self._known.update(dict.fromkeys(secret for secret in secrets if len(secret) >= SECRET_CHARACTERS_MIN))
        for oldest in list(self._known)[:-SECRETS_MAX]:
            del self._known[oldest]
        # One may be a part of another: the longer goes first, or the rest of it would stay.
        self._secrets = sorted(self._known, key=len, reverse=True)

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


def hide(secrets: Iterable[str]) -> None:
    """Take these out of the log too, from now on. Nothing to do where ``configure`` was not called."""
    found = list(secrets)
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, Redaction):
            handler.formatter.add(found)
