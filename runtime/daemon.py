"""The composition root: builds the house from a configuration, runs it, and takes it down in order.

Start: actors, then the edge. Stop: the edge takes nothing new, calls in flight get ``server.drain``, then actors last spawned
first, then telemetry is flushed and connections are closed. A second signal stops at once.
"""

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from random import Random
from secrets import token_hex

import anyio

from messages.changes import ChangeRefused
from messages.control import ConfigSnapshot, ModelSpec, Propose, ProviderSpec
from messages.envelope import Envelope
from otel.setup import TracingSettings, build_tracing
from otel.spans import Tracing
from runtime import logs, memory
from runtime.config.prices import priced_model
from runtime.config.problems import ConfigError, ConfigProblem
from runtime.config.settings import Loaded
from runtime.config.sources import Sources, stamps_now
from runtime.courier.call import CourierHouse
from runtime.courier.directory import Directory
from runtime.courier.permits import PermitTable
from runtime.courier.reservations import ReservationTable
from runtime.courier.retries import RetryBudgets
from runtime.credentials import Credentials
from runtime.http.admin import Admin
from runtime.http.edge import Edge
from runtime.http.server import HttpServer
from runtime.ports import Upstream
from runtime.probes import Probes
from runtime.reload import Load, Reloaded, Reloader, ReloadFailed
from runtime.system.clock import Clock, real_clock
from runtime.system.system import ActorSystem
from runtime.tree import Tree
from runtime.upstream.choice import ChoosingUpstream
from runtime.watching import Watching

log = logging.getLogger("pointsman.daemon")

FLUSH_S = 5.0
GC_THRESHOLDS = (20_000, 10, 20)
"""Python's own (700, 10, 10) look for cycles every dozen requests, which has hardly any to find: 5 % of the throughput."""
EXIT_FATAL = 1
"""The exit code after an actor failed beyond its limit: its process manager should start it again."""


class House:
    """Everything that runs, without the listener. The simulation builds the same with another upstream and clock.

    ``journal`` sees every envelope and its addressee when it is posted. ``load`` reads the configuration anew; None: there
    is nothing to be read.
    """

    def __init__(
        self,
        loaded: Loaded,
        upstream: Upstream,
        tracing: Tracing,
        clock: Clock,
        seed: str,
        on_fatal: Callable[[str], None],
        journal: Callable[[str, Envelope], None] | None = None,
        load: Load | None = None,
    ) -> None:
        self.loaded = loaded
        self.upstream = upstream
        self.tracing = tracing
        turns = tracing if tracing.is_on else None
        self.system = ActorSystem(seed, clock, tracing=turns, journal=journal, on_fatal=on_fatal)
        self.permits = PermitTable()
        self.credentials = Credentials(loaded.credentials, logs.hide)
        self.reservations = ReservationTable()
        self.directory = Directory(loaded.snapshot, self.credentials.get)
        self.probes = Probes(self.system, upstream, self.directory)
        self.tree = Tree(self.system, self.directory, self.permits, self.probes.take, self.credentials, self.reservations)
        self.budgets = RetryBudgets(loaded.snapshot.routing.failover.retry_share)
        self.directory.follow(self._follow)
        rng = Random(f"{seed}/couriers")
        parts = (self.system, upstream, self.directory, self.permits, self.budgets, tracing, clock, rng)
        self.couriers = CourierHouse(*parts, reservations=self.reservations)
        self.edge = Edge(self.couriers, loaded.server, Random(f"{seed}/edge"))
        self.reloader = Reloader(self.system, self.credentials, loaded, load)
        self.admin = Admin(self.system, self.directory, self.credentials, self.reloader)

    async def start(self) -> None:
        """Spawn the actors and put the configuration in force. Raises ``ConfigError`` if the registry refuses it."""
        self.tree.start(_describe)
        answer = await self.system.ask("registry", Propose(self.loaded.snapshot), sender="daemon")
        if isinstance(answer, ChangeRefused):
            raise ConfigError([ConfigProblem(answer.path, None, answer.reason)], str(self.loaded.path or ""))

    async def stop(self) -> None:
        """Take down what ``start`` built. The edge must be drained."""
        await self.reloader.stop()
        await self.probes.stop()
        await self.system.stop()
        if self.tracing.is_on:
            await asyncio.to_thread(self.tracing.shutdown, FLUSH_S)
        await self.upstream.close()

    def _follow(self, snapshot: ConfigSnapshot) -> None:
        """A new generation is in force: what the couriers share beside the directory."""
        known = frozenset(spec.id for spec in snapshot.providers)
        self.budgets.reconfigure(snapshot.routing.failover.retry_share, known)


