"""The whole house under virtual time: couriers, actors and edge as in the daemon, simulated upstreams, clients of our own.

One ``World`` is one run. All chance comes from its seed; a client that leaves is a task that is cancelled, as at the real edge.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from actors.kernel import Actor, ActorFactory, Ref
from actors.provider.actor import ProviderActor
from actors.quota import QuotaActor
from messages.calls import CallEnded
from messages.control import Drain
from messages.decisions import GetRouterStats, RouterStats
from messages.envelope import Envelope
from messages.health import GetReport, ProviderReport
from otel.spans import Tracing
from runtime.config.loading import load_bytes
from runtime.config.settings import Loaded
from runtime.daemon import House
from runtime.http.edge import Carrier
from runtime.ports import ClientGone, EdgeRequest, Headers, UpstreamAnswer, UpstreamRequest
from runtime.simulation.behaviour import Behaviour
from runtime.simulation.faults import Fault, FaultKind
from runtime.simulation.in_process import SimulatedUpstream
from runtime.simulation.provider import ProviderSimulation
from runtime.system.cell import Cell, CellState
from runtime.system.clock import loop_clock
from runtime.system.mailbox import Mailbox
from runtime.system.virtual_loop import VirtualLoop
from tests.system.doors import Begun, Door
from tests.system.house_books import Books
from tests.system.house_watch import PermitWatch

T = TypeVar("T")

MODEL = "m"
PLAIN = Behaviour("plain", ttfb_ms=100, sigma=0, tokens_per_second=100, capacity=1000, models=(MODEL,), chunk_tokens=4)
"""Answers ten tokens in 190 ms, at whatever load."""


def url_of(provider: str) -> str:
    return f"http://{provider}.test/v1"


def provider(name: str, **more: Any) -> dict[str, Any]:
    """A provider's entry in the file. Probes are off unless a test is about them."""
    entry = {"id": name, "kind": "openai_compatible", "base_url": url_of(name), "models": [MODEL], "probe": {"kind": "off"}}
    return entry | more


def loaded(providers: Sequence[Mapping[str, Any]], server: Mapping[str, Any] | None = None, **routing: Any) -> Loaded:
    """A configuration as the file would give it; ``routing`` is that section."""
    data = {"providers": list(providers), "routing": routing, "server": dict(server or {})}
    found = load_bytes(json.dumps(data).encode(), Path("pointsman.yaml"), {})
    # The fingerprints of keys are salted for each process; a journal must be the same in any.
    specs = tuple(replace(spec, credential=f"key-of-{spec.id}") for spec in found.snapshot.providers)
    return replace(found, snapshot=replace(found.snapshot, providers=specs))


@dataclass(eq=False)
class Client:
    """One client and the sink its answer goes to. Times in virtual seconds."""

    number: int
    is_stream: bool
    pause_s: float = 0.0
    """It takes so long over each chunk."""
    patience: int | None = None
    """After so many chunks it takes no more, and the edge cuts it."""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    begun_at: float = 0.0
    deadline_s: float = inf
    started_at: float | None = None
    """When its status came."""
    done_at: float | None = None
    is_whole: bool = False
    is_aborted: bool = False
    has_left: bool = False
    has_arrived: bool = False
    """Its request came before it left."""
    wrongs: list[str] = field(default_factory=list)
    """What was done to it that must not be."""
    task: "asyncio.Task[None] | None" = None
    door: "Door | None" = None

    def __repr__(self) -> str:
        return f"<client {self.number}: {self.fate} {self.status} {self.text[:200]!r}>"

    # The sink.

    @property
    def has_started(self) -> bool:
        return self.status != 0

    async def start(self, status: int, headers: Headers) -> None:
        if self.status or self.is_aborted:
            self.wrongs.append(f"a second answer: {self.status}, then {status}")
        self.status = status
        self.started_at = asyncio.get_running_loop().time()
        self.headers = {name.lower(): value for name, value in headers}

    async def write(self, chunk: bytes) -> None:
        if not self.status or self.is_whole or self.is_aborted:
            self.wrongs.append("bytes outside of an answer")
        if self.patience is not None and len(self.chunks) >= self.patience:
            self.has_left = True
            raise ClientGone("took no byte in time")
        if self.pause_s:
            await asyncio.sleep(self.pause_s)
        self.chunks.append((asyncio.get_running_loop().time(), chunk))

    async def end(self) -> None:
        if not self.status or self.is_whole or self.is_aborted:
            self.wrongs.append("an end without an answer")
        self.is_whole = True
        self._finish()

    def give(self, status: int, lines: str, body: bytes) -> None:
        """What ``whole`` does, for who takes all at once."""
        pairs = [line.split(": ", 1) for line in lines.split("\r\n")[1:]]
        coroutine = self.whole(status, [(name, value) for name, value in pairs], body)
        try:
            coroutine.send(None)
        except StopIteration:
            return
        raise AssertionError("there was something to wait for")

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        await self.start(status, headers)
        await self.write(body)
        await self.end()

    def abort(self) -> None:
        if self.is_whole:
            self.wrongs.append("aborted after the end")
        self.is_aborted = True
        self._finish()

    def _finish(self) -> None:
        self.done_at = asyncio.get_running_loop().time()

    # What the test asks.

    @property
    def text(self) -> str:
        return b"".join(chunk for _, chunk in self.chunks).decode()

    @property
    def code(self) -> str:
        """The ``code`` of an error answer."""
        return str(json.loads(self.text)["error"]["code"])

    @property
    def provider(self) -> str:
        return self.headers.get("x-pointsman-provider", "")

    @property
    def attempts(self) -> int:
        return int(self.headers.get("x-pointsman-attempts", "0"))

    @property
    def took_s(self) -> float:
        assert self.done_at is not None, "it has no answer yet"
        return self.done_at - self.begun_at

    @property
    def fate(self) -> str:
        """``answer``, ``error`` (a whole one), ``frame`` (a stream that broke and said so), ``cut``, ``left`` or ``none``."""
        if self.is_whole:
            return "answer" if self.status == 200 else "error"
        if self.is_aborted:
            return "frame" if self.is_stream and '"error"' in self.text and "[DONE]" not in self.text else "cut"
        return "left" if self.has_left else "none"

    async def wait(self) -> "Client":
        """Until its request is over."""
        assert self.task is not None
        await asyncio.wait([self.task])
        return self

    def leave(self) -> None:
        """Close the connection."""
        if self.task is not None and not self.task.done():
            self.has_left = True
            self.task.cancel()


