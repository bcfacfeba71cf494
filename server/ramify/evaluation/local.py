"""A release in this process: its engines, and the same preparation of a search that the server does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ramify.engines import EngineConfig, Engines
from ramify.search.records import Action
from ramify.service.ports import ServedModel
from ramify.service.prepare import Preparer
from ramify.settings import Limits
from ramify.weights import Release, load_release, shipped

MANY = 1_000_000
UNLIMITED = Limits(
    budget_tokens=MANY, budget_nodes=MANY, budget_simulations=100_000, deadline_seconds=86_400.0
)
"""An evaluation is its own and only client."""


@dataclass(frozen=True, slots=True)
class Local:
    """Engines that run here, and how to ask them."""

    engines: Engines
    preparer: Preparer
    release: Release


@asynccontextmanager
async def open_release(path: Path | None) -> AsyncIterator[Local]:
    """Start the engines of a release (the shipped one by default), for the length of a `with`.

    Raises `ramify.weights.WeightsError` and `ramify.engines.EngineError`.
    """
    release = load_release(path or shipped())
    engines = await Engines.start(config_of(release))
    try:
        model = served(release)
        preparer = Preparer(model, engines.tokenizer, engines.max_model_len, UNLIMITED, time.time)
        yield Local(engines, preparer, release)
    finally:
        await engines.close()


def config_of(release: Release) -> EngineConfig:
    calibration = release.manifest.calibration
    return EngineConfig(
        policy=release.policy_path,
        value=release.value_path,
        release=release.id,
        calibration_a=calibration.a,
        calibration_b=calibration.b,
    )


def served(release: Release) -> ServedModel:
    """What a release says of its model."""
    manifest = release.manifest
    action = manifest.default_action
    return ServedModel(
        name=manifest.name,
        release=release.id,
        created=int(manifest.created_at.timestamp()),
        task=manifest.default_task,
        action=Action(kind=action.kind, stop=action.stop, max_tokens=action.max_tokens),
        max_tokens=manifest.default_max_tokens,
    )
