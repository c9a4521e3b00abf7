"""The gateway as its users meet it: ``pointsman serve`` in a process of its own (``nursery.py``), and a plain HTTP client.

with Gateway({"providers": [...]}) as gateway:
    answer = gateway.chat("m")

Leaving the block stops it by SIGTERM, and holds it to exit code 0 and a log without an error or a traceback.
"""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import orjson

from tests.daemon.nursery import Child, Nursery

WITHIN_S = 40.0
"""Deadline of everything that is waited for: generous, for it only matters when something is broken, or a machine is busy."""
HELLO = [{"role": "user", "content": "hello"}]
_LISTENING = re.compile(r"listening on https?://127\.0\.0\.1:(\d+)")
_ALARMING = re.compile(r" (?:ERROR|CRITICAL) |Traceback")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the only header called ``name`` (any case), or None."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None

    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in the body, which must have OpenAI's shape and nothing else."""
        parsed = self.json()
        assert list(parsed) == ["error"], parsed
        error: dict[str, Any] = parsed["error"]
        assert list(error) == ["message", "type", "code", "param"], error
        assert error["message"]
        return error


class Client:
    """A plain client of the gateway on a loopback port."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def opened(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; gives the answer when its headers are here. Its connection is closed at the end of the block."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    def call(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request and read its whole answer."""
        with self.opened(method, path, body, headers) as response:
            return Answer(response.status, tuple(response.getheaders()), response.read())

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """A GET."""
        return self.call("GET", path, None, headers)

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """A POST of JSON."""
        return self.call("POST", path, body, {"content-type": "application/json", **(headers or {})})

    def chat(self, model: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Answer:
        """A chat completion."""
        return self.post("/v1/chat/completions", chat_body(model, **fields), headers)

    def providers(self) -> dict[str, dict[str, Any]]:
        """``GET /admin/providers`` by id."""
        return {one["id"]: one for one in self.get("/admin/providers").json()["providers"]}

    def stats(self) -> dict[str, Any]:
        """``GET /admin/stats``."""
        found: dict[str, Any] = self.get("/admin/stats").json()
        return found

    def decision(self, answer: Answer) -> dict[str, Any]:
        """The decision record an answer's header names, once the end of its last attempt is in it."""
        path = f"/admin/decisions/{answer.header('x-pointsman-decision')}"
        attempts = int(answer.header("x-pointsman-attempts") or 0)
        found: dict[str, Any] = {}

        def is_told() -> bool:
            found.update(self.get(path).json())
            return len(found.get("attempts", ())) >= attempts

        eventually(is_told, "the decision record")
        return found

    def connect(self) -> socket.socket:
        """A bare connection, for what no well-behaved client sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN_S)

    def exchange(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own and read until the other side closes it."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_to_end(connection)


@dataclass(slots=True)
class Ring:
    """Which lane and transport the daemons of the tests have, unless their configuration says so itself."""

    lane: str | None = None

    def applied(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with that filled in. Raises ``AssertionError`` in a test that would run on one lane only."""
        assert self.lane is not None, "a test with a daemon uses the fixture `lane`, most by way of `upstream`"
        if self.lane == "raw":
            # It must be what there is without a word.
            return dict(configuration)
        server = {"lane": self.lane, **configuration.get("server", {})}
        providers = [{"transport": self.lane, **one} for one in configuration.get("providers", ())]
        return {**configuration, "server": server, "providers": providers}


RING = Ring()


class Gateway(Client):
    """One daemon. ``configuration`` is the file as a mapping; without ``server.port`` it takes a free one."""

    def __init__(
        self,
        configuration: Mapping[str, Any],
        environ: Mapping[str, str] | None = None,
        *,
        may_complain: bool = False,
        stops_within_s: float = WITHIN_S,
    ) -> None:
        super().__init__(0)
        self._configuration = configuration
        self._environ = dict(environ or {})
        self._may_complain = may_complain
        self._stops_within_s = stops_within_s
        self._directory = tempfile.TemporaryDirectory()
        self._log: list[str] = []
        self._logged = threading.Condition()
        self._reader: threading.Thread | None = None
        self._process: Child | None = None
        self._is_told = False
        """To end: a second signal would be another order."""

    @property
    def process(self) -> Child:
        """The daemon's process."""
        assert self._process is not None
        return self._process

    def log(self) -> str:
        """All it has logged so far."""
        with self._logged:
            return "\n".join(self._log)

    @property
    def file(self) -> Path:
        """Its configuration file."""
        return Path(self._directory.name) / "pointsman.yaml"

    def write(self, configuration: Mapping[str, Any] | bytes) -> None:
        """Replace its file in one go, as a careful editor does."""
        # JSON is YAML.
        data = configuration if isinstance(configuration, bytes) else orjson.dumps(RING.applied(configuration))
        fresh = self.file.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(self.file)

    def __enter__(self) -> "Gateway":
        self.write(self._configuration)
        pipe = Path(self._directory.name) / "log"
        os.mkfifo(pipe)
        # Opened first, without waiting for the other side: who writes must find somebody who reads.
        log = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._process = NURSERY.start(["serve", "-c", str(self.file), "--port", "0"], environ_for_daemon(self._environ), pipe)
        os.set_blocking(log, True)
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()
        try:
            found = _LISTENING.search(self.wait_for_log(_LISTENING.pattern))
        except BaseException:
            self._kill()
            raise
        assert found is not None
        self.port = int(found.group(1))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            code = self.stop()
        finally:
            self._kill()
        if kind is None:
            assert code == 0, f"exit code {code}; its log:\n{self.log()}"
            assert self._may_complain or not _ALARMING.search(self.log()), self.log()

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._is_told = self._is_told or number in (signal.SIGTERM, signal.SIGINT)
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, if it still runs; returns the exit code."""
        if self.process.poll() is None and not self._is_told:
            self.signal(signal.SIGTERM)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for its end."""
        try:
            return self.process.wait(self._stops_within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end; its log:\n{self.log()}") from None

    def wait_for_log(self, pattern: str) -> str:
        """Wait for a line that matches and return it."""
        ends_at = monotonic() + WITHIN_S
        with self._logged:
            while True:
                for line in self._log:
                    if re.search(pattern, line):
                        return line
                is_over = self.process.poll() is not None and not (self._reader and self._reader.is_alive())
                if is_over or (not self._logged.wait(min(0.1, max(0.0, ends_at - monotonic()))) and monotonic() >= ends_at):
                    raise AssertionError(f"no line like {pattern!r} in:\n" + "\n".join(self._log))

    def _read(self, log: int) -> None:
        with open(log, encoding="utf-8") as stream:
            for line in stream:
                with self._logged:
                    self._log.append(line.rstrip("\n"))
                    self._logged.notify_all()

    def _kill(self) -> None:
        process = self.process
        if process.poll() is None:
            process.kill()
        process.wait()
        if self._reader is not None:
            self._reader.join()
        self._directory.cleanup()


def chat_body(model: str, **fields: Any) -> bytes:
    """The body of a chat completion."""
    return orjson.dumps({"model": model, "messages": HELLO, **fields})


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the other side closes, or cuts, the connection."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def environ_for_daemon(more: Mapping[str, str]) -> dict[str, str]:
    """An environment without anybody's keys, proxies, collectors or authorities (reading those takes a while)."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV") if name in os.environ}
    nobody = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    return {**kept, **nobody, "PYTHONWARNINGS": "error::ResourceWarning", "PYTHONUTF8": "1", **more}


NURSERY = Nursery(environ_for_daemon({}))


def run_pointsman(
    *arguments: str, environ: Mapping[str, str] | None = None, from_nothing: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. ``from_nothing``: in an interpreter that has yet to load it, which takes a second."""
    made = environ_for_daemon(environ or {})
    if from_nothing:
        return subprocess.run(
            [sys.executable, "-m", "runtime", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            env=made,
            check=False,
        )
    with tempfile.TemporaryDirectory() as directory:
        shown, log = Path(directory) / "shown", Path(directory) / "log"
        shown.touch()
        log.touch()
        child = NURSERY.start(arguments, made, log, shown)
        try:
            code = child.wait(WITHIN_S)
        finally:
            child.kill()
        return subprocess.CompletedProcess(arguments, code, shown.read_text("utf-8"), log.read_text("utf-8"))


def eventually(predicate: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """Wait until ``predicate`` holds. Raises ``AssertionError`` after the deadline."""
    ends_at = monotonic() + within_s
    while not predicate():
        assert monotonic() < ends_at, f"not within {within_s:g} s: {what}"
        sleep(0.005)


def provider(identity: str, base_url: str, models: Sequence[Any], **more: Any) -> dict[str, Any]:
    """An entry of the configuration that nobody probes."""
    return {
        "id": identity,
        "kind": "openai_compatible",
        "base_url": base_url,
        "models": list(models),
        "probe": {"kind": "off"},
        **more,
    }
