from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ramify.treelog import LogError, TreeLog
from treelog_trees import make_tree

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent


def _kill_under_load(url: str, acknowledged: int) -> dict[int, str]:
    """Run `appender.py` until it has acknowledged so many trees, `kill -9` it, and return what it acknowledged."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, str(HERE / "appender.py"), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acknowledged)]
        process.kill()
        lines += process.stdout.readlines()
    pairs = (line.decode().split() for line in lines if line.endswith(b"\n"))
    return {int(seq): tree_id for seq, tree_id in pairs}


async def test_every_acknowledged_tree_survives_kill_9_and_nothing_needs_repair(url: str) -> None:
    acknowledged: dict[int, str] = {}
    for round_ in range(2):
        acknowledged |= _kill_under_load(url, 40 + 17 * round_)
        async with await TreeLog.open(url) as log:
            logged = {r.seq: r.tree_id async for r in log.read()}
            assert acknowledged.items() <= logged.items()
            assert sorted(logged) == list(range(1, await log.high_water() + 1))
            report = await log.verify()
            assert report.ok
            assert report.trees == len(logged)


async def test_a_second_writer_on_one_sqlite_file_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    async with await TreeLog.open(url):
        with pytest.raises(LogError, match=f"process {os.getpid()} is writing {tmp_path}/log.db"):
            await TreeLog.open(f"sqlite:///{tmp_path}/../{tmp_path.name}/log.db")
    async with await TreeLog.open(url) as log:
        await log.append(make_tree())


async def test_a_child_that_outlives_a_killed_server_does_not_keep_the_next_one_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with _killed_with_a_child_alive(url):
        async with await TreeLog.open(url) as log:
            assert await log.append(make_tree()) == 1


@contextmanager
def _killed_with_a_child_alive(url: str) -> Iterator[None]:
    command = [sys.executable, str(HERE / "forker.py"), url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"child is up\n"
        process.kill()
        process.wait()
        yield
