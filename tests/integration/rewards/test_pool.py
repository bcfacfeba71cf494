"""The pool of worker processes under functions that hang, crash, eat memory and forge."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ramify.rewards.errors import CallFailed
from ramify.rewards.pool import Pool, PoolLimits
from ramify.search.protocols import GradingFailed

pytestmark = pytest.mark.anyio

FUNCTIONS = "integration.rewards.hostile_functions:functions"
LONG = 60.0
"""Seconds that no test waits for."""


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(FUNCTIONS, PoolLimits(workers=1, deadline=LONG))
    yield pool
    await pool.close()


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)


async def announced(fifo: str) -> int:
    """The process id that a hanging function wrote to the named pipe: it runs now."""
    return int(await asyncio.to_thread(Path(fifo).read_text))


def ended(handle: int, seconds: float) -> bool:
    """Return True if the process behind a pidfd ends within so many seconds."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


async def test_a_call_runs_in_another_process_in_its_main_thread(pool: Pool) -> None:
    assert await pool.call("echo", {"value": {"π": [1, None, "\udc80"]}}) == {"π": [1, None, "\udc80"]}
    assert await pool.call("pid", {}) == pool.pids[0] != os.getpid()
    assert await pool.call("in_main_thread", {}) is True


async def test_a_call_past_its_deadline_fails_as_such_and_costs_the_worker(pool: Pool, fifo: str) -> None:
    call = asyncio.ensure_future(pool.call("hang", {"fifo": fifo}, 0.5))
    handle = os.pidfd_open(await announced(fifo))
    with pytest.raises(CallFailed, match=r"more than 0\.5 s") as failed:
        await call
    assert failed.value.kind == "deadline"
    assert isinstance(failed.value, GradingFailed)
    assert ended(handle, 5)
    os.close(handle)
    assert await pool.call("echo", {"value": 1}) == 1


async def test_a_worker_killed_in_the_middle_of_a_call_fails_it_as_a_crash(pool: Pool, fifo: str) -> None:
    call = asyncio.ensure_future(pool.call("hang", {"fifo": fifo}))
    os.kill(await announced(fifo), signal.SIGKILL)
    with pytest.raises(CallFailed, match="died") as failed:
        await call
    assert failed.value.kind == "crash"
    assert await pool.call("echo", {"value": 1}) == 1


async def test_a_worker_killed_while_idle_costs_no_call(pool: Pool) -> None:
    first = await pool.call("pid", {})
    handle = os.pidfd_open(first)
    os.kill(first, signal.SIGKILL)
    assert ended(handle, 5)
    os.close(handle)
    assert await pool.call("pid", {}) != first


@pytest.mark.parametrize("function", ["die", "leave"])
async def test_a_function_that_ends_its_process_is_a_crash(pool: Pool, function: str) -> None:
    with pytest.raises(CallFailed) as failed:
        await pool.call(function, {})
    assert failed.value.kind == "crash"
    assert await pool.call("echo", {"value": 1}) == 1


async def test_a_function_that_raises_keeps_its_worker(pool: Pool) -> None:
    before = await pool.call("pid", {})
    with pytest.raises(CallFailed, match="ArithmeticError: no such luck") as failed:
        await pool.call("fail", {})
    assert failed.value.kind == "error"
    assert await pool.call("pid", {}) == before


@pytest.mark.parametrize(("function", "arguments"), [("no_such", {}), ("echo", {"wrong": 1})])
async def test_a_call_that_fits_no_function_is_an_error(
    pool: Pool, function: str, arguments: dict[str, int]
) -> None:
    with pytest.raises(CallFailed) as failed:
        await pool.call(function, arguments)
    assert failed.value.kind == "error"


async def test_a_result_that_is_no_json_is_a_failure(pool: Pool) -> None:
    with pytest.raises(CallFailed, match="not JSON serializable") as failed:
        await pool.call("unserialisable", {})
    assert failed.value.kind == "error"
    assert await pool.call("echo", {"value": 1}) == 1


async def test_a_call_too_large_to_send_is_an_error(pool: Pool) -> None:
    with pytest.raises(CallFailed, match="bytes") as failed:
        await pool.call("echo", {"value": "x" * (5 << 20)})
    assert failed.value.kind == "error"


async def test_memory_that_a_function_swallowed_the_lack_of_is_a_failure() -> None:
    pool = Pool(FUNCTIONS, PoolLimits(workers=1, deadline=LONG, memory=512 << 20))
    try:
        with pytest.raises(CallFailed, match="memory limit") as failed:
            await pool.call("eat", {})
        assert failed.value.kind == "crash"
        assert await pool.call("echo", {"value": 1}) == 1
    finally:
        await pool.close()


async def test_a_worker_that_holds_much_memory_is_replaced_without_a_failure() -> None:
    pool = Pool(FUNCTIONS, PoolLimits(workers=1, deadline=LONG, memory=1 << 30))
    try:
        first = await pool.call("hold", {"size": 340 << 20})
        assert await pool.call("pid", {}) != first
    finally:
        await pool.close()


async def test_a_worker_can_write_no_file(pool: Pool, tmp_path: Path) -> None:
    assert await pool.call("write", {"path": str(tmp_path / "loot")}) == "OSError"
    assert not (tmp_path / "loot").read_text()


