"""`serve(settings)`: from the first check to the last drained search.

Everything that can be checked is checked before the engines start, which takes 20 seconds: the address is bound first,
then the release is verified, then the log is opened. On SIGTERM or SIGINT new searches are refused, running ones get
`drain_seconds`, then they are stopped, logged and answered; a second signal stops them at once. If an engine dies,
running searches are logged and answered and the process ends with `ENGINE_DIED`, so that whatever supervises it starts
a new one: a half-dead server would only look alive.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ramify
from ramify.api.app import admin_application, application
from ramify.api.context import Context, assemble
from ramify.api.names import aliases_of
from ramify.connections import Listener, ListenError, address_of, bind
from ramify.engines import EngineConfig, EngineError, Engines
from ramify.engines.progress import StartUp
from ramify.extensions import BadExtension
from ramify.fleet import FleetError
from ramify.logs import log_to_stderr
from ramify.races import beside, first_of
from ramify.rewards import registry
from ramify.rewards.grading import close_pools
from ramify.search.protocols import EngineDead
from ramify.service import ports
from ramify.service.catalogue import at_start, fetched_release
from ramify.service.fleet import Fleet, require_content
from ramify.service.serving import engine_config, install, release_config, release_store_of
from ramify.settings import BadSettings, Settings, is_loopback
from ramify.treelog import LogError, TreeLog
from ramify.weights import Release, WeightsError

logger = logging.getLogger("ramify")
Result = TypeVar("Result")

STOPPED, START_FAILED, REFUSED, ENGINE_DIED = 0, 1, 2, 3
"""Exit codes: ended by a signal; the engines did not start; the settings cannot be served; an engine died."""
ADMIN_CONNECTIONS = 64
"""Open connections of the admin listener."""
LAST_WORDS = 10.0
"""Seconds that answers may take to leave once every search has ended."""


class StopRequested(Exception):
    """A signal came before the server was ready."""


def serve(settings: Settings) -> int:
    """Serve until a signal; return the process's exit code."""
    log_to_stderr("ramify", settings.log_level)
    try:
        settings = install(settings)
        with ExitStack() as doors:
            listener = doors.enter_context(preflight(settings))
            admin = doors.enter_context(admin_listener(settings)) if settings.admin.enabled else None
            startup = doors.enter_context(StartUp())
            startup.tell("verifying the release")
            config = engine_config(settings)
            return asyncio.run(_Server(settings, config, listener, admin=admin, startup=startup).run())
    except (
        ListenError,
        BadSettings,
        BadExtension,
        WeightsError,
        LogError,
        FleetError,
    ) as error:
        sys.stderr.write(f"ramify serve: {error}\n")
        return REFUSED
    except (EngineError, EngineDead) as error:
        sys.stderr.write(f"ramify serve: the engines did not start: {error}\n")
        return START_FAILED
    except (StopRequested, KeyboardInterrupt):
        return STOPPED


def preflight(settings: Settings) -> socket.socket:
    """Check who may reach the server, and bind its address. Raise `ListenError` or `BadSettings`."""
    if not settings.auth.all_keys() and not settings.loopback:
        raise BadSettings(
            f"without an API key only loopback addresses are served, not {settings.host}: "
            "configure auth.keys, or set host to 127.0.0.1"
        )
    if settings.task is not None and settings.task not in registry.names():
        raise BadSettings(f"task is {settings.task[:50]!r}; there are {', '.join(registry.names())}")
    aliases_of(settings)
    return bind(settings.host, settings.port)


def admin_listener(settings: Settings) -> socket.socket:
    """Bind the admin listener's address. Raise `ListenError` or `BadSettings`."""
    if settings.admin.digest() is None and not is_loopback(settings.admin.host):
        raise BadSettings(
            f"without an admin key only loopback addresses are administered, not {settings.admin.host}: "
            "set admin.key_file, or admin.host to 127.0.0.1"
        )
    return bind(
        settings.admin.host,
        settings.admin_port,
        settings="admin.host, admin.port; admin.enabled = false does without",
        choose="--admin-port",
    )


