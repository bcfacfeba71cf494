"""`python doomed_loop.py loop …`: the `ramify-trainer` command, whose servers are killed at points of its progress.

DOOM has the points, each as `<what is told>:<done>`: one that has been come to is followed by the next. Each kill is
a line on standard error, `killed at` and the time in seconds. The servers are those of `python doomed_loop.py serve …`:
the `ramify` command on engines that hold little models in earnest. The first draw of each takes FIRST_DRAW seconds, all
others none: whoever searches two problems at once has the rest searched long before the first, which is in flight as
long.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from functools import partial

import psutil
from rich.console import Console

from fakes import FakePolicy
from fakes_releases import stamped
from fakes_training import TrainedEngines
from ramify import cli, launcher
from ramify.api import server
from ramify.engines import EngineConfig
from ramify_trainer import cli as trainer_cli

SERVE = (sys.executable, __file__, "serve")
FIRST_DRAW = 3.0


class SlowAtFirst(FakePolicy):
    """Its first request takes `FIRST_DRAW` seconds."""

    async def _take_time(self) -> None:
        await asyncio.sleep(FIRST_DRAW if len(self.requests) == 1 else 0)


async def start(config: EngineConfig, tell: Callable[[str], None]) -> TrainedEngines:
    assert config.serving.source is not None
    engines = TrainedEngines(serving=config.serving)
    engines.policy = SlowAtFirst(engines.policy.rule)
    stamped(engines)
    engines.hold(config.serving.source.models)
    return engines


def killing(tell: Callable[[str, int, int], None], points: list[str]) -> Callable[[str, int, int], None]:
    def told(what: str, done: int, total: int) -> None:
        tell(what, done, total)
        if points and points[0] == f"{what}:{done}":
            points.pop(0)
            (child,) = [child for child in psutil.Process().children() if "serve" in child.cmdline()]
            child.kill()
            print("killed at", time.time(), file=sys.stderr, flush=True)

    return told


def main() -> None:
    if sys.argv[1] == "serve":
        server._Server = partial(server._Server, start=start)  # type: ignore[misc, assignment]
        cli.app(prog_name="ramify")
    points, tenths_on = os.environ["DOOM"].split(), trainer_cli.tenths_on

    def doomed(console: Console) -> Callable[[str, int, int], None]:
        return killing(tenths_on(console), points)

    launcher.SERVE = SERVE
    trainer_cli.tenths_on = doomed
    trainer_cli.app(prog_name="ramify-trainer")


if __name__ == "__main__":
    main()
