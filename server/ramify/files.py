"""Files and folders that a reader sees whole or not at all, whatever happens to the writer, a power failure included.

The new content is written beside its place and flushed to the disk; the rename that puts it there comes last, and then
the names of the folder around it are flushed too. Server and trainer stand on it, so it knows nothing of either.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` when the block ends; if the block raises, `path` stays as it was."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    flush(path.parent)


def create(path: Path, write: Callable[[IO[bytes]], object]) -> bool:
    """Make a file of what `write` writes, and the folders around it; False if `path` is there, which stays as it is."""
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")  # several may make one file at once
    try:
        with draft.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
        for folder in (path.parent, *(folder.parent for folder in made)):
            flush(folder)
    return True


def replace(path: Path, data: bytes) -> None:
    """Write a file in place of `path`: a reader sees the old one or the new one."""
    with replacing(path) as file:
        file.write(data)


def move(draft: Path, folder: Path) -> None:
    """Flush a folder that was written as `draft` and rename it. Raises `OSError` if `folder` is there and not empty."""
    flush_all(draft)
    draft.rename(folder)
    flush(folder.parent)


def remove(folder: Path) -> None:
    """Remove a folder, if it is there: a reader sees it whole or not at all. What an earlier removal has left
    goes too."""
    doomed = folder.with_name(f".{folder.name}.removed")
    _erase(doomed)
    if folder.exists():
        folder.rename(doomed)
        flush(folder.parent)
        _erase(doomed)


def _erase(folder: Path) -> None:
    """Delete what can be deleted of a folder; of a link to one the link alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def share(source: Path, folder: Path) -> None:
    """Write `folder` as a copy of the folder `source` whose files are hard links to the same bytes; on another file
    system they are copied. Both must be left as they are from then on, but may be deleted. `folder` appears whole or
    not at all. Raises `OSError` if it is there and not empty."""
    draft = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, copy_function=_linked)
    move(draft, folder)


def _linked(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)  # a link to a symbolic link would be one more of those
    except OSError:
        shutil.copy2(source, target)


def flush_all(folder: Path) -> None:
    """Flush every file below `folder`, and the folder itself, to the disk."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