async def test_what_a_function_prints_is_no_reply(pool: Pool) -> None:
    assert await pool.call("chatter", {}) == "honest"
    assert await pool.call("echo", {"value": 2}) == 2


async def test_secrets_do_not_reach_a_worker(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMIFY_API_KEY", "secret")
    assert "RAMIFY_API_KEY" not in await pool.call("environment", {})


async def test_a_module_that_does_not_import_fails_every_call_with_its_error() -> None:
    pool = Pool("no_such_module:functions", PoolLimits(workers=1))
    try:
        for _ in range(2):
            with pytest.raises(CallFailed, match=r"did not start.*no_such_module") as failed:
                await pool.call("echo", {"value": 1})
            assert failed.value.kind == "crash"
    finally:
        await pool.close()


async def test_a_full_queue_refuses_the_next_call(fifo: str) -> None:
    pool = Pool(FUNCTIONS, PoolLimits(workers=1, deadline=LONG, queue=1))
    try:
        running = pool.submit("hang", {"fifo": fifo})
        await announced(fifo)
        waiting = pool.submit("echo", {"value": 1})
        with pytest.raises(CallFailed) as refused:
            await pool.call("echo", {"value": 2})
        assert refused.value.kind == "overload"
        assert not running.done()
        assert not waiting.done()
    finally:
        await pool.close()


async def test_a_call_that_waited_too_long_is_never_started(fifo: str) -> None:
    pool = Pool(FUNCTIONS, PoolLimits(workers=1, deadline=0.5, patience=0.1))
    try:
        with pytest.raises(CallFailed):  # starts the worker, whose start may outlast the patience
            await pool.call("fail", {})
        running = pool.submit("hang", {"fifo": fifo})
        await announced(fifo)
        with pytest.raises(CallFailed, match="no verifier free") as refused:
            await pool.call("echo", {"value": 1})
        assert refused.value.kind == "overload"
        assert isinstance(running.exception(), CallFailed)
    finally:
        await pool.close()


async def test_a_call_cancelled_while_it_waits_is_never_started(pool: Pool, fifo: str) -> None:
    running = asyncio.ensure_future(pool.call("hang", {"fifo": fifo}))
    worker = await announced(fifo)
    waiting = asyncio.ensure_future(pool.call("die", {}))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(CallFailed):
        await running
    assert await pool.call("echo", {"value": 1}) == 1


async def test_closing_fails_what_runs_and_what_waits_and_leaves_no_process(fifo: str) -> None:
    pool = Pool(FUNCTIONS, PoolLimits(workers=1, deadline=LONG))
    running = pool.submit("hang", {"fifo": fifo})
    handle = os.pidfd_open(await announced(fifo))
    waiting = pool.submit("echo", {"value": 1})
    await pool.close()
    await pool.close()
    assert ended(handle, 0)
    os.close(handle)
    assert isinstance(running.exception(0), CallFailed)
    assert isinstance(waiting.exception(0), CallFailed)
    with pytest.raises(RuntimeError, match="closed"):
        await pool.call("echo", {"value": 1})


async def test_as_many_calls_run_at_once_as_there_are_workers(tmp_path: Path) -> None:
    pool = Pool(FUNCTIONS, PoolLimits(workers=2, deadline=LONG))
    pipes = [tmp_path / name for name in "ab"]
    for pipe in pipes:
        os.mkfifo(pipe)
    try:
        for pipe in pipes:
            pool.submit("hang", {"fifo": str(pipe)})
        first, second = [await announced(str(pipe)) for pipe in pipes]
        assert first != second
    finally:
        await pool.close()


async def test_no_process_starts_before_the_first_call() -> None:
    pool = Pool(FUNCTIONS)
    assert pool.pids == []
    await pool.close()


def test_one_pool_serves_several_event_loops_and_threads() -> None:
    pool = Pool(FUNCTIONS, PoolLimits(workers=1))
    answers: list[int] = []

    def use() -> None:
        answers.append(asyncio.run(pool.call("pid", {})))

    try:
        use()
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        answers.append(pool.submit("pid", {}).result(60))
        assert len(answers) == 3
        assert len(set(answers)) == 1
    finally:
        asyncio.run(pool.close())


PARENT = """
import sys
from ramify.rewards.pool import Pool, PoolLimits
Pool(sys.argv[1], PoolLimits(workers=1, deadline=1000)).submit(sys.argv[2], {"fifo": sys.argv[3]}).result()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd")
@pytest.mark.parametrize("function", ["hang", "hang_in_c"])
def test_a_busy_worker_ends_within_5_seconds_of_its_killed_parent(fifo: str, function: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, FUNCTIONS, function, fifo], env=environment
    ) as parent:
        handle = os.pidfd_open(int(Path(fifo).read_text()))
        parent.kill()
        parent.wait()
        assert ended(handle, 5)
        os.close(handle)


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd")
def test_an_idle_worker_ends_when_its_parent_exits(tmp_path: Path) -> None:
    script = PARENT.rpartition("Pool(")[0] + (
        "pool = Pool(sys.argv[1])\nprint(pool.submit('pid', {}).result(), flush=True)\nsys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", script, FUNCTIONS],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        handle = os.pidfd_open(int(parent.stdout.readline()))
        parent.stdin.close()
        assert parent.wait(60) == 0
        assert ended(handle, 5)
        os.close(handle)
