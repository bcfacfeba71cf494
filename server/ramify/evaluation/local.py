"""A release in this process: the engines that the server would start, and the same preparation of a search."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.engines import Engines
from ramify.engines.progress import StartUp
from ramify.engines.vllm import preload
from ramify.service.search_preparation import SearchPreparer
from ramify.service.serving import release_config
from ramify.settings import RequestCaps, load
from ramify.weights import load_release, shipped

MANY = 1_000_000
UNLIMITED = RequestCaps(
    budget_tokens=MANY, budget_nodes=MANY, budget_simulations=100_000, deadline_seconds=86_400.0
)
"""An evaluation is its own and only client."""


@dataclass(frozen=True, slots=True)
class Local:
    """Engines that run here, and how to ask them."""

    engines: Engines
    preparer: SearchPreparer


@asynccontextmanager
async def open_release(path: Path | None) -> AsyncIterator[Local]:
    """Start the engines of a release (the shipped one by default), for the length of a `with`.

    Settings come from ``RAMIFY_…`` variables, as the server's do. Raises `BadSettings`,
    `ramify.weights.WeightsError` and `ramify.engines.EngineError`.
    """
    with StartUp() as startup:
        startup.tell("verifying the release")
        config = release_config(load_release(path or shipped()), load())
        startup.tell("loading vLLM")
        preload(config.log_level, config.start_timeout, config.cache_dir)
        engines = await Engines.start(config, startup.tell)
    try:
        yield Local(engines, SearchPreparer(engines, UNLIMITED, time.time))
    finally:
        await engines.close()


def is_shipped(release: Path | None) -> bool:
    """Tell whether its files are the shipped release's, which the methods were tuned for. Raises `WeightsError`."""
    return release is None or identity(release)["sha256"] == identity(None)["sha256"]


def serves_shipped(model: str, release: str) -> bool:
    """Tell whether a server that gives these names serves the shipped release."""
    ours = identity(None)
    return (model, release) == (ours["name"], ours["id"])


def identity(path: Path | None) -> dict[str, Any]:
    """What tells a release from any other: id, name, and the sha256 of its files' list. Raises `WeightsError`."""
    manifest = load_release(path or shipped(), verify=False).manifest
    files = json.dumps({name: file.sha256 for name, file in sorted(manifest.files.items())})
    return {"id": manifest.id, "name": manifest.name, "sha256": hashlib.sha256(files.encode()).hexdigest()}
