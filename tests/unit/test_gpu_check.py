"""`make gpu-check` still runs: one of its checks, rehearsed on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_checks import DEVICE, MODEL

ROOT = Path(__file__).parents[2]
CANARY = "tests/gpu/test_training.py::test_a_canary_is_chosen"


def checked(device: str, check: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", check, "-m", "gpu", "-p", "no:cacheprovider"]
    environment = {**os.environ, DEVICE: device, MODEL: "", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=170)


def test_a_check_runs_on_the_cpu_and_prints_the_table() -> None:
    done = checked("cpu", CANARY)
    assert done.returncode == 0, done.stdout
    assert "choice of a canary" in done.stdout.partition("GPU checks")[2]


@pytest.mark.slow
def test_without_a_gpu_every_check_is_skipped_with_the_reason() -> None:
    done = checked("cuda", "tests/gpu")
    assert done.returncode == 0, done.stdout
    assert "torch sees no GPU" in done.stdout
    assert " passed" not in done.stdout
