"""What the dialects cost on the way of one whole answer: reading the request, writing the call, reading the answer.

Run: ``python -m tests.benchmarks.dialects``. Prints µs per call, the least of several rounds.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter

import orjson

from runtime.dialects.answer import read_body
from runtime.dialects.headers import base_headers, request_headers
from runtime.dialects.request import read_request
from runtime.dialects.splice import replace_model
from runtime.dialects.told import told_raw
from tests.benchmarks.payload import ANSWER, BODY, MODEL

CALLS = 20_000
ROUNDS = 5

CLIENT_HEADERS = [
    ("Host", "127.0.0.1:8080"),
    ("Content-Type", "application/json"),
    ("Content-Length", str(len(BODY))),
    ("Accept", "application/json"),
    ("Accept-Encoding", "gzip, deflate"),
    ("User-Agent", "OpenAI/Python 1.99.0"),
    ("Authorization", "Bearer key"),
]
PLAIN_HEADERS = [
    ("Content-Type", "application/json"),
    ("Date", "Sat, 01 Jan 2028 00:00:00 GMT"),
    ("Content-Length", str(len(ANSWER))),
    ("x-request-id", "req_1"),
]
LIMIT_HEADERS = [
    *PLAIN_HEADERS,
    ("x-ratelimit-limit-requests", "1000"),
    ("x-ratelimit-remaining-requests", "999"),
    ("x-ratelimit-reset-requests", "1s"),
    ("x-ratelimit-limit-tokens", "100000"),
    ("x-ratelimit-remaining-tokens", "99999"),
    ("x-ratelimit-reset-tokens", "6m0s"),
]


def calls() -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    read = read_request("chat", BODY)
    base = base_headers("key")
    with_limits = _raw(LIMIT_HEADERS)
    return {
        "parse the request (orjson alone)": partial(orjson.loads, BODY),
        "read_request": partial(read_request, "chat", BODY),
        "replace_model, same name": partial(replace_model, BODY, read.parsed, MODEL),
        "replace_model, other name": partial(replace_model, BODY, read.parsed, "other-model"),
        "request_headers": partial(request_headers, base, CLIENT_HEADERS),
        "told, without limits": partial(told_raw, _raw(PLAIN_HEADERS)),
        "told, with limits": lambda: told_raw(with_limits).limits(),
        "parse the answer (orjson alone)": partial(orjson.loads, ANSWER),
        "read_body": partial(read_body, "chat", 200, ANSWER, 60),
    }


def _raw(headers: list[tuple[str, str]]) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers), "", ""]).encode()


def measure(call: Callable[[], object]) -> float:
    """µs of one call, at best."""
    best_s = float("inf")
    for _ in range(ROUNDS):
        started = perf_counter()
        for _ in range(CALLS):
            call()
        best_s = min(best_s, perf_counter() - started)
    return best_s / CALLS * 1e6


def main() -> None:
    """Print the table."""
    for name, call in calls().items():
        print(f"{name:<36}{measure(call):>8.2f} µs")


if __name__ == "__main__":
    main()
