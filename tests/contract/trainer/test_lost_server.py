"""`ramify-trainer loop` as people start it, whose server is killed: it goes on with another, so many times."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from fakes_training import write_problems, write_release
from ramify.treelog import TreeLog
from ramify.treelog.records import Summary
from ramify_trainer.loop.demo import RESTARTS

pytestmark = pytest.mark.timeout(600)
PROGRAM = Path(__file__).parents[2] / "doomed_loop.py"
KILLED = "the server ended with status -9, without an error in its log"
TOML = """
rounds = 2
base = "base/v000001"

[collect]
data = "{data}"
problems = 6
concurrency = 2
search = {{ algorithm = "mcts", budget = {{ simulations = 3 }} }}

[learning]
steps_per_round = 4
tokens_per_batch = 64
warmup_steps = 0
threads = 1
tracker = "none"

[gate]
data = "{data}"
problems = 2
answers = 2
max_tokens = 6
margin = 1.0
greedy_margin = 1.0
value_margin = 1.0

[held_out]
data = "{data}"
problems = 2
answers = 2
max_tokens = 6
"""


def loop(folder: Path, *points: str) -> tuple[int, list[str]]:
    """Run the command with the server killed at each of `points` in turn; return its exit code and what it said."""
    write_release(folder / "base")
    config = folder / "loop.toml"
    config.write_text(TOML.format(data=write_problems(folder / "problems.jsonl")))
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


def restarted_at(folder: Path) -> float:
    """Return the time at which the last server began to start, in whole seconds."""
    said = (folder / "out" / "server.log").read_text().splitlines()
    *_, last = (line for line in said if "engines starting" in line)
    return datetime.fromisoformat(last.split()[0]).timestamp()


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
    late = [tree for tree in trees if tree.created_at >= restarted_at(tmp_path)]
    assert len(late) == 3, "the search in flight was lost with its server, unlike the three before it"


def test_the_loop_whose_servers_all_end_in_one_phase_says_so_and_ends(tmp_path: Path) -> None:
    code, said = loop(tmp_path, *["searched:1"] * (RESTARTS + 1))
    assert code == 1
    log = tmp_path / "out" / "server.log"
    lost = f"the collect phase lost {RESTARTS + 1} servers, one after the other: {KILLED}; its log is {log}"
    assert said[-1] == f"ramify-trainer loop: {lost}"
    assert log.read_text().count("  ask  curl ") == RESTARTS + 1
