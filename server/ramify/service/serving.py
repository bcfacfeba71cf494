"""The model that a server offers and the configuration of its engines, both made from the settings."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ramify.engines import EngineConfig, Serving
from ramify.search.records import Action
from ramify.service.extensions import scorer_factory
from ramify.settings import BadSettings, Settings
from ramify.weights import Release, load_release, release_path, shipped


def engine_config(settings: Settings) -> EngineConfig:
    """The engines of the model that the settings name. Raises `WeightsError`, `BadSettings`, `BadExtension`."""
    if settings.policy is not None:
        policy = Path(settings.policy)
        value = Path(settings.value) if settings.value else None
        serving = Serving(
            settings.model_name or policy.absolute().name,
            created=int(time.time()),
            task=settings.task,
            vocabulary=vocabulary(policy, value),
            judged=value is not None or settings.extensions.scorer is not None,
        )
        return EngineConfig(policy, value, serving, scorer_factory(settings), **settings.engine.model_dump())
    release = load_release(settings.release or shipped())
    _one_of_each_id(release, settings.weights)
    return release_config(release, settings)


def release_config(release: Release, settings: Settings) -> EngineConfig:
    """The engines of a release."""
    serving = serving_of(release, settings)
    return EngineConfig(
        release.policy_path,
        release.value_path,
        serving,
        scorer_factory(settings),
        **settings.engine.model_dump(),
    )


def _one_of_each_id(release: Release, weights: Path | None) -> None:
    """Refuse two releases of one id: a tree names the release that made it. Raises `BadSettings`."""
    if weights is None:
        return
    if not weights.is_dir():
        raise BadSettings(f"weights: no such folder: {weights}")
    other = release_path(weights, release.id)
    if other.exists() and load_release(other, verify=False).manifest.files != release.manifest.files:
        raise BadSettings(
            f"weights: {other} is another {release.id} than {release.path}, which is served first: "
            f"name the one that is meant (setting: release)"
        )


def serving_of(release: Release, settings: Settings) -> Serving:
    """A release as it is offered: what its manifest says, unless the settings say otherwise."""
    manifest = release.manifest
    action = manifest.default_action
    return Serving(
        name=settings.model_name or manifest.name,
        release=release.id,
        created=int(manifest.created_at.timestamp()),
        source=release,
        calibration=(manifest.calibration.a, manifest.calibration.b),
        task=settings.task or manifest.default_task,
        action=Action(action.kind, action.stop, action.max_tokens),
        max_tokens=manifest.default_max_tokens,
        vocabulary=vocabulary(release.policy_path, release.value_path),
    )


def vocabulary(*models: Path | None) -> int:
    """Return the number below which token ids exist in every one of `models`; 0 if a model does not say."""
    return min(_embeddings(path) for path in models if path is not None)


def _embeddings(path: Path) -> int:
    try:
        config = json.loads((path / "config.json").read_bytes())
        return int(config.get("vocab_size") or config["text_config"]["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0
