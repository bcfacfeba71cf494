"""The wheel holds all that the commands need, so that nobody needs a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMOS = """
from pathlib import Path
import ramify, ramify_client, ramify_trainer
from ramify.weights import load_release, shipped
from ramify_trainer.cli import DEMO_LOOP
from ramify_trainer.config import LoopConfig, base_release
for package in (ramify, ramify_client, ramify_trainer):
    print(Path(package.__file__).parent.parent)
for release in (load_release(shipped()), base_release(LoopConfig.read(DEMO_LOOP).base)):
    print(release.manifest.name)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of this checkout installed in it, beside the packages that it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    python(folder, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (wheel,) = folder.glob("ramify-*.whl")
    target = folder / "installed"
    python(
        folder,
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"),
        *("--disable-pip-version-check", "--target", str(target), str(wheel)),
    )
    return target


def python(folder: Path, *words: str, cwd: Path | None = None) -> str:
    """Return what Python writes when it runs `words` with `folder` before everything else on its path."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd or folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demos_of_server_and_trainer_find_their_files_in_the_wheel(installed: Path) -> None:
    assert python(installed, "-c", DEMOS).split() == [
        *[str(installed)] * 3,
        *["countdown-tiny"] * 2,
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "ramify", "--version"], "ramify 0."),
        (["bin/ramify", "--version"], "ramify 0."),
        (["bin/ramify-trainer", "loop", "--help"], "round after round"),
    ],
)
def test_the_commands_run_from_the_wheel(installed: Path, words: list[str], said: str) -> None:
    assert said in " ".join(python(installed, *words).split())


def test_the_wheel_says_what_it_is_and_leaves_tests_out(installed: Path) -> None:
    (metadata,) = installed.glob("ramify-*.dist-info/METADATA")
    headers = HeaderParser().parsestr(metadata.read_text())
    assert headers["License-Expression"] == "Apache-2.0"
    assert {"cpu", "gpu", "train", "postgres"} <= set(headers.get_all("Provides-Extra") or ())
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} == {
        *("bin", "ramify", "ramify_client", "ramify_trainer")
    }
