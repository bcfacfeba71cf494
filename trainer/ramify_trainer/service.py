"""`ramify-trainer run`: rounds until it is told to stop, whatever the server does meanwhile.

The server may go away at any time: the phase is tried again, after waits that double up to a bound, until it is back;
every phase may be done again from its beginning, so nothing of the round is lost. So may the object store of releases,
for `store_seconds`. SIGTERM or SIGINT ends the present step, within `stop_seconds`; what has not ended then is left as
it is, as by a kill, and done again after the next start. A second signal ends the process at once. A lost lease ends it
too: whoever holds it moves the cursor now.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ramify.connections import Listener, ListenError, address_of, bind
from ramify.races import first_of
from ramify.weights import StoreAway
from ramify_client import AsyncAdmin, AsyncClient, RamifyError
from ramify_trainer.config import LoopConfig, key_in
from ramify_trainer.errors import TrainerError, is_transient
from ramify_trainer.loop.processes import require_room
from ramify_trainer.loop.rounds import Loop, PhaseProgress
from ramify_trainer.loop.state import folder_lock, unserved
from ramify_trainer.loop.teacher import teacher_client
from ramify_trainer.probes import GRACE, LIMITS, Health, Metrics, Routes

logger = logging.getLogger(__name__)
STOPPED, FAILED, INTERRUPTED = 0, 1, 130
"""Exit codes: done, or stopped by a signal; something that waiting does not mend, or a run of which the server took no
release; a second signal."""
PROBE_SECONDS = 10.0
"""Seconds that the server has to answer whether it is there."""
FIRST_WAIT = 1.0
"""Seconds between the first two tries while the server is away."""


def run(config: LoopConfig, tell: PhaseProgress) -> int:
    """Return the process's exit code.

    Raises `TrainerError`, `WeightsError` and `RamifyError` that waiting does not mend."""
    with folder_lock(config.state):
        return asyncio.run(_run(config, tell))


async def _run(config: LoopConfig, tell: PhaseProgress) -> int:
    keys = [key_in(path) for path in (config.server.key_file, config.server.admin_key_file)]
    async with (
        AsyncClient(config.server.url, keys[0], max_retries=100) as client,
        AsyncAdmin(config.server.admin_url, keys[1]) as admin,
        AsyncClient(config.server.url, keys[0], max_retries=0, timeout=PROBE_SECONDS) as probe,
        teacher_client(config.teacher, max_retries=100) as teacher,
        teacher_client(config.teacher, max_retries=0, timeout=PROBE_SECONDS) as teacher_probe,
    ):
        loop = Loop(config, client, admin, tell, teacher=teacher)
        return await Service(loop, probe, teacher_probe or probe).run()


class Service:
    """One run of the service. probe, log_probe: clients without patience of the server that serves, and of the one
    whose log is read."""

    def __init__(self, loop: Loop, probe: AsyncClient, log_probe: AsyncClient) -> None:
        self.loop, self.probe, self.log_probe = loop, probe, log_probe
        self.settings = loop.config.service
        self.health = Health(loop, self.settings.stall_seconds)
        self.metrics = Metrics(self.health)
        self.url: str | None = None
        """Address at which it answers; None before it does."""
        self._told = asyncio.Event()

    async def run(self) -> int:
        """Serve until all rounds are done, or a signal comes."""
        try:
            listener = bind(
                self.settings.host,
                self.settings.port,
                settings="service.host, service.port",
                choose="service.port",
            )
        except ListenError as error:
            raise TrainerError(str(error)) from error
        self.url = address_of(listener)
        http = Listener(Routes(self.health, self.metrics), LIMITS, grace=GRACE)
        with self._signals(), self.loop.worker:
            answering = asyncio.create_task(http.serve(sockets=[listener]))
            probing = asyncio.create_task(self._probing())
            logger.info("answers /livez, /readyz and /metrics at %s", self.url)
            try:
                return await self._until_stopped()
            finally:
                http.should_exit = True
                probing.cancel()
                await asyncio.gather(answering, probing, return_exceptions=True)
                listener.close()

    async def _until_stopped(self) -> int:
        working, told = asyncio.create_task(self._work()), asyncio.create_task(self._told.wait())
        async with first_of(working, told):
            if not working.done():
                await self._end(working)
            with suppress(asyncio.CancelledError):
                await working
        state = getattr(self.loop, "state", None)
        fault = None if state is None else unserved(state.history)
        if fault is not None:
            logger.error("stopped: %s", fault)
            return FAILED
        logger.info("stopped")
        return STOPPED

    async def _end(self, working: asyncio.Task[None]) -> None:
        """Have the present step end; if it takes too long, the process ends instead."""
        seconds, phase = self.settings.stop_seconds, self.loop.progress.phase
        logger.info("stopping: %s has %g s to end its step", phase, seconds)
        working.cancel()
        await asyncio.wait((working,), timeout=seconds)
        if not working.done():
            logger.warning("%s did not end in time and will be done again", phase)
            _leave(STOPPED)

    async def _work(self) -> None:
        """Do all rounds, started again whenever the server or the object store was away."""
        longest, progress = self.settings.longest_wait_seconds, self.loop.progress
        pauses, before = waits(longest), 0
        store_away_since: float | None = None
        # Only now: later, when a node has gone, a training waits for it.
        await asyncio.to_thread(require_room, self.loop.config.distributed)
        while True:
            try:
                await self.loop.start()
                return await self.loop.puller.holding(self._rounds())
            except (RamifyError, TrainerError, StoreAway) as error:
                if not is_transient(error):
                    raise
                if progress.times.total() > before:  # it got on in between
                    pauses, before, store_away_since = waits(longest), progress.times.total(), None
                if isinstance(error, StoreAway):
                    self.health.store_failed(
                        f"the phase {progress.phase} waits for the object store: {error}"
                    )
                    now = progress.clock()
                    store_away_since = now if store_away_since is None else store_away_since
                    if now - store_away_since >= self.settings.store_seconds:
                        raise
                else:
                    store_away_since = None  # nobody knows how long, while a server is away
                    self.health.away = f"the phase {progress.phase} waits for a server: {error}"
                wait = next(pauses)
                logger.warning("%s: %s; again in %g s", progress.phase, error, wait)
            await asyncio.sleep(wait)

    async def _rounds(self) -> None:
        while not self.loop.done:
            await self._wait()
            record = await self.loop.round()
            logger.info("round %d: %s", record.round, record.reason)
            if not self.loop.done:
                await self._pause()

    async def _pause(self) -> None:
        left, progress = self.settings.pause_seconds, self.loop.progress
        progress.entered("pausing")
        while left > 0:
            await asyncio.sleep(min(left, self.settings.poll_seconds))
            left -= self.settings.poll_seconds
            progress.progressed(0, 0)

    async def _wait(self) -> None:
        """Wait until there is enough to read, if a round is about to begin."""
        wanted, puller = self.settings.min_backlog, self.loop.puller
        if self.loop.state.phase != "collect" or not wanted:
            return
        self.loop.progress.entered("waiting")
        while puller.backlog < wanted:
            self.loop.progress.progressed(puller.backlog, wanted)
            await asyncio.sleep(self.settings.poll_seconds)
            await puller.renew()

    async def _probing(self) -> None:
        """Ask again and again whether the servers are there, and how far behind the log this trainer is."""
        puller = self.loop.puller
        while True:
            asked = self.probe
            try:
                for asked in dict.fromkeys((self.probe, self.log_probe)):
                    await asked.version()
                self.health.away = None
                oldest = await puller.oldest(asked) if puller.leased and puller.backlog else None
                self.metrics.lag_seconds = 0.0 if oldest is None else max(0.0, time.time() - oldest)
            except RamifyError as error:
                self.health.away = f"the server at {asked.configuration.base_url} is away: {error}"
            await asyncio.sleep(self.settings.poll_seconds)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def note() -> None:
            if self._told.is_set():
                _leave(INTERRUPTED)
            self._told.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, note)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def _leave(code: int) -> None:
    """End the process now, whatever its threads do; the state on disk is whole at any time."""
    sys.stderr.flush()
    os._exit(code)


def waits(longest: float) -> Iterator[float]:
    """Yield seconds between tries: they double up to `longest`."""
    wait = min(FIRST_WAIT, longest)
    while True:
        yield wait
        wait = min(2 * wait, longest)
