"""Parameters: what does nothing is refused, what is accepted does something."""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any

import pytest

from departing_fake import DepartingFake
from fakes import FakePolicy, FakeTask, letters
from ramify.search.algorithms import ALGORITHMS
from ramify.search.params import (
    PARAMS,
    ParamError,
    bounds,
    check_sampling,
    choices,
    over_defaults,
    repeats,
    sampling_params,
    search_params,
    without_cuts,
)
from ramify.search.records import Action, BudgetLimits, Sampling, SearchParams
from search_worlds import (
    CHUNK,
    ONE_AT_A_TIME,
    TOKEN,
    lines,
    parity,
    ran,
    rule_for,
    shape,
    variants,
)
from search_worlds import STEP as LINE

EVERYONE = sorted(ALGORITHMS)


def refusal(**given: Any) -> tuple[str, str]:
    with pytest.raises(ParamError) as refused:
        search_params(**given)
    return refused.value.field, refused.value.message


@pytest.mark.parametrize("algorithm", EVERYONE)
def test_every_algorithm_has_defaults_that_are_allowed(algorithm: str):
    params = search_params(algorithm)
    assert params.algorithm == algorithm
    for name, value in ALGORITHMS[algorithm].defaults.items():
        assert getattr(params, name) == value


@pytest.mark.parametrize("algorithm", EVERYONE)
def test_a_parameter_that_an_algorithm_does_not_have_is_refused_by_name(algorithm: str):
    for field in {f.name for f in fields(SearchParams)} - ALGORITHMS[algorithm].parameters:
        value = getattr(SearchParams(), field)
        assert refusal(algorithm=algorithm, **{field: value}) == (
            field,
            f"has no effect with algorithm {algorithm!r}",
        )


def test_an_unknown_parameter_is_refused_by_name():
    assert refusal(simulation=3) == ("simulation", "no such search parameter")


def test_an_unknown_algorithm_names_the_known_and_the_nearest():
    field, message = refusal(algorithm="mtcs")
    assert field == "algorithm"
    assert "'mtcs' is none of mcts, gumbel" in message
    assert message.endswith("did you mean 'mcts'?")
    assert "did you mean" not in refusal(algorithm="zzzzzz")[1]
    assert refusal(algorithm=["mcts"])[0] == "algorithm"


def test_an_error_does_not_echo_what_is_long():
    assert len(refusal(algorithm="m" * 10**6)[1]) < 400
    assert len(refusal(answer="m" * 10**6)[1]) < 400


@pytest.mark.parametrize(
    ("needs", "field", "given"),
    [
        ("select is 'thompson'", "kappa", {"select": "puct", "kappa": 2.0}),
        ("select is 'thompson'", "kappa_growth", {"select": "puct", "kappa_growth": 2.0}),
        ("select is 'thompson'", "abandon", {"select": "puct", "abandon": True}),
        ("expand is 'path'", "abandon", {"expand": "step", "abandon": True}),
        ("abandon is true", "abandon_below", {"abandon_below": 0.1}),
        ("select is 'thompson'", "replacement", {"select": "puct", "replacement": False}),
        ("expand is 'path' or widen is true", "replacement", {"expand": "step", "replacement": False}),
        ("select is 'puct'", "c_init", {"c_init": 1.0}),
        ("select is 'puct'", "c_base", {"c_base": 9.0}),
        ("select is 'puct'", "prior", {"prior": "count"}),
        ("select is 'puct'", "dirichlet_fraction", {"dirichlet_fraction": 0.1}),
        ("select is 'puct'", "dirichlet_alpha", {"dirichlet_alpha": 0.1}),
        ("dirichlet_fraction is above 0", "dirichlet_alpha", {"select": "puct", "dirichlet_alpha": 0.1}),
        ("commit is 'step'", "tau", {"tau": 1.0}),
        ("expand is 'step'", "leaf", {"leaf": "value"}),
        ("expand is 'step'", "widen", {"widen": False}),
        ("grader is 'mixed'", "verifier_weight", {"grader": "verifier", "verifier_weight": 0.1}),
        ("leaf is 'mixed'", "rollout_weight", {"expand": "step", "leaf": "rollout", "rollout_weight": 0.1}),
        ("prior is 'mean_logprob' or 'sum_logprob'", "prior_temperature",
         {"select": "puct", "prior_temperature": 2.0}),
        ("early_stop is 'posterior'", "early_stop_threshold",
         {"early_stop": "unbeatable", "early_stop_threshold": 0.9}),
        ("expand is 'step'", "width", {"algorithm": "gumbel", "width": 4}),
    ],
)  # fmt: skip
def test_a_parameter_without_effect_beside_the_others_says_what_it_needs(
    needs: str, field: str, given: dict[str, Any]
):
    refused, message = refusal(**given)
    assert refused == field
    assert message.startswith("has no effect")
    assert message.endswith(f"unless {needs}")


