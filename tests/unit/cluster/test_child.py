"""A child process ends with whoever started it, and says why it ended."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys

import psutil
import pytest

from ramify.cluster.child import Child

pytestmark = pytest.mark.anyio
SLEEPS = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"
STARTS = f"""
import asyncio, sys
from ramify.cluster.child import Child
async def main():
    child = await Child.start((sys.executable, "-c", {SLEEPS!r}))
    await child.process.wait()
asyncio.run(main())
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_one_that_ends_tells_its_last_lines() -> None:
    child = await Child.start((sys.executable, "-c", "import sys; print('too little memory'); sys.exit(3)"))
    with pytest.raises(RuntimeError, match=r"ended with status 3:\ntoo little memory"):
        await child.said(re.compile("ready"))


async def test_one_that_ignores_the_signal_is_killed_after_its_time() -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
    child = await Child.start((sys.executable, "-c", deaf))
    await child.said(re.compile(r"pid \d+\n"))
    await child.end(signal.SIGTERM, 0.2)
    assert child.process.returncode == -signal.SIGKILL


async def test_its_end_does_not_wait_for_one_that_it_left_behind() -> None:
    leaves = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPS!r}], start_new_session=True)"
    child = await Child.start((sys.executable, "-c", f"{leaves}; import time; time.sleep(600)"))
    left = psutil.Process(int((await child.said(re.compile(r"pid (\d+)\n")))[1]))
    try:
        async with asyncio.timeout(60):
            await child.end(signal.SIGTERM, 300)
        assert left.is_running()
    finally:
        left.kill()
        assert child._reading is not None
        await child._reading


def test_it_is_killed_with_whoever_started_it() -> None:
    parent = subprocess.Popen([sys.executable, "-c", STARTS], stderr=subprocess.PIPE, text=True)
    assert parent.stderr is not None
    line = parent.stderr.readline()
    child = psutil.Process(int(line.split()[1]))
    parent.kill()
    parent.wait()
    parent.stderr.close()
    child.wait(30)
    assert not child.is_running()
