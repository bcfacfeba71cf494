"""Answers that wait or use too much time: those have failed, and one that was kept from the processor has not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ramify.rewards import code as code_task
from ramify.rewards.code import Case, Code
from ramify.sandbox import Program, Sandbox, SandboxFailed, find
from ramify.sandbox.session import Idleness
from ramify.search.protocols import GradingFailed
from tests.integration.sandbox.answers import PROBLEM, ended, graded
from tests.integration.sandbox.conftest import RunAs

IDLE = 3.0
"""Seconds that an answer may be idle where a test waits for just that: nobody learns more from the product's 10."""
IDLED = f"did nothing for {IDLE:.0f} s"


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_task, "IDLE", IDLE)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    "wait",
    [
        "import time; time.sleep(1000)",
        "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
        "import os; os.read(os.pipe()[0], 1)",
    ],
)
def test_an_answer_that_waits_has_failed_and_holds_nobody_up(wait: str, as_user: RunAs) -> None:
    """However much processor time it has; and it is not tried on the tests that are left."""

    def grade() -> list[Any]:
        began, problem = time.monotonic(), {**PROBLEM, "seconds": 20, "scoring": "share"}
        verdict = Code.of(problem).grade(wait)
        return [verdict.outcome, verdict.reason, time.monotonic() - began]

    outcome, reason, seconds = as_user(grade)
    assert outcome == 0
    assert IDLED in reason
    assert seconds < 40


@pytest.mark.usefixtures("_impatient")
def test_an_answer_that_sleeps_a_little_less_on_each_test_has_failed(as_user: RunAs) -> None:
    """Its idleness adds up, and so the time for all tests is not over before it has failed."""

    def grade() -> list[Any]:
        problem = {**PROBLEM, "hidden": [PROBLEM["hidden"][0]] * 4, "seconds": 1, "scoring": "share"}
        return graded(f"import time; time.sleep({0.8 * IDLE})\nprint(42)", problem)

    outcome, reason = as_user(grade)
    assert outcome is not None, reason
    assert outcome < 1
    assert IDLED in reason


def test_a_thread_that_has_ended_counts_with_what_it_had_waited() -> None:
    """The process is ours here, on a processor that it shares with one that is always busy."""
    code = "import threading, time; a = threading.Thread(target=sum, args=(range(6_000_000),)); a.start(); a.join()"
    busy, other = (
        subprocess.Popen([sys.executable, "-c", code])
        for code in ("while True: pass", f"{code}; time.sleep(1000)")
    )

    def threads() -> int:
        return len(list(Path(f"/proc/{other.pid}/task").iterdir()))

    def waited() -> float:
        delays = Path(f"/proc/{other.pid}/task").glob("*/schedstat")
        return sum(int(delay.read_text().split()[1]) for delay in delays) / 1e9

    try:
        for process in (busy, other):
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        idleness, before = Idleness(other.pid), 0.0
        for count in (1, 2):  # until the thread has begun; until it has ended
            while threads() == count:
                before = waited()
                idleness.look(before, by_threads=True)
                time.sleep(0.01)
        lost = before - waited()
        assert lost > 0
        assert idleness.look(before + seconds_of(other.pid), by_threads=True) < 0.5 * lost
    finally:
        for process in (busy, other):
            process.kill()
            process.wait()


def test_an_answer_that_outlives_the_signal_of_its_limit_has_used_its_time_up(as_user: RunAs) -> None:
    def endings() -> list[str]:
        deaf = "import signal, time\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        late = f"{deaf}while time.process_time() < 1.5: pass\nprint(42)"
        return [ended(program)["status"] for program in (f"{deaf}while True: pass", late)]

    assert as_user(endings) == ["cpu", "cpu"]


def test_a_kill_from_outside_is_not_the_answers_fault_however_much_time_it_had_used() -> None:
    """As by a machine that is out of memory, which may be just when an answer fills it."""
    code = "import time\nwhile time.process_time() < 1.5: pass\ntime.sleep(1000)"
    program = Program(code=code, cpu=2, memory=1 << 28)
    with Sandbox(find()) as sandbox, ThreadPoolExecutor() as pool:
        running = pool.submit(sandbox.run, program, "", call=False, wall=300.0, patience=300.0)
        assert sandbox._process is not None
        deadline = time.monotonic() + 120
        while not (spent := [pid for pid in family(sandbox._process.pid) if seconds_of(pid) >= 1.2]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(spent[-1], signal.SIGKILL)
        with pytest.raises(SandboxFailed, match="killed from outside"):
            running.result(60)


def family(process: int) -> list[int]:
    """All processes below one."""
    children = [
        int(pid)
        for task in Path(f"/proc/{process}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    return children + [pid for child in children for pid in family(child)]


def seconds_of(process: int) -> float:
    """Processor time that a process has used."""
    used = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")


def test_an_answer_that_never_gets_the_processor_is_not_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has used nothing up and it has not been idle: that is the machine's doing. Here it has no time at all."""
    monkeypatch.setattr(code_task, "WAITING", -59.9)
    code = Code(hidden=(Case(input="1", output="1"),), seconds=20)
    with pytest.raises(GradingFailed, match="did not get the processor"):
        code.grade("while True: pass")


@pytest.mark.usefixtures("_impatient")
def test_threads_that_wait_at_once_buy_no_time_to_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their waits together are longer than all that passed. An answer that will fail must not end as not graded."""
    monkeypatch.setattr(code_task, "WAITING", 10.0)
    result = ended("""
        import ctypes, threading, time
        libc, stop, block = ctypes.CDLL(None), False, 1 << 22
        def crowd():
            buffer = ctypes.create_string_buffer(block)
            while not stop:
                libc.memset(buffer, 1, block)
            time.sleep(1000)
        threading.stack_size(1 << 16)
        for _ in range(12):
            threading.Thread(target=crowd, daemon=True).start()
        while time.process_time() < 0.6:
            time.sleep(0.02)
        stop = True
        time.sleep(1000)
        """)
    assert result["status"] in ("idle", "cpu"), result  # cpu: if that took longer than it should
