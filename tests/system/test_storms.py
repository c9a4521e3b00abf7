"""Whatever happens to providers, clients and actors at once: no permit leaks, everybody gets one answer, no limit is passed.

``make simulate SEEDS=1000`` plays so many storms. One that breaks a law names the command that plays it again.
"""

import asyncio
import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache, reduce
from operator import add
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.buckets import Bucket
from actors.provider.circuit import Circuit
from messages.calls import Award, CallEnded, ContentStarted
from messages.routing import CallForBids, Claimed, Gathered, RouteQuery
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import FaultKind
from tests.system.house import MODEL, World, loaded, provider, run
from tests.system.storm import Aftermath, Storm, play

SEEDS_EVERY_TIME = 36


def seeds() -> list[int]:
    """Those of this run: the first so many, or the one of ``POINTSMAN_STORM_SEED``."""
    if one := os.environ.get("POINTSMAN_STORM_SEED"):
        return [int(one)]
    return list(range(int(os.environ.get("POINTSMAN_STORM_SEEDS", SEEDS_EVERY_TIME))))


@dataclass
class Tale:
    """What is told of storms that broke no law."""

    clients: int
    unanswered: list[str]
    most_trials: int
    """That were out at once."""
    fates: Counter[str]
    statuses: Counter[int]
    outcomes: Counter[str]
    answers: Counter[str]
    counts: Counter[str]

    def __add__(self, other: "Tale") -> "Tale":
        return Tale(
            self.clients + other.clients,
            self.unanswered + other.unanswered,
            max(self.most_trials, other.most_trials),
            self.fates + other.fates,
            self.statuses + other.statuses,
            self.outcomes + other.outcomes,
            self.answers + other.answers,
            self.counts + other.counts,
        )


@cache
def tale(seed: int) -> Tale:
    """Play a storm, once for all who ask for it."""
    aftermath = play(seed)
    world = aftermath.world
    counters = world.house.system.counters
    names = ("crashes", "restarts", "swallowed", "late_replies", "expired")
    lines = aftermath.stats.providers
    calls = Counter({name: sum(getattr(line, name) for line in lines) for name in ("hedges", "explores", "lost")})
    return Tale(
        clients=len(world.clients),
        unanswered=[repr(client) for client in world.clients if client.fate != "left" and client.status == 0],
        most_trials=world.watch.most_trials,
        fates=Counter(client.fate for client in world.clients),
        statuses=Counter(client.status for client in world.clients),
        outcomes=Counter(str(permit.outcome or permit.refusal) for permit in world.watch.permits.values()),
        answers=aftermath.answers,
        counts=Counter({name: getattr(counters, name) for name in names}) + calls,
    )


@pytest.mark.parametrize("seed", seeds())
def test_no_storm_breaks_a_law(seed: int) -> None:
    told = tale(seed)

    assert told.clients >= 40
    assert told.unanswered == []


def test_a_storm_that_breaks_a_law_names_the_command_that_plays_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Circuit, "_slots", lambda circuit: circuit.spec.half_open_calls + 1)

    with pytest.raises(AssertionError, match="trials out") as caught:
        list(map(play, range(10)))
    [note] = caught.value.__notes__
    assert re.fullmatch(r"storm (\d) breaks a law; play it again with: make simulate SEED=\1", note)


def test_tokens_used_beyond_their_estimate_that_nobody_charges_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = Bucket.settle
    monkeypatch.setattr(Bucket, "settle", lambda of, taking, used, now: settle(of, taking, min(used, taking.amount), now))

    with pytest.raises(AssertionError, match="tokens between"):
        list(map(play, range(10)))


def test_storms_are_storms() -> None:
    """That the laws held means something only if there was everything to break them."""
    explored = (30, 32)  # Few storms have a provider worth a copy.
    told = reduce(add, (tale(seed) for seed in (*range(15), *explored)))

    assert {"answer", "error", "frame", "left"} <= set(told.fates)
    assert {200, 429, 502, 503, 504} <= set(told.statuses)
    assert {"success", "failed", "cancelled", "not_sent", "at_capacity"} <= set(told.outcomes)
    assert {"Changed", "Configured", "ChangeRefused"} <= set(told.answers)
    assert told.answers["crashed"] > 20
    assert told.most_trials > 1
    assert told.fates["answer"] > 200
    assert told.counts["crashes"] > 20
    assert told.counts["restarts"] > 10
    assert told.counts["swallowed"] > 0
    assert told.counts["late_replies"] > 0
    assert told.counts["expired"] > 0
    assert told.counts["hedges"] > 8
    assert told.counts["explores"] > 2
    assert told.counts["lost"] > 8


