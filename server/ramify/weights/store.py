"""Releases in an object store, and a folder of this machine as their cache.

A file of a release is the object `files/ab/ab12…`, named by its sha256, so releases share what they have in common. The
manifest `releases/v000007.json` is made last, and create-only: a reader sees a whole release or none, and of two
publishers of one id the second is refused. A fetched release is the directory that was published, byte for byte; it
appears in the folder whole or not at all, after its hashes were checked.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ramify import files
from ramify.objects import ObjectMissing, ObjectStore, ObjectStoreAway, ObjectStoreError
from ramify.weights.manifest import (
    Manifest,
    ReleaseNotFound,
    ReleaseTaken,
    StoreAway,
    WeightsError,
    check_id,
    parse_manifest,
    read_manifest,
)
from ramify.weights.publish import next_id
from ramify.weights.release import MANIFEST, READY, Release, list_releases, load_release

logger = logging.getLogger(__name__)
FOLDER = "releases"
_NAME = re.compile(rf"{FOLDER}/(v[0-9]{{6}})\.json")
_DRAFT = ".fetching-"
_STALE = 86_400.0
"""Age in seconds of an unfinished download that nobody goes on with."""


class ReleaseStore:
    """The releases of one store, and the folder that they are fetched into. Every call blocks, and raises
    `WeightsError`, of the kind `StoreAway` if trying again later may help."""

    def __init__(self, store: ObjectStore, folder: Path, most_bytes: int | None = None) -> None:
        """most_bytes: size of the releases in the folder beyond which those used least recently are removed, if the
        store has them; `None`: none is removed."""
        self.folder = folder
        self._store = store
        self._most = most_bytes
        self._manifests: dict[str, Manifest] = {}

    def ids(self) -> list[str]:
        """Return the ids of the releases in the store, oldest first."""
        with self._translated():
            found = (_NAME.fullmatch(name) for page in self._store.find(FOLDER) for name in page)
            return sorted(name[1] for name in found if name)

    def next_id(self) -> str:
        """Return the id after the highest that is taken in the store or the folder."""
        last = max(self.ids(), default="v000000")
        return max(next_id(self.folder), f"v{int(last[1:]) + 1:06d}")

    def manifest(self, release_id: str) -> Manifest:
        """Return the manifest of a release in the store. Raises `ReleaseNotFound`."""
        if release_id not in self._manifests:
            name = f"{self._store.url}/{_manifest_name(check_id(release_id))}"
            manifest = parse_manifest(self._read(release_id), name)
            if manifest.id != release_id:
                raise WeightsError(f"{name} is of release {manifest.id}")
            self._manifests[release_id] = manifest
        return self._manifests[release_id]

    def publish(self, release: Release) -> None:
        """Put a release of the folder into the store, after the base that it stands on; one that is there stays.

        Raises `ReleaseTaken` if another one is there under this id.
        """
        if release.base is not None:
            self.publish(release.base)
        text = (release.path / MANIFEST).read_bytes()
        with self._translated():
            if release.id not in self.ids():
                for name, file in sorted(release.manifest.files.items()):
                    self._store.upload(_object_name(file.sha256), release.path / name)
                self._store.create(_manifest_name(release.id), text)
        if self._read(release.id) != text:
            raise ReleaseTaken(
                f"another {release.id} is in {self._store.url}; the next free id there is {self.next_id()}"
            )

    def fetch(self, release_id: str, keep: Collection[str] = ()) -> None:
        """Have a release in the folder, and its base. keep: releases that are in use, which stay in the folder.

        One that is there is not asked for again. Raises `ReleaseNotFound` if neither place has it.
        """
        manifest = self._known(check_id(release_id))
        used = {*keep, release_id}
        if manifest.base is not None:
            try:
                base = self._known(manifest.base.release)
            except ReleaseNotFound as error:  # the asked one is there
                raise WeightsError(
                    f"{release_id} is an adapter on {manifest.base.release}: {error}"
                ) from None
            if base.base is not None:
                raise WeightsError(
                    f"{release_id} is an adapter on {base.id}, which is one itself, on {base.base.release}"
                )
            self._have(base, used)
            used.add(base.id)
        self._have(manifest, used)

    def _known(self, release_id: str) -> Manifest:
        """Return the manifest of a release in the folder, or else in the store."""
        place = self.folder / release_id
        return read_manifest(place / MANIFEST) if (place / READY).is_file() else self.manifest(release_id)

    def _have(self, manifest: Manifest, keep: Collection[str]) -> None:
        place = self.folder / manifest.id
        if (place / READY).is_file():
            with suppress(OSError):  # a folder that cannot be written serves what it has
                os.utime(place / READY)  # the time of its last use
            return
        began = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(manifest, keep)
            self._download(manifest, place)
        except (WeightsError, OSError) as error:
            kind = StoreAway if isinstance(error, StoreAway) else WeightsError
            raise kind(f"{manifest.id} of {self._store.url} cannot be fetched: {error}") from error
        logger.info(
            "fetched release=%s bytes=%d seconds=%.1f", manifest.id, _size(manifest), time.monotonic() - began
        )

    def _download(self, manifest: Manifest, place: Path) -> None:
        staging = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.folder))
        try:
            draft = staging / place.name
            for name, file in manifest.files.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                with self._translated(), (draft / name).open("wb") as target:
                    self._store.download(_object_name(file.sha256), file.size, target)
            (draft / MANIFEST).write_bytes(self._read(manifest.id))
            (draft / READY).touch()
            load_release(draft, beside=self.folder)
            self._move(draft, place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _move(self, draft: Path, place: Path) -> None:
        try:
            files.move(draft, place)
        except OSError:
            if not (place / READY).is_file():  # else another process was faster
                raise

    def _make_room(self, wanted: Manifest, keep: Collection[str]) -> None:
        """Remove releases that were used least recently, until the wanted one fits."""
        self._tidy()
        if self._most is None:
            return
        here = {name: read_manifest(self.folder / name / MANIFEST) for name in list_releases(self.folder)}
        stays = {*keep, *(base.release for name in keep if name in here and (base := here[name].base))}
        left = self._most - sum(map(_size, here.values())) - _size(wanted)
        doomed = sorted(self._removable(here.keys() - stays), key=self._used) if left < 0 else []
        if left + sum(_size(here[name]) for name in doomed) < 0:
            raise WeightsError(
                f"it takes {_size(wanted)} bytes, and {self.folder} may hold {self._most} "
                "(objects.cache_bytes); what else is there is in use, or not in the store"
            )
        while left < 0:
            name = doomed.pop(0)
            files.remove(self.folder / name)
            left += _size(here[name])
            logger.info("removed release=%s from the cache", name)

    def _removable(self, names: Collection[str]) -> set[str]:
        return set(names) & set(self.ids())

    def _used(self, release_id: str) -> float:
        return (self.folder / release_id / READY).stat().st_mtime

    def _tidy(self) -> None:
        """Remove what downloads that were killed have left."""
        for draft in self.folder.glob(f"{_DRAFT}*"):
            if time.time() - draft.stat().st_mtime > _STALE:
                shutil.rmtree(draft, ignore_errors=True)

    def _read(self, release_id: str) -> bytes:
        with self._translated():
            try:
                return self._store.read(_manifest_name(release_id))
            except ObjectMissing:
                raise ReleaseNotFound(f"{self._store.url} has no release {release_id}") from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ObjectStoreAway as error:
            raise StoreAway(str(error)) from error
        except ObjectStoreError as error:
            raise WeightsError(str(error)) from error


def _manifest_name(release_id: str) -> str:
    return f"{FOLDER}/{release_id}.json"


def _object_name(sha256: str) -> str:
    return f"files/{sha256[:2]}/{sha256}"


def _size(manifest: Manifest) -> int:
    return sum(file.size for file in manifest.files.values())
