"""`python fleet_server.py`: a replica of a fleet on fake engines, as a process of its own.

Settings come from RAMIFY_ variables. FAKE_SECONDS: how long each draw takes. With DIE_AT it kills itself at that step
of its first activation: as it begins it (`preparing`, `switching`), or once it has taken it and nobody has heard of it
(`prepared`, `switched`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

from contract.fleet.replicas import engines_of
from fakes_releases import ReloadingEngines
from ramify.api.server import _Server, admin_listener, preflight
from ramify.engines import EngineConfig
from ramify.fleet import Replica, Step
from ramify.logs import log_to_stderr
from ramify.service.fleet import Fleet
from ramify.service.serving import engine_config
from ramify.settings import load

DONE = {"preparing": "prepared", "switching": "switched"}
run_step = Fleet._run_step


async def run_or_die(self: Fleet, step: Step) -> Callable[[Replica], Replica]:
    at = os.environ.get("DIE_AT")
    if at == step.work:
        os.kill(os.getpid(), signal.SIGKILL)
    done = await run_step(self, step)
    if at == DONE.get(step.work):
        os.kill(os.getpid(), signal.SIGKILL)
    return done


def main() -> int:
    settings = load(port=0)
    log_to_stderr("ramify", settings.log_level)
    Fleet._run_step = run_or_die  # type: ignore[method-assign]

    async def start(config: EngineConfig, tell: Callable[[str], None]) -> ReloadingEngines:
        assert config.serving.source is not None
        engines = engines_of(config.serving.source, settings)
        engines.policy.seconds = float(os.environ.get("FAKE_SECONDS", "0"))
        return engines

    with preflight(settings) as listener, admin_listener(settings) as admin:
        return asyncio.run(_Server(settings, engine_config(settings), listener, start, admin=admin).run())


if __name__ == "__main__":
    sys.exit(main())
