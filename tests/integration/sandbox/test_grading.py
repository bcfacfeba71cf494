"""The task `code` as a search asks it: in worker processes, refused where no sandbox works."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ramify.rewards import code as code_task
from ramify.rewards import grading, gym, registry
from ramify.rewards.code import Code
from ramify.rewards.errors import BadTask, CallFailed
from ramify.rewards.grading import functions_path
from ramify.rewards.pool import Pool, PoolLimits
from ramify.sandbox import Probe
from ramify.search.protocols import GradingFailed
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
    asyncio.run(grading.close_pools())  # another file's tests may have left one, of the size then set
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
            return [await task.final(text) for text in (RIGHT, SAME, "print(1)", "boom(")]
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
def no_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(code_task, "probe", Probe())
    monkeypatch.setattr(gym, "probe", Probe(gym.trial))


@pytest.mark.usefixtures("no_bubblewrap")
def test_without_bubblewrap_code_is_refused_with_what_to_install() -> None:
    with pytest.raises(BadTask, match="install bubblewrap: apt-get install bubblewrap"):
        registry.task("code", PROBLEM)
    assert set(registry.unusable()) == {"code", "reasoning-gym"}


@pytest.fixture
def broken_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    for folder in (tmp_path, *tmp_path.parents):
        if os.stat(folder).st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    monkeypatch.setattr(code_task, "probe", Probe(retry=0.0))


@pytest.mark.usefixtures("broken_bubblewrap")
def test_a_bubblewrap_that_cannot_make_its_walls_is_refused() -> None:
    """It says what bubblewrap said, and runs nothing without the walls."""
    with pytest.raises(BadTask, match="No permissions to create new namespace"):
        registry.task("code", PROBLEM)


@pytest.mark.usefixtures("no_bubblewrap")
def test_a_sandbox_that_works_again_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question that starts the next trial has the last one's answer, and the question after it another one."""
    probe = Probe(retry=0.0)
    assert "install bubblewrap" in str(probe.fault())
    monkeypatch.undo()
    assert "install bubblewrap" in str(probe.fault())
    for trial in [one for one in threading.enumerate() if one.name == "sandbox-probe"]:
        trial.join(60)
    assert probe.fault() is None


def test_a_failure_is_kept_for_a_while() -> None:
    """Many requests for a task that cannot be graded start few trials."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        probe = Probe(retry=3600.0)
        first = probe.fault()
    assert first is not None
    assert probe.fault() == first


def test_a_behaviour_that_the_machine_cut_short_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same program has its vote as soon as it gets the processor."""
    code = Code.of({**PROBLEM, "seconds": 1})
    program = "while input() != '6 7': pass\nfor _ in range(10**6): pass\nprint(42)"
    with monkeypatch.context() as patch:
        patch.setattr(code_task, "WAITING", -3.0)
        with pytest.raises(GradingFailed, match="did not get the processor"):
            code.final(program)
    assert str(code.final(program)).startswith("1 of 1 public tests passed")


@pytest.mark.parametrize(
    "bodies",
    [
        ("return {'c', 'a', 'b'}", "return frozenset('abc')"),
        ("return {'x': 1, 'y': 2}", "return {'y': 2, 'x': 1.0}"),
        ("return 0.1 + 0.2", "return 0.3"),
        ("return [1, 2]", "return (1, 2)"),
    ],
)
def test_equal_results_are_one_vote(bodies: tuple[str, str]) -> None:
    """Right or wrong: here the expected result is another one."""
    code = Code.of({"public": [{"input": [], "output": "something else"}], "function": "f"})
    one, other = (code.final(f"def f():\n    {body}") for body in bodies)
    assert one == other
    assert one != code.final("def f(): return 'no such thing'")


def test_the_order_of_a_set_is_the_same_each_time() -> None:
    program = "print(*{str(i) for i in range(50)})"
    code = Code.of({"public": [{"input": "", "output": "something else"}]})
    finals = set()
    for i in range(3):
        code_task.sandbox().close()  # the next one's interpreter would have another seed
        finals.add(code.final(f"{program}  # {i}"))
    assert len(finals) == 1


def test_what_leaves_last_is_read() -> None:
    """Threads that go on after the program's end, and what is printed as the interpreter leaves."""
    program = """
import atexit, sys, threading
atexit.register(lambda: sys.stdout.write("3"))
def late():
    threading.main_thread().join()
    sys.stdout.write("2")
sys.stdout.write("1")
threading.Thread(target=late).start()
"""
    assert Code.of({"hidden": [{"input": "", "output": "123"}]}).grade(program).outcome == 1
    assert Code.of({"hidden": [{"input": "", "output": "123"}]}).grade(f"{program}\nsys.exit()").outcome == 1


def test_a_program_may_import_from_the_future_behind_a_prelude() -> None:
    problem = {"hidden": [{"input": [2], "output": 4}], "function": "f", "prelude": "import math\n"}
    answer = (
        '"""Doubles."""\nfrom __future__ import annotations\ndef f(x: Unknown): return int(math.pow(x, 2))'
    )
    assert Code.of(problem).grade(f"```python\n{answer}\n```").outcome == 1
