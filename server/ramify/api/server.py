"""`serve(settings)`: from the first check to the last drained search.

What can be wrong is found out before the engines start, which takes 20 seconds: the address is bound first,
then the release is verified, then the log opened. On SIGTERM or SIGINT new searches are refused, running ones get
`drain_seconds`, then they are stopped, logged and answered; a second signal stops them at once. Where an engine dies,
running searches are logged and answered and the process ends with `ENGINE_DIED`, so that whatever supervises it starts
a new one: a half-dead server would only look alive.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

import ramify
from ramify.api.app import application
from ramify.api.assembly import assemble
from ramify.api.context import Context
from ramify.engines import EngineConfig, EngineError, Engines
from ramify.rewards import registry
from ramify.rewards.mathematics import close_default_pool
from ramify.search.protocols import EngineDead
from ramify.search.records import Action
from ramify.service.ports import Engines as Running
from ramify.service.ports import ServedModel
from ramify.settings import BadSettings, Settings
from ramify.treelog import LogError, TreeLog
from ramify.weights import Release, WeightsError, load_release, shipped

logger = logging.getLogger("ramify")
Result = TypeVar("Result")

STOPPED, START_FAILED, REFUSED, ENGINE_DIED = 0, 1, 2, 3
"""Exit codes: ended by a signal; the engines did not start; the settings cannot be served; an engine died."""
LAST_WORDS = 10.0
"""Seconds that answers may take to leave once every search has ended."""


class Refused(Exception):
    """The server cannot start as it was asked to; the message says what to change."""


class Stopped(Exception):
    """A signal came before the server was ready."""


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and where its files are."""

    model: ServedModel
    config: EngineConfig


def serve(settings: Settings) -> int:
    """Serve until a signal; returns the process's exit code."""
    configure_logging(settings.log_level)
    try:
        listener = preflight(settings)
        with listener:
            served = served_of(settings)
            return asyncio.run(_Server(settings, served, listener).run())
    except (Refused, BadSettings, WeightsError, LogError) as error:
        sys.stderr.write(f"ramify serve: {error}\n")
        return REFUSED
    except (EngineError, EngineDead) as error:
        sys.stderr.write(f"ramify serve: the engines did not start: {error}\n")
        return START_FAILED
    except (Stopped, KeyboardInterrupt):
        return STOPPED


def preflight(settings: Settings) -> socket.socket:
    """Check who may reach the server, and take its address. Raises `Refused`."""
    if not settings.auth.all_keys() and not settings.loopback:
        raise Refused(
            f"without an API key only loopback addresses are served, not {settings.host}: "
            "configure auth.keys, or set host to 127.0.0.1"
        )
    if settings.task is not None and settings.task not in registry.NAMES:
        raise Refused(f"task is {settings.task[:50]!r}; there are {', '.join(registry.NAMES)}")
    return bind(settings.host, settings.port)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket, on which nobody is answered yet. Raises `Refused`."""
    where = f"cannot listen on {host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise Refused(f"{where}: {error.strerror or error} (setting: host)") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise Refused(f"{where}: {error.strerror or error} (settings: host, port)") from error
    return listener


def served_of(settings: Settings) -> Served:
    """The model's name and defaults, and what the engines start with. Raises `WeightsError`."""
    options = settings.engine.model_dump()
    if settings.policy is not None:
        policy = Path(settings.policy)
        value = Path(settings.value) if settings.value else None
        name = settings.model_name or policy.absolute().name
        model = ServedModel(
            name, "local", created=int(time.time()), task=settings.task, vocabulary=vocabulary(policy, value)
        )
        return Served(model, EngineConfig(policy=policy, value=value, release=model.release, **options))
    release = load_release(settings.release or shipped())
    config = EngineConfig(
        policy=release.policy_path,
        value=release.value_path,
        release=release.id,
        calibration_a=release.manifest.calibration.a,
        calibration_b=release.manifest.calibration.b,
        **options,
    )
    return Served(_model_of(release, settings), config)


def _model_of(release: Release, settings: Settings) -> ServedModel:
    manifest = release.manifest
    action = manifest.default_action
    return ServedModel(
        name=settings.model_name or manifest.name,
        release=release.id,
        created=int(manifest.created_at.timestamp()),
        task=settings.task or manifest.default_task,
        action=Action(action.kind, action.stop, action.max_tokens),
        max_tokens=manifest.default_max_tokens,
        vocabulary=vocabulary(release.policy_path, release.value_path),
    )


def vocabulary(*models: Path | None) -> int:
    """Token ids below it exist in every one of `models`; 0 where a model does not say."""
    return min(_embeddings(path) for path in models if path is not None)


