"""The second task: grids and their tours, what is right, and what the small model is taught."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from ramify import weights
from ramify.rewards.errors import BadProblem
from research.bootstrap.rollouts import Rollouts
from research.bootstrap.tokenizer import EOS, NEWLINE, word_tokenizer
from research.tour.grids import NAMES, NEIGHBOURS, Grid, draw, lost_at, split_of
from research.tour.make import (
    FIRST,
    GRID_WEIGHT,
    SHAPE,
    SYMMETRIES,
    VOCABULARY,
    Trunk,
    answer_tokens,
    figures,
    grade,
    label,
    load,
    policy_loss,
    prompt_tokens,
    publish,
    roll_out,
    seen_after,
    turned,
    value_loss,
)
from research.tour.replay import Walks, is_solved, walks_of
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


def walk_of(grid: Grid, rng: np.random.Generator) -> list[int]:
    """Return a walk of free cells that goes on while it can."""
    left, walk = set(range(len(NAMES))) - {*grid.blocked, grid.tour[0]}, [grid.tour[0]]
    while ways := [cell for cell in NEIGHBOURS[walk[-1]] if cell in left]:
        walk.append(int(rng.choice(ways)))
        left.remove(walk[-1])
    return walk[1:]


def has_tour(left: frozenset[int], at: int) -> bool:
    ways = (cell for cell in NEIGHBOURS[at] if cell in left)
    return not left or any(has_tour(left - {cell}, cell) for cell in ways)


def test_a_walk_is_lost_at_the_step_that_leaves_no_tour(grids: list[Grid]) -> None:
    rng = np.random.default_rng(0)
    for grid in sorted(grids, key=lambda grid: grid.steps)[:6]:
        free, start = [cell for cell in range(len(NAMES)) if cell not in grid.blocked], grid.tour[0]
        assert lost_at(free, start, grid.tour[1:]) == grid.steps + 1
        walk = walk_of(grid, rng)
        left = [frozenset(free) - {start, *walk[:step]} for step in range(1, len(walk) + 1)]
        lost = [not has_tour(cells, at) for cells, at in zip(left, walk, strict=True)]
        assert lost_at(free, start, walk) == 1 + (lost.index(True) if True in lost else len(walk))
        assert lost_at(free, start, [*grid.tour[1:5], grid.tour[1]]) == 5  # visited already


def test_what_the_trunk_is_to_know_of_the_grid_is_so(grids: list[Grid]) -> None:
    rng = np.random.default_rng(1)
    for grid in grids[:10]:
        walk = walk_of(grid, rng)
        at_first = np.isin(range(len(NAMES)), [*grid.blocked, grid.tour[0]], invert=True)[None]
        seen = seen_after(np.array(walk)[None, None], at_first)[0, 0].reshape(len(walk), 3, -1)
        for step, (free, dead_end, cut_off) in enumerate(seen, 1):
            left = set(np.flatnonzero(at_first[0]).tolist()) - set(walk[:step])
            assert set(np.flatnonzero(free)) == left
            near = NEIGHBOURS[walk[step - 1]]
            ways = {cell: sum(other in left for other in NEIGHBOURS[cell]) for cell in left}
            assert set(np.flatnonzero(dead_end)) == {c for c in left if ways[c] < 2 and c not in near}
            reached, todo = set(), [walk[step - 1]]
            while todo:
                todo += (new := [c for c in NEIGHBOURS[todo.pop()] if c in left and c not in reached])
                reached.update(new)
            assert set(np.flatnonzero(cut_off)) == left - reached


def test_the_value_is_read_at_the_cell_before_its_line_closes(grids: list[Grid]) -> None:
    """The loss falls if the value of the state before each newline is the target, whatever comes after it."""
    grid = grids[0]
    answers = answer_tokens([grid])[:, None]
    part = label(Rollouts(prompt_tokens([grid]), answers, np.ones((1, 1), np.float32), grid.steps))
    assert (answers[part.ends] == NEWLINE).sum() + 1 == part.ends.sum() == grid.steps
    assert part.has_tour.all()
    assert not part.grid[0, 0, -1].any()  # no cell is left
    trunk = Trunk(0)
    states = trunk.states(part.samples.prompts, answers[:, :, :-1])
    assert states.shape == (1, 1, answers.shape[2], SHAPE.hidden)
    before = answers[:, :, :-1] if part.ends[0, 0, 0] else np.roll(answers, 1, axis=2)
    assert all(FIRST <= token < FIRST + len(NAMES) for token in before[part.ends])
    value, auxiliary = value_loss(trunk, part)
    assert value.item() == pytest.approx(np.log(2), abs=1e-6)
    assert auxiliary.item() == pytest.approx((1 + GRID_WEIGHT) * np.log(2), abs=1e-5)
    trunk.value.bias.data += 5
    assert value_loss(trunk, part)[0].item() < 0.01
    assert torch.isfinite(policy_loss(trunk, [grid]))


def test_the_network_is_published_as_a_release_with_a_head(grids: list[Grid], tmp_path: Path) -> None:
    trunk = Trunk(0)
    torch.nn.init.normal_(
        trunk.value.weight, generator=torch.Generator().manual_seed(0)
    )  # it begins at zero, and every value at one half
    measured = figures(trunk, grids[:4], 2)
    assert measured["pass_1"] == 0  # untrained
    release = publish(trunk, tmp_path, measured)
    assert release.manifest.default_task == "tour"
    assert release.value_head is not None
    assert weights.load_release(release.path) == release
    part = roll_out(trunk.policy, grids[:1], 2, seed=0)[0]
    own, loaded, other = (
        walks_of(network, part)[0].values for network in (trunk, load(release.path), Trunk(0))
    )
    assert loaded == pytest.approx(own, abs=0.05)  # written in bfloat16
    assert np.abs(other - own).max() > 0.2


def test_a_budget_buys_walks_in_order_and_gives_up_those_below_the_share_of_the_hurdle() -> None:
    # Walks of two steps, four tokens; the prompt's value is 0.5, so the hurdle after the first step is 0.25.
    values = np.array([[0.1, 0.0], [0.2, 0.0], [0.1, 1.0]], np.float32)
    walks = Walks(values, np.array([0, 0, 1], np.float32), 0.5)
    none, full = walks.ends(0.0), walks.ends(1.0)
    assert (none.tolist(), full.tolist(), walks.ends(0.7).tolist()) == ([2, 2, 2], [1, 1, 1], [1, 2, 1])
    assert not is_solved(walks, none, [0, 1, 2], 11)  # 4 + 4 + 4
    assert is_solved(walks, none, [0, 1, 2], 12)
    assert not is_solved(walks, full, [0, 1, 2], 99)  # the right one is given up too
    assert is_solved(walks, full, [2, 0, 1], 4)  # but not before one has ended
    values[2, 0] = 0.3
    full = walks.ends(1.0)
    assert not is_solved(walks, full, [0, 1, 2], 9)  # 4 + 2 + 4
    assert is_solved(walks, full, [0, 1, 2], 10)
