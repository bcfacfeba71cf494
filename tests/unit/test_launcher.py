"""A server as a child process: what is told while it starts, and what is left of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ramify.launcher import BANNER, LaunchedServer, NotServing, child_process, launched


def test_a_server_that_cannot_start_is_said_with_its_own_words(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("the run before\n")
    complaint = pytest.raises(NotServing, match=r"there is no release at .*v000009")
    with complaint as failed, launched(["--release", str(tmp_path / "v000009")], log):
        raise AssertionError("it cannot be ready")
    assert "the run before" not in str(failed.value)
    assert log.read_text().startswith("the run before\n")


@pytest.mark.parametrize(
    ("logged", "said"),
    [
        ("INFO ramify stopped\n", "without an error in its log"),
        (
            "ERROR ramify one\n0 ERROR ramify another\n0 INFO ramify stopped\n",
            "its last error: 0 ERROR ramify another",
        ),
    ],
)
def test_the_end_of_a_server_is_said_with_its_status_and_its_own_last_error(
    tmp_path: Path, logged: str, said: str
) -> None:
    log = tmp_path / "server.log"
    before = "0 ERROR ramify of the run before\n"
    log.write_text(f"{before}0 {logged}")
    command, null = [sys.executable, "-ISc", "input(); raise SystemExit(3)"], subprocess.DEVNULL
    with child_process(command, subprocess.PIPE, null, null) as child:
        server = LaunchedServer("http://public", "http://admin", child, log, len(before))
        assert server.fault(0) is None
        assert child.stdin is not None
        with child.stdin:
            child.stdin.write(b"\n")
        assert server.fault(60) == f"the server ended with status 3, {said}"


def test_the_addresses_are_those_of_the_banner_whatever_is_logged_between() -> None:
    said = (
        "INFO warming up at http://elsewhere\n"
        "Ramify 0.1.0 serves countdown-tiny (v000001) at http://127.0.0.1:4001\n"
        "  log  sqlite\n2026-01-01 INFO a line of the log\n"
        "  admin  http://127.0.0.1:4002\n  memory  1 GiB\n  ask  curl"
    )
    assert BANNER.search(said) is None
    found = BANNER.search(f"{said} -s http://127.0.0.1:4001/v1/search\n")
    assert found
    assert found.groups() == ("http://127.0.0.1:4001", "http://127.0.0.1:4002")
