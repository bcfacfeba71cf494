"""One device, one release and one table for all checks of a run (`make gpu-check`)."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from gpu_checks import DEVICE, CheckTable, base_release, next_release
from ramify.weights import Release

TABLE = pytest.StashKey[CheckTable]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = CheckTable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, if a check has put something into it."""
    rows = config.stash[TABLE].rows
    if not rows:
        return
    terminalreporter.section("GPU checks")
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for check, name, value in rows:
        terminalreporter.write_line(f"{check:<{widths[0]}}  {name:<{widths[1]}}  {value}")


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> CheckTable:
    return request.config.stash[TABLE]


@pytest.fixture(scope="session")
def device() -> str:
    """The device that everything runs on: `cuda`, or `cpu` for a rehearsal."""
    chosen = os.environ.get(DEVICE, "cuda")
    if chosen not in ("cuda", "cpu"):
        pytest.fail(f"{DEVICE} is cuda or cpu, not {chosen!r}")
    if chosen == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"torch sees no GPU; {DEVICE}=cpu rehearses on the CPU")
    if chosen == "cpu" and torch.cuda.is_available():
        pytest.fail(f"{DEVICE}=cpu needs CUDA_VISIBLE_DEVICES= too: the trainer takes a GPU that torch sees")
    return chosen


@pytest.fixture(scope="session")
def vllm_here(device: str) -> None:
    """Skip what needs a vLLM for the device."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    from ramify.engines.vllm import on_cpu

    if on_cpu() != (device == "cpu"):
        pytest.skip(f"the vLLM that is installed computes on the {'CPU' if on_cpu() else 'GPU'}")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, device: str) -> Release:
    root: Path = tmp_path_factory.mktemp("gpu-check")
    return base_release(root, device)


@pytest.fixture(scope="session")
def following(base: Release, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release after the base. Its canary is chosen on the device, so this comes before any engine."""
    return next_release(base, tmp_path_factory.mktemp("following"))
