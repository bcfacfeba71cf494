"""Real engines for tests: one pair for the whole session, since a start takes 20 s.

The demo's two models where they are, else tiny random models. The engines live on an event loop of their own in a
thread, so that plain and async tests may both use them: `live.run(coroutine)` runs one there and waits.

In float32, so that figures can be compared closely; not compiled, so that the start is quick.

Import `live_engines` into a conftest to use it; however many conftests do, there is one pair.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Coroutine
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

import ramify_trainer
from models import TWO_MODELS, write_tiny_models
from ramify.engines import EngineConfig, EngineOptions, Engines, Serving
from ramify.search.records import Action
from ramify.weights import load_release

Result = TypeVar("Result")
SERVING = Serving("countdown-tiny", "v000001", task="countdown", action=Action(), max_tokens=64)
WEAK = Path(ramify_trainer.__file__).parent / "models" / "countdown-weak" / "v000001"
"""The trainer's base."""
START_SECONDS = 600
"""Longest start on a machine that does other things too."""


class LiveEngines:
    """Engines on a loop in a thread."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="engines", daemon=True)
        self.thread.start()
        self.engines = self.run(Engines.start(config), START_SECONDS)

    def run(self, work: Coroutine[Any, Any, Result], timeout: float = 120) -> Result:
        """Run one coroutine where the engines are, and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def close(self) -> None:
        self.run(self.engines.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what only engine processes bring about; whatever waits for the test ends a wait for ever."""
    while not condition():  # noqa: ASYNC110  # another process tells nobody
        await asyncio.sleep(0.001)


def model_paths(folder: Path) -> tuple[Path, Path]:
    """Policy and value model: those of the first release of ours that has both, else tiny random ones written to
    `folder`."""
    for path in (TWO_MODELS, WEAK):
        if (path / "READY").exists():
            release = load_release(path, verify=False)
            if release.value_path is not None:
                return release.policy_path, release.value_path
    tiny = write_tiny_models(folder)
    return tiny.policy, tiny.value


@lru_cache(1)
def the_engines() -> LiveEngines:
    policy, value = model_paths(Path(tempfile.mkdtemp(prefix="ramify-test-models-")))
    return LiveEngines(
        EngineConfig(policy, value, SERVING, options=EngineOptions(dtype="float32", compile=False))
    )


@pytest.fixture(scope="session")
def live_engines(request: pytest.FixtureRequest) -> LiveEngines:
    """The session's engine pair."""
    started = the_engines.cache_info().currsize
    live = the_engines()
    if not started:
        request.config.add_cleanup(live.close)
    return live
