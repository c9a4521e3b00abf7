"""Changes at run time in the middle of a storm: new files, and what the admin API can ask for."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from messages.base import Message
from messages.changes import (
    Changed,
    ChangeRefused,
    DeleteAlias,
    PatchProvider,
    PutAlias,
    RegisterProvider,
    SetDefault,
    SetStrategy,
    UnregisterProvider,
)
from messages.control import ConfigSnapshot, Configured, LimitsSpec, Propose, ProviderSpec, Reset
from runtime.config.kinds import SUPPORTED_STRATEGIES
from runtime.system.replies import ActorGone
from tests.system.house import MODEL, World


def moved(endpoint: str) -> str:
    """Where else a provider can be."""
    return f"{endpoint}/moved"


class Changes:
    """Asks for changes, and keeps what became of them."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._file: ConfigSnapshot = world.house.loaded.snapshot
        self._specs: Sequence[ProviderSpec] = self._file.providers
        for spec in self._specs:
            upstream = world.upstream._behaviours
            upstream[moved(spec.endpoint)] = upstream[spec.endpoint]
        self._asked: list[asyncio.Task[None]] = []
        self.answers: Counter[str] = Counter()

    def ask(self) -> None:
        """Ask for one that the seed picks; the answer comes when it comes."""
        change, undo = self._drawn()
        self._ask(change)
        if undo is not None:
            self._world.loop.call_later(self._rng.uniform(0.0, 6.0), self._ask, undo)
        if self._rng.random() < 0.1:
            self._reset_one()

    def _ask(self, change: Message) -> None:
        self._asked.append(self._world.loop.create_task(self._answered(change)))

    def _reset_one(self) -> None:
        present = self._world.house.directory.snapshot.providers
        if present:
            self._world.house.system.tell(f"provider:{self._rng.choice(present).id}", Reset(), sender="admin")

    async def settled(self) -> None:
        """Every change has its answer. Raises what a change raised that none may."""
        await asyncio.gather(*self._asked)

    async def _answered(self, change: Message) -> None:
        try:
            answer = await self._world.house.system.ask("registry", change, sender="admin")
        except ActorGone as gone:
            # The registry fell over it: nothing has changed, and who asked knows.
            self.answers[f"gone: {gone.fault}"] += 1
            return
        assert isinstance(answer, Changed | Configured | ChangeRefused), answer
        self.answers[type(answer).__name__] += 1

    def _drawn(self) -> tuple[Message, Message | None]:
        """A change, and what undoes it a while later if it takes somebody out."""
        rng = self._rng
        spec = rng.choice(self._specs)
        back = RegisterProvider(replace(spec, limits=self._limits(spec)))
        draw = rng.random()
        if draw < 0.35:
            return Propose(self._next_file()), None
        if draw < 0.55:
            return UnregisterProvider(spec.id), back
        if draw < 0.6:
            return back, None
        if draw < 0.7:
            said = rng.choice(("unavailable", "disabled", "auth_failed"))
            return PatchProvider(spec.id, status=said), PatchProvider(spec.id, status="ready")
        if draw < 0.8:
            return PatchProvider(spec.id, weight=rng.choice((None, 0, 3)), priority=rng.choice((None, 0, 2))), None
        if draw < 0.88:
            return SetStrategy(rng.choice(SUPPORTED_STRATEGIES)), None
        if draw < 0.92:
            return SetDefault(spec.id), None
        return rng.choice((PutAlias("best", f"{spec.id}:{MODEL}"), DeleteAlias("best"))), None

    def _next_file(self) -> ConfigSnapshot:
        """The file anew: somebody gone, back or moved, another key, other limits."""
        rng = self._rng
        kept = [spec for spec in self._specs if rng.random() < 0.85] or self._specs[:1]
        providers = tuple(
            replace(
                spec,
                limits=self._limits(spec),
                credential=rng.choice((spec.credential, f"{spec.credential}, rotated")),
                endpoint=rng.choice((spec.endpoint, spec.endpoint, moved(spec.endpoint))),
                weight=rng.randint(0, 3),
            )
            for spec in kept
        )
        routing = replace(
            self._file.routing,
            queue_max_wait_s=rng.choice((0.0, 1.0, 4.0)),
            queue_max_length=rng.choice((0, 3, 1000)),
            strategy=rng.choice(SUPPORTED_STRATEGIES),
        )
        default = self._file.default_provider if rng.random() < 0.5 else providers[0].id
        return replace(self._file, providers=providers, routing=routing, default_provider=default)

    def _limits(self, spec: ProviderSpec) -> LimitsSpec:
        rng = self._rng
        if rng.random() < 0.5:
            return spec.limits
        return replace(
            spec.limits,
            max_concurrency=rng.choice((1, 3, None)),
            adaptive=False,
            requests_per_minute=rng.choice((spec.limits.requests_per_minute, 60.0, 600.0)),
            burst=rng.choice((2.0, 10.0)),
        )