@dataclass
class Sabotage:
    """Makes an actor raise on chosen messages. ``mode``: ``before`` it does anything, or ``after`` it has done it all."""

    wants: Callable[[Any], bool]
    times: int
    mode: str
    is_broken: bool
    """Its invariant says so afterwards, so that it must restart."""
    struck: int = 0


class Wire:
    """The upstream port, which notes what is sent."""

    def __init__(self, upstream: SimulatedUpstream) -> None:
        self._upstream = upstream
        self.sent: list[tuple[float, str, str]] = []
        """(time, method, URL)"""
        self._begun = 0

    def begin(self, request: UpstreamRequest) -> Begun | None:
        # Every third finds no connection at hand.
        self._begun += 1
        if self._begun % 3 == 0:
            return None
        self.sent.append((asyncio.get_running_loop().time(), request.method, request.url))
        return Begun(self._upstream, request)

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        self.sent.append((asyncio.get_running_loop().time(), request.method, request.url))
        return await self._upstream.call(request)

    async def close(self) -> None:
        await self._upstream.close()


class FrozenMail(Mailbox):
    """A mailbox that looks empty from the moment a message of one class lies in it, until ``thaw``."""

    def __init__(self, mail: Iterable[Envelope], on: type, schedule: Callable[[], None]) -> None:
        super().__init__(mail)
        self._on: type | None = on
        self._schedule = schedule
        self.is_frozen = False

    def append(self, envelope: Envelope) -> None:
        super().append(envelope)
        if isinstance(envelope.message, Drain):
            # Whoever drains may be stopped at any moment, and what lies unread then is lost.
            self.thaw()
        elif self._on is not None and isinstance(envelope.message, self._on):
            self.is_frozen = True

    def __len__(self) -> int:
        return 0 if self.is_frozen else super().__len__()

    def thaw(self) -> None:
        """Read on."""
        self._on, self.is_frozen = None, False
        self._schedule()


