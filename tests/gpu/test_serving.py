"""Both engines on one device, with and without CUDA MPS: search against its replay, and reload with the canary."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures_engines import LiveEngines
from gpu_checks import CheckTable
from ramify.bench.throughput import Load, Pair, throughput
from ramify.engines import EngineConfig, EngineOptions, Engines, Serving
from ramify.evaluation.backends import UNLIMITED, LocalBackend, meters
from ramify.evaluation.methods import load_methods
from ramify.rewards.datasets import load
from ramify.search.records import Action
from ramify.service import canary
from ramify.service.search_preparation import SearchPreparer
from ramify.weights import Release

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("vllm_here"),
]
MPS = "nvidia-cuda-mps-control"
SEARCHES = {"cuda": 128, "cpu": 4}
SLOTS = {"cuda": 32, "cpu": 2}
IDLE_SECONDS = 60.0


@contextmanager
def mps_daemon(folder: Path) -> Iterator[None]:
    """Run CUDA's MPS daemon for the processes that are started within the block, on pipes of its own."""
    own = {f"CUDA_MPS_{name}_DIRECTORY": str(folder) for name in ("PIPE", "LOG")}
    before = dict(os.environ)
    os.environ.update(own)
    try:
        subprocess.run([MPS, "-d"], check=True, timeout=60)
        try:
            yield
        finally:
            subprocess.run([MPS], input="quit\n", text=True, check=True, timeout=60)
    finally:
        for name in own:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in own if name in before})


@pytest.fixture(scope="module", params=["without MPS", "with MPS"])
def sharing(
    request: pytest.FixtureRequest, device: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The way in which the engines share the card."""
    if request.param == "without MPS":
        yield request.param
        return
    if device == "cpu":
        pytest.skip("MPS is CUDA's")
    if shutil.which(MPS) is None:
        pytest.skip(f"{MPS} is not installed")
    with mps_daemon(tmp_path_factory.mktemp("mps")):
        yield request.param


@pytest.fixture(scope="module")
def live(
    sharing: str, base: Release, following: Release, device: str, table: CheckTable
) -> Iterator[LiveEngines]:
    """Both engines of the base; on a GPU they start one after the other. The next release was made before them."""
    serving = Serving("gpu-check", base.id, action=Action(max_tokens=16), max_tokens=64)
    # Random weights are less steady under rounding than trained ones: a rehearsal rounds as little as it can.
    options = EngineOptions(compile=False, max_model_len=512, dtype="float32" if device == "cpu" else "auto")
    began = time.perf_counter()
    engines = LiveEngines(EngineConfig(base.policy_path, base.value_path, serving, options=options))
    table.add(
        f"start, {sharing}", seconds=f"{time.perf_counter() - began:.0f} s", dtype=_dtypes(engines.engines)
    )
    yield engines
    engines.close()


def _dtypes(engines: Engines) -> str:
    return ", ".join(f"{role} {engine.launch.dtype}" for role, engine in engines.by_role.items())


def test_search_is_held_against_its_replay(
    live: LiveEngines, sharing: str, device: str, table: CheckTable
) -> None:
    engines = live.engines
    assert set(engines.by_role) == {"policy", "value"}
    (method,) = load_methods(names=["default"], tuned=False)
    work = Load(load("countdown:dev", SEARCHES[device], seed=0), method, tokens=200, slots=SLOTS[device])

    async def compared() -> list[Pair]:
        backend = LocalBackend(
            engines, SearchPreparer(engines, UNLIMITED, time.time), meters(engines.by_role)
        )
        return await throughput(backend, work, 1, lambda line: None)

    (pair,) = live.run(compared(), timeout=600)
    for name, run in (("search", pair.searched), ("replay", pair.replayed)):
        table.add(f"{name}, {sharing}", generated=f"{run.tokens / run.seconds:,.0f} tokens/s")
    table.add(f"search, {sharing}", against_replay=f"{pair.ratio:.2f}")
    assert pair.searched.searches == SEARCHES[device]
    assert pair.searched.tokens > 0
    assert pair.searched.scored > 0


def test_a_release_is_loaded_in_place_and_its_canary_tells_it_apart(
    live: LiveEngines, sharing: str, base: Release, following: Release, table: CheckTable
) -> None:
    engines = live.engines
    marks, calibration = following.manifest.canary, (1.0, 0.0)
    texts = canary.texts_of(marks)

    async def loaded() -> tuple[canary.CanaryReport, float, float]:
        async with engines.exclusive(IDLE_SECONDS):
            before = await engines.measure(texts, calibration)
            began = time.perf_counter()
            await engines.reload(following.policy_path, following.value_path)
            reloaded = time.perf_counter()
            cached = await engines.measure(texts, calibration)
            await engines.reset_prefix_caches()
            report = canary.check(
                marks, before, [cached, await engines.measure(texts, calibration)], engines.tolerance
            )
            measured = time.perf_counter()
            await engines.reload(base.policy_path, base.value_path)
            canary.same(
                before, await engines.measure(texts, calibration), engines.tolerance, "not the base again"
            )
        return report, reloaded - began, measured - reloaded

    report, reload_seconds, canary_seconds = live.run(loaded(), timeout=600)
    table.add(
        f"reload, {sharing}",
        seconds=f"{reload_seconds:.2f} s",
        canary=f"{canary_seconds:.2f} s",
        told_apart=f"{report.distinguishable} of {report.probes} probes",
        largest_error=f"{report.max_logprob_error:.2g} in a log-probability, {report.max_value_error:.2g} in a value",
    )
    assert report.distinguishable > 0
