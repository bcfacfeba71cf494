"""Whose lease it is: one name for each folder of state, and one process in a folder at a time.

A run that was killed has the same name when it is started again, so that it need not wait until its own lease ends;
another run, with a folder of its own, has another.
"""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ramify_trainer.errors import TrainerError
from ramify_trainer.loop.state import replace


def lease_owner(folder: Path, run: str) -> str:
    """The lease's owner for the run that keeps its state in `folder`."""
    path = folder / "owner"
    if not path.exists():
        replace(path, f"trainer-{run}-{uuid.uuid4().hex[:12]}".encode())
    return path.read_text(encoding="utf-8").strip()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of `folder`. Raises `TrainerError` where one is there. The lock ends with the process,
    however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainerError(
                f"another trainer runs in {folder}: stop it, or give this one another state folder"
            ) from None
        yield
