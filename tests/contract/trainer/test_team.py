"""Several processes that train together: none waits for one that is gone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fakes_training import as_one_of_two, children
from ramify_trainer.errors import TrainerError
from ramify_trainer.loop.training import Team

LONGEST = 120.0
"""Seconds that a process may take on a busy machine."""
GONE = 9


@pytest.mark.timeout(200)
@pytest.mark.parametrize("gone", [0, 1], ids=["the first", "another"])
def test_a_process_whose_fellow_is_gone_ends_and_says_so(tmp_path: Path, gone: int) -> None:
    meeting, said = tmp_path / "meeting", children.SimpleQueue()
    processes = [children.Process(target=_member, args=(rank, meeting, gone, said)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LONGEST + 10)
    codes = [process.exitcode for process in processes]
    assert codes == ([GONE, 0] if gone == 0 else [0, GONE])
    assert said.get().startswith("a process of the training is gone: ")


def _member(rank: int, meeting: Path, gone: int, said: Any) -> None:
    """Join, and be gone without a word, or notice it."""
    as_one_of_two(rank, meeting, LONGEST)
    team = Team.joined()
    if rank == gone:
        os._exit(GONE)
    with pytest.raises(TrainerError) as error:
        team.follow() if rank else _lead(team)
    said.put(str(error.value))


def _lead(team: Team) -> None:
    while True:  # the system may still take what is sent first
        team.dismiss()
