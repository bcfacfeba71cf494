"""`python fleet_server.py`: a replica of a fleet on fake engines, as a process of its own.

Settings come from RAMIFY_ variables; without RAMIFY_PORT it takes a free one. With DIE_AT it kills itself at that step
of its first activation: as it begins it (`preparing`, `switching`), or once it has taken it and nobody has heard of it
(`prepared`, `switched`). LOAD_SECONDS: how long a release takes to load. FAKE_SECONDS: how long each draw takes, all
at once; with DRAW_SECONDS its engine is a process of its own, which takes so long for each, one after another.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence

from contract.fleet.replicas import engines_of
from fakes_releases import ReloadingEngines
from ramify.api.server import _Server, admin_listener, preflight
from ramify.engines import EngineConfig
from ramify.fleet import Replica, Step
from ramify.logs import log_to_stderr
from ramify.search.protocols import EngineDead
from ramify.search.records import Continuation
from ramify.service.fleet import Fleet
from ramify.service.serving import engine_config
from ramify.settings import load

DONE = {"preparing": "prepared", "switching": "switched"}
run_step = Fleet._run_step
ENGINE = """
import sys, time
for line in sys.stdin:
    time.sleep(float(line))
    print(flush=True)
"""
DIED = "its process has ended"


class EngineProcess:
    """A process that draws: it is told how long each draw takes, and says when it is done."""

    def __init__(self, process: asyncio.subprocess.Process, seconds: float) -> None:
        self._process = process
        self._seconds = seconds
        self._asked: deque[asyncio.Future[None]] = deque()
        """Draws under way, in the order of their ends."""

    async def draw(self) -> None:
        """Return once a draw is done. Raises `EngineDead`."""
        if self._process.returncode is not None:
            raise EngineDead(DIED)
        done = asyncio.get_running_loop().create_future()
        self._asked.append(done)
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self._seconds}\n".encode())
        await done

    async def follow(self, engines: ReloadingEngines) -> None:
        """Pass on what it says; once it has ended, fail what it was asked and give the engines up."""
        assert self._process.stdout is not None
        while await self._process.stdout.readline():
            done = self._asked.popleft()
            if not done.done():  # whoever asked may have gone
                done.set_result(None)
        await self._process.wait()
        for done in self._asked:
            if not done.done():
                done.set_exception(EngineDead(DIED))
        engines.give_up(DIED)


async def draw_in_a_process(engines: ReloadingEngines, seconds: float) -> asyncio.Task[None]:
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-ISc", ENGINE), stdin=pipe, stdout=pipe, stderr=nowhere
    )
    engine, sample = EngineProcess(process, seconds), engines.policy.sample

    async def sampled(*asked: Sequence[object]) -> list[Continuation]:
        await engine.draw()
        return await sample(*asked)  # type: ignore[arg-type]

    engines.policy.sample = sampled  # type: ignore[method-assign, assignment]
    return asyncio.create_task(engine.follow(engines))


async def run_or_die(self: Fleet, step: Step) -> Callable[[Replica], Replica]:
    at = os.environ.get("DIE_AT")
    if at == step.work:
        os.kill(os.getpid(), signal.SIGKILL)
    done = await run_step(self, step)
    if at == DONE.get(step.work):
        os.kill(os.getpid(), signal.SIGKILL)
    return done


def main() -> int:
    settings = load(**({} if "RAMIFY_PORT" in os.environ else {"port": 0}))
    log_to_stderr("ramify", settings.log_level)
    Fleet._run_step = run_or_die  # type: ignore[method-assign]

    async def start(config: EngineConfig, tell: Callable[[str], None]) -> ReloadingEngines:
        assert config.serving.source is not None
        engines = engines_of(config.serving.source, settings)
        engines.policy.seconds = float(os.environ.get("FAKE_SECONDS", "0"))
        engines.load_seconds = float(os.environ.get("LOAD_SECONDS", "0"))
        if seconds := os.environ.get("DRAW_SECONDS"):
            followed.append(await draw_in_a_process(engines, float(seconds)))
        return engines

    followed: list[asyncio.Task[None]] = []

    with preflight(settings) as listener, admin_listener(settings) as admin:
        return asyncio.run(_Server(settings, engine_config(settings), listener, start, admin=admin).run())


if __name__ == "__main__":
    sys.exit(main())
