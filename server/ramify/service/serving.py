"""The model that a server offers, the configuration of its engines, and the extensions: all that the settings name."""

from __future__ import annotations

import inspect
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ramify.engines import EngineConfig, OtherPolicy, OtherPolicyOptions, ScorerFactory, Serving
from ramify.extensions import BadExtension, announced, load
from ramify.objects import ObjectStoreError, open_store
from ramify.rewards import grading, registry
from ramify.search import algorithms
from ramify.search.params import ParamError
from ramify.search.records import Action
from ramify.settings import BadSettings, Settings
from ramify.settings.groups import SettingsGroup, explain, read_toml
from ramify.weights import (
    Release,
    ReleaseStore,
    SearchDefaults,
    ValueKind,
    check_search_defaults,
    load_release,
    release_path,
    shipped,
)

OPERATOR = "settings"
"""Source of search defaults that are the operator's."""


def install(settings: Settings) -> Settings:
    """Register the tasks and algorithms that installed packages and the settings name, and set the pools' size.

    Returns the settings with a `task` that is the path of a verifier replaced by the name under which it is registered.
    Call it once, before anything is served. Raises `BadExtension`.
    """
    for name, path in settings.extensions.tasks.items():
        registry.register(name, path)
    registry.names()  # imports those of entry points, so that a broken one ends the start and no request
    try:
        algorithms.install(settings.extensions.algorithms)
    except Exception as error:  # a module may raise anything while it is imported
        raise BadExtension(f"algorithms: {error}") from error
    grading.set_workers(settings.graders)
    if settings.task is None:
        return settings
    return settings.model_copy(update={"task": registry.register_default(settings.task)})


def scorer_factory(settings: Settings) -> ScorerFactory | None:
    """Return what makes the scorer that the settings name, or `None` if they name none. Raises `BadExtension`."""
    named = settings.extensions.scorer
    if named is None:
        return None
    known = dict(announced("ramify.scorers"))
    path = named if ":" in named else known.get(named)
    if path is None:
        raise BadExtension(
            f"scorer {named!r}: no installed package has it; there are {', '.join(known) or 'none'}"
        )
    factory: ScorerFactory = load(path)
    if not callable(factory):
        raise BadExtension(f"scorer {named!r}: {path} is not a class or a function that makes a scorer")
    if isinstance(factory, type) and not inspect.iscoroutinefunction(getattr(factory, "score", None)):
        raise BadExtension(f"scorer {named!r}: {path} has no method `async def score(self, sequences)`")
    return factory


def engine_config(settings: Settings) -> EngineConfig:
    """The engines of the model that the settings name. Raises `WeightsError`, `BadSettings`, `BadExtension`."""
    if settings.policy is not None:
        policy = Path(settings.policy)
        value = Path(settings.value) if settings.value else None
        kind: ValueKind | None = "trunk" if settings.value_head else "model" if value else None
        remote = settings.policy_server.url is not None
        serving = Serving(
            settings.model_name or policy.absolute().name,
            "remote" if remote else "local",
            created=int(time.time()),
            task=settings.task,
            search=operators_search(settings, Action()) or (),
            search_from=OPERATOR,
            vocabulary=vocabulary(policy, value),
            value="scorer" if _judged_apart(settings) else kind,
            remote=remote,
        )
        return EngineConfig(
            policy,
            value,
            serving,
            scorer_factory(settings),
            settings.engine,
            settings.value_head,
            settings.judges,
            settings.policy_server if remote else None,
            others=other_policies(settings, None),
        )
    release = load_release(settings.release or shipped())
    if settings.weights is not None and settings.objects.releases is not None:
        settings.weights.mkdir(parents=True, exist_ok=True)
    _one_of_each_id(release, settings.weights)
    return release_config(release, settings)


def release_config(release: Release, settings: Settings) -> EngineConfig:
    """The engines of a release."""
    own = judges_by_itself(settings)
    return EngineConfig(
        release.policy_path,
        release.value_path if own else None,
        serving_of(release, settings),
        scorer_factory(settings),
        settings.engine,
        release.value_head if own else None,
        settings.judges,
        others=other_policies(settings, release),
    )


def other_policies(settings: Settings, served: Release | None) -> dict[str, OtherPolicy]:
    """Return the policies that searches may name beside the one served. Raises `WeightsError`, and `BadSettings` for a
    release that is no adapter on the weights served."""
    return {name: _other(name, options, settings, served) for name, options in settings.policies.items()}


