"""What Pointsman is measured against: aiohttp's server and client and nothing else. One process, no choice, no limits.

``python -m tests.benchmarks.passthrough PORT UPSTREAM_URL``
"""

import sys

import aiohttp
import uvloop
from aiohttp import web


async def stream(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Pass on what comes when it comes."""
    passed = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await passed.prepare(request)
    async for data in answer.content.iter_any():
        await passed.write(data)
    return passed


def main() -> None:
    port, upstream = int(sys.argv[1]), sys.argv[2]
    app = web.Application(client_max_size=100_000_000)

    async def session(app: web.Application) -> None:
        app["session"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close(app: web.Application) -> None:
        await app["session"].close()

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}
        async with request.app["session"].post(upstream, data=body, headers=headers) as answer:
            if answer.content_type == "text/event-stream":
                return await stream(request, answer)
            return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)

    app.on_startup.append(session)
    app.on_cleanup.append(close)
    app.router.add_post("/v1/chat/completions", handle)
    web.run_app(app, host="127.0.0.1", port=port, loop=uvloop.new_event_loop(), access_log=None, print=None)


if __name__ == "__main__":
    main()
