"""The comparisons that are shipped: each can be run, is fair, and its recipes were chosen on dev."""

from __future__ import annotations

from pathlib import Path

import pytest

import ramify_trainer
from ramify_trainer.config import LoopConfig, base_release
from research.compare.config import CompareConfig

CONFIGS = Path(__file__).resolve().parents[3] / "research" / "configs"


def shared(loop: LoopConfig) -> dict[str, object]:
    """All of a loop that arms may not differ in."""
    found = loop.model_dump(exclude={"name", "weights", "state"})
    algorithm = {"algorithm", "parallel", "kappa", "grader", "considered", "gumbel_scale"}
    found["collect"]["search"] = {k: v for k, v in loop.collect.search.items() if k not in algorithm}
    for key in ("objective", "epochs", "baseline", "visit_target", "answer_weight", "imitate"):
        del found["learning"][key]
    return found


def test_the_arms_of_the_shipped_comparison_differ_in_search_and_objective_alone():
    config = CompareConfig.read(CONFIGS / "compare.toml")
    first, *others = [config.loop(run, Path("out")) for run in config.runs() if run.seed == 0]
    assert len(others) >= 4
    for other in others:
        assert shared(other) == shared(first)


def test_the_shipped_comparison_trains_on_no_problem_that_it_measures():
    config = CompareConfig.read(CONFIGS / "compare.toml")
    assert config.collect.data.startswith("countdown:train")
    assert {config.held_out.data.partition("?")[0], config.searched.data.partition("?")[0]} == {
        "countdown:test"
    }


@pytest.mark.parametrize(
    "path",
    [path for path in CONFIGS.glob("*.toml") if "[[arms]]" in path.read_text()],
    ids=lambda path: path.stem,
)
def test_every_comparison_that_is_shipped_parses(path: Path):
    config = CompareConfig.read(path)
    assert all(config.loop(run, Path("out")).rounds for run in config.runs() if run.arm.trl is None)


def test_mixtures_are_chosen_on_dev_by_recipes_that_can_be_run():
    config = CompareConfig.read(CONFIGS / "mixtures.toml")
    assert {part.data.partition("?")[0] for part in (config.held_out, config.searched)} == {"countdown:dev"}
    loops = {run.arm.name: config.loop(run, Path("out")) for run in config.runs()}
    assert loops["tree_mix"].learning.imitate == 1.0
    moves = [(own.objective, own.policy_learning_rate) for own in loops["tree_switch"].learning.over_run]
    assert moves == [("sft", 1.2e-3), ("tree_ppo", 6e-4)]
    follows = {name for name, loop in loops.items() if loop.collect.temperature is not None}
    assert follows == {"tree_mix_entropy"}


@pytest.mark.parametrize(
    ("dev", "test", "found", "arm"),
    [
        ("fresher", "half-the-steps", "imitation_first", "tree_half"),
        ("unspoiled-dev", "unspoiled", "tree_mix", "tree_mix"),
        ("longer-dev", "longer", "tree_signal", "tree_signal"),
        ("tour-dev", "tour-learning", "tree_signal", "tree_signal"),
    ],
)
def test_the_arm_of_half_the_steps_has_no_more_problems_than_flat_ppo_and_was_chosen_on_dev(
    dev: str, test: str, found: str, arm: str
):
    chosen, tested = (CompareConfig.read(CONFIGS / f"{name}.toml") for name in (dev, test))
    assert {part.data.partition("?")[0] for part in (chosen.held_out, chosen.searched)} == {
        chosen.collect.data.partition(":")[0] + ":dev"
    }
    of_dev, of_test = (
        {run.arm.name: config.loop(run, Path("out")) for run in config.runs()} for config in (chosen, tested)
    )
    recipe, ppo = of_test[arm], of_test["flat_ppo"]
    assert recipe.learning == of_dev[found].learning
    assert (recipe.collect, recipe.base) == (of_dev[found].collect, of_dev[found].base)
    queries = {part.data.partition("?")[2] for part in (chosen.held_out, chosen.searched, tested.held_out)}
    assert queries == {recipe.collect.data.partition("?")[2]}
    assert recipe.learning.steps_per_round * 2 == ppo.learning.steps_per_round
    assert recipe.collect.problems == ppo.collect.problems
    assert recipe.rounds * recipe.learning.steps_per_round <= 0.6 * ppo.rounds * ppo.learning.steps_per_round


def test_the_demo_loop_learns_by_the_recipe_of_twelve_rounds():
    shipped = LoopConfig.read(Path(ramify_trainer.__file__).parent / "configs" / "loop.toml")
    config = CompareConfig.read(CONFIGS / "longer.toml")
    measured = next(config.loop(run, Path("out")) for run in config.runs() if run.arm.name == "tree_signal")
    assert shipped.collect == measured.collect
    assert base_release(shipped.base).path.samefile(measured.base)
    assert shipped.rounds == config.rounds
    assert shipped.learning == measured.learning.model_copy(update={"epochs": shipped.learning.epochs})


def test_the_shipped_comparison_has_two_seeds_of_each_main_arm():
    arms = {arm.name: arm.seeds for arm in CompareConfig.read(CONFIGS / "compare.toml").arms}
    assert all(arms[name] >= 2 for name in ("flat_ppo", "rsft", "tsd"))
