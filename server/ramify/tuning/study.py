"""Trials of one arm under one budget, kept on disk so that a study that was stopped goes on.

The same arguments give the same trials, whether or not the study was stopped in between: the sampler's seed is that of
the number of trials that have ended, and a trial that was cut short is begun again. (The searches themselves are as
repeatable as the engines and the clock let them be.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from ramify.evaluation.budgets import Budget
from ramify.evaluation.methods import Method
from ramify.evaluation.rows import Row
from ramify.evaluation.runner import BLOCK, Backend, Job, SearchFailed, run
from ramify.rewards.verifier import Example
from ramify.search.tree import derive_seed
from ramify.statistics import upper_bound
from ramify.tuning.space import starts, suggest

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
RANDOM = 10
"""Trials, those that a study begins with among them, before the sampler trusts what it has seen; at most a third of
all. The others of them are drawn at random."""
RIGHT = "right"
"""The attribute of a trial that says how its problems went, a letter each: `1` right, `0` wrong, `-` not asked."""
LEAST = 16
"""Problems before which no trial is given up."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Algorithms that are tuned as one method."""

    name: str
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial that has ended, and how its study stands."""

    study: str
    trial: int
    right: float
    """Share of the problems that it was tried on."""
    problems: int
    pruned: bool
    best: int
    """The best trial so far."""
    best_right: float


BASELINES = (Arm("best_of_n", ("best_of_n",)), Arm("self_consistency", ("self_consistency",)))
"""The flat methods that every search has to beat, each at its own best."""


def storage(path: Path) -> BaseStorage:
    """Open the SQLite file that holds the studies."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return RDBStorage(f"sqlite:///{path}")


class PairedPruner(BasePruner):
    """Gives a trial up if its lead over the best finished one is below 0 with 95 % confidence.

    All trials see the same problems in the same order with the same seeds. So what makes a problem hard cancels, and a
    trial that is a good deal worse shows within a few dozen problems. The bound is the upper end of the one-sided 95 %
    bootstrap interval of the mean difference (`ramify.statistics`). Optuna's WilcoxonPruner is made for the same and
    needs SciPy; of answers that are right or wrong both say nearly the same.
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not finished:
            return False
        best = max(finished, key=lambda one: (one.value or 0.0, -one.number))
        lead = [
            int(ours) - int(theirs)
            for ours, theirs in zip(trial.user_attrs[RIGHT], best.user_attrs[RIGHT], strict=False)
            if "-" not in (ours, theirs)
        ]
        return len(lead) >= LEAST and upper_bound(lead) < 0


@dataclass(frozen=True, slots=True)
class Tuner:
    """Runs studies on one backend and one set of problems."""

    backend: Backend
    problems: Sequence[Example]
    storage: BaseStorage
    trials: int
    """Trials of each study, those that were pruned included."""
    seed: int
    """Seed of the searches and of the sampler."""
    concurrency: int
    """Problems searched at once."""

    async def tune(self, arm: Arm, budget: Budget, observe: Callable[[Ended], None]) -> Study:
        """Run the trials that are left, and hand each to `observe` once it has ended. Raises `SearchFailed`."""
        study = self.study(arm, budget)
        for cut in study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING)):
            study.tell(cut.number, state=TrialState.FAIL)  # it is begun again below, as another trial
        first = starts(arm.algorithms)
        while (done := _done(study)) < self.trials:
            study.sampler = self._sampler(study.study_name, done)
            if done < len(first):
                study.enqueue_trial(first[done])
            trial = study.ask()
            await self._measure(study, trial, suggest(trial, arm.name, arm.algorithms), budget)
            observe(_told(study, study.trials[trial.number]))
        return study

    def done(self, arm: Arm, budget: Budget) -> int:
        """Return how many trials of a study have ended."""
        return min(_done(self.study(arm, budget)), self.trials)

    def study(self, arm: Arm, budget: Budget) -> Study:
        """Return the study of an arm under a budget, with the trials that it has."""
        return optuna.create_study(
            storage=self.storage,
            study_name=f"{arm.name}@{budget}",
            direction="maximize",
            pruner=PairedPruner(),
            load_if_exists=True,
        )

    def _sampler(self, study: str, done: int) -> TPESampler:
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            return TPESampler(
                seed=derive_seed(self.seed, study, done) % 2**32,
                n_startup_trials=min(RANDOM, self.trials // 3),
                multivariate=True,
                group=True,  # which parameters there are depends on the algorithm
            )

    async def _measure(self, study: Study, trial: Trial, method: Method, budget: Budget) -> None:
        """Search the problems block by block, and give the trial up between two blocks if the pruner says so."""
        went: dict[int, str] = {}

        def note(rows: Sequence[Row]) -> None:
            for row in rows:
                went[row.problem] = "-" if row.refused is not None else str(int(row.correct))

        for block in self._blocks(method, budget):
            await run(self.backend, [block], seed=self.seed, concurrency=self.concurrency, observe=note)
            letters = "".join(went[index] for index in sorted(went))
            asked = len(letters) - letters.count("-")
            if not asked:
                raise SearchFailed(f"every one of the first {len(letters)} problems was refused")
            trial.set_user_attr(RIGHT, letters)
            trial.report(letters.count("1") / asked, step=len(letters))
            if len(letters) < len(self.problems) and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return
        study.tell(trial, letters.count("1") / asked)

    def _blocks(self, method: Method, budget: Budget) -> Iterator[list[Job]]:
        jobs = [Job(i, problem, (method,), (budget,)) for i, problem in enumerate(self.problems)]
        size = BLOCK * self.concurrency
        for first in range(0, len(jobs), size):
            yield jobs[first : first + size]


def _done(study: Study) -> int:
    return len(study.get_trials(deepcopy=False, states=ENDED))


def place(study: Study, trial: FrozenTrial) -> int:
    """Return a trial's place among those that ended, from 0: its number, had the study never been stopped."""
    return sum(one.number < trial.number for one in study.get_trials(deepcopy=False, states=ENDED))


def _told(study: Study, trial: FrozenTrial) -> Ended:
    best = study.best_trial
    return Ended(
        study=study.study_name,
        trial=place(study, trial),
        right=trial.value or 0.0,
        problems=len(trial.user_attrs[RIGHT]),
        pruned=trial.state is TrialState.PRUNED,
        best=place(study, best),
        best_right=best.value or 0.0,
    )
