"""The scripts that take arguments say so when they are asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.mark.parametrize("name", ["readability.py", "paired.py", "value_head_cost.py"])
def test_a_script_has_help(name: str) -> None:
    words = [sys.executable, str(SCRIPTS / name), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


def test_a_folder_without_the_packages_is_refused_in_one_line(tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPTS / "readability.py"), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "not a checkout" in done.stderr
    assert "Traceback" not in done.stderr