def _describe(spec: ProviderSpec, model: ModelSpec) -> ModelSpec:
    """What is known of a model that a provider told of itself."""
    return priced_model(spec.kind, spec.endpoint, model.name)


async def _look(sources: Sources) -> Sources:
    return await asyncio.to_thread(stamps_now, sources)


class Daemon:
    """The gateway as a process. ``run`` once; it returns the exit code. ``load`` reads its file anew; None: it has none."""

    def __init__(
        self, loaded: Loaded, environ: Mapping[str, str], version: str, load: Callable[[], Loaded] | None = None
    ) -> None:
        self._loaded = loaded
        # In a thread: the disk may be slow, and so is checking a long file.
        self._load: Load | None = None if load is None else partial(asyncio.to_thread, load)
        self._version = version
        telemetry = loaded.telemetry
        settings = TracingSettings(
            telemetry.otlp_endpoint, telemetry.otlp_protocol, telemetry.sample_ratio, telemetry.service_name, version
        )
        self._tracing = build_tracing(settings, environ)
        self._stopping = asyncio.Event()
        self._fatal = ""
        self._signals = 0
        self._reloads: dict[asyncio.Task[Reloaded], None] = {}
        """Those a signal asked for."""

    async def run(self, on_ready: Callable[[int], None] | None = None) -> int:
        """Serve until a signal. ``on_ready`` is given the port. Raises ``OSError`` if the address cannot be had."""
        server = self._loaded.server
        upstream, clock = ChoosingUpstream(), real_clock()
        house = House(self._loaded, upstream, self._tracing, clock, token_hex(8), self._on_fatal, load=self._load)
        http = HttpServer(house.edge, house.admin, server, self._version)
        # From before anybody can know of us until all is down: no signal finds its default, which would kill.
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            await house.start()
            memory.keep_freed()
            # What is loaded by now stays for good: the collector need not walk it again and again, pausing every request.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            loop = asyncio.get_running_loop()
            listening = loop.create_task(self._listen(received, house))
            watching = loop.create_task(Watching(house.reloader, _look).run()) if house.reloader.has_file else None
            try:
                port = await http.start()
                log.info("listening on %s://%s:%d", "http" if server.tls is None else "https", server.host, port)
                if on_ready is not None:
                    on_ready(port)
                await self._stopping.wait()
                if watching is not None:
                    watching.cancel()
                await self._wind_down(house, http)
            finally:
                await http.stop()
                await house.stop()
                for task in (listening, watching):
                    if task is not None:
                        task.cancel()
        if self._fatal:
            log.critical("ended: %s", self._fatal)
            return EXIT_FATAL
        return 0

    async def _listen(self, received: AsyncIterator[signal.Signals], house: House) -> None:
        async for number in received:
            if number == signal.SIGHUP:
                self._on_hangup(house)
                continue
            self._signals += 1
            if self._signals == 1:
                log.info("%s: stopping; calls in flight have %g s", number.name, self._loaded.server.drain_s)
                self._stopping.set()
            else:
                log.warning("%s again: stopping at once", number.name)
                house.edge.cut()

    def _on_hangup(self, house: House) -> None:
        if self._stopping.is_set():
            log.warning("SIGHUP: ignored, it is stopping")
            return
        log.info("SIGHUP: reloading")
        task = asyncio.get_running_loop().create_task(house.reloader.reload())
        self._reloads[task] = None
        task.add_done_callback(self._reloaded)

    def _reloaded(self, done: "asyncio.Task[Reloaded]") -> None:
        self._reloads.pop(done, None)
        failure = None if done.cancelled() else done.exception()
        if failure is not None and not isinstance(failure, ReloadFailed):
            log.error("SIGHUP: the reload failed", exc_info=failure)

    async def _wind_down(self, house: House, http: HttpServer) -> None:
        """Stop accepting, let calls in flight end, tell what is left that it is over."""
        await http.stop_listening()
        if self._fatal:
            house.edge.cut()
        await house.edge.drain(0.0 if self._fatal else self._loaded.server.drain_s)
        await house.edge.settled(FLUSH_S)

    def _on_fatal(self, reason: str) -> None:
        """An actor without which nothing can be decided failed beyond its limit."""
        self._fatal = self._fatal or reason
        self._stopping.set()