@pytest.mark.parametrize(
    "given",
    [
        {"answer": "majority"},
        {"answer": "orm_vote", "early_stop": "unbeatable"},
        {"answer": "orm_vote", "early_stop": "posterior"},
    ],
)
def test_rules_that_count_draws_want_them_with_replacement(given: dict[str, Any]):
    refused, message = refusal(**given, replacement=False)
    assert refused == "replacement"
    assert "counts how often" in message
    # a release's default gives way
    defaults = {"replacement": False, "answer": "orm_max"}
    params, used = over_defaults("mcts", defaults, given, judged=True)
    assert params.replacement
    assert used == {}


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("prior", {"algorithm": "rap", "prior": "sum_logprob", "action": TOKEN}),
        ("action.kind", {"algorithm": "mcts", "action": TOKEN}),
        ("action.kind", {"algorithm": "gumbel", "action": TOKEN}),
        ("widen", {"algorithm": "mcts", "expand": "step", "widen": True, "action": TOKEN}),
        ("early_stop", {"early_stop": "verified"}),
        ("early_stop", {"early_stop": "unbeatable", "answer": "orm_max"}),
        ("early_stop", {"early_stop": "posterior", "answer": "most_visited"}),
        ("action.stop", {"action": Action("step", ())}),
        ("action.stop", {"action": Action("step", ("",))}),
        ("action.stop", {"action": Action("step", ("x" * 129,))}),
        ("action.stop", {"action": Action("step", ("x",) * 9)}),
        ("widen", {"expand": "step", "widen": "no"}),
        *[("answer", {"algorithm": name, "answer": "most_visited"})
          for name in EVERYONE if name not in ("mcts", "gumbel", "rap")],
    ],
)  # fmt: skip
def test_what_cannot_be_together_is_refused(field: str, given: dict[str, Any]):
    assert refusal(**given)[0] == field


@pytest.mark.parametrize("stops", [("",), ("x" * 129,), ("x",) * 65], ids=["empty", "too long", "too many"])
def test_the_stop_strings_of_an_answer_have_bounds(stops: tuple[str, ...]):
    check_sampling(search_params(), Sampling(stop=("x" * 128,) * 64))
    with pytest.raises(ParamError, match=r"sampling\.stop"):
        check_sampling(search_params(), Sampling(stop=stops))


def beside(name: str) -> dict[str, Any]:
    """An algorithm that has the parameter, and what it needs beside it."""
    algorithm = next(a for a in ("mcts", "gumbel", "beam", "dfs") if name in ALGORITHMS[a].parameters)
    needed = {
        **{key: {"select": "puct"} for key in ("c_init", "c_base", "prior", "dirichlet_fraction")},
        "dirichlet_alpha": {"select": "puct", "dirichlet_fraction": 0.1},
        "prior_temperature": {"select": "puct", "prior": "sum_logprob"},
        "tau": {"commit": "step"},
        "leaf": {"expand": "step"},
        "rollout_weight": {"expand": "step", "leaf": "mixed"},
        "verifier_weight": {"grader": "mixed"},
        "early_stop_threshold": {"early_stop": "posterior"},
        "abandon_below": {"abandon": True},
    }
    return {"algorithm": algorithm, **needed.get(name, {})}


def with_value(name: str, value: object) -> dict[str, Any]:
    if name.startswith("action."):
        return {"action": Action(**{name.removeprefix("action."): value})}  # type: ignore[arg-type]
    if name.startswith("budget."):
        return {"budget": BudgetLimits(**{name.removeprefix("budget."): value})}  # type: ignore[arg-type]
    return {**beside(name), name: value}


