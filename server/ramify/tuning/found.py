"""The best of each study: as search defaults, as methods to evaluate, and as a new release."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import Study, create_study
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from ramify.evaluation.budgets import Budget
from ramify.evaluation.methods import Method
from ramify.search.params import bounds
from ramify.tuning.space import suggest
from ramify.tuning.study import Arm, place
from ramify.weights import Details, Release, SearchDefaults, publish
from ramify.weights.search_defaults import Limit, toml_value

ENOUGH = 10
"""Trials below which nothing is said of what mattered."""


@dataclass(frozen=True, slots=True)
class Found:
    """The best trial of one study."""

    arm: str
    budget: Budget
    method: Method
    """Named after the arm."""
    trial: int
    """Its place among the trials that ended, from 0."""
    right: float
    """Share of the tuning problems; the best of many, so better than it will be on others."""
    trials: int
    """Trials that ended."""
    pruned: int
    """Those of them that were given up."""
    importance: Mapping[str, float]
    """By parameter, its share in what tells the good trials from the others (PED-ANOVA, Watanabe et al. 2023); empty
    of too few trials."""

    @property
    def words(self) -> str:
        """The method in a line."""
        values = {**self.method.search, **self.method.sampling}
        named = ", ".join(f"{name} {value}" for name, value in values.items())
        return f"{self.method.algorithm}, {self.method.answer}, {named}"

    @property
    def defaults(self) -> SearchDefaults:
        """The method in the shape of a release's search defaults, for any budget."""
        search = {"algorithm": self.method.algorithm, "answer": self.method.answer, **self.method.search}
        return SearchDefaults(search=search, sampling=dict(self.method.sampling))


def found(study: Study, arm: Arm, budget: Budget) -> Found:
    """Return what a study found. It has at least one finished trial: its first is never pruned."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    best = max(finished, key=lambda trial: (trial.value or 0.0, -trial.number))
    return Found(
        arm=arm.name,
        budget=budget,
        method=suggested(best.params, arm),
        trial=place(study, best),
        right=best.value or 0.0,
        trials=len(finished) + len(pruned),
        pruned=len(pruned),
        importance=_importance([*finished, *pruned]),
    )


def _importance(trials: Sequence[FrozenTrial]) -> Mapping[str, float]:
    """Weigh the parameters. Trials that were given up count with what they had reached."""
    if len(trials) < ENOUGH or len({trial.value for trial in trials}) == 1:
        return {}
    study = create_study(direction="maximize")
    study.add_trials(
        create_trial(value=trial.value, params=trial.params, distributions=trial.distributions)
        for trial in trials
    )
    return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())


def suggested(params: Mapping[str, Any], arm: Arm) -> Method:
    """Return the method of a trial with these parameters."""
    return suggest(FixedTrial(dict(params)), arm.name, arm.algorithms)


def defaults_of(best: Sequence[Found]) -> tuple[SearchDefaults, ...]:
    """Return search defaults for every budget: each has those of the nearest budget that was tuned.

    Nearest by ratio: between two tuned budgets the border is their geometric mean. A request with a budget in seconds
    has those of seconds; if none were tuned, those of the tokens that its seconds are worth. best: of one arm, a budget
    each.
    """
    seconds, tokens = (
        sorted((f for f in best if f.budget.unit == unit), key=lambda f: f.budget)
        for unit in ("seconds", "tokens")
    )
    if not tokens:
        return (*_below_borders("seconds", seconds), seconds[-1].defaults)
    if seconds:
        _, most = bounds("budget.seconds") or (0, math.inf)
        clock = [*_below_borders("seconds", seconds), _up_to(seconds[-1], "seconds", most)]
    else:
        clock = _below_borders("seconds_worth", tokens)
    return (*clock, *_below_borders("tokens", tokens), tokens[-1].defaults)


def _below_borders(limit: Limit, ladder: Sequence[Found]) -> list[SearchDefaults]:
    """Return the defaults of all budgets but the largest, each up to its border with the next."""
    return [_up_to(lower, limit, _border(lower.budget, higher.budget)) for lower, higher in pairwise(ladder)]


def _up_to(one: Found, limit: Limit, most: float) -> SearchDefaults:
    return one.defaults.model_copy(update={"up_to": {limit: most}})


def _border(lower: Budget, higher: Budget) -> float:
    mean = math.sqrt(lower.amount * higher.amount)
    return float(f"{mean:.3g}") if lower.unit == "seconds" else round(mean)


def methods_toml(best: Sequence[Found]) -> str:
    """Write a file for `ramify eval --methods-file`: a method `ARM@BUDGET` for each."""
    tables = []
    for one in best:
        fields = {
            "name": f"{one.arm}@{one.budget}",
            "algorithm": one.method.algorithm,
            "answer": one.method.answer,
            "search": one.method.search,
            "sampling": one.method.sampling,
        }
        lines = [f"{key} = {toml_value(value)}" for key, value in fields.items() if value]
        tables.append("\n".join(["[[method]]", *lines]))
    return "\n\n".join(tables) + "\n"


def publish_with(release: Release, root: Path, search: tuple[SearchDefaults, ...]) -> Release:
    """Publish the same weights with these search defaults under `root`. Raises `WeightsError`."""
    details = {name: getattr(release.manifest, name) for name in Details.model_fields}
    details |= {"parent": release.id, "search": search}
    policy = release.adapter or release.policy_path
    return publish(root, policy, release.value_folder, Details(**details), base=release.base)
