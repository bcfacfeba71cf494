"""The search space: declared once, and nothing in it that a request could not say."""

import pytest
from optuna.trial import FixedTrial

from ramify.evaluation.budgets import Budget
from ramify.evaluation.methods import check
from ramify.search.algorithms import ALGORITHMS
from ramify.search.params import bounds, search_params
from ramify.tuning.space import DIMENSIONS, KNOWN, dimensions, starts, suggest


@pytest.mark.parametrize("dimension", DIMENSIONS, ids=lambda dimension: dimension.name)
def test_a_range_is_within_what_a_request_may_say(dimension):
    if dimension.group == "search" and not dimension.choices:
        low, high = bounds(dimension.field)
        assert low <= dimension.low < dimension.high <= high
    assert any(dimension.applies(algorithm) for algorithm in ALGORITHMS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_study_begins_with_the_algorithm_as_it_is(algorithm):
    params, *others = starts([algorithm])
    for other, known in zip(others, KNOWN.get(algorithm, ()), strict=True):
        method = suggest(FixedTrial(other), "search", [algorithm])
        check(method)
        said = {"search.answer": method.answer}
        said |= {
            f"{group}.{k}": v for group in ("search", "sampling") for k, v in getattr(method, group).items()
        }
        assert known.items() <= said.items()
    method = suggest(FixedTrial(params), "search", [algorithm])
    check(method)
    plain, asked = search_params(algorithm), method.params(Budget("tokens", 100))
    assert (method.algorithm, method.answer) == (algorithm, plain.answer)
    fields = [d.field for d in dimensions(algorithm) if d.group == "search" and d.field != "answer"]
    assert {f: getattr(asked, f) for f in fields} == {f: getattr(plain, f) for f in fields}
    assert method.sampling == {"temperature": 1.0, "top_p": 1.0}


def test_each_algorithm_has_its_own_parameters():
    names = {algorithm: {d.field for d in dimensions(algorithm)} for algorithm in ALGORITHMS}
    assert {"kappa", "kappa_growth", "abandon", "abandon_below", "width", "answer", "parallel"} <= names[
        "mcts"
    ]
    assert {"considered", "c_scale"} <= names["gumbel"]
    assert not {"kappa", "width"} & names["gumbel"]
    assert names["best_of_n"] == {"temperature", "top_p", "answer", "parallel"}
    assert names["self_consistency"] == {"temperature", "top_p", "parallel"}


def test_a_parameter_may_be_left_out():
    params, *_ = starts(["mcts"])
    grown = suggest(
        FixedTrial(params | {"search.kappa_growth given": True, "search.kappa_growth": 3.0}), "s", ["mcts"]
    )
    assert grown.search["kappa_growth"] == 3.0
    assert "kappa_growth" not in suggest(FixedTrial(params), "s", ["mcts"]).search


def test_a_parameter_is_tuned_where_the_one_that_it_belongs_to_is_chosen():
    params, *_ = starts(["mcts"])
    for chosen in (False, True):
        trial = FixedTrial(params | {"search.abandon": chosen, "search.abandon_below": 0.1})
        method = suggest(trial, "s", ["mcts"])
        check(method)
        assert method.search.get("abandon_below") == (0.1 if chosen else None)


def test_draws_without_replacement_are_tried_with_the_whole_distribution():
    _, known, *_ = starts(["mcts"])
    for replacement, nucleus in ((False, 1.0), (True, 0.9)):
        chosen = {"search.replacement": replacement, "sampling.top_p": 0.9, "search.answer": "orm_vote"}
        method = suggest(FixedTrial(known | chosen), "s", ["mcts"])
        check(method)
        assert method.search["replacement"] is replacement
        # beside a smaller nucleus they would be with replacement
        assert method.sampling.get("top_p", 1.0) == nucleus


def test_what_a_parameter_has_an_effect_beside_comes_before_it():
    names = [dimension.name for dimension in DIMENSIONS]
    bound = [dimension for dimension in DIMENSIONS if dimension.beside]
    assert bound
    for dimension in bound:
        for name in dimension.beside:
            assert names.index(f"search.{name}") < names.index(dimension.name)
