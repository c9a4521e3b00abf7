"""What all rings share: the messages are known and frozen, and no test leaves its logging behind."""

import gc
import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from messages.base import freeze_messages
from runtime.logs import Redaction
from tests import every_message

# How long an example takes is the machine's affair, and what else runs there; a test as a whole has its own timeout.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

every_message.load()
freeze_messages()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is loaded by now stays for good: the collector need not walk some hundred thousand objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A command of ours that runs in this process sets up the process's logging, and would do so for later tests too."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler.formatter, Redaction)]
