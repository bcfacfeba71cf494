"""Engines that hang, whose server is killed while they start, or that never start. (A server that is killed while
it searches is in `integration/api/test_continue_after_kill.py`.)"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from fixtures_engines import model_paths, until
from ramify.engines import (
    EngineConfig,
    EngineOptions,
    Engines,
    EngineStartFailed,
)
from ramify.search.protocols import EngineDead, SampleAborted
from ramify.search.records import Sampling
from server_process import is_engine, shared_memory

HOST = Path(__file__).with_name("host.py")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return model_paths(tmp_path_factory.mktemp("models"))


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own, empty again at its end. (A short path: sockets allow 107 characters.)"""
    folder = Path(tempfile.mkdtemp(prefix="re-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    left = list(folder.glob("ramify-engines-*"))
    shutil.rmtree(folder)
    assert left == []


@dataclass
class Host:
    """`host.py` in a process of its own, and what it has started."""

    process: subprocess.Popen[str]
    family: list[psutil.Process] = field(default_factory=list)
    shared_memory: set[Path] = field(default_factory=set)

    def look(self) -> None:
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        self.look()
        self.shared_memory |= shared_memory(self.family)
        self.process.kill()
        self.process.wait()

    def left_after(self, seconds: float) -> list[object]:
        """Processes that still run after so many seconds, and shared memory that is still there."""
        _, alive = psutil.wait_procs(self.family, timeout=seconds)
        return [*alive, *(path for path in self.shared_memory if path.exists())]


@pytest.fixture
def host(paths: tuple[Path, Path], scratch: Path) -> Iterator[Host]:
    with subprocess.Popen([sys.executable, HOST, *paths], stdout=subprocess.PIPE, text=True) as process:
        yield Host(process)
        process.kill()


@pytest.mark.slow
def test_engines_follow_a_server_that_is_killed_while_they_start(host: Host) -> None:
    deadline = time.monotonic() + 500
    while time.monotonic() < deadline and sum(map(is_engine, host.family)) < 2:
        time.sleep(0.05)
        host.look()
    assert sum(map(is_engine, host.family)) == 2, "the engines did not get as far as their first line"
    host.kill()
    assert host.left_after(5) == []


def test_a_start_that_is_given_up_leaves_no_engine_and_keeps_nobody_waiting(
    paths: tuple[Path, Path], scratch: Path
) -> None:
    ours = {child.pid for child in psutil.Process().children(recursive=True)}

    def engines() -> list[psutil.Process]:
        new = [child for child in psutil.Process().children(recursive=True) if child.pid not in ours]
        return list(filter(is_engine, new))

    async def go() -> float:
        starting = asyncio.create_task(
            Engines.start(EngineConfig(paths[0], options=EngineOptions(compile=False)))
        )
        async with asyncio.timeout(500):
            await until(lambda: starting.done() or engines())
        for engine in engines():
            engine.suspend()  # it will never be ready
        starting.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await starting
        return began

    began = asyncio.run(go())
    assert time.monotonic() - began < 60
    assert engines() == []


async def probe_thrice(engines: Engines) -> None:
    """Probe again if a step that was on its way when the engine stopped has answered the first probe."""
    for _ in range(3):
        await engines.probe(2.0)


def test_a_hung_engine_fails_its_probe_keeps_no_deadline_waiting_and_counts_as_dead_once_it_is_given_up(
    paths: tuple[Path, Path], scratch: Path
) -> None:
    async def go() -> None:
        engines = await Engines.start(EngineConfig(paths[0], options=EngineOptions(compile=False)))
        hung = psutil.Process(engines.pids[0])
        try:
            await hang_and_go_on(engines, hung)
            await hang_until_given_up(engines, hung)
        finally:
            await asyncio.wait_for(engines.close(), 60)
        assert psutil.wait_procs([hung], timeout=10)[1] == []

    asyncio.run(go())


async def hang_and_go_on(engines: Engines, hung: psutil.Process) -> None:
    assert not engines.scorer.named
    await engines.probe(30.0)
    hung.suspend()
    try:
        with contextlib.suppress(
            TimeoutError
        ):  # what it had answered before it was stopped may still come in
            await engines.probe(1.0)
        with pytest.raises(TimeoutError, match="policy engine made no step within 1 s"):
            await engines.probe(1.0)
        engine = engines.by_role["policy"]
        left = engine.unfinished
        waiting = asyncio.create_task(engines.policy.sample([1], Sampling(max_tokens=4), [1, 2]))
        await until(lambda: engine.unfinished == left + 2)
        waiting.cancel()
        await asyncio.sleep(0)
        waiting.cancel()  # the second time it waits no longer for the engine's word
        with pytest.raises(SampleAborted):
            await asyncio.wait_for(waiting, 1)
        assert engine.unfinished == left == 0, "what was given up is forgotten"
    finally:
        hung.resume()
    await engines.probe(30.0)


async def hang_until_given_up(engines: Engines, hung: psutil.Process) -> None:
    prompt = engines.tokenizer.encode("3 5 7 8 to 24\n")
    await engines.policy.sample(prompt, Sampling(max_tokens=4), [1])
    hung.suspend()
    drawing = [
        asyncio.create_task(engines.policy.sample(prompt, Sampling(max_tokens=64), [i, 7])) for i in (2, 3)
    ]
    await until(lambda: hung.status() == psutil.STATUS_STOPPED)
    with pytest.raises(TimeoutError):
        await probe_thrice(engines)
    began = time.monotonic()
    drawing[0].cancel()
    with pytest.raises(SampleAborted):
        await drawing[0]
    assert time.monotonic() - began < 1.0
    engines.give_up("it hangs")
    with pytest.raises(EngineDead, match="it hangs"):
        await asyncio.wait_for(drawing[1], 5)
    assert engines.dead.is_set()


def test_a_model_that_cannot_be_served_is_named_before_anything_starts(
    paths: tuple[Path, Path], tmp_path: Path, scratch: Path
) -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(EngineStartFailed, match=r"value model directory .*nowhere does not exist"):
        asyncio.run(Engines.start(EngineConfig(paths[0], tmp_path / "nowhere")))
    assert {child.pid for child in psutil.Process().children()} <= before


@pytest.mark.slow
def test_where_one_engine_fails_to_start_neither_is_left(paths: tuple[Path, Path], scratch: Path) -> None:
    ours = {child.pid for child in psutil.Process().children(recursive=True)}
    tiny = EngineOptions(compile=False).model_copy(update={"value_kv_bytes": 1000})  # no room for a prompt
    with pytest.raises(EngineStartFailed, match=r"the value engine for .* did not start"):
        asyncio.run(Engines.start(EngineConfig(*paths, options=tiny)))
    new = [child for child in psutil.Process().children(recursive=True) if child.pid not in ours]
    psutil.wait_procs(new, timeout=10)
    assert [child.name() for child in new if child.is_running() and "EngineCore" in child.name()] == []