class World:
    """A house with its upstreams and clients. Make it inside the loop; ``run`` does."""

    def __init__(
        self,
        config: Loaded,
        behaviours: Mapping[str, Behaviour] | None = None,
        seed: str = "seed",
        journal: Callable[[str, Envelope], None] | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        ids = [spec.id for spec in config.snapshot.providers]
        self.upstream = SimulatedUpstream(
            {url_of(name): replace((behaviours or {}).get(name, PLAIN), name=name) for name in ids}, seed
        )
        self.wire = Wire(self.upstream)
        self.watch = PermitWatch(config.snapshot.providers, self.loop.time)
        self.books = Books()
        self.fatal: list[str] = []
        self.clients: list[Client] = []
        self._also = journal
        self._sabotages: dict[str, list[Sabotage]] = {}
        self._away: set[str] = set()
        self.uncounted: list[CallEnded] = []
        """Ends the aggregator fell over before it counted them."""
        self.house = House(config, self.wire, Tracing.off(), loop_clock(self.loop), seed, self.fatal.append, self._journal)
        self.watch.follow(self.house)
        self.books.follow(self.house.budgets)

    def _journal(self, to: str, envelope: Envelope) -> None:
        self.watch.see(to, envelope)
        self.books.see(to, envelope, self.loop.time())
        if self._also is not None:
            self._also(to, envelope)

    @property
    def now(self) -> float:
        return self.loop.time()

    # Clients.

    def send(
        self,
        *,
        stream: bool = False,
        max_tokens: int | None = 10,
        headers: Mapping[str, str] | None = None,
        pause_s: float = 0.0,
        patience: int | None = None,
        model: str = MODEL,
        messages: Sequence[Mapping[str, str]] | None = None,
    ) -> Client:
        """A request that begins now."""
        number = len(self.clients) + 1
        client = Client(number, stream, pause_s, patience, begun_at=self.now)
        self.clients.append(client)
        said: dict[str, Any] = {"model": model, "messages": messages or [{"role": "user", "content": f"question {number}"}]}
        said |= ({"stream": True} if stream else {}) | ({"max_tokens": max_tokens} if max_tokens is not None else {})
        body = json.dumps(said).encode()
        request = EdgeRequest("POST", "/v1/chat/completions", tuple((headers or {}).items()), body, "127.0.0.1")
        client.task = self.loop.create_task(self._serve(request, client))
        return client

    async def _serve(self, request: EdgeRequest, client: Client) -> None:
        """What the listener does with a request."""
        edge = self.house.edge
        client.has_arrived = True
        task = asyncio.current_task()
        assert task is not None
        door = client.door = Door(edge)
        # Who takes its time is waited for, as the reference lane does with everybody.
        carrier: Carrier = task if client.pause_s else door
        refusal = edge.admit(carrier)
        if refusal is not None:
            client.status, client.is_whole = refusal.status, True
            client.done_at = self.now
            return
        try:
            await (edge.serve(request, client, task) if client.pause_s else door.serve(request, client))
        finally:
            edge.leave(carrier)

    async def ask(self, **how: Any) -> Client:
        """Send a request and wait until it is over."""
        return await self.send(**how).wait()

    # Upstreams.

    def simulation(self, name: str) -> ProviderSimulation:
        return self.upstream.simulation(url_of(name))

    def calls(self, name: str) -> list[float]:
        """When (virtual s) requests of clients were sent to a provider."""
        return [at for at, method, url in self.wire.sent if method == "POST" and url.startswith(url_of(name))]

    def probes(self, name: str) -> list[float]:
        """When (virtual s) a provider was probed."""
        return [at for at, method, url in self.wire.sent if method == "GET" and url.startswith(url_of(name))]

    def fault(self, name: str, kind: FaultKind, **how: Any) -> None:
        self.simulation(name).switch_on(Fault(kind, **how), self.now)

    def heal(self, name: str) -> None:
        self.simulation(name).faults.switch_off()

    # Actors.

    def cell(self, name: str) -> Cell:
        return self.house.system._dispatcher.cells[name]

    def provider_actor(self, name: str) -> ProviderActor:
        actor = self.cell(f"provider:{name}").actor
        assert isinstance(actor, ProviderActor)
        return actor

    def crash(
        self, name: str, wants: Callable[[Any], bool] | type, times: int = 1, mode: str = "before", is_broken: bool = True
    ) -> Sabotage:
        """Let an actor raise on the next ``times`` messages that ``wants`` picks, whatever incarnation it is then."""
        picks = (lambda message: isinstance(message, wants)) if isinstance(wants, type) else wants
        sabotage = Sabotage(picks, times, mode, is_broken)
        self._sabotages[name].append(sabotage)
        return sabotage

    def end_sabotage(self) -> None:
        """From now on nobody raises any more."""
        for sabotages in self._sabotages.values():
            sabotages.clear()

    def freeze(self, name: str, on: type) -> "FrozenMail":
        """Let the mailbox of an actor be read up to the next message of a class, and no further until it thaws."""
        cell = self.cell(name)
        if isinstance(cell.queue, FrozenMail):
            cell.queue.thaw()
        cell.queue = frozen = FrozenMail(cell.queue, on, partial(self.house.system._dispatcher.schedule, cell))
        return frozen

    def undermine(self) -> None:
        """Put the saboteur between every actor to come and its mail."""
        spawn = self.house.system.spawn

        def undermined(name: str, factory: ActorFactory, *more: Any, **named: Any) -> Ref[Any]:
            self._sabotages.setdefault(name, [])
            return spawn(name, partial(self._incarnation, name, factory), *more, **named)

        vars(self.house.system)["spawn"] = undermined

    def _incarnation(self, name: str, factory: ActorFactory, before: Actor | None) -> Actor:
        actor = factory(before)
        self.watch.meet(actor, is_first=before is None)
        return self._undermined(name, actor)

    def _undermined(self, name: str, actor: Actor) -> Actor:
        """``actor`` with the saboteur between it and its mail."""
        handle, invariant = actor.handle, actor.invariant
        state = {"broken": False}

        def sabotaged(message: Any, context: Any) -> None:
            struck = next((s for s in self._sabotages[name] if s.struck < s.times and s.wants(message)), None)
            if struck is None:
                self.watch.guard(actor, message, lambda: handle(message, context))
                return
            struck.struck += 1
            if struck.mode == "after":
                self.watch.guard(actor, message, lambda: handle(message, context))
            elif name == "aggregator" and isinstance(message, CallEnded):
                self.uncounted.append(message)
            state["broken"] = struck.is_broken
            raise RuntimeError("sabotage")

        def told() -> str | None:
            return "sabotage" if state["broken"] else invariant()

        vars(actor)["handle"], vars(actor)["invariant"] = sabotaged, told
        return actor

    async def report(self, name: str) -> ProviderReport:
        report = await self.house.system.ask(f"provider:{name}", GetReport())
        assert isinstance(report, ProviderReport)
        return report

    async def router_stats(self) -> RouterStats:
        stats = await self.house.system.ask("router", GetRouterStats())
        assert isinstance(stats, RouterStats)
        return stats

    # The end.

    async def all_done(self) -> None:
        """Wait until no client waits any more."""
        tasks = [client.task for client in self.clients if client.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def is_out(self, name: str) -> bool:
        return self.house.system.state_of(name) is CellState.OUT

    def look_round(self) -> None:
        """Note what is wrong when all requests are over and the actors still live."""
        cells = self.house.system._dispatcher.cells
        self._away = {name for name, cell in cells.items() if cell.state is not CellState.RUNNING}
        for spec in self.house.directory.snapshot.providers:
            calls = [call for call in self.simulation(spec.id).calls.values() if call.record.method == "POST"]
            if calls:
                self.watch.wrongs.append(f"{spec.id} still works on {len(calls)} calls nobody waits for")
        for name, cell in cells.items():
            if isinstance(cell.actor, QuotaActor) and cell.actor.out:
                self.watch.wrongs.append(f"{name} still counts {len(cell.actor.out)} requests that are over")

    def unexplained_dead_letters(self) -> list[tuple[str, str]]:
        """All but those to an actor that was away when the house stopped."""
        return [letter for letter in self.house.system.dead_letters if letter[0] not in self._away]


def laws_broken(world: World) -> list[str]:
    """What must hold after every run, whatever happened in it; to be asked when the house has stopped."""
    wrongs = world.watch.at_the_end()
    house = world.house
    if len(house.permits):
        wrongs.append(f"{len(house.permits)} permits are left in the table")
    if len(house.reservations):
        wrongs.append(f"{len(house.reservations)} reservations are left in the table")
    if house.edge.count:
        wrongs.append(f"the edge counts {house.edge.count} requests")
    for client in world.clients:
        wrongs.extend(f"client {client.number}: {wrong}" for wrong in client.wrongs)
        if client.fate == "none":
            wrongs.append(f"client {client.number} got no answer")
    if letters := world.unexplained_dead_letters():
        wrongs.append(f"dead letters: {letters}")
    if house.system._dispatcher.cells:
        wrongs.append("actors are left")
    own = asyncio.current_task()
    left = sorted(repr(task) for task in asyncio.all_tasks() if task is not own)
    if left:
        wrongs.append(f"tasks are left: {left}")
    if world.watch.longest_mailbox > house.system._bound:
        wrongs.append(f"a mailbox of {world.watch.longest_mailbox}")
    return wrongs


def run(
    config: Loaded,
    scene: Callable[[World], Coroutine[Any, Any, T]],
    behaviours: Mapping[str, Behaviour] | None = None,
    seed: str = "seed",
    journal: Callable[[str, Envelope], None] | None = None,
) -> T:
    """Play ``scene`` in a house of its own under virtual time, take the house down, and check that nothing is left over."""

    async def play() -> T:
        world = World(config, behaviours, seed, journal)
        world.undermine()
        await world.house.start()
        try:
            result = await scene(world)
        finally:
            await world.house.edge.drain(0.0)
            await world.house.edge.settled(5.0)
            world.look_round()
            await world.house.stop()
        wrongs = laws_broken(world)
        assert not wrongs, wrongs
        return result

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(play())
