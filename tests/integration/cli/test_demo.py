"""`ramify demo` from start to end, and what it leaves behind: files, and no process."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from models import write_tiny_models
from ramify.weights import Details, WeightsError, load_release, publish, shipped
from server_process import SMALL

pytestmark = pytest.mark.vllm


@pytest.fixture
def release(tmp_path):
    """The shipped release if there is one, else tiny random models."""
    try:
        return load_release(shipped(), verify=False).path
    except WeightsError:
        tiny = write_tiny_models(tmp_path / "models")
        details = Details(name="tiny", default_task="countdown")
        return publish(tmp_path / "weights", tiny.policy, tiny.value, details).path


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "environment", [SMALL, pytest.param({}, marks=pytest.mark.slow)], ids=["not compiled", "compiled"]
)
def test_the_demo_ends_with_a_table_a_tree_and_no_process(tmp_path, release, environment):
    command = [sys.executable, "-m", "ramify", "demo", "--problems", "3", "--release", str(release)]
    out = tmp_path / "demo"
    done = subprocess.run(
        [*command, "--out", str(out)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("greedy decoding", "tree search, nothing set", "of 3", "★", "ramify search", str(out)):
        assert said in done.stdout
    assert len(json.loads((out / "results.json").read_text())["figures"]) > 0
    for name in ("trees.db", "accuracy.png", "results.md", "server.log"):
        assert (out / name).exists()
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(out) in " ".join(p.info["cmdline"] or ())]
