"""Reading releases: find, check, and hand out the directories that an engine loads.

A release is a directory `vNNNNNN` of a Hugging Face directory `policy`, a `value` (another one, or one file with a
linear head on the policy's trunk), a `manifest.json` and an empty `READY` written last. Nothing is loaded from a
release that is unfinished, that holds links or weight files in formats that can run code, or whose files differ from
the manifest.

A release may hold a LoRA adapter in place of a policy: it then stands on another one, its base, whose policy is whole
and lies beside it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ramify.weights.adapter import ADAPTER_FILES, check_adapter
from ramify.weights.manifest import (
    FOLDERS,
    Base,
    FileDigest,
    Manifest,
    ReleaseNotFound,
    WeightsError,
    check_id,
    is_id,
    read_manifest,
)
from ramify.weights.value_head import HEAD, check_value_head, hidden_size

MANIFEST = "manifest.json"
READY = "READY"
PARTS = ("policy", "value")
ADAPTER = "policy_adapter"
"""The folder that a release on a base has in place of `policy`."""
SHIPPED = "v000002"
"""Id of the demo release that comes with the package."""

_SAFE_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja", ".md"})


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The directories in which the models of a release, or of a candidate that is none yet, lie."""

    policy: Path
    """A Hugging Face directory."""
    value: Path
    """Another such directory, or one that holds a value head."""
    adapter: Path | None = None
    """A LoRA adapter on the policy; `None`: the policy is whole."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release that passed its checks."""

    path: Path
    """Its directory, absolute."""
    manifest: Manifest
    base: Release | None = None
    """The release whose policy this one's adapter stands on; `None`: the policy is whole."""

    @property
    def id(self) -> str:
        """The release id, `vNNNNNN`."""
        return self.manifest.id

    @property
    def policy_path(self) -> Path:
        """The Hugging Face directory of the policy, below its adapter if there is one."""
        return self.path / "policy" if self.base is None else self.base.policy_path

    @property
    def adapter(self) -> Path | None:
        """The directory of the LoRA adapter that stands on `policy_path`; `None` if the policy is whole."""
        return None if self.base is None else self.path / ADAPTER

    @property
    def value_folder(self) -> Path:
        """The directory of what judges, be it a model or a head."""
        if self.base is not None and not _of("value", set(self.manifest.files)):
            return self.base.value_folder
        return self.path / "value"

    @property
    def value_path(self) -> Path | None:
        """The Hugging Face directory of the value model; `None` if a head on the policy's trunk judges."""
        return self.value_folder if self.manifest.value == "model" else None

    @property
    def value_head(self) -> Path | None:
        """The file of the value head; `None` if a value model judges."""
        return self.value_folder / HEAD if self.manifest.value == "trunk" else None

    @property
    def models(self) -> ModelFiles:
        """The directories of policy, adapter and value."""
        return ModelFiles(self.policy_path, self.value_folder, self.adapter)

    @property
    def content(self) -> str:
        """sha256 of the manifest, which lists that of every file: two releases of one content are the same."""
        return digest(self.path / MANIFEST).sha256

    @property
    def policy_digest(self) -> str:
        """Hash of the policy's files below an adapter, as an adapter's manifest names them."""
        lines = (f"{name} {file.sha256}\n" for name, file in sorted(self._files("policy").items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def stands_on_weights_of(self, other: Release, *, judged_apart: bool = False) -> bool:
        """Tell whether engines that hold the other's policy and value hold this one's, but for an adapter.
        judged_apart: the value is not served."""
        parts = ("policy",) if judged_apart else PARTS
        return all(self._files(part) == other._files(part) for part in parts)

    def judges_by(self, folder: Path) -> bool:
        """Tell whether a directory holds the very files of this release's value. Reads them."""
        files = {path.name: digest(path) for path in folder.iterdir()} if folder.is_dir() else {}
        return files == self._files("value")

    def _files(self, part: str) -> dict[str, FileDigest]:
        files = self.manifest.files
        own = {name: files[f"{part}/{name}"] for name in _of(part, set(files))}
        return own if own or self.base is None else self.base._files(part)


def shipped() -> Path:
    """Return the directory of the demo release that comes with the package."""
    return Path(__file__).resolve().parent.parent / "models" / "countdown-tiny" / SHIPPED


def release_path(root: Path, release_id: str) -> Path:
    """Return the path of a release under `root`. Raises `ReleaseNotFound` for an id that is none."""
    return Path(root) / check_id(release_id)


def list_releases(root: Path) -> list[str]:
    """Return the ids of the complete releases under `root`, oldest first; their content is not checked."""
    root = Path(root)
    if not root.is_dir():
        return []
    marked = (path.parent for path in root.glob(f"v[0-9][0-9][0-9][0-9][0-9][0-9]/{READY}"))
    return sorted(path.name for path in marked if not path.is_symlink())


def load_release(path: Path, verify: bool = True, *, beside: Path | None = None) -> Release:
    """Return the release in a directory after checking it, and the base that it stands on.

    `verify=False` reads no weights, for a list of releases or one verified before: it leaves out the hashes and whether
    numbers are finite, not the other checks. beside: the folder in which the base lies; `None`: the same. Raises a
    `WeightsError`.
    """
    path = Path(path).absolute()
    if path.is_symlink():
        raise WeightsError(f"{path} is a symbolic link; give the directory itself")
    if not path.is_dir():
        raise ReleaseNotFound(
            f"there is no release at {path}: give the directory of one, such as weights/v000001"
        )
    if not (path / MANIFEST).is_file() and not is_id(path.name):
        raise ReleaseNotFound(f"{path} is no release: {_instead(path)}")
    check_id(path.name)
    if not (path / READY).is_file():
        raise WeightsError(
            f"{path} has no {READY} marker: it is still being written, or its writing was cut short"
        )
    files = _files(path)
    manifest = read_manifest(path / MANIFEST)
    if manifest.id != path.name:
        raise WeightsError(f"{path / MANIFEST} is of release {manifest.id}, not {path.name}")
    _compare(path, files, manifest, verify)
    base = None if manifest.base is None else _base(path, manifest.base, beside or path.parent, verify)
    release = Release(path, manifest, base)
    if base is not None and base.manifest.value != manifest.value:
        raise WeightsError(
            f"{path} has a value of the kind {manifest.value}, and its base one of {base.manifest.value}"
        )
    if release.adapter is not None:
        check_adapter(release.adapter, release.policy_path, numbers=verify)
    if release.value_head is not None:
        check_value_head(release.value_head, hidden_size(release.policy_path), numbers=verify)
    return release


def models_of(source: Path | Release | ModelFiles) -> ModelFiles:
    """Return the directories of a release's models, or those called `policy` and `value` in a folder."""
    if isinstance(source, Release):
        return source.models
    return source if isinstance(source, ModelFiles) else ModelFiles(source / "policy", source / "value")


def _base(path: Path, named: Base, folder: Path, verify: bool) -> Release:
    """Return the release that an adapter stands on. Raises `WeightsError` if it is not there, or is another one."""
    place = release_path(folder, named.release)
    # Before its own base is looked for: two releases may name each other.
    below = read_manifest(place / MANIFEST).base if (place / MANIFEST).is_file() else None
    if below is not None:
        raise WeightsError(f"{path} is an adapter on {place}, which is one itself, on {below.release}")
    try:
        base = load_release(place, verify)
    except ReleaseNotFound:
        raise WeightsError(
            f"{path} is an adapter on {named.release}, which must lie beside it: there is no {place}"
        ) from None
    if base.policy_digest != named.policy:
        raise WeightsError(
            f"{path} is an adapter on {named.release} with the policy {named.policy[:12]}, and {place} has the policy "
            f"{base.policy_digest[:12]}"
        )
    return base


def _instead(path: Path) -> str:
    """Say what a directory that is no release seems to be, and what to give instead."""
    releases = sorted(manifest.parent for manifest in path.glob(f"*/{MANIFEST}"))
    if releases:
        return f"it holds some: give one of them, such as {releases[-1]}"
    if (path / "config.json").is_file():
        return (
            "it is a Hugging Face model: --policy serves one, with its value model as --value or its value head as "
            "--value-head if there is one"
        )
    return f"a release is a directory with a {MANIFEST}, such as weights/v000001"


def _files(path: Path) -> set[str]:
    """Return the relative paths of the release's files; raise `WeightsError` for any that may not be there."""
    files = set()
    for entry in sorted(path.rglob("*")):
        name = entry.relative_to(path).as_posix()
        if entry.is_symlink():
            raise WeightsError(f"{entry} is a symbolic link; a release holds plain files")
        if (entry.is_dir() and name in FOLDERS) or name in (MANIFEST, READY):
            continue
        if not entry.is_file():
            raise WeightsError(f"{entry} is neither a plain file nor one of {', '.join(FOLDERS)}")
        if entry.suffix not in _SAFE_SUFFIXES:
            raise WeightsError(f"{entry} is not allowed: weights are safetensors, and nothing may carry code")
        files.add(name)
    return files


def _compare(path: Path, files: set[str], manifest: Manifest, verify: bool) -> None:
    listed = set(manifest.files)
    if files != listed:
        missing, extra = sorted(listed - files), sorted(files - listed)
        raise WeightsError(f"{path}: missing files {missing}, files not in the manifest {extra}")
    _require_parts(path, manifest, listed)
    for name, expected in manifest.files.items():
        if (path / name).stat().st_size != expected.size:
            raise WeightsError(f"{path / name} has {(path / name).stat().st_size} bytes, not {expected.size}")
        if verify and digest(path / name) != expected:
            raise WeightsError(f"{path / name} does not have the sha256 that the manifest lists")


def _require_parts(path: Path, manifest: Manifest, listed: set[str]) -> None:
    """Raise `WeightsError` unless the files are those of a policy, or of an adapter in its place, and of a value model
    or a head, which an adapter's release may leave to its base."""
    adapter, value = set(_of(ADAPTER, listed)), set(_of("value", listed))
    models = ["policy"] if manifest.base is None else []
    if manifest.value == "model" and (value or manifest.base is None):
        models.append("value")
    if adapter != (set() if manifest.base is None else ADAPTER_FILES):
        raise WeightsError(
            f"{path / ADAPTER} holds {', '.join(sorted(adapter)) or 'nothing'}: a release that names a base has "
            f"{' and '.join(sorted(ADAPTER_FILES))} there, and no other has the folder"
        )
    if manifest.base is not None and _of("policy", listed):
        raise WeightsError(f"{path} holds a policy and names a base: one of them is needed, not both")
    if manifest.value == "trunk" and value != {HEAD} and (value or manifest.base is None):
        raise WeightsError(
            f"{path / 'value'} holds {', '.join(sorted(value)) or 'nothing'}: a value head (value: trunk) is "
            f"{HEAD} alone"
        )
    for part in models:
        names = _of(part, listed)
        if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
            raise WeightsError(f"{path / part} lacks config.json or safetensors weights")


def _of(part: str, names: set[str]) -> list[str]:
    return [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]


def digest(path: Path) -> FileDigest:
    """Return size and sha256 of a file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return FileDigest(sha256=sha256, size=path.stat().st_size)