@pytest.mark.parametrize("name", list(filter(bounds, PARAMS)))
def test_bounds_are_inclusive_and_kept(name: str):
    low, high = bounds(name) or (0, 0)
    for value in (low, high):
        search_params(**with_value(name, value))
    for bad in (low - 1e-4, high * 1.01 + 1, float("nan"), float("inf"), True, "3"):
        assert refusal(**with_value(name, bad))[0] == name


@pytest.mark.parametrize("name", ["width", "parallel", "max_depth", "budget.simulations", "budget.tokens"])
def test_half_a_draw_is_refused(name: str):
    field, message = refusal(**with_value(name, 2.5))
    assert (field, message.split(" from ")[0]) == (name, "2.5 is not an integer")


@pytest.mark.parametrize("name", list(filter(choices, PARAMS)))
def test_a_choice_that_does_not_exist_is_refused_by_name(name: str):
    field, message = refusal(**({"algorithm": "x"} if name == "algorithm" else with_value(name, "x")))
    assert field == name
    assert message.startswith("'x' is none of ")


def test_a_budget_below_one_answer_is_refused():
    params = search_params(budget=BudgetLimits(tokens=63))
    with pytest.raises(ParamError, match=r"budget\.tokens: is 63, below sampling\.max_tokens \(64\)"):
        check_sampling(params, Sampling(max_tokens=64))
    check_sampling(params, Sampling(max_tokens=63))
    check_sampling(search_params(), Sampling(max_tokens=10**6))


def test_simulations_that_nobody_named_are_64_alone_and_no_limit_beside_another():
    assert BudgetLimits().simulations == 64
    for other in ({"tokens": 100}, {"seconds": 1.0}, {"nodes": 5}):
        assert BudgetLimits(**other).simulations == 100_000
        assert BudgetLimits(simulations=7, **other).simulations == 7


def test_a_search_that_was_told_what_is_right_stops_there_unless_it_is_told_to_go_on():
    assert search_params().early_stop == "off"
    assert search_params(grader="verifier").early_stop == "verified"
    assert search_params(grader="verifier", early_stop="off").early_stop == "off"


GREEDY: list[dict[str, Any]] = [
    {"algorithm": "best_of_n", "budget": BudgetLimits(simulations=1)},
    {"algorithm": "self_consistency", "budget": BudgetLimits(simulations=1)},
    {"width": 1, "budget": BudgetLimits(simulations=1)},
    {"algorithm": "gumbel", "considered": 1, "budget": BudgetLimits(simulations=1)},
    {"width": 1, "expand": "step"},
    {"algorithm": "beam", "width": 1},
    {"algorithm": "dvts", "width": 1, "beam_width": 1},
    {"algorithm": "dfs", "width": 1, "threshold": 0.0},
    {"algorithm": "rap", "width": 1},
    {"algorithm": "particle", "beam_width": 1},
    *[params for params in variants() if params.get("action") is TOKEN],
]
"""Searches that mean something at temperature 0."""


@pytest.mark.parametrize("params", GREEDY)
def test_a_search_that_may_be_greedy_draws_nothing_twice(params: dict[str, Any]):
    given = {"budget": BudgetLimits(simulations=12), **params}
    check_sampling(search_params(**given), Sampling(temperature=0))
    found = ran(rule_for(params), sampling=Sampling(temperature=0, max_tokens=12), **given, **ONE_AT_A_TIME)
    drawn = [text for text, _, n in found.policy.requests for _ in range(n)]
    if (
        params.get("leaf") is None or params.get("action") is not TOKEN
    ):  # rollouts of two tokens may be written alike
        assert len(drawn) == len(set(drawn))
    assert found.tree.answer is not None


@pytest.mark.parametrize(
    ("field", "sampling"), [("temperature", {"temperature": 0}), ("top_k", {"top_k": 1})]
)
@pytest.mark.parametrize("params", [p for p in variants() if p.get("action") is not TOKEN])
def test_a_search_that_would_draw_one_answer_again_and_again_is_refused(
    params: dict[str, Any], field: str, sampling: dict[str, Any]
):
    with pytest.raises(ParamError) as refused:
        check_sampling(search_params(**params), Sampling(**sampling))
    assert refused.value.field == f"sampling.{field}"
    check_sampling(search_params(**params), Sampling())


def test_one_step_at_a_time_repeats_if_it_draws_afresh_or_rolls_out():
    chain: dict[str, Any] = {"width": 1, "expand": "step"}
    assert not repeats(search_params(**chain))
    assert repeats(search_params(**chain, widen=True))
    assert repeats(search_params(**chain, leaf="mixed"))


