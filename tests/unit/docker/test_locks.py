"""The images hold what runs, and nothing that only tests need."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "triton"}
"""torch is installed by itself; the others are what `--no-deps` is for."""


def locked(name: str) -> set[str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.split("==")[0]) for line in lines if line and line[0] != "#"}


def closure(*extras: str) -> set[str]:
    """Every distribution that the extras and the build need, as far as it is installed here."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    ours = pyproject["project"]["optional-dependencies"]
    texts = [*pyproject["project"]["dependencies"], *pyproject["build-system"]["requires"]]
    left = [(Requirement(text), "") for text in texts + [t for extra in extras for t in ours[extra]]]
    seen: set[tuple[str, str]] = set()
    while left:
        requirement, asked_by = left.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": asked_by}):
            continue
        name = canonicalize_name(requirement.name)
        if name == "ramify":
            left += [(Requirement(text), "") for extra in requirement.extras for text in ours[extra]]
            continue
        for extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, extra))
            left += [(Requirement(text), extra) for text in _requires(name)]
    return {name for name, _ in seen}


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def test_the_lock_of_the_images_is_what_server_and_trainer_need() -> None:
    assert locked("cpu.lock") == closure("cpu", "train", "postgres", "objects") - LEFT_OUT


def test_the_lock_of_the_tests_is_the_rest() -> None:
    everything = closure("cpu", "train", "postgres", "objects", "dev") - LEFT_OUT
    assert locked("dev.lock") == everything - locked("cpu.lock") | {"editables"}  # for `pip install -e`


def test_extras_are_found_within_extras() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docker/requirements_of.py", ROOT / "pyproject.toml", "gpu", "postgres"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = re.findall(r"^[\w.-]+", done.stdout, re.MULTILINE)
    assert {"vllm", "asyncpg", "fastapi", "pydantic"} <= set(names)
    assert "ramify" not in names


@pytest.mark.parametrize("lock", ["cpu.lock", "dev.lock"])
def test_every_locked_version_is_exact(lock: str) -> None:
    lines = (ROOT / "requirements" / lock).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line[0] != "#" and not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
