"""Whether a value model got worse: its AUC and its Brier score against another's, on the same texts.

Texts of one problem hang together, so the bootstrap draws problems: every resample gives each problem a weight, and
with it all of that problem's texts. Both models are judged under the same weights, so the comparison is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramify_trainer.gating import Comparison

__all__ = ["ValuePredictions", "compared"]

RESAMPLES = 1_000
CHUNK = 100
"""Resamples at once: memory."""
BINS = 10
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ValuePredictions:
    """What a value model says of n texts."""

    problem: NDArray[np.int64]
    """[n], numbered from 0."""
    value: Floats
    """[n], in [0, 1]."""
    outcome: Floats
    """[n], of the answer that the text became; 0 or 1."""
    finished: NDArray[np.bool_]
    """[n], whether the text is a whole answer, else one up to the end of a step."""

    def figures(self) -> dict[str, float]:
        """`value_auc` and `value_brier` (mean square error), and `value_calibration_error` over ten bins, of finished
        answers; `value_auc_steps`. An AUC is left out where all answers are right, or all wrong."""
        one = np.ones((1, int(self.problem.max(initial=0)) + 1))
        found = {
            "value_auc": _auc(self, one, self.finished)[0],
            "value_auc_steps": _auc(self, one, ~self.finished)[0],
            "value_brier": _brier(self, one)[0],
            "value_calibration_error": self._calibration_error(),
        }
        return {name: float(x) for name, x in found.items() if np.isfinite(x)}

    def _calibration_error(self) -> float:
        """Mean distance of value and outcome over equally wide bins, weighted by their size."""
        value, outcome = self.value[self.finished], self.outcome[self.finished]
        if not len(value):
            return float("nan")
        which = np.minimum((value * BINS).astype(int), BINS - 1)
        gaps = np.bincount(which, weights=value - outcome, minlength=BINS)
        return float(np.abs(gaps).sum() / len(value))


def compared(
    against: str, ours: ValuePredictions, theirs: ValuePredictions, margin: float, seed: int
) -> list[Comparison]:
    """How much better `ours` is than `theirs`: AUC of finished answers, AUC after steps, and how much lower the Brier
    score is. A figure that cannot be told (no right answer, or no wrong one) is left out.

    Raises `ValueError` where the two judged other texts."""
    if not (np.array_equal(ours.problem, theirs.problem) and np.array_equal(ours.finished, theirs.finished)):
        raise ValueError(f"the candidate's value model and that of the {against} judged other texts")
    problems = int(ours.problem.max(initial=0)) + 1
    found = []
    for figure, of in GATED.items():
        whole = np.ones((1, problems))
        difference = float((of(ours, whole) - of(theirs, whole))[0])
        if np.isfinite(difference):
            differences = [of(ours, w) - of(theirs, w) for w in _resamples(problems, seed)]
            high = float(np.nanpercentile(np.concatenate(differences), 95))
            found.append(Comparison(against, figure, difference, high, margin))
    return found


def _resamples(problems: int, seed: int) -> Iterator[Floats]:
    """Weights [CHUNK, problems], several times."""
    random = np.random.default_rng(seed)
    for _ in range(RESAMPLES // CHUNK):
        yield random.multinomial(problems, np.full(problems, 1 / problems), size=CHUNK).astype(float)


def _auc(judged: ValuePredictions, weights: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """[R], the chance that a right text is valued above a wrong one, ties half, under weights [R, problems]; NaN where
    there are none of either."""
    by_text, value = weights[:, judged.problem[chosen]], judged.value[chosen]
    right = judged.outcome[chosen] > 0.5
    good, bad = np.flatnonzero(right), np.flatnonzero(~right)
    bad = bad[np.argsort(value[bad], kind="stable")]
    below = np.pad(np.cumsum(by_text[:, bad], axis=1), ((0, 0), (1, 0)))
    first, last = (np.searchsorted(value[bad], value[good], side=side) for side in ("left", "right"))
    won = by_text[:, good] * (below[:, first] + below[:, last]) / 2
    with np.errstate(invalid="ignore"):
        found: Floats = won.sum(axis=1) / (by_text[:, good].sum(axis=1) * below[:, -1])
    return found


def _brier(judged: ValuePredictions, weights: Floats) -> Floats:
    """[R], mean squared error of finished answers; NaN where there are none."""
    by_text = weights[:, judged.problem[judged.finished]]
    errors = (judged.value - judged.outcome)[judged.finished] ** 2
    with np.errstate(invalid="ignore"):
        found: Floats = (by_text * errors).sum(axis=1) / by_text.sum(axis=1)
    return found


GATED: Mapping[str, Callable[[ValuePredictions, Floats], Floats]] = {
    "value_auc": lambda judged, weights: _auc(judged, weights, judged.finished),
    "value_auc_steps": lambda judged, weights: _auc(judged, weights, ~judged.finished),
    "value_brier": lambda judged, weights: -_brier(judged, weights),
}
"""What is compared: more is better."""
