"""Daemons and commands that are quickly there: each is forked from a process that has loaded the program already.

Each is a process of its own all the same, with its own arguments, environment and outputs, and runs the command from its
beginning; only loading modules, nearly a second of work, is done once. That the program starts from nothing too is tested
with the commands (``test_cli.py``): every way to start it, ``serve``, ``demo`` and ``explain``.

``python -m tests.daemon.nursery`` is the process they come from: a line with an order on its standard input for each, and on
its standard output a line for each that has begun and each that has ended.
"""

import gc
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

STARTS_WITHIN_S = 60.0


class Child:
    """A daemon as who started it sees it; a part of what ``subprocess.Popen`` offers."""

    def __init__(self) -> None:
        self.pid = 0
        self._code: int | None = None
        self._has_begun = threading.Event()
        self._has_ended = threading.Event()

    def begun(self, pid: int) -> None:
        """It has this process id."""
        self.pid = pid
        self._has_begun.set()

    def ended(self, code: int) -> None:
        """It is over; ``code`` is negative where a signal ended it."""
        self._code = code
        self._has_begun.set()
        self._has_ended.set()

    def wait_for_begin(self) -> None:
        """Wait for its process. Raises ``AssertionError`` if there is none."""
        assert self._has_begun.wait(STARTS_WITHIN_S), "the nursery does not answer"
        assert self.pid, "it ended before it began"

    def poll(self) -> int | None:
        """Its exit code, None: it runs."""
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises ``subprocess.TimeoutExpired``."""
        if not self._has_ended.wait(timeout):
            raise subprocess.TimeoutExpired("pointsman", timeout or 0.0)
        assert self._code is not None
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self._code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process daemons come from, as the tests see it. It begins with the first of them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._ordering = threading.Lock()
        self._children: dict[int, Child] = {}
        """By the number of their order, until they have ended."""
        self._orders = 0

    def start(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path, shown: Path = Path(os.devnull)) -> Child:
        """Start ``pointsman`` with ``arguments``; it has opened ``log``, which must be there, as its standard error.

        ``shown`` is its standard output.
        """
        child = Child()
        order = {"arguments": list(arguments), "environ": dict(environ), "log": str(log), "shown": str(shown)}
        with self._ordering:
            if self._process is None:
                self._process = self._begin()
            assert self._process.stdin is not None
            self._orders += 1
            self._children[self._orders] = child
            self._process.stdin.write(orjson.dumps({"number": self._orders, **order}) + b"\n")
            self._process.stdin.flush()
        child.wait_for_begin()
        return child

    def close(self) -> None:
        """End the process. Its daemons must have ended."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._reader is not None
        self._process.stdin.close()
        self._reader.join()
        self._process.stdout.close()
        self._process.wait(STARTS_WITHIN_S)

    def _begin(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.daemon.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**self._environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()
        return process

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            number, pid, code = orjson.loads(line)
            if code is None:
                self._children[number].begun(pid)
            else:
                self._children.pop(number).ended(code)
        for child in self._children.values():
            child.ended(-signal.SIGKILL)


# The process itself.


def main() -> None:
    """Fork a daemon for every order, and tell of its end. A daemon returns from ``serve`` with its order and runs it."""
    # Loaded here, and not by the tests: they need none of it. The last are what it loads itself when first used.
    from runtime import cli

    for name in ("runtime.daemon", "uvloop", "anyio._backends._asyncio", "runtime.explain", "runtime.explain_table"):
        import_module(name)
    gc.collect()
    gc.freeze()
    order = next_order()
    if order is None:
        return
    become(order)
    cli.main()


def next_order() -> dict[str, Any] | None:
    """Returns in every daemon with its order, and in the nursery with None at the end of them."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    orders, numbers = b"", dict[int, int]()
    while True:
        ready, _, _ = select.select([0, told], [], [])
        if told in ready:
            os.read(told, 4096)
            report_ends(numbers)
        if 0 in ready:
            piece = os.read(0, 65536)
            if not piece:
                return None
            *whole, orders = (orders + piece).split(b"\n")
            for line in whole:
                order: dict[str, Any] = orjson.loads(line)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, before)
                    os.close(told)
                    os.close(tell)
                    return order
                numbers[pid] = order["number"]


def report_ends(numbers: dict[int, int]) -> None:
    """Tell of every daemon that has ended. ``numbers``: of their orders, by process id."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        report(numbers.pop(pid), pid, os.waitstatus_to_exitcode(status))


def report(number: int, pid: int, code: int | None) -> None:
    # In one write: nursery and daemons share the pipe.
    os.write(1, orjson.dumps([number, pid, code]) + b"\n")


def become(order: Mapping[str, Any]) -> None:
    """Take on the arguments, environment and log of an order, and tell that this has been done."""
    log = os.open(order["log"], os.O_WRONLY)
    os.dup2(log, 2)
    report(order["number"], os.getpid(), None)
    nothing, shown = os.open(os.devnull, os.O_RDONLY), os.open(order["shown"], os.O_WRONLY)
    os.dup2(nothing, 0)
    os.dup2(shown, 1)
    for number in (nothing, shown, log):
        os.close(number)
    os.environ.clear()
    os.environ.update(order["environ"])
    # Where the interpreter would have looked first, had it begun with this environment.
    sys.path[:0] = filter(None, order["environ"].get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["pointsman", *order["arguments"]]


if __name__ == "__main__":
    main()
