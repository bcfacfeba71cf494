"""A server as a child process: what is told while it starts, and what is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramify.launcher import BANNER, NotServing, launched


def test_a_server_that_cannot_start_is_said_with_its_own_words(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("the run before\n")
    complaint = pytest.raises(NotServing, match=r"there is no release at .*v000009")
    with complaint as failed, launched(["--release", str(tmp_path / "v000009")], log):
        raise AssertionError("it cannot be ready")
    assert "the run before" not in str(failed.value)
    assert log.read_text().startswith("the run before\n")


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
