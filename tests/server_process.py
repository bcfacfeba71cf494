"""A real server in a process of its own: `ramify serve` on a free port, on the shipped release or a tiny random one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

START_SECONDS = float(os.environ.get("RAMIFY_TEST_START_SECONDS", "600"))

SMALL = {
    "RAMIFY_ENGINE__COMPILE": "false",
    "RAMIFY_ENGINE__POLICY_KV_BYTES": str(1 << 28),
    "RAMIFY_ENGINE__VALUE_KV_BYTES": str(1 << 28),
}
"""Settings with which engines start sooner; nothing that is tested on them is about speed, or needs more than 80,000
tokens of the demo model."""


@dataclass
class ServerProcess:
    """One running server."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    """Where it runs: its log is `trees.db` in here."""
    banner: str
    admin_url: str
    models: Sequence[str]
    """The flags that name what it serves."""
    flags: Sequence[str]
    """The others."""

    @property
    def log_url(self) -> str:
        return f"sqlite:///{self.folder}/trees.db"

    def engine_processes(self) -> list[psutil.Process]:
        """Every process that the server has started, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> list[psutil.Process]:
        """kill -9; the processes that it leaves behind, some of which may still be running."""
        left = self.engine_processes()
        self.process.kill()
        self.process.communicate()
        return left

    def restart(self) -> None:
        """Start it again after its end, in the same folder with the same flags; its addresses are others then."""
        self.__dict__ |= start(self.folder, self.models, *self.flags).__dict__

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=seconds)
            return self.process.returncode
        finally:
            if self.process.poll() is None:
                self.kill()

    def errors(self) -> str:
        return (self.folder / "stderr.txt").read_text()


def start(folder: Path, models: Sequence[str], *flags: str) -> ServerProcess:
    """Start a server in `folder` and wait until it says that it is ready. `models` from `model_flags`."""
    command = [sys.executable, "-m", "ramify", "serve", "--port", "0", "--log", f"{folder}/trees.db"]
    with (folder / "stderr.txt").open("a") as errors:
        process = subprocess.Popen(
            [*command, *models, *flags],
            cwd=folder,
            env={**os.environ, **SMALL},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    give_up = time.monotonic() + START_SECONDS
    banner = ""
    while "  ask  " not in banner:
        line = process.stdout.readline()
        if not line or time.monotonic() > give_up:
            process.kill()
            process.communicate()
            raise RuntimeError(f"the server did not start: {(folder / 'stderr.txt').read_text()[-3000:]}")
        banner += line
    url = re.search(r"at (http://\S+)", banner)
    assert url
    admin = re.search(r"  admin  (http://\S+)", banner)
    return ServerProcess(process, url[1], folder, banner, admin[1] if admin else "", models, flags)


def model_flags(folder: Path) -> list[str]:
    """The shipped release where there is one, else tiny random models of its kind."""
    from ramify.weights import WeightsError, load_release, shipped

    try:
        load_release(shipped(), verify=False)
    except WeightsError:
        from models import write_tiny_models

        tiny = write_tiny_models(folder)
        names = ["--model-name", "countdown-tiny", "--task", "countdown"]
        return ["--policy", str(tiny.policy), "--value", str(tiny.value), *names]
    return []


def is_engine(process: psutil.Process) -> bool:
    """Return True if a process calls itself an engine: it does so first, long before it has loaded a model."""
    try:
        return process.name().startswith("VLLM::EngineCor")
    except psutil.Error:
        return False


def shared_memory(processes: Sequence[psutil.Process]) -> set[Path]:
    """The shared memory that living processes have open."""
    found: set[Path] = set()
    for process in processes:
        with suppress(psutil.Error):
            found |= {Path(m.path) for m in process.memory_maps() if m.path.startswith("/dev/shm/")}
    return found


def still_running(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those of `processes` that are still alive after `seconds`."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
