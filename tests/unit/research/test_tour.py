"""The second task: grids and their tours, what is right, and what the small model is taught."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from ramify import weights
from ramify.rewards.errors import BadProblem
from research.bootstrap.rollouts import Rollouts, outcome_targets
from research.bootstrap.tokenizer import EOS, NEWLINE, word_tokenizer
from research.tour.grids import NAMES, NEIGHBOURS, Grid, draw, split_of
from research.tour.make import (
    FIRST,
    SHAPE,
    SYMMETRIES,
    VOCABULARY,
    Trunk,
    answer_tokens,
    figures,
    grade,
    policy_loss,
    prompt_tokens,
    publish,
    turned,
    value_loss,
)
from research.tour.task import Tour


@pytest.fixture(scope="module")
def grids() -> list[Grid]:
    return list(islice(draw("train", 7), 40))


def text(grid: Grid) -> str:
    return "\n".join(NAMES[cell] for cell in grid.tour[1:])


def test_every_grid_has_a_tour_that_the_task_accepts(grids: list[Grid]) -> None:
    for grid in grids:
        assert Tour.of(grid.problem).grade(text(grid)).outcome == 1
        assert split_of(grid.blocked, grid.tour[0]) == "train"
        assert 21 <= grid.steps <= 29
    assert [grid.tour for grid in islice(draw("train", 7), 3)] == [grid.tour for grid in grids[:3]]


def test_a_wrong_step_is_named(grids: list[Grid]) -> None:
    task, cells = Tour.of(grids[0].problem), text(grids[0]).split("\n")
    away = next(name for name in NAMES if NAMES.index(name) not in NEIGHBOURS[NAMES.index(cells[0])])
    for wrong, reason in {
        "\n".join(cells[:-1]): "1 cells are not visited",
        "\n".join([*cells[:1], away, *cells[2:]]): f"step 2: {away} is no neighbour",
        "\n".join([*cells[:2], cells[0], *cells[3:]]): f"step 3: {cells[0]} is blocked or was visited",
        "\n".join([*cells, "g9"]): f"step {len(cells) + 1} is no cell",
        "": f"{len(cells)} cells are not visited",
    }.items():
        verdict = task.grade(wrong)
        assert (verdict.outcome, verdict.reason) == (0, reason)
    assert task.final("a1\nnowhere") is None


def test_a_prompt_is_read_as_it_is_written(grids: list[Grid]) -> None:
    for grid in grids[:5]:
        assert Tour.read_prompt(grid.prompt) == (grid.problem, grid.prompt)
    assert Tour.read_prompt("a1 from a1") is None
    assert Tour.read_prompt("3 5 7 8 to 24") is None
    with pytest.raises(BadProblem, match="start"):
        Tour.of({"blocked": ["a1"], "start": "a1"})
    with pytest.raises(ValueError, match="'steps' must be from 21 to 29"):
        next(Tour.examples("dev", 0, {"steps": "3"}))


def test_tokens_spell_the_prompt_and_the_tour(grids: list[Grid]) -> None:
    tokenizer = word_tokenizer(VOCABULARY, SHAPE.positions)
    for grid in grids[:5]:
        (prompt,), (answer,) = prompt_tokens([grid]).tolist(), answer_tokens([grid]).tolist()
        assert tokenizer(grid.prompt).input_ids == prompt
        assert "".join(VOCABULARY[token] for token in answer[:-1]) == text(grid)
        assert answer[-1] == EOS
        assert grade(grid, np.array(answer)) == 1
        assert grade(grid, np.array(answer[:-1])) == 0


def test_a_turned_grid_keeps_its_tour_and_its_split(grids: list[Grid]) -> None:
    assert len({tuple(places) for places in SYMMETRIES}) == 8
    rng = np.random.default_rng(0)
    images = {turned(grids[0], rng).tour for _ in range(60)}
    assert len(images) > 4
    for grid in (turned(grid, rng) for grid in grids):
        assert Tour.of(grid.problem).grade(text(grid)).outcome == 1
        assert split_of(grid.blocked, grid.tour[0]) == "train"


def test_the_value_is_read_at_the_cell_before_its_line_closes(grids: list[Grid]) -> None:
    """The loss falls if the value of the state before each newline is the target, whatever comes after it."""
    grid = grids[0]
    answers = answer_tokens([grid])[:, None]
    part = Rollouts(prompt_tokens([grid]), answers, np.ones((1, 1), np.float32), grid.steps)
    _, targets, ends = outcome_targets(part)
    assert (answers[ends] == NEWLINE).sum() + 1 == ends.sum() == grid.steps
    trunk = Trunk(0)
    states = trunk.states(part.prompts, part.answers[:, :, :-1])
    assert states.shape == (1, 1, answers.shape[2], SHAPE.hidden)
    before = answers[:, :, :-1] if ends[0, 0, 0] else np.roll(answers, 1, axis=2)
    assert all(FIRST <= token < FIRST + len(NAMES) for token in before[ends])
    assert value_loss(trunk, part, targets, ends).item() == pytest.approx(np.log(2), abs=1e-6)
    trunk.value.bias.data += 5
    assert value_loss(trunk, part, targets, ends).item() < 0.01
    assert torch.isfinite(policy_loss(trunk, [grid]))


def test_the_network_is_published_as_a_release_with_a_head(grids: list[Grid], tmp_path: Path) -> None:
    trunk = Trunk(0)
    measured = figures(trunk, grids[:4], 2)
    assert measured["pass_1"] == 0  # untrained
    release = publish(trunk, tmp_path, measured)
    assert release.manifest.default_task == "tour"
    assert release.value_head is not None
    assert weights.load_release(release.path) == release
