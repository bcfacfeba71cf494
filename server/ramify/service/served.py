"""What a server serves, by its settings: the model's name and defaults, and what its engines start with."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from ramify.engines import EngineConfig
from ramify.search.records import Action
from ramify.service.ports import ServedModel
from ramify.settings import BadSettings, Settings
from ramify.weights import Release, load_release, release_path, shipped


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """What is served, and where its files are."""

    model: ServedModel
    config: EngineConfig
    release: Release | None = None
    """`None` where a policy and a value model are served that are no release."""


def served_of(settings: Settings) -> ServingPlan:
    """What the settings alone name. Raises `WeightsError`, `BadSettings`."""
    if settings.policy is not None:
        policy = Path(settings.policy)
        value = Path(settings.value) if settings.value else None
        name = settings.model_name or policy.absolute().name
        model = ServedModel(
            name,
            "local",
            created=int(time.time()),
            task=settings.task,
            vocabulary=vocabulary(policy, value),
            judged=value is not None,
        )
        config = EngineConfig(
            policy=policy, value=value, release=model.release, **settings.engine.model_dump()
        )
        return ServingPlan(model, config)
    release = load_release(settings.release or shipped())
    _one_of_each_id(release, settings.weights)
    return of_release(release, settings)


def of_release(release: Release, settings: Settings) -> ServingPlan:
    config = EngineConfig(
        policy=release.policy_path,
        value=release.value_path,
        release=release.id,
        calibration_a=release.manifest.calibration.a,
        calibration_b=release.manifest.calibration.b,
        **settings.engine.model_dump(),
    )
    return ServingPlan(model_of(release, settings), config, release)


def _one_of_each_id(release: Release, weights: Path | None) -> None:
    """Trees say by which release they were made, so one id must not stand for two."""
    if weights is None:
        return
    if not weights.is_dir():
        raise BadSettings(f"weights: there is no folder {weights}")
    other = release_path(weights, release.id)
    if other.exists() and load_release(other, verify=False).manifest.files != release.manifest.files:
        raise BadSettings(
            f"weights: {other} is another {release.id} than {release.path}, which is served first: "
            f"name the one that is meant (setting: release)"
        )


def model_of(release: Release, settings: Settings) -> ServedModel:
    manifest = release.manifest
    action = manifest.default_action
    return ServedModel(
        name=settings.model_name or manifest.name,
        release=release.id,
        created=int(manifest.created_at.timestamp()),
        task=settings.task or manifest.default_task,
        action=Action(action.kind, action.stop, action.max_tokens),
        max_tokens=manifest.default_max_tokens,
        vocabulary=vocabulary(release.policy_path, release.value_path),
    )


def vocabulary(*models: Path | None) -> int:
    """Token ids below it exist in every one of `models`; 0 where a model does not say."""
    return min(_embeddings(path) for path in models if path is not None)


def _embeddings(path: Path) -> int:
    try:
        config = json.loads((path / "config.json").read_bytes())
        return int(config.get("vocab_size") or config["text_config"]["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0
