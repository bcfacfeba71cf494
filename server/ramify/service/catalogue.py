"""The releases that there are, and those that led to the one that is served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.treelog import TreeLog
from ramify.treelog.records import Activation
from ramify.treelog.records import Release as ReleaseRecord
from ramify.weights import (
    Manifest,
    Release,
    ReleaseNotFound,
    ReleaseStore,
    WeightsError,
    list_releases,
    load_release,
    release_path,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReleaseEntry:
    """One release on disk or on record."""

    id: str
    state: str
    figures: dict[str, Any]
    manifest: Manifest | None
    """`None` if the files are gone or cannot be read."""


@dataclass(frozen=True, slots=True)
class ReleaseListing:
    """All releases, and the history of those that were served."""

    active: str
    previous: str | None
    """Release that a rollback would go back to; `None` if there is none."""
    rows: Sequence[ReleaseEntry]
    activations: Sequence[Activation]
    """Newest first."""


def catalogue(
    root: Path | None,
    stored: Mapping[str, Manifest | None],
    base: Release | None,
    recorded: Mapping[str, ReleaseRecord],
) -> list[ReleaseEntry]:
    """Return every release in the folder `root`, the base, those on record, and those of the store (see `in_store`), by
    id. Reads the manifests in the folder."""
    on_disk = set(list_releases(root)) if root is not None else set()
    if base is not None:
        on_disk.add(base.id)
    rows = []
    for name in sorted(on_disk | stored.keys() | recorded.keys()):
        manifest = stored.get(name)
        if name in on_disk:
            with suppress(WeightsError, OSError):
                manifest = load_release(resolve(root, base, name), verify=False).manifest
        mine = recorded.get(name)
        rows.append(
            ReleaseEntry(
                name, mine.state if mine else "available", dict(mine.figures) if mine else {}, manifest
            )
        )
    return rows


def in_store(store: ReleaseStore, root: Path | None) -> dict[str, Manifest | None]:
    """Return the store's releases by id, with the manifests of those that the folder `root` lacks; `None` for one that
    cannot be read. Raises `WeightsError`."""
    on_disk = set(list_releases(root)) if root is not None else set()
    found: dict[str, Manifest | None] = dict.fromkeys(store.ids())
    for name in found.keys() - on_disk:
        with suppress(WeightsError):
            found[name] = store.manifest(name)
    return found


def fetched(store: ReleaseStore | None, release_id: str, keep: Collection[str]) -> None:
    """Have a release in the folder if the store has it. keep: ids of those in use. Raises `WeightsError`."""
    if store is not None:
        with suppress(ReleaseNotFound):  # it may lie at the base
            store.fetch(release_id, keep)


def resolve(root: Path | None, base: Release | None, release_id: str) -> Path:
    """Return where a release lies: in the folder, else at the base if that has the id. Raises `ReleaseNotFound`."""
    if root is not None:
        path = release_path(root, release_id)
        if path.is_symlink() or path.exists() or base is None or base.id != release_id:
            return path
    if base is not None and base.id == release_id:
        return base.path
    raise ReleaseNotFound(f"no such release: {release_id[:40]!r}")


def fetched_release(store: ReleaseStore | None, root: Path | None, base: Release, release_id: str) -> Release:
    """Return a release, from the store if that has it, checked. Raises `WeightsError`."""
    fetched(store, release_id, [base.id])
    return load_release(resolve(root, base, release_id))


def lineage(history: Iterable[Activation]) -> list[str]:
    """Return the releases that led to the active one, which is the last. `history` is newest first."""
    line: list[str] = []
    for row in reversed(list(history)):
        if row.release_id in line and (row.kind != "activate" or line[-1] == row.release_id):
            del line[line.index(row.release_id) + 1 :]
        else:
            line = [name for name in line if name != row.release_id] + [row.release_id]
    return line


def way_back(history: Iterable[Activation], served: str, rejected: Collection[str]) -> str | None:
    """Return the release that a rollback would go back to: the last one before the one served that the gate has not
    rejected; `None` if there is none."""
    line = [name for name in lineage(history) if name == served or name not in rejected]
    if served in line:
        line = line[: line.index(served)]
    return line[-1] if line else None


async def at_start(
    log: TreeLog, root: Path | None, base: Release, store: ReleaseStore | None = None
) -> tuple[Release, str | None]:
    """Return the release to load, which is the one that the log calls active, and why it may not be served.

    If the active one is unusable, `base` is loaded so that operators can activate another release, and nobody is
    answered until they have."""
    active = await log.active_release()
    if active is None or active.release_id == base.id:
        return base, None
    try:
        return await asyncio.to_thread(fetched_release, store, root, base, active.release_id), None
    except WeightsError as error:
        problem = f"the active release cannot be served, activate another: {error}"
        logger.error("%s", problem)
        return base, problem
