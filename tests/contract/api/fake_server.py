"""`python fake_server.py FOLDER`: the whole server on fake engines as a process of its own.

It prints its banner, as `ramify serve` does. Settings come from RAMIFY_ variables; without RAMIFY_LOG its log is in
FOLDER, without RAMIFY_PORT it takes a free port. FAKE_FILES_LEFT: descriptors that it may open once it runs.
FAKE_SECONDS: how long each draw takes.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from api.world import FakeEngines

from ramify.api.server import _Server, admin_listener, preflight
from ramify.engines import EngineConfig
from ramify.logs import log_to_stderr
from ramify.settings import load


async def start(config: EngineConfig, tell: Callable[[str], None]) -> FakeEngines:
    if files := os.environ.get("FAKE_FILES_LEFT"):  # from now on so many more can be opened
        in_use = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + int(files),) * 2)
    engines = FakeEngines()
    engines.policy.seconds = float(os.environ.get("FAKE_SECONDS", "0"))
    return engines


def main(folder: Path) -> int:
    usual = {"RAMIFY_LOG": f"{folder}/trees.db", "RAMIFY_PORT": "0"}
    os.environ.update({name: value for name, value in usual.items() if name not in os.environ})
    settings = load()
    log_to_stderr("ramify", settings.log_level)
    with preflight(settings) as listener, admin_listener(settings) as admin:
        return asyncio.run(_Server(settings, EngineConfig(folder), listener, start, admin=admin).run())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
