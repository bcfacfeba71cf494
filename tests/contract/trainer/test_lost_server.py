"""`ramify-trainer loop` as people start it, whose server is killed: it goes on with another, so many times."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fakes_training import small_settings, write_release, write_toml
from ramify.treelog import TreeLog
from ramify.treelog.records import Summary
from ramify_trainer.loop.demo import RESTARTS

pytestmark = pytest.mark.timeout(600)
PROGRAM = Path(__file__).parents[2] / "doomed_loop.py"
KILL = "killed at "
KILLED = "the server ended with status -9, without an error in its log"


def loop(folder: Path, *points: str) -> tuple[int, list[str]]:
    """Run the command with the server killed at each of `points` in turn; return its exit code and what it said."""
    write_release(folder / "base")
    settings = small_settings(folder, "", "") | {"base": "base/v000001"}
    settings["collect"]["concurrency"] = 2
    config = write_toml(folder / "loop.toml", settings)
    command = [sys.executable, str(PROGRAM), "loop", "--config", str(config), "--out", str(folder / "out")]
    environment = os.environ | {"DOOM": " ".join(points)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    return done.returncode, done.stderr.splitlines()


async def searched(folder: Path) -> list[Summary]:
    log = await TreeLog.open(f"sqlite:///{folder}/out/trees.db")
    try:
        return list(await log.list(limit=100))
    finally:
        await log.close()


def test_the_loop_goes_on_with_another_server_where_it_was_and_trains_and_searches_nothing_twice(
    tmp_path: Path,
) -> None:
    code, said = loop(tmp_path, "trained:2", "searched:3")
    assert code == 0, "\n".join(said)
    again = [line for line in said if line.startswith("the server is started anew")]
    lost = f"{KILLED}; its log is {tmp_path}/out/server.log"
    assert again == [f"the server is started anew (1 of {RESTARTS}), since {lost}"] * 2
    steps = [line for line in said if line.startswith("trained ")]
    assert steps == [f"trained {step}/4" for step in (1, 2, 3, 4)] * 2
    state = json.loads((tmp_path / "out" / "state" / "state.json").read_text())
    assert state["served"] == ["v000001", "v000002", "v000003"]
    assert [record["trees"] for record in state["history"]] == [6, 6]
    trees = asyncio.run(searched(tmp_path))
    assert Counter((tree.release, tree.status) for tree in trees) == {
        ("v000001", "complete"): 6,
        ("v000002", "complete"): 6,
    }
    killed = [float(line.removeprefix(KILL)) for line in said if line.startswith(KILL)]
    late = [tree for tree in trees if tree.created_at >= killed[-1]]
    assert len(late) == 3, "the search in flight was lost with its server, unlike the three before it"


def test_the_loop_whose_servers_all_end_in_one_phase_says_so_and_ends(tmp_path: Path) -> None:
    code, said = loop(tmp_path, *["searched:1"] * (RESTARTS + 1))
    assert code == 1
    log = tmp_path / "out" / "server.log"
    lost = f"the collect phase lost {RESTARTS + 1} servers, one after the other: {KILLED}; its log is {log}"
    assert said[-1] == f"ramify-trainer loop: {lost}"
    assert log.read_text().count("  ask  curl ") == RESTARTS + 1
