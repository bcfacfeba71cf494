"""Writing releases, so that a reader sees a whole one or none, whatever happens to the writer.

The files are copied to a temporary directory beside the releases, then come the manifest, then `READY`. The rename
that makes the release visible comes last, once all of them are on the disk (`ramify.files`).
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from ramify.files import move
from ramify.weights.manifest import Base, Details, Manifest, WeightsError
from ramify.weights.release import ADAPTER, MANIFEST, READY, Release, digest, load_release, release_path
from ramify.weights.value_head import HEAD, value_kind


def next_id(root: Path) -> str:
    """Return the id after the highest that is taken under `root`, whether complete or not."""
    taken = [int(path.name[1:]) for path in Path(root).glob("v[0-9][0-9][0-9][0-9][0-9][0-9]")]
    return f"v{max(taken, default=0) + 1:06d}"


def publish(
    root: Path,
    policy: Path,
    value: Path | None,
    details: Details,
    *,
    base: Release | None = None,
    release_id: str | None = None,
    created_at: datetime | None = None,
) -> Release:
    """Copy a policy and what judges it into a new release under `root` and return it, verified.

    policy: a Hugging Face directory; with `base`, that of a LoRA adapter on the base's policy, which lies under `root`.
    value: that of a value model, or the file of a value head on the policy's trunk (`ramify.weights.value_head`), or a
    directory that holds it as `head.safetensors`; `None`, or the very files of the base's: the base's. `release_id` is
    the next free one unless given; `created_at` is now. Raises `WeightsError` if the id is taken, or for files that no
    release may hold; nothing is left behind then.
    """
    root = Path(root).absolute()
    root.mkdir(parents=True, exist_ok=True)
    target = release_path(root, release_id or next_id(root))
    if target.exists():
        raise WeightsError(f"{target} is already there; releases are never overwritten")
    # the last component is the id, so that the checks of a release hold before it is visible
    staging = Path(tempfile.mkdtemp(prefix=".publishing-", dir=root))
    try:
        draft = staging / target.name
        parts = {"policy" if base is None else ADAPTER: Path(policy)}
        if value is not None and not (base is not None and base.judges_by(Path(value))):
            parts["value"] = Path(value)
        _write(draft, parts, base, details, created_at or datetime.now(UTC))
        load_release(draft, beside=root)
        _rename(draft, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return load_release(target, verify=False)


def _write(
    draft: Path, sources: dict[str, Path], base: Release | None, details: Details, created_at: datetime
) -> None:
    for part, source in sources.items():
        _copy(source, draft / part)
    files = {path.relative_to(draft).as_posix(): digest(path) for path in sorted(draft.glob("*/*"))}
    manifest = Manifest(
        **dict(details),
        id=draft.name,
        created_at=created_at,
        value=value_kind(draft / "value") if "value" in sources or base is None else base.manifest.value,
        base=None if base is None else Base(release=base.id, policy=base.policy_digest),
        files=files,
    )
    (draft / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (draft / READY).touch()


def _copy(source: Path, part: Path) -> None:
    if source.is_symlink() or any(entry.is_symlink() for entry in source.rglob("*")):
        raise WeightsError(f"{source} holds symbolic links; a release holds plain files")
    if source.is_file() and part.name == "value":
        part.mkdir(parents=True)
        shutil.copy(source, part / HEAD)
    else:
        shutil.copytree(source, part)


def _rename(draft: Path, target: Path) -> None:
    try:
        move(draft, target)
    except OSError as error:
        if not target.exists():
            raise
        raise WeightsError(f"{target} is already there; releases are never overwritten") from error
