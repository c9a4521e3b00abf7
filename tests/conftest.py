"""What all rings share: the messages are known and frozen, and no test leaves its logging behind."""

import logging
from collections.abc import Iterator

import pytest

from messages.base import freeze_messages
from runtime.logs import Redaction
from tests import every_message

every_message.load()
freeze_messages()


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A command of ours that runs in this process sets up the process's logging, and would do so for later tests too."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler.formatter, Redaction)]
