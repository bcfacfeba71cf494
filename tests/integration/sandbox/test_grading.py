"""The task `code` as a search asks it: in worker processes, refused where no sandbox works."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ramify.rewards import code as code_task
from ramify.rewards import grading, gym, registry
from ramify.rewards.code import Code
from ramify.rewards.errors import CallFailed, UnusableTask
from ramify.rewards.grading import functions_path
from ramify.rewards.pool import Pool, PoolLimits
from ramify.service.serving import install
from ramify.settings import Settings

RIGHT = "a, b = map(int, input().split())\nprint(a * b)"
SAME = "```python\nx = input().split()\nprint(int(x[0]) * int(x[1]))\n```"
PROBLEM: dict[str, Any] = {
    "public": [{"input": "6 7\n", "output": "42\n"}],
    "hidden": [{"input": "2 3\n", "output": "6\n"}, {"input": "0 3\n", "output": "0\n"}],
    "seconds": 5,
}


def verdict(text: str, **changes: Any) -> tuple[float, str]:
    graded = Code.of({**PROBLEM, **changes}).grade(text)
    return graded.outcome, graded.reason


def test_all_or_nothing_and_the_share_that_passes() -> None:
    half = "a, b = map(int, input().split())\nprint(a * b or 'zero')"
    assert verdict(RIGHT) == (1.0, "2 of 2 hidden tests passed")
    assert verdict(half) == (0.0, "not all of 2 hidden tests passed; hidden test 2: wrong output")
    assert verdict(half, scoring="share")[0] == 0.5


def test_the_settings_say_how_many_are_graded_at_once() -> None:
    install(Settings(graders=3))
    try:
        assert grading.shared_pool(Code).limits.workers == 3
    finally:
        asyncio.run(grading.close_pools())
        install(Settings())


def test_a_reason_repeats_nothing_of_a_hidden_test() -> None:
    outcome, reason = verdict("raise ValueError(input())")
    assert outcome == 0
    assert "ValueError" in reason
    assert "2 3" not in reason


def test_functions_take_and_give_what_json_lacks() -> None:
    case = {"input": [{"$tuple": [1, 2]}, {"$dict": [[3, "x"]]}], "output": {"$set": [1, 2, 3]}}
    problem = {"hidden": [case], "function": "Solution.keys"}
    answer = "class Solution:\n    def keys(self, pair, table):\n        return {*pair, *table}"
    assert Code.of(problem).grade(answer).outcome == 1


def test_answers_vote_by_what_they_do_on_the_public_tests() -> None:
    async def finals() -> list[str | None]:
        pool = Pool(functions_path(Code))
        try:
            task = registry.task("code", PROBLEM, pool)
            return await task.finals([RIGHT, SAME, "print(1)", "boom("])
        finally:
            await pool.close()

    right, same, wrong, broken = asyncio.run(finals())
    assert right is not None
    assert right == same
    assert wrong not in (None, right)
    assert broken is None


def test_a_worker_that_is_killed_takes_its_sandbox_along() -> None:
    def sandboxes(parent: int) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]

    async def kill_while_grading() -> list[int]:
        pool = Pool(functions_path(Code), PoolLimits(workers=1))
        grading = asyncio.ensure_future(
            registry.task("code", PROBLEM, pool).grade("import time; time.sleep(9999)")
        )
        until, pids = time.monotonic() + 60, list[int]()
        while not pids and time.monotonic() < until:
            await asyncio.sleep(0)
            pids = [pid for worker in pool.pids for pid in sandboxes(worker)]
        await pool.close()
        with pytest.raises(CallFailed):
            await grading
        return pids

    pids = asyncio.run(kill_while_grading())
    assert pids
    until = time.monotonic() + 30
    while any(map(alive, pids)):
        assert time.monotonic() < until


def alive(pid: int) -> bool:
    """Tell whether a process runs: one that has ended and is not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def no_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for task in (code_task, gym):
        task._unusable.cache_clear()
    yield
    for task in (code_task, gym):
        task._unusable.cache_clear()


@pytest.mark.usefixtures("no_bubblewrap")
def test_without_bubblewrap_code_is_refused_with_what_to_install() -> None:
    with pytest.raises(UnusableTask, match="install bubblewrap: apt-get install bubblewrap"):
        registry.task("code", PROBLEM)
    assert set(registry.unusable()) == {"code", "reasoning-gym"}


def test_a_bubblewrap_that_cannot_make_its_walls_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what bubblewrap said, and runs nothing without the walls."""
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    for folder in (tmp_path, *tmp_path.parents):
        if os.stat(folder).st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    code_task._unusable.cache_clear()
    try:
        with pytest.raises(UnusableTask, match="No permissions to create new namespace"):
            registry.task("code", PROBLEM)
    finally:
        code_task._unusable.cache_clear()