@dataclass(eq=False)
class _Server:
    """One run of the server."""

    settings: Settings
    config: EngineConfig
    listener: socket.socket
    start: Callable[[EngineConfig, Callable[[str], None]], Coroutine[Any, Any, ports.Engines]] = Engines.start
    signals: list[int] = field(default_factory=list)
    signalled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first signal."""
    admin: socket.socket | None = None
    """Socket of the admin listener; None: there is none."""
    startup: StartUp = field(default_factory=StartUp)
    """Is told what the start waits for, until the server listens."""

    async def run(self) -> int:
        with self._signals():
            async with AsyncExitStack() as stack:
                self.startup.tell("opening the log")
                log = await TreeLog.open(self.settings.log, objects=self.settings.objects)
                stack.push_async_callback(log.close)
                stack.push_async_callback(close_pools)
                for task, why in (await asyncio.to_thread(registry.unusable)).items():
                    logger.warning("task unusable name=%s: %s", task, why)
                fleet, unserved = None, None
                if self.settings.fleet.name is None:
                    config, unserved = await self._active(log)
                else:
                    fleet = await self._joined(log, stack)
                    self.settings = self.settings.model_copy(update={"replica": fleet.mine.number})
                    config = await self._committed(fleet)
                logger.info("engines starting release=%s log=%s", config.serving.release, log.store)
                engines = await self._unless_signalled(self.start(config, self.startup.tell))
                stack.push_async_callback(engines.close)
                context = assemble(
                    self.settings,
                    engines,
                    log,
                    base=self.config.serving.source,
                    unserved=unserved,
                    fleet=fleet,
                )
                gc.collect()
                gc.freeze()  # what start-up made stays: the collector need not look at it again
                return await self._serve(context)

    async def _active(self, log: TreeLog) -> tuple[EngineConfig, str | None]:
        """Return the engines of the release that the log calls active; if it is unusable, of the settings' own, and
        why nobody may be answered."""
        base = self.config.serving.source
        if base is None:
            return self.config, None
        active, unserved = await at_start(log, self.settings.weights, base, release_store_of(self.settings))
        return (self.config if active is base else release_config(active, self.settings)), unserved

    async def _joined(self, log: TreeLog, stack: AsyncExitStack) -> Fleet:
        """Join the fleet that the settings name, until the stack is closed. Raises `FleetError` and `BadSettings`."""

        async def first() -> Release:
            config, unserved = await self._active(log)
            if config.serving.source is None or unserved is not None:
                raise BadSettings(unserved or "fleet.name: a fleet serves releases, and none is served here")
            return config.serving.source

        self.startup.tell("joining the fleet")
        settings, url = self.settings, address_of(self.listener)
        admin = address_of(self.admin) if self.admin is not None else None
        if settings.fleet.address is None and settings.host in ("0.0.0.0", "::"):  # noqa: S104
            logger.warning("fleet.address is not set: only replicas on this machine reach %s", url)
        fleet = await Fleet.join(
            settings.fleet, settings.log, url, first, time.monotonic, settings.replica, admin, log.boot_id
        )
        stack.push_async_callback(fleet.leave)
        await stack.enter_async_context(beside(asyncio.create_task(fleet.run(), name="fleet")))
        return fleet

    async def _committed(self, fleet: Fleet) -> EngineConfig:
        """Return the engines of the release that the fleet serves. Raises `WeightsError` if it is not here."""
        base, epoch = self.config.serving.source, fleet.start
        assert base is not None, "a fleet's server serves releases"
        try:
            store, folder = release_store_of(self.settings), self.settings.weights
            release = await asyncio.to_thread(fetched_release, store, folder, base, epoch.release)
            require_content(release, epoch)
        except WeightsError as error:
            raise WeightsError(
                f"the fleet serves {epoch.release}, which cannot be served here: {error}"
            ) from error
        return release_config(release, self.settings)

    async def _serve(self, context: Context) -> int:
        checkpoints = context.searches.checkpoints
        await checkpoints.look()  # so that whoever asks for an interrupted search finds it
        upkeep = asyncio.create_task(context.retention.run(), name="retention")
        keeping = asyncio.create_task(checkpoints.run(), name="checkpoints")
        async with beside(upkeep, keeping), self._administered(context):
            return await self._serve_public(context)

    @asynccontextmanager
    async def _administered(self, context: Context) -> AsyncIterator[None]:
        """Have the admin listener answer for as long as the block runs."""
        if self.admin is None:
            yield
            return
        ready = asyncio.Event()
        app = admin_application(context, self.settings.admin.digest())
        http = self._http(app, ready.set, open=ADMIN_CONNECTIONS)
        serving = asyncio.create_task(http.serve(sockets=[self.admin]))
        async with first_of(serving, asyncio.create_task(ready.wait())):
            if serving.done():
                serving.result()
            yield
            http.should_exit = True
            await serving

    async def _serve_public(self, context: Context) -> int:
        http = self._http(application(context), lambda: self._up(context))
        serving = asyncio.create_task(http.serve(sockets=[self.listener]))
        signalled = asyncio.create_task(self.signalled.wait())
        died = asyncio.create_task(context.engines.dead.wait())
        watching = asyncio.create_task(context.readiness.watch(), name="hang-watch")
        async with beside(watching), first_of(serving, signalled, died):
            code = await self._end(context, engine_died=died.done())
            http.should_exit = True
            await serving
        logger.info("stopped code=%d", code)
        return code

    def _http(self, app: Any, ready: Callable[[], None], **other: int) -> Listener:
        """Make a listener with the settings' limits, but for `other`."""
        limits = self.settings.connections.model_copy(update=other)
        return Listener(app, limits, grace=int(LAST_WORDS), ready=ready)

    def _up(self, context: Context) -> None:
        self.startup.end()
        banner(context, self.listener, self.admin)

    async def _end(self, context: Context, *, engine_died: bool) -> int:
        """Let the searches come to their end, and return the exit code."""
        if engine_died:
            reason = context.engines.dead_reason
            logger.error("an engine has died (%s): ending, so that the server is started anew", reason)
            await context.releases.settle(LAST_WORDS)
            await context.searches.finish_all(LAST_WORDS)
            context.completions.stop_all()
            await context.searches.drain(0)
            return ENGINE_DIED
        logger.info("draining running=%d", len(context.searches.running))
        await self._drain(context)
        await context.releases.settle(LAST_WORDS)
        return STOPPED

    async def _drain(self, context: Context) -> None:
        grace = self.settings.drain_seconds
        draining = asyncio.gather(context.searches.drain(grace), context.completions.drain(grace))
        while not draining.done():
            await asyncio.wait((draining,), timeout=0.1)
            if len(self.signals) > 1 or context.engines.dead.is_set():
                context.searches.stop_all("drained", "drain")
                context.completions.stop_all()
        await draining

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def note(number: int) -> None:
            self.signals.append(number)
            self.signalled.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, note, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _unless_signalled(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of `work`; if a signal comes first, cancel it and raise `StopRequested`."""
        task, signalled = asyncio.create_task(work), asyncio.create_task(self.signalled.wait())
        async with first_of(task, signalled):
            if not task.done():
                raise StopRequested
            return task.result()


def banner(context: Context, listener: socket.socket, admin: socket.socket | None) -> None:
    """Tell the server's address and how to ask it something."""
    url = address_of(listener)
    key = "" if context.keyring.open else ' -H "Authorization: Bearer $RAMIFY_API_KEY"'
    prompt = "3 5 7 8 to 24" if context.serving.task == "countdown" else "Once"
    sys.stdout.write(
        f"Ramify {ramify.__version__} serves {context.serving.name} ({context.serving.release}) at {url}\n"
        f"  log  {context.log.store}\n"
        + (f"  admin  {address_of(admin)}\n" if admin is not None else "")
        + "".join(f"  memory  {line}\n" for line in context.engines.memory())
        + f"  ask  curl -s {url}/v1/search{key} -H 'Content-Type: application/json' "
        f'-d \'{{"prompt": "{prompt}"}}\'\n'
    )
    sys.stdout.flush()
