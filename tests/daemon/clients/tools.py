"""The programs that the tests of this folder need and Python does not bring along. ``make clients`` installs them."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.gateway import Client, eventually

HERE = Path(__file__).parent
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
"""Debian has servers where only root looks."""
ENDS_WITHIN_S = 60.0


def program(name: str) -> str:
    """Where a program is. Without it the test is skipped, and fails on CI, where everything must be there."""
    found = shutil.which(name, path=PATH)
    return found if found is not None else _cannot_do_without(name)


def node_package(name: str) -> None:
    """See that an npm package is installed, as ``program`` does for programs."""
    if not (HERE / "node_modules" / name).is_dir():
        _cannot_do_without(f"the npm package {name}")


def _cannot_do_without(what: str) -> str:
    text = f"{what} is not installed: make clients"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


def output_of(command: Sequence[str], given: bytes = b"") -> str:
    """What a program prints. Raises ``AssertionError`` with what it complains of."""
    done = subprocess.run(command, input=given, capture_output=True, timeout=ENDS_WITHIN_S, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """A server, from when it takes connections on ``port`` until the end of the block."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=log.parent)

    def is_there() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            Client(port).connect().close()
        except ConnectionRefusedError:
            return False
        return True

    try:
        eventually(is_there, f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        process.wait(ENDS_WITHIN_S)
