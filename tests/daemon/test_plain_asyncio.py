"""Where uvloop is not installed, the daemon runs on asyncio's own loop, and does all the same."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import orjson

from tests.daemon.gateway import WITHIN_S, Client, environ_for_daemon, provider
from tests.daemon.gateway_upstreams import DONE, ScriptedUpstream, answers
from tests.daemon.test_lanes import GET, post

WITHOUT_UVLOOP = """
import asyncio, sys
sys.modules["uvloop"] = None
from runtime.cli import run
made = asyncio.SelectorEventLoop.__init__
def noted(loop, *arguments):
    made(loop, *arguments)
    print("on asyncio's own loop", file=sys.stderr, flush=True)
asyncio.SelectorEventLoop.__init__ = noted
run(sys.argv[1:])
"""


def test_the_daemon_serves_whole_answers_and_streams_and_hands_connections_over(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.scripts["p"] = answers
    file = tmp_path / "pointsman.yaml"
    file.write_bytes(orjson.dumps({"providers": [provider("p", upstream.base_url("p"), ["m"])]}))
    command = [sys.executable, "-c", WITHOUT_UVLOOP, "serve", "-c", str(file), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ_for_daemon({})) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr)
            said, port = [], None
            while port is None:
                said.append(next(lines))
                port = re.search(r"listening on http://127\.0\.0\.1:(\d+)", said[-1])
            assert "on asyncio's own loop\n" in said
            client = Client(int(port[1]))
            assert client.chat("m").status == 200
            assert client.chat("m", stream=True).body.endswith(DONE)
            body = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
            both = client.exchange(post(body) + GET + post(body, b"Connection: close\r\n"))
            assert both.count(b"HTTP/1.1 200 OK\r\n") == 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(WITHIN_S) == 0
        finally:
            process.kill()