@pytest.mark.parametrize(
    ("action", "depth"), [(LINE, 100), (TOKEN, 100), (CHUNK, 50), (Action("chunk", (), 64), 2)]
)
def test_the_default_depth_is_that_of_the_longest_answer(action: Action, depth: int):
    params = search_params(action=action, expand="step")
    assert without_cuts(params, Sampling(max_tokens=100)).max_depth == depth


def test_the_default_depth_is_bounded_and_leaves_flat_searches_alone():
    assert without_cuts(search_params(), Sampling(max_tokens=10**6)).max_depth == 4096
    flat = search_params("best_of_n")
    assert without_cuts(flat, Sampling(max_tokens=100)) == flat


def test_an_answer_of_as_many_steps_as_tokens_is_not_cut():
    # a step for each of 99 line breaks, and the end
    sampling = Sampling(max_tokens=100)
    params = {"action": LINE, "max_depth": without_cuts(search_params(action=LINE), sampling).max_depth}
    tree = ran(
        letters({"": 1.0}, 99), sampling=sampling, budget=BudgetLimits(simulations=1), width=1, **params
    ).tree
    assert tree.truncated == 0
    assert tree.nodes[-1].depth == 100


PUCT = {"select": "puct"}
STEP = {"expand": "step"}
EFFECTS: dict[str, list[tuple[dict[str, Any], Any, Any]]] = {
    "parallel": [({}, 1, 7)],
    "grader": [({}, "model", "verifier")],
    "answer": [({}, "orm_max", "majority")],
    "schedule": [({"parallel": 5}, "waves", "continuous")],
    "policies": [({}, (), ("policy",))],
    "early_stop": [({"grader": "verifier"}, "off", "verified")],
    "early_stop_threshold": [({"answer": "majority", "early_stop": "posterior"}, 0.6, 1.0)],
    "budget": [({}, BudgetLimits(simulations=3), BudgetLimits(simulations=20))],
    "action": [({}, Action("step", ("\n",), 4), Action("chunk", (), 1))],
    "width": [(STEP, 2, 5), ({}, 2, 5)],
    "max_depth": [({}, 2, 6)],
    "expand": [({}, "path", "step")],
    "widen": [(STEP, False, True)],
    "select": [({}, "puct", "thompson")],
    "kappa": [({"parallel": 1}, 0.05, 100.0)],
    "kappa_growth": [({"parallel": 1}, 1.5, 50.0)],
    "replacement": [({"answer": "orm_max"}, False, True)],
    "abandon": [({}, False, True)],
    "abandon_below": [({"abandon": True}, 0.01, 1.0)],
    "prior": [
        ({**PUCT, **STEP}, "count", "sum_logprob"),
        (STEP, "count", "sum_logprob"),
        ({}, "count", "sum_logprob"),
    ],
    "prior_temperature": [
        ({**PUCT, **STEP, "prior": "sum_logprob"}, 0.05, 100.0),
        ({**STEP, "prior": "sum_logprob"}, 0.05, 100.0),
        ({"prior": "sum_logprob"}, 0.05, 100.0),
    ],
    "leaf": [(STEP, "value", "rollout")],
    "rollout_weight": [({**STEP, "leaf": "mixed"}, 0.05, 0.95)],
    "verifier_weight": [({"grader": "mixed", "answer": "orm_vote"}, 0.05, 0.95)],
    "commit": [({}, "root", "step")],
    "tau": [({"commit": "step"}, 0.0, 100.0)],
    "c_init": [({**PUCT, **STEP}, 0.0, 20.0), ({}, 0.0, 20.0)],
    "c_base": [({**PUCT, **STEP}, 1.0, 1e9), ({}, 1.0, 1e9)],
    "dirichlet_alpha": [({**PUCT, **STEP, "dirichlet_fraction": 1.0}, 0.01, 50.0)],
    "dirichlet_fraction": [({**PUCT, **STEP}, 0.0, 1.0)],
    "considered": [({}, 1, 8)],
    "c_visit": [({"c_scale": 0.1}, 0.0, 1000.0)],
    "c_scale": [({}, 0.0, 10.0)],
    "gumbel_scale": [({"considered": 6, "c_scale": 0.0}, 0.0, 100.0)],
    "beam_width": [({}, 1, 5)],
    "threshold": [({}, 0.0, 0.45)],
}
"""For each parameter: what stands beside it (the first that the algorithm takes) and two values that must differ."""