# The same laws under sequences that hypothesis makes up, and makes small when one breaks them.


@dataclass(frozen=True)
class Send:
    stream: bool
    leaves_after: int | float | None
    """Turns of the loop if whole, seconds if not; None: it stays."""
    pause_s: float


@dataclass(frozen=True)
class Break:
    provider: int
    fault: FaultKind
    for_s: float


@dataclass(frozen=True)
class Crash:
    actor: str
    on: type
    mode: str
    is_broken: bool


@dataclass(frozen=True)
class Wait:
    for_s: float


Step = Send | Break | Crash | Wait

sends = st.builds(Send, st.booleans(), st.sampled_from((None, None, 0, 1, 2, 3, 0.01, 0.105, 0.5)), st.sampled_from((0.0, 0.3)))
breaks = st.builds(Break, st.integers(0, 1), st.sampled_from(tuple(FaultKind)), st.sampled_from((0.05, 1.0)))
crashes = st.one_of(
    st.builds(
        Crash,
        st.sampled_from(("provider:p0", "provider:p1")),
        st.sampled_from((Award, CallEnded, ContentStarted, CallForBids)),
        st.sampled_from(("before", "after")),
        st.booleans(),
    ),
    st.builds(
        Crash, st.just("router"), st.sampled_from((RouteQuery, Gathered, Claimed, CallEnded)), st.just("before"), st.just(False)
    ),
)
steps = st.lists(st.one_of(sends, sends, breaks, crashes, st.builds(Wait, st.sampled_from((0.0, 0.02, 0.3, 1.5)))), max_size=30)


@settings(max_examples=150, deadline=None, derandomize="POINTSMAN_STORM_SEEDS" not in os.environ)
@given(steps)
def test_no_sequence_of_events_leaks_a_permit_or_leaves_anybody_without_an_answer(sequence: list[Step]) -> None:
    config = loaded(
        [
            provider(
                name,
                limits={"max_concurrency": 2, "requests_per_minute": 120, "burst": 5},
                circuit={"failures": 2, "open_for": "500ms"},
                timeouts={"first_byte": "1s", "idle": "1s", "total": "2s"},
            )
            for name in ("p0", "p1")
        ],
        deadline="5s",
        queue={"max_wait": "1s", "max_length": 5},
    )

    async def scene(world: World) -> Aftermath:
        for step in sequence:
            await take(step, world)
        await world.all_done()
        world.end_sabotage()
        await asyncio.sleep(330.0)
        return await Aftermath.of(world)

    quick = Behaviour("p", ttfb_ms=100, sigma=0, tokens_per_second=100, models=(MODEL,), chunk_tokens=2)

    aftermath = run(config, scene, {"p0": quick, "p1": quick})

    assert aftermath.wrongs() == []


async def take(step: Step, world: World) -> None:
    match step:
        case Send(stream, leaves_after, pause_s):
            client = world.send(stream=stream, pause_s=pause_s)
            if isinstance(leaves_after, float):
                world.loop.call_later(leaves_after, client.leave)
            elif leaves_after is not None:
                Storm.leave_after_turns(world.loop, client.leave, leaves_after)
        case Break(number, fault, for_s):
            world.fault(f"p{number}", fault, for_s=for_s, retry_after_s=0.5)
        case Crash(actor, on, mode, is_broken):
            world.crash(actor, on, 1, mode, is_broken)
        case Wait(for_s):
            await asyncio.sleep(for_s)


# Same seed, same run.


def journal(seed: int) -> list[bytes]:
    return play(seed, keeps_journal=True).journal


@cache
def digest(seed: int) -> str:
    return hashlib.sha256(b"\n".join(journal(seed))).hexdigest()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_seed_gives_the_same_journal_byte_for_byte(seed: int) -> None:
    first = journal(seed)

    assert len(first) > 100
    assert first == journal(seed)


def test_another_seed_gives_another_journal() -> None:
    assert digest(1) != digest(2)


def test_the_same_seed_gives_the_same_journal_in_another_process_with_other_hashes() -> None:
    program = "from tests.system.test_storms import digest; print(*[digest(seed) for seed in (4, 5, 6)])"
    root = Path(__file__).parents[2]

    def elsewhere(hash_seed: str) -> str:
        environ = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=root, env=environ, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert elsewhere("1") == elsewhere("2") == " ".join(digest(seed) for seed in (4, 5, 6)) + "\n"
