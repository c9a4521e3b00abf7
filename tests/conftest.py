"""What all rings share: the messages are known and frozen, and no test leaves its logging behind."""

import gc
import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from messages.base import freeze_messages
from runtime.logs import Redaction
from runtime.system import dispatcher
from tests import every_message

# How long an example takes is the machine's affair, and what else runs there; a test as a whole has its own timeout.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The laws are proved where the sources run; on the compiled build it is types that are tried.
settings.register_profile("compiled", settings.get_profile("house"), max_examples=10)
IS_COMPILED = not (dispatcher.__file__ or "").endswith(".py")
settings.load_profile("compiled" if IS_COMPILED else "house")

every_message.load()
if not IS_COMPILED:
    freeze_messages()

A_DOUBLE = "puts a double in the place of a class, which compiled code does not take"
INTERPRETED_ONLY = {
    "tests/actors/test_dialect_stream.py::test_what_says_nothing_but_text_is_not_read_again_after_the_commit": A_DOUBLE,
    "tests/actors/test_dialect_stream.py::test_nor_is_text_that_has_to_be_counted_if_it_stands_where_it_mostly_does": A_DOUBLE,
    "tests/actors/test_messages.py": "looks at how an interpreted message is made",
    "tests/actors/test_prober.py": "derives from an actor",
    "tests/actors/test_provider_traps.py": A_DOUBLE,
    "tests/actors/test_quota.py": A_DOUBLE,
    "tests/actors/test_registry_reload.py": "looks at how an interpreted message is made",
    "tests/daemon/test_lanes.py": A_DOUBLE,
    "tests/daemon/test_lanes_ends.py": A_DOUBLE,
    "tests/daemon/test_lanes_grammar.py": A_DOUBLE,
    "tests/daemon/test_listener.py": A_DOUBLE,
    "tests/daemon/test_listener_tls.py": A_DOUBLE,
    "tests/daemon/test_raw_edge.py": A_DOUBLE,
    "tests/daemon/test_raw_edge_tasks.py": A_DOUBLE,
    "tests/daemon/test_rings.py": A_DOUBLE,
    "tests/daemon/test_wire_thrift.py": A_DOUBLE,
}
"""Tests, or modules with some, that the compiled build cannot run, and why. They run on the sources it is made from."""


def names_of(item: pytest.Item) -> tuple[str, str]:
    """The module of a test, and the test without its parameters."""
    module, _, test = item.nodeid.partition("::")
    return module, f"{module}::{test.partition('[')[0]}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On the compiled build, leave those out that cannot run there."""
    if IS_COMPILED:
        left_out = [item for item in items if not INTERPRETED_ONLY.keys().isdisjoint(names_of(item))]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


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