def _other(name: str, options: OtherPolicyOptions, settings: Settings, served: Release | None) -> OtherPolicy:
    if options.release is None:
        return OtherPolicy(options)
    setting = f"policies.{name}.release"
    if served is None:
        raise BadSettings(
            f"{setting}: an adapter stands on a release's weights, and policy serves a model that is none"
        )
    release = load_release(options.release)
    if release.adapter is None:
        raise BadSettings(f"{setting}: {release.path} is no LoRA adapter, but whole weights")
    if not release.stands_on_weights_of(served, judged_apart=True):
        raise BadSettings(
            f"{setting}: {release.path} is an adapter on other weights than those of {served.id}"
        )
    if release.id == served.id and release.manifest.files != served.manifest.files:
        raise BadSettings(f"{setting}: {release.path} is another {release.id} than {served.path}")
    _one_of_each_id(release, settings.weights, setting)
    return OtherPolicy(options, release)


def judges_by_itself(settings: Settings) -> bool:
    """Tell whether the value model or head of the release or the policy judges, be it one of several scorers."""
    return any(options.kind is None for options in settings.judges.values())


def _judged_apart(settings: Settings) -> bool:
    """Tell whether a scorer says what answers are worth in place of the release's or the policy's own, or beside it."""
    weighing = [options for options in settings.judges.values() if options.prune_below is None]
    return settings.extensions.scorer is not None or any(options.kind is not None for options in weighing)


def release_store_of(settings: Settings) -> ReleaseStore | None:
    """Return the store of releases; `None` if there is none. Raises `BadSettings` if it cannot be opened."""
    url, folder = settings.objects.releases, settings.weights
    if url is None or folder is None:
        return None
    try:
        return ReleaseStore(open_store(url, settings.objects), folder, settings.objects.cache_bytes)
    except ObjectStoreError as error:
        raise BadSettings(f"objects.releases: {error}") from error


def _one_of_each_id(release: Release, weights: Path | None, setting: str = "release") -> None:
    """Refuse two releases of one id: a tree names the release that made it. setting: the one that names this one.
    Raises `BadSettings`."""
    if weights is None:
        return
    if not weights.is_dir():
        raise BadSettings(f"weights: no such folder: {weights}")
    other = release_path(weights, release.id)
    if other.exists() and load_release(other, verify=False).manifest.files != release.manifest.files:
        raise BadSettings(
            f"weights: {other} is another {release.id} than {release.path}, which is served first: "
            f"name the one that is meant (setting: {setting})"
        )


def serving_of(release: Release, settings: Settings) -> Serving:
    """A release as it is offered: what its manifest says, unless the settings say otherwise."""
    manifest = release.manifest
    action = manifest.default_action.record()
    own = operators_search(settings, action)
    return Serving(
        name=settings.model_name or manifest.name,
        release=release.id,
        created=int(manifest.created_at.timestamp()),
        source=release,
        calibration=(manifest.calibration.a, manifest.calibration.b),
        task=settings.task or manifest.default_task,
        action=action,
        max_tokens=manifest.default_max_tokens,
        refine_template=manifest.refine_template,
        search=manifest.search if own is None else own,
        search_from=release.id if own is None else OPERATOR,
        vocabulary=vocabulary(release.policy_path, release.value_path),
        value="scorer" if _judged_apart(settings) else manifest.value,
    )


def operators_search(settings: Settings, action: Action) -> tuple[SearchDefaults, ...] | None:
    """Return the search defaults that the operator puts in place of a release's; `None` if these hold.

    action: the release's. Raises `BadSettings`."""
    if settings.search_defaults == "release":
        return None
    if settings.search_defaults == "none":
        return ()
    path = settings.search_defaults
    try:
        search = _SearchDefaultsFile.model_validate(_read_once(path)).search
        check_search_defaults(search, action)
    except ValidationError as error:
        raise BadSettings(f"search_defaults: {path}: {explain(error)}") from error
    except ParamError as error:
        raise BadSettings(f"search_defaults: {path}: search.{error}") from error
    return search


class _SearchDefaultsFile(SettingsGroup):
    search: tuple[SearchDefaults, ...]


@cache
def _read_once(path: Path) -> dict[str, Any]:
    """Read a file as it was at the start: activations of other releases find the same."""
    return read_toml(path)


def vocabulary(*models: Path | None) -> int:
    """Return the number below which token ids exist in every one of `models` that is there; 0 if one does not say."""
    return min(_embeddings(path) for path in models if path is not None)


def _embeddings(path: Path) -> int:
    try:
        config = json.loads((path / "config.json").read_bytes())
        return int(config.get("vocab_size") or config["text_config"]["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0