def grown(algorithm: str, seed: int, given: dict[str, Any]) -> dict[str, Any]:
    """The whole tree but the parameters that it repeats; and when what landed, and how much ran at once."""
    params = {"budget": BudgetLimits(simulations=20), "schedule": "waves", "seed": seed, **given}
    task = FakeTask(lambda text: text.startswith("a"))
    kind = DepartingFake if "replacement" in given else FakePolicy
    policy = kind(lines, jitter=random.Random(seed))
    found = ran(policy=policy, value=parity, task=task, algorithm=algorithm, **params)
    landings = [progress.tokens for progress in found.seen]
    return {**shape(found.tree), "params": None, "landings": landings, "at once": policy.most_running}


@pytest.mark.parametrize(
    ("algorithm", "field"),
    [(algorithm, field) for algorithm in EVERYONE for field in sorted(ALGORITHMS[algorithm].parameters)],
)
def test_every_parameter_that_an_algorithm_has_changes_what_it_does(algorithm: str, field: str):
    if field == "algorithm":
        assert search_params(algorithm).algorithm == algorithm
        return
    context, one, other = next(
        (context, *values)
        for context, *values in EFFECTS[field]
        if all(_takes(algorithm, {**context, field: value}) for value in values)
    )
    assert any(
        grown(algorithm, seed, {**context, field: one}) != grown(algorithm, seed, {**context, field: other})
        for seed in range(6)
    )


def _takes(algorithm: str, given: dict[str, Any]) -> bool:
    try:
        search_params(algorithm, **given)
    except ParamError:
        return False
    return True


@pytest.mark.parametrize(
    ("defaults", "given", "used"),
    [
        ({"kappa": 0.9, "abandon": True}, {}, {"kappa": 0.9, "abandon": True}),
        ({"kappa": 0.9, "abandon": True}, {"kappa": 1.0}, {"abandon": True}),
        ({"kappa": 0.9, "kappa_growth": 3.0, "abandon": True}, {"select": "puct"}, {}),
        ({"kappa": 0.9, "abandon": True}, {"expand": "step"}, {"kappa": 0.9}),
        ({"kappa": 0.9, "abandon": True, "abandon_below": 0.1}, {"expand": "step"}, {"kappa": 0.9}),
        ({"kappa": 0.9, "abandon": True, "abandon_below": 0.1}, {"abandon": False}, {"kappa": 0.9}),
        ({"early_stop": "posterior", "early_stop_threshold": 0.9}, {"answer": "orm_max"}, {}),
        ({"early_stop": "posterior"}, {"grader": "verifier"}, {}),
    ],
)
def test_a_default_holds_if_it_is_not_named_and_has_an_effect_beside_what_is(
    defaults: dict[str, Any], given: dict[str, Any], used: dict[str, Any]
) -> None:
    params, held = over_defaults("mcts", defaults, given, judged=True)
    assert held == used
    assert params == search_params(**used, **given)


def test_defaults_excuse_no_mistake_of_what_is_given() -> None:
    with pytest.raises(ParamError, match=r"^kappa: 5000 is not a number"):
        over_defaults("mcts", {"abandon": True}, {"kappa": 5000}, judged=True)
    with pytest.raises(ParamError, match=r"^kappa: has no effect unless select is 'thompson'"):
        over_defaults("mcts", {"select": "puct"}, {"kappa": 1.0}, judged=True)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"temperature": 2.1}, "sampling.temperature: 2.1 is not a number from 0 to 2"),
        ({"top_p": 0}, "sampling.top_p: 0 is not a number from 1e-06 to 1"),
        ({"top_k": 1.5}, "sampling.top_k: 1.5 is not an integer"),
        ({"stop": [""]}, "sampling.stop: each string must have 1 to 128 characters"),
        ({"warmth": 1}, "sampling.warmth: no such sampling parameter"),
    ],
)
def test_sampling_is_refused_by_name_too(given: dict[str, Any], fault: str) -> None:
    with pytest.raises(ParamError) as caught:
        sampling_params(**given)
    assert str(caught.value).startswith(fault)