def _embeddings(path: Path) -> int:
    try:
        config = json.loads((path / "config.json").read_bytes())
        return int(config.get("vocab_size") or config["text_config"]["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


@dataclass(eq=False)
class _Server:
    """One run of the server."""

    settings: Settings
    served: Served
    listener: socket.socket
    start: Callable[[EngineConfig], Coroutine[Any, Any, Running]] = Engines.start
    signals: list[int] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the first signal."""

    async def run(self) -> int:
        with self._signals():
            async with AsyncExitStack() as stack:
                log = await TreeLog.open(self.settings.log)
                stack.push_async_callback(log.close)
                stack.push_async_callback(close_default_pool)
                logger.info("engines starting release=%s log=%s", self.served.model.release, log.store)
                engines = await self._unless_told(self.start(self.served.config))
                stack.push_async_callback(engines.close)
                context = assemble(self.settings, engines, self.served.model, log)
                gc.collect()
                gc.freeze()  # what start-up made stays: the collector need not look at it again
                return await self._serve(context)

    async def _serve(self, context: Context) -> int:
        http = _Http(application(context), lambda: banner(context, self.listener))
        serving = asyncio.create_task(http.serve(sockets=[self.listener]))
        told = asyncio.create_task(self.told.wait())
        died = asyncio.create_task(context.engines.dead.wait())
        try:
            await asyncio.wait((serving, told, died), return_when=asyncio.FIRST_COMPLETED)
            code = await self._end(context, engine_died=died.done())
            http.should_exit = True
            await serving
        finally:
            for task in (serving, told, died):
                task.cancel()
            await asyncio.gather(serving, told, died, return_exceptions=True)
        logger.info("stopped code=%d", code)
        return code

    async def _end(self, context: Context, *, engine_died: bool) -> int:
        """Let the searches come to their end; returns the exit code."""
        if engine_died:
            reason = getattr(context.engines, "dead_reason", None)
            logger.error("an engine has died (%s): ending, so that the server is started anew", reason)
            await context.searches.finish_all(LAST_WORDS)
            await context.searches.drain(0)
            return ENGINE_DIED
        logger.info("draining running=%d", len(context.searches.running))
        await self._drain(context)
        return STOPPED

    async def _drain(self, context: Context) -> None:
        draining = asyncio.create_task(context.searches.drain(self.settings.drain_seconds))
        while not draining.done():
            await asyncio.wait((draining,), timeout=0.1)
            if len(self.signals) > 1 or context.engines.dead.is_set():
                context.searches.stop_all("drained", "drain")
        await draining

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def note(number: int) -> None:
            self.signals.append(number)
            self.told.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, note, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _unless_told(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`; where a signal comes first it is cancelled. Raises `Stopped`."""
        task, told = asyncio.create_task(work), asyncio.create_task(self.told.wait())
        try:
            await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            return task.result()
        finally:
            task.cancel()
            told.cancel()
            await asyncio.gather(task, told, return_exceptions=True)


class _Http(uvicorn.Server):
    """uvicorn without its signal handling, which would close the door before the searches have drained."""

    def __init__(self, app: Any, ready: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_keep_alive=65,  # longer than proxies and pools keep theirs, so that they close first
                timeout_graceful_shutdown=int(LAST_WORDS),
            )
        )
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # bound by two, and the other was faster to listen
            raise Refused(f"cannot listen: {error.strerror or error} (settings: host, port)") from error
        if self.started:
            self._ready()


def banner(context: Context, listener: socket.socket) -> None:
    """Say where the server is and how to ask it something."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    url = f"http://{host}:{port}"
    key = "" if context.keyring.open else ' -H "Authorization: Bearer $RAMIFY_API_KEY"'
    prompt = "3 5 7 8 to 24" if context.model.task == "countdown" else "Once"
    sys.stdout.write(
        f"Ramify {ramify.__version__} serves {context.model.name} ({context.model.release}) at {url}\n"
        f"  log  {context.log.store}\n"
        f"  ask  curl -s {url}/v1/search{key} -H 'Content-Type: application/json' "
        f'-d \'{{"prompt": "{prompt}"}}\'\n'
    )
    sys.stdout.flush()


def configure_logging(level: str) -> None:
    """One short line an event on standard error, times in UTC."""
    handler = logging.StreamHandler()
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    form.converter = time.gmtime
    handler.setFormatter(form)
    own = logging.getLogger("ramify")
    own.handlers, own.propagate = [handler], False
    own.setLevel(level.upper())
    uvicorn_log = logging.getLogger("uvicorn")
    uvicorn_log.handlers, uvicorn_log.propagate = [handler], False
    uvicorn_log.setLevel(logging.WARNING)
