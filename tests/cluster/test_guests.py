"""A cluster that somebody else's command uses: it ends after that command."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import IO

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
HOST = """
from ramify.ray_cluster import connected
import ray

with connected(None, setting="test", own=True, cpus=2):
    print(ray.get_runtime_context().gcs_address, flush=True)
    input()
    print("leaves", flush=True)
"""
GUEST = """
import sys
from ramify.ray_cluster import connected
import ray

with connected(sys.argv[1], setting="test", guest=True):
    print("is here", flush=True)
    input()
    print(ray.get(ray.remote(lambda: "works").remote()), flush=True)
"""


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *arguments]
    known = os.environ | {
        "RAY_AUTH_MODE": "token"
    }  # as its own clusters have it, and who is given an address has not
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=known)


def told(process: subprocess.Popen[str]) -> None:
    """Let a process that waits for a line go on."""
    stdin: IO[str] | None = process.stdin
    assert stdin is not None
    stdin.write("\n")
    stdin.flush()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_guest_of_a_cluster_that_is_to_end_comes_to_its_own_end_first() -> None:
    with started(HOST) as host, started(GUEST, said(host)) as guest:
        assert said(guest) == "is here"
        told(host)
        assert said(host) == "leaves"
        with pytest.raises(subprocess.TimeoutExpired):
            host.wait(5)
        told(guest)
        assert said(guest) == "works"
        assert (guest.wait(60), host.wait(60)) == (0, 0)
