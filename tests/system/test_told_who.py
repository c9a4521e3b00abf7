"""A client whom nobody could serve is told of every candidate why (FEATURES D4, D12)."""

import json
from typing import Any

import pytest

from actors.router.verdict import NAMED_MAX
from messages.decisions import GetReasons
from runtime.config.settings import Loaded
from runtime.simulation.faults import FaultKind
from tests.system.house import Client, World, loaded, provider, run
from tests.system.test_couriers import STILL, WHOLE

TWICE = {"backoff": STILL, "max_attempts": 2}


def told(client: Client) -> list[str]:
    """What the message says of each; of those that failed only that."""
    message = json.loads(client.text)["error"]["message"].removesuffix(".")
    return [who.split(" failed:")[0] for who in message.split(": ", 1)[1].split("; ")]


def serving(*names: str, special: dict[str, dict[str, Any]] | None = None, **routing: Any) -> Loaded:
    entries = [provider(name, **WHOLE, **(special or {}).get(name, {})) for name in names]
    return loaded(entries, **{"strategy": "first", "failover": TWICE, **routing})


def test_D12_who_was_not_called_when_the_attempts_were_spent_is_named_too() -> None:
    async def scene(world: World) -> None:
        for name in "abcd":
            world.fault(name, FaultKind.ERRORS)
        client = await world.ask()

        assert (client.status, client.attempts) == (502, 2)
        assert told(client) == ["a", "b", "c was not called any more", "d was not called any more"]

    run(serving(*"abcd"), scene)


def test_D12_so_are_those_that_never_bid_each_with_its_reason() -> None:
    async def scene(world: World) -> None:
        for name in "abc":
            world.fault(name, FaultKind.ERRORS)
        client = await world.ask(headers={"x-pointsman-exclude": "left-out"}, max_tokens=50)

        assert (client.status, client.attempts) == (502, 2)
        assert told(client) == [
            "a",
            "b",
            "c was not called any more",
            "off is disabled",
            "brief cannot fit the request into its context window (max_tokens 50 > 5, the longest answer of the model)",
            "left-out was excluded by the request",
        ]

    brief = {"models": [{"name": "m", "max_output_tokens": 5}]}
    run(serving("a", "off", "b", "brief", "left-out", "c", special={"off": {"enabled": False}, "brief": brief}), scene)


def test_D12_beyond_the_fan_out_it_is_said_who_was_not_asked() -> None:
    async def scene(world: World) -> None:
        for name in "abcd":
            world.fault(name, FaultKind.ERRORS)
        client = await world.ask()

        assert told(client)[0] == "a"
        assert sorted(told(client)[2:]) == ["c was not among those asked", "d was not among those asked"]

    run(serving(*"abcd", fanout=1), scene)


def test_D12_so_many_are_named_and_the_others_counted() -> None:
    async def scene(world: World) -> None:
        for number in range(2):
            world.fault(f"p{number:03}", FaultKind.ERRORS)
        client = await world.ask()

        assert (client.status, client.attempts) == (502, 2)
        names = told(client)
        assert names[-1] == f"and {len(NAMES) - 2 - (len(names) - 3)} more"
        assert NAMED_MAX - 2 <= len(names) - 3 <= NAMED_MAX
        assert len(set(names)) == len(names)

    NAMES = [f"p{number:03}" for number in range(100)]
    run(serving(*NAMES), scene)


@pytest.mark.parametrize("stream", [True, False])
def test_D12_at_the_end_of_its_time_a_request_is_told_who_was_too_slow_and_who_was_not_called(stream: bool) -> None:
    async def scene(world: World) -> None:
        world.fault("a", FaultKind.ERRORS)
        world.fault("b", FaultKind.HANG)
        client = await world.ask(stream=stream)

        assert (client.status, client.code) == (504, "deadline_exceeded")
        assert told(client) == ["a", "b had not answered by then", "c was not called any more"]

    hedge = {"enabled": False}
    run(serving("a", "b", "c", deadline="2s", hedge=hedge, explore=hedge), scene)


def test_D12_of_calls_side_by_side_all_that_were_too_slow_are_named() -> None:
    async def scene(world: World) -> None:
        for name in "ab":
            world.fault(name, FaultKind.HANG)
        client = await world.ask()

        assert (client.status, client.attempts) == (504, 2)
        assert sorted(told(client)) == ["a had not answered by then", "b had not answered by then"]

    run(serving(*"ab", deadline="2s", hedge={"after": "100ms", "max_share": 1.0}, explore={"enabled": False}), scene)


def test_D12_where_the_router_does_not_answer_those_of_the_plan_are_named_and_nobody_waits_for_it() -> None:
    async def scene(world: World) -> None:
        for name in "abc":
            world.fault(name, FaultKind.ERRORS)
        world.freeze("router", GetReasons)
        client = await world.ask()

        assert (client.status, client.attempts) == (502, 2)
        assert told(client) == ["a", "b", "c was not called any more"]
        assert client.took_s < 0.5

    run(serving("a", "b", "c", "off", special={"off": {"enabled": False}}), scene)


@pytest.mark.parametrize("fault", [FaultKind.ERRORS, FaultKind.HANG])
def test_D9_no_request_waits_for_reasons_beyond_its_deadline(fault: FaultKind) -> None:
    async def scene(world: World) -> None:
        for name in "ab":
            world.fault(name, fault)
        world.freeze("router", GetReasons)
        client = await world.ask(headers={"x-pointsman-deadline": "30"})

        assert client.status in (502, 504)
        assert client.took_s <= 0.03 + 1e-6
        assert len(told(client)) == 2

    run(serving(*"ab"), scene)
