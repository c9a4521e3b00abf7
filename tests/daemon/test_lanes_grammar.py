"""Requests of all sorts, put together at random, in random pieces: both lanes answer them alike.

Left out is what ``docs/lanes.md`` has as different: several headers that tell the connection's end, ``Proxy-Connection``,
trailers that stand for something, and what comes after a chunked request.
"""

import asyncio
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.daemon.lane_kit import Lanes, both_lanes
from tests.lines import LANES, LaneName, replies

METHODS = ["POST"] * 8 + ["GET", "PUT", "OPTIONS", "DELETE", "PATCH", "TRACE", "QUERY", "post", "CONNECT", "LINK"]
MODELS = "/v1/chat/completions"
TARGETS = [
    *[MODELS] * 6,
    "/v1/completions",
    "/v1/embeddings?x=1",
    f"{MODELS}/",
    f"{MODELS}?",
    f"{MODELS}?a=%zz&b[]",
    f"{MODELS};a",
    f"{MODELS}%20",
    "/v1/chat%2fcompletions",
    "/v1/chat/complet%69ons",
    "//v1/chat/completions",
    "/v1/./chat/completions",
    "/v1/../v1/chat/completions",
    "/healthz",
    "/healthz?x",
    "/admin/explain",
    "/%zz",
    "/[",
    '/?"<>',
    "/\x7f",
    "*",
    "http://a/v1/chat/completions",
    "v1/chat/completions",
]
VERSIONS = ["HTTP/1.1"] * 9 + ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/0.9", "HTTP/01.1", "HTTP/11"]
CONNECTION = ["keep-alive", "close", "Close, x", "x, close", "upgrade", "Upgrade, HTTP2-Settings", "", "close,", "closed"]
HEADERS = [
    "Expect: 100-continue",
    "expect: 100-Continue",
    "Expect: nothing",
    "Expect:",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "Content-Encoding: gzip",
    "Content-Encoding: identity",
    "Content-Encoding:",
    "Content-Encoding: foo",
    "Content-Type: application/json",
    "Content-Type:",
    "X-Stream: 1",
    'X-A: "q\\""',
    "X-A:  b  ",
    "X-A:",
    "X-A: b\tc",
    "X-A\t: b",
    "X A: b",
    "X_A: 1",
    "(x): 1",
    "X\x80: b",
    "X-A: \x80\xff",
    "X-A: \x7f",
    "Host: other",
    "TE: trailers",
    "Trailer: x",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding:",
    "Transfer-Encoding: chunked;q=1",
    "Content-Length: 0",
    "Content-Length: 00",
    "Keep-Alive: 5",
    "Cookie: a=b; c",
    "Accept-Encoding: gzip, deflate, br",
    "Range: bytes=0-1",
]
BODIES = [b"", b"{}", b"hello", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"0\r\n\r\n", b"x" * 300]


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """``body`` in chunks."""
    said = b""
    cuts = draw(st.lists(st.integers(1, max(len(body) - 1, 1)), max_size=4))
    for start, end in pairwise(sorted({0, *cuts, len(body)})):
        size = draw(st.sampled_from(["%x", "0%x", "%X", "0000%x"])) % (end - start)
        extension = draw(st.sampled_from(["", "", "", ";a=b", ";", ';a="b;c"', " ;a", "; a = b"]))
        said += f"{size}{extension}\r\n".encode() + body[start:end] + b"\r\n"
    last, trailer = draw(st.sampled_from(["0", "00", "0;x"])), draw(st.sampled_from(["", "", "X: y\r\n", "X: y\r\nZ:\r\n"]))
    return said + f"{last}\r\n{trailer}\r\n".encode()


@st.composite
def one_request(draw: st.DrawFn) -> bytes:
    """One request, most of them good."""
    lines = ["Host: 127.0.0.1"] * draw(st.sampled_from([1] * 9 + [0]))
    lines += draw(st.lists(st.sampled_from(HEADERS), max_size=3))
    if draw(st.integers(0, 3)) == 0:
        lines.append(f"Connection: {draw(st.sampled_from(CONNECTION))}")
    body, framing = draw(st.sampled_from(BODIES)), draw(st.sampled_from(["length", "length", "zeros", "chunks", "nothing"]))
    if framing == "chunks":
        lines.append(draw(st.sampled_from(["Transfer-Encoding: chunked", "transfer-encoding: Chunked"])))
        body = draw(chunked(body))
    elif framing == "nothing":
        body = b""
    else:
        lines.append(f"Content-Length: {'00' * (framing == 'zeros')}{len(body)}")
    lines = draw(st.permutations(lines))
    first = f"{draw(st.sampled_from(METHODS))} {draw(st.sampled_from(TARGETS))} {draw(st.sampled_from(VERSIONS))}"
    before = draw(st.sampled_from(["", "", "", "\r\n", "\n", "\r"]))
    return before.encode() + "\r\n".join([first, *lines, "", ""]).encode("latin-1") + body


async def told(lanes: Lanes, lane: LaneName, pieces: list[bytes], is_chunked: bool) -> object:
    """What that lane makes of it, as far as the lanes must agree."""
    line = await lanes.say(lane, *pieces)
    got = [
        (one.status, one.body if one.status < 400 else b"", [pair for pair in one.headers if pair[0] != "connection"])
        for one in replies(line.said)
    ]
    is_over = line.is_closed or line.is_ended or b"connection: close" in bytes(line.said).lower()
    assert lanes.desks[lane].count == 0 or not is_over
    return got, is_chunked or is_over, lanes.seen(lane)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests=st.lists(one_request(), min_size=1, max_size=3), cuts=st.lists(st.integers(1, 700), max_size=6))
async def test_both_lanes_make_the_same_of_it(requests: list[bytes], cuts: list[int]) -> None:
    # Of what comes in one piece aiohttp drops the good requests before the bad one, and after a chunked one it ends.
    chunky = next((at for at, one in enumerate(requests) if b"ransfer-encoding" in one.lower()), None)
    requests = requests if chunky is None else requests[: chunky + 1]
    pieces = []
    for one in requests:
        edges = sorted({0, len(one), *(cut for cut in cuts if cut < len(one))})
        pieces += [one[start:end] for start, end in pairwise(edges)]
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with both_lanes() as lanes:
        raw, reference = [await told(lanes, lane, pieces, chunky is not None) for lane in LANES]
    assert raw == reference
    assert failures == []
