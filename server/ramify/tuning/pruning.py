"""Pruning by pairs: a trial is given up once it is clearly below the best one on the problems that both have done.

All trials see the same problems in the same order with the same seeds. So what makes a problem hard cancels, and a
trial that is a good deal worse shows within a few dozen problems. The bound is the upper end of the one-sided 95 %
bootstrap interval of the mean difference (`ramify.statistics`). Optuna's WilcoxonPruner is made for the same and needs
SciPy; of answers that are right or wrong both say nearly the same.
"""

from __future__ import annotations

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ramify.statistics import upper_bound

RIGHT = "right"
"""The attribute of a trial that says how its problems went, a letter each: `1` right, `0` wrong, `-` not asked."""
LEAST = 16
"""Problems before which no trial is given up."""


class PairedPruner(BasePruner):
    """Gives a trial up if its lead over the best finished one is below 0 with 95 % confidence."""

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
