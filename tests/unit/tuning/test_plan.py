"""A whole run on a backend whose best parameters are known: stopped, gone on with, written down."""

import json
import tomllib

import pytest

from fakes_evaluation import Killed, PlantedBackend, problem, seconds, tokens
from ramify.evaluation.methods import load_methods
from ramify.tuning.found import defaults_of, publish_with
from ramify.tuning.plan import Plan, claim, held_out, measure, searches, tune, write
from ramify.tuning.study import BASELINES, Arm
from ramify.weights import SearchDefaults, load_release, shipped

pytestmark = pytest.mark.anyio


def planted(method, budget):
    good = {"mcts": 0.9, "best_of_n": 0.6, "self_consistency": 0.3}[method.algorithm]
    return good - abs(method.sampling["temperature"] - 0.4)


def plan_in(folder, trials=3):
    arms = [Arm("search", ("mcts",)), *BASELINES]
    ladder = [tokens(40), seconds(0.5)]
    folder.mkdir(exist_ok=True)
    problems = [problem(i) for i in range(48)]
    return Plan(folder, arms, ladder, problems[:16], problems[16:], trials, seed=0, concurrency=8)


async def whole(plan, backend):
    best = await tune(plan, backend, lambda told: None)
    rows, blocks = held_out(plan, best)
    try:
        await measure(plan, backend, blocks, rows.add)
    finally:
        rows.close()
    return best, rows.rows


async def test_a_run_finds_measures_and_writes_and_one_that_was_stopped_does_the_same(tmp_path):
    plan = plan_in(tmp_path / "whole")
    best, rows = await whole(plan, PlantedBackend(planted))
    summary = write(plan, best, rows, {"command": "ramify tune"})
    cut, searched = plan_in(tmp_path / "cut"), 6 * 3 * 16
    for stop_after in (100, searched + 20):  # in a trial, and on the held-out problems
        with pytest.raises(Killed):
            await whole(cut, PlantedBackend(planted, stop_after=stop_after))
    again, resumed = await whole(cut, PlantedBackend(planted))
    assert again == best
    assert len(resumed) == len(rows) == 6 * 32
    leads = {(d.baseline, d.budget): d.estimate.mean for d in summary.differences if d.group == "all"}
    assert leads["best_of_n", tokens(40)] > 0.1
    assert leads["self_consistency", seconds(0.5)] > 0.3


async def test_the_results_can_be_served_and_evaluated(tmp_path):
    plan = plan_in(tmp_path)
    best, rows = await whole(plan, PlantedBackend(planted))
    write(plan, best, rows, {"command": "ramify tune"})
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(one["arm"], one["trials"]) for one in results["found"]][:3] == [
        ("search", 3),
        ("best_of_n", 3),
        ("self_consistency", 3),
    ]
    entries = tomllib.loads((tmp_path / "search.toml").read_text())["search"]
    assert tuple(SearchDefaults(**entry) for entry in entries) == defaults_of(searches(plan, best))
    assert [m.name for m in load_methods(tmp_path / "methods.toml")][:2] == ["search@40", "best_of_n@40"]
    assert (tmp_path / "accuracy.svg").stat().st_size > 0


async def test_a_release_is_published_with_what_was_found(tmp_path):
    plan = plan_in(tmp_path / "out")
    best = await tune(plan, PlantedBackend(planted), lambda told: None)
    release = load_release(shipped(), verify=False)
    new = publish_with(release, tmp_path / "releases", defaults_of(searches(plan, best)))
    assert new.manifest.search == defaults_of(searches(plan, best))
    assert new.manifest.parent == release.id
    assert {n: f.sha256 for n, f in new.manifest.files.items()} == {
        n: f.sha256 for n, f in release.manifest.files.items()
    }


def test_a_run_goes_on_only_under_its_own_settings(tmp_path):
    claim(tmp_path / "run", {"seed": 0, "budgets": ["300"]}, resume=False)
    claim(tmp_path / "run", {"seed": 0, "budgets": ["300"]}, resume=True)
    with pytest.raises(FileExistsError, match="--resume goes on"):
        claim(tmp_path / "run", {"seed": 0, "budgets": ["300"]}, resume=False)
    with pytest.raises(FileExistsError, match=r"another run \(seed differ\)"):
        claim(tmp_path / "run", {"seed": 1, "budgets": ["300"]}, resume=True)
