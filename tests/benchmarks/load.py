"""A closed-loop load generator for machines without wrk; prints what wrk prints, as far as the benchmarks read it.

``python -m tests.benchmarks.load PORT SECONDS CONNECTIONS``
"""

import asyncio
import sys
import time

import uvloop

from tests.benchmarks.payload import BODY

_REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
) + BODY


async def _client(port: int, until: float, took_s: list[float], bad: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while (begun := time.monotonic()) < until:
            writer.write(_REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            took_s.append(time.monotonic() - begun)
            if not head.startswith(b"HTTP/1.1 200"):
                bad[0] += 1
    finally:
        writer.close()


async def _main(port: int, seconds: float, connections: int) -> None:
    took_s: list[float] = []
    bad = [0]
    begun = time.monotonic()
    await asyncio.gather(*(_client(port, begun + seconds, took_s, bad) for _ in range(connections)))
    elapsed = time.monotonic() - begun
    took_s.sort()
    for share in (50, 99):
        print(f"{share}% {took_s[min(len(took_s) - 1, len(took_s) * share // 100)] * 1000:.3f}ms")
    print(f"{len(took_s)} requests in {elapsed:.2f}s")
    if bad[0]:
        print(f"Non-2xx or 3xx responses: {bad[0]}")
    print(f"Requests/sec: {len(took_s) / elapsed:.2f}")


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
