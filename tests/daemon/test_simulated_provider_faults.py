"""Breaking a simulated provider at run time through its control API."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from runtime.simulation.behaviour import Behaviour
from runtime.simulation.server import SimulatedProvider

QUICK = Behaviour("quick", ttfb_ms=2, sigma=0, tokens_per_second=10_000, models=("m",))
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 30}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture
async def provider() -> AsyncIterator[SimulatedProvider]:
    async with SimulatedProvider(QUICK, seed=1) as provider:
        yield provider


async def until(condition: Callable[[], bool], deadline_s: float = 5.0) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_s
    while not condition():
        assert loop.time() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


async def switch_on(session: aiohttp.ClientSession, provider: SimulatedProvider, **fault: Any) -> None:
    async with session.post(provider.control_url + "/faults", json=fault) as response:
        assert response.status == 200, await response.text()


async def state(session: aiohttp.ClientSession, provider: SimulatedProvider) -> Any:
    async with session.get(provider.control_url) as response:
        return await response.json()


async def call(session: aiohttp.ClientSession, provider: SimulatedProvider, **body: Any) -> tuple[int, dict[str, str], bytes]:
    async with session.post(provider.base_url + "/chat/completions", json=CHAT | body) as response:
        return response.status, dict(response.headers), await response.read()


@pytest.mark.parametrize("stream", [True, False])
async def test_an_outage_resets_every_connection_while_control_still_answers(
    session: aiohttp.ClientSession, provider: SimulatedProvider, stream: bool
) -> None:
    await switch_on(session, provider, fault="outage")

    with pytest.raises(aiohttp.ClientOSError) as caught:
        await call(session, provider, stream=stream)
    with pytest.raises(aiohttp.ClientOSError):
        await session.get(provider.base_url + "/models")

    assert caught.value.errno == errno.ECONNRESET
    assert (await state(session, provider))["faults"] == [{"fault": "outage", "remaining_s": None}]
    assert (await state(session, provider))["counts"] == {"reset": 1}


async def test_an_outage_breaks_the_calls_in_flight(session: aiohttp.ClientSession) -> None:
    async with SimulatedProvider(Behaviour("p", ttfb_ms=60_000, sigma=0, models=("m",)), 1) as provider:
        running = asyncio.ensure_future(call(session, provider))
        await until(lambda: bool(provider.simulation.calls))

        await switch_on(session, provider, fault="outage")

        with pytest.raises(aiohttp.ClientError):
            await running
        assert provider.records()[0].outcome == "killed"


async def test_an_outage_breaks_a_stream_that_nobody_reads(session: aiohttp.ClientSession) -> None:
    # Every frame has the model's name: 18 MB in all, more than the buffers of two sockets take.
    name = "m" * 2000
    async with SimulatedProvider(
        Behaviour("p", ttfb_ms=1, tokens_per_second=1e9, models=(name,), chunk_tokens=1), 1
    ) as torrent:
        body = CHAT | {"model": name, "stream": True, "max_tokens": 8000}
        async with session.post(torrent.base_url + "/chat/completions", json=body) as response:
            sent = [0]

            def is_stuck() -> bool:
                sent.append(torrent.records()[0].sent_bytes)
                return len(sent) > 20 and sent[-20] == sent[-1]

            await until(is_stuck)
            assert torrent.records()[0].outcome == "in_flight"

            await switch_on(session, torrent, fault="outage")

            await until(lambda: not torrent.simulation.calls)
            assert torrent.records()[0].outcome == "killed"
            response.close()


async def test_errors_have_their_status_and_openais_shape(session: aiohttp.ClientSession, provider: SimulatedProvider) -> None:
    await switch_on(session, provider, fault="errors", status=502)

    status, _, text = await call(session, provider, stream=True)

    assert (status, b'"server_error"' in text) == (502, True)


async def test_errors_with_a_share_hit_some_calls_only(session: aiohttp.ClientSession, provider: SimulatedProvider) -> None:
    await switch_on(session, provider, fault="errors", p=0.5)

    statuses = [(await call(session, provider, user=str(number)))[0] for number in range(30)]

    assert set(statuses) == {200, 503}


async def test_a_hang_takes_the_call_and_never_answers(session: aiohttp.ClientSession, provider: SimulatedProvider) -> None:
    await switch_on(session, provider, fault="hang")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call(session, provider), 0.2)

    await until(lambda: not provider.simulation.calls)
    assert (provider.records()[0].outcome, provider.records()[0].fault) == ("cancelled", "hang")


async def test_slow_multiplies_the_time_to_the_first_byte(session: aiohttp.ClientSession, provider: SimulatedProvider) -> None:
    await switch_on(session, provider, fault="slow", factor=50)

    await call(session, provider)

    record = provider.records()[0]
    assert record.ended_at is not None
    # 50 × (2 ms and 29 tokens at 0.1 ms): the lower bound proves the factor, whatever else the machine is busy with.
    assert record.ended_at - record.at >= 50 * 0.0049 - 0.001


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cut_answer_is_noticed_by_the_client(
    session: aiohttp.ClientSession, provider: SimulatedProvider, stream: bool
) -> None:
    await switch_on(session, provider, fault="cut")
    received = b""

    async def read() -> None:
        nonlocal received
        async with session.post(provider.base_url + "/chat/completions", json=CHAT | {"stream": stream}) as response:
            assert response.status == 200
            async for chunk in response.content.iter_any():
                received += chunk

    with pytest.raises(aiohttp.ClientPayloadError):
        await read()

    assert b"[quick]" in received
    assert b"[DONE]" not in received
    assert provider.records()[0].outcome == "cut"


async def test_a_refused_key_garbage_and_a_forced_rate_limit(
    session: aiohttp.ClientSession, provider: SimulatedProvider
) -> None:
    await switch_on(session, provider, fault="auth")
    assert (await call(session, provider))[0] == 401
    await session.delete(provider.control_url + "/faults/auth")

    await switch_on(session, provider, fault="garbage")
    answers = [await call(session, provider, user=str(number)) for number in range(12)]
    assert {(status, text[:6]) for status, _, text in answers} == {(200, b""), (200, b"<html>")}
    await session.delete(provider.control_url + "/faults")

    await switch_on(session, provider, fault="rate_limit", retry_after=3)
    status, headers, _ = await call(session, provider)
    assert (status, headers["Retry-After"], headers["x-ratelimit-remaining-requests"]) == (429, "3", "0")


async def test_the_fault_ends_with_its_time_or_when_it_is_switched_off(
    session: aiohttp.ClientSession, provider: SimulatedProvider
) -> None:
    await switch_on(session, provider, fault="errors", **{"for": 0.05})
    await switch_on(session, provider, fault="auth", **{"for": 60})
    async with session.delete(provider.control_url + "/faults/auth") as response:
        assert "auth" not in await response.text()
    await until(lambda: not provider.simulation.faults.state(asyncio.get_running_loop().time()))

    assert (await call(session, provider))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/faults", b"{", 400),
        ("POST", "/faults", b'{"fault": "fire"}', 400),
        ("POST", "/faults", b'{"fault": "errors", "p": 7}', 400),
        ("DELETE", "/faults/fire", b"", 404),
        ("PUT", "/faults", b"", 404),
        ("GET", "/nothing", b"", 404),
    ],
)
async def test_the_control_api_says_what_is_wrong(
    session: aiohttp.ClientSession, provider: SimulatedProvider, method: str, path: str, body: bytes, status: int
) -> None:
    async with session.request(method, provider.control_url + path, data=body) as response:
        assert (response.status, len((await response.json())["errors"])) == (status, 1)

    assert (await state(session, provider))["faults"] == []


async def test_the_state_counts_calls_by_how_they_ended(session: aiohttp.ClientSession, provider: SimulatedProvider) -> None:
    await call(session, provider)
    await switch_on(session, provider, fault="auth")
    await call(session, provider)

    shown = await state(session, provider)

    assert shown["counts"] == {"http_401": 1, "ok": 1}
    assert (shown["provider"], shown["in_flight"], shown["waiting"]) == ("quick", 0, 0)
    assert shown["billed_usd"] > 0


async def test_what_it_remembers_can_be_dropped(session: aiohttp.ClientSession, provider: SimulatedProvider) -> None:
    await call(session, provider)
    await session.delete(provider.control_url + "/requests")

    assert provider.records() == []
    assert (await state(session, provider))["counts"] == {}
