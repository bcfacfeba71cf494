"""One writing process for one SQLite file."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ramify.treelog.errors import StoreLocked

_held: set[Path] = set()


class FileLock:
    """An advisory lock on `<database>.lock`. The kernel drops it when its holder dies, however that dies.

    A POSIX record lock (`lockf`), not `flock`: it belongs to the process alone, so engine processes that were forked
    from a killed server and outlive it for a while do not keep the next server out. Such a lock knows nothing of
    two holders in one process, and any close of the file drops it, so `_held` is asked first.
    """

    def __init__(self, database: Path) -> None:
        """Raises `StoreLocked` where another `FileLock`, of this process or another, holds it."""
        self.path = database.with_name(database.name + ".lock")
        if self.path in _held:
            raise _locked(database, str(os.getpid()))
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._fd, 32).decode(errors="replace").strip()
            os.close(self._fd)
            raise _locked(database, holder) from error
        _held.add(self.path)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        _held.discard(self.path)
        os.close(self._fd)


def _locked(database: Path, holder: str) -> StoreLocked:
    return StoreLocked(
        f"process {holder or 'unknown'} is writing {database}; stop it, open the log read-only, "
        "or use PostgreSQL, which several servers can share"
    )
