"""Studies on a backend whose best parameters are known."""

import math

import pytest

from fakes_evaluation import Killed, PlantedBackend, problem, seconds, tokens
from ramify.evaluation.methods import load_methods
from ramify.evaluation.runner import SearchFailed
from ramify.search.records import Action, BudgetLimits
from ramify.tuning.found import defaults_of, found, methods_toml
from ramify.tuning.space import starts
from ramify.tuning.study import RIGHT, Arm, Tuner, storage
from ramify.weights import check_search_defaults, for_budget

pytestmark = pytest.mark.anyio

ARM = Arm("search", ("mcts", "gumbel"))
PROBLEMS = [problem(i) for i in range(48)]
FEW = tokens(40)


def planted(method, budget):
    """Best: `mcts` at temperature 0.7 with a kappa of 1."""
    miss = abs(method.sampling["temperature"] - 0.7) + (0.3 if method.algorithm != "mcts" else 0)
    return 0.95 - miss - 0.2 * abs(math.log(method.search.get("kappa", 1.0)))


def tuner(folder, backend=None, trials=8, seed=0):
    folder.mkdir(exist_ok=True)
    return Tuner(backend or PlantedBackend(planted), PROBLEMS, storage(folder / "t.db"), trials, seed, 8)


async def tuned(one, budget=FEW):
    told = []
    return await one.tune(ARM, budget, told.append), told


def trials_of(study):
    return [
        (trial.params, trial.state, trial.user_attrs[RIGHT])
        for trial in study.trials
        if RIGHT in trial.user_attrs
    ]


async def test_a_study_finds_a_planted_optimum_and_gives_bad_trials_up(tmp_path):
    study, told = await tuned(tuner(tmp_path, trials=30))
    best = found(study, ARM, FEW)
    assert best.method.algorithm == "mcts"
    assert abs(best.method.sampling["temperature"] - 0.7) < 0.15
    assert best.right > study.trials[0].value + 0.15
    assert best.trials == len(told) == 30
    assert best.pruned == sum(one.pruned for one in told) > 5
    assert all(one.problems < 48 for one in told if one.pruned)
    assert sum(best.importance.values()) == pytest.approx(1)


async def test_a_study_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path):
    whole, _ = await tuned(tuner(tmp_path / "whole"))
    for searches in (0, 20, 100):  # at once, within the first trial, and within a later one
        with pytest.raises(Killed):
            await tuned(tuner(tmp_path / "cut", PlantedBackend(planted, stop_after=searches)))
    resumed, told = await tuned(tuner(tmp_path / "cut"))
    assert 0 < len(told) < 8
    assert [trial for trial in trials_of(resumed) if trial[1].name != "FAIL"] == trials_of(whole)


async def test_another_seed_tries_others(tmp_path):
    first = len(starts(ARM.algorithms))  # the algorithms as they are, and as they suited other tasks
    one, other = [
        [params for params, *_ in trials_of(study)]
        for study, _ in [
            await tuned(tuner(tmp_path / str(seed), trials=first + 1, seed=seed)) for seed in (0, 1)
        ]
    ]
    assert one[:first] == other[:first]
    assert one[first] != other[first]


async def test_more_trials_go_on_with_those_that_are_there(tmp_path):
    await tuned(tuner(tmp_path, trials=6))
    study, told = await tuned(tuner(tmp_path, trials=9))
    assert len(told) == 3
    assert found(study, ARM, FEW).trials == 9
    assert found(study, ARM, FEW).importance == {}


async def test_a_refused_problem_counts_for_no_trial(tmp_path):
    study, _ = await tuned(tuner(tmp_path, PlantedBackend(planted, refuse=3), trials=4))
    assert {trial.user_attrs[RIGHT][3] for trial in study.trials} == {"-"}
    letters = study.trials[0].user_attrs[RIGHT]
    assert study.trials[0].value == letters.count("1") / 47


async def test_a_data_set_of_which_everything_is_refused_ends_the_run(tmp_path):
    one = tuner(tmp_path, PlantedBackend(planted, refuse=0))
    with pytest.raises(SearchFailed, match="every one of the first 1 problems was refused"):
        await tuned(Tuner(one.backend, PROBLEMS[:1], one.storage, 4, 0, 8))


async def test_what_was_found_is_a_function_of_the_budget(tmp_path):
    def warmer(method, budget):
        wanted = {40: 0.6, 400: 1.2, 1: 0.9}[budget.amount]
        return 0.9 - abs(method.sampling["temperature"] - wanted)

    one = tuner(tmp_path, PlantedBackend(warmer), trials=5)
    best = [found((await tuned(one, b))[0], ARM, b) for b in (tokens(40), tokens(400), seconds(1))]
    entries = defaults_of(best)
    check_search_defaults(entries, Action(stop=("\n",)))
    assert [entry.up_to for entry in entries] == [{"seconds": 86_400}, {"tokens": 126}, None]
    few, many, clock = (one.method.sampling["temperature"] for one in best)
    for limits, temperature in (
        ({"tokens": 100}, few),
        ({"tokens": 200}, many),
        ({"seconds": 9.0}, clock),
        ({}, many),
    ):
        assert for_budget(entries, BudgetLimits(**limits)).sampling["temperature"] == temperature

    # Of seconds alone, and of tokens alone: then seconds go by what they are worth.
    (entry,) = defaults_of(best[2:])
    assert (entry.up_to, entry.sampling["temperature"]) == (None, clock)
    entries = defaults_of(best[:2])
    check_search_defaults(entries, Action(stop=("\n",)))
    assert [entry.up_to for entry in entries] == [{"seconds_worth": 126}, {"tokens": 126}, None]
    for worth, temperature in ((100, few), (200, many), (None, many)):
        held = for_budget(entries, BudgetLimits(seconds=9.0), lambda seconds, most, worth=worth: worth)
        assert held.sampling["temperature"] == temperature


async def test_what_was_found_can_be_evaluated(tmp_path):
    best = [found((await tuned(tuner(tmp_path, trials=4), b))[0], ARM, b) for b in (tokens(40), seconds(1))]
    path = tmp_path / "methods.toml"
    path.write_text(methods_toml(best))
    read = load_methods(path)
    assert [method.name for method in read] == ["search@40", "search@1s"]
    assert [(m.search, m.sampling) for m in read] == [(o.method.search, o.method.sampling) for o in best]
