"""Scores of a value on sampled answers, and whether they are better than another's.

A value model, or a policy with a value head, that is not served is asked at the end of each step of an answer, and of
the whole. Its AUC and its Brier score are compared with those of another on the same texts. Texts of one problem hang
together, so the bootstrap draws problems: every resample gives each problem a weight, and with it all of that problem's
texts. Both are judged under the same weights, so the comparison is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from ramify.search import records
from ramify.search.cutting import action_ends
from ramify.statistics import resampled_weights
from ramify.tokens import TokenText, plain_token, text_of
from ramify.weights import ModelFiles, Release, models_of
from ramify.weights.manifest import Action
from ramify_trainer.gate.decision import Comparison
from ramify_trainer.gate.policy_scores import PolicyScores, SampledAnswer
from ramify_trainer.gate.unserved import judge_in
from ramify_trainer.learning.networks import Network
from ramify_trainer.learning.packing import value_place
from ramify_trainer.progress import Progress

BINS = 10
TOKENS = 16_384
"""Tokens of one forward pass at most, padding included."""
Floats = NDArray[np.float64]
AnswerPool = Mapping[str, Sequence[SampledAnswer]]
"""Answers by problem."""


@dataclass(frozen=True, slots=True, eq=False)
class ValuePredictions:
    """Values that n texts are given, and what became of the texts."""

    problem: NDArray[np.int64]
    """[n], numbered from 0."""
    value: Floats
    """[n], in [0, 1]."""
    outcome: Floats
    """[n], of the answer that the text became; 0 or 1."""
    finished: NDArray[np.bool_]
    """[n]: True for a whole answer, False for one up to the end of a step."""

    def figures(self) -> dict[str, float]:
        """Return `value_auc`, `value_brier` (mean square error) and `value_calibration_error` (over ten bins) of
        finished answers, and `value_auc_steps`. An AUC is left out if all answers are right, or all wrong."""
        one = np.ones((1, int(self.problem.max(initial=0)) + 1))
        figures = {
            "value_auc": _auc(self, one, self.finished)[0],
            "value_auc_steps": _auc(self, one, ~self.finished)[0],
            "value_brier": _brier(self, one)[0],
            "value_calibration_error": self._calibration_error(),
        }
        return {name: float(x) for name, x in figures.items() if np.isfinite(x)}

    def _calibration_error(self) -> float:
        """Return the mean distance of value and outcome over equally wide bins, weighted by their size."""
        value, outcome = self.value[self.finished], self.outcome[self.finished]
        if not len(value):
            return float("nan")
        which = np.minimum((value * BINS).astype(int), BINS - 1)
        gaps = np.bincount(which, weights=value - outcome, minlength=BINS)
        return float(np.abs(gaps).sum() / len(value))


# Predictions


def pool_answers(*policies: PolicyScores) -> dict[str, list[SampledAnswer]]:
    """Return the answers of several policies to the same problems, by problem."""
    return {
        problem: [answer for each in policies for answer in each.answers.get(problem, ())]
        for problem in sorted(policies[0].greedy)
    }


def predict_values(
    source: Path | Release | ModelFiles,
    calibration: tuple[float, float],
    pool: AnswerPool,
    action: Action,
    told: Progress,
) -> ValuePredictions:
    """Ask the value of a release, or of a candidate, about every answer of `pool`.

    action: says what a step is; if it is not text up to a delimiter, whole answers alone are judged. told:
    called before every pass with answers judged, and of how many; what it raises ends the judging.

    One pass a batch of whole answers judges every step of them, so this stays in the trainer, on its device: an engine
    of its own for every value model would take longer to start than to judge."""
    judge = judge_in(source)
    tokenizer = AutoTokenizer.from_pretrained(models_of(source).policy)
    text = TokenText(partial(text_of, tokenizer), len(tokenizer), plain_token(tokenizer))
    answers = [(i, answer) for i, group in enumerate(pool.values()) for answer in group]
    places = [judged_places(answer, text, action) for _, answer in answers]
    sequences = [(*answer.prompt, *answer.tokens) for _, answer in answers]
    values = values_at(judge, sequences, places, calibration, told)
    rows = [  # problem, value, outcome and whether the text is whole, for each place of each answer
        (i, value, answer.outcome, place + 1 == len(sequence))
        for (i, answer), sequence, at, own in zip(answers, sequences, places, values, strict=True)
        for place, value in zip(at, own, strict=True)
    ]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    return ValuePredictions(
        np.array(columns[0], dtype=np.int64),
        np.array(columns[1], dtype=np.float64),
        np.array(columns[2], dtype=np.float64),
        np.array(columns[3], dtype=np.bool_),
    )


def judged_places(answer: SampledAnswer, text: TokenText, action: Action) -> list[int]:
    """Return the tokens of prompt and answer at which the value is asked for: the last one of every step, cut as the
    search cuts them, and that of a finished answer.

    The end of the last step says of the answer what the answer's own end does, so it is left out."""
    start = len(answer.prompt)
    steps: list[int] = []
    if action.kind == "step":
        written, ends = text.spell(answer.prompt, answer.tokens)
        step = records.Action(action.kind, action.stop, action.max_tokens)
        steps = [start + end - 1 for end in action_ends(written, ends, step) if end <= len(answer.tokens) - 2]
    return [*steps, start + len(answer.tokens) - 1] if answer.finished else steps


def end_values(
    judge: Network, sequences: Sequence[Sequence[int]], calibration: tuple[float, float] = (1.0, 0.0)
) -> list[float]:
    """Return the value at the end of every sequence (prompt and answer so far), as `values_at` does."""
    if not all(sequences):
        raise ValueError("a sequence has no tokens")
    return [value for (value,) in values_at(judge, sequences, [[len(s) - 1] for s in sequences], calibration)]


@torch.inference_mode()
def values_at(
    judge: Network,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    calibration: tuple[float, float],
    told: Progress = lambda done, total: None,
) -> list[list[float]]:
    """Return sigmoid(a·logit + b) of every sequence as far as each of its places, in their order.

    The trunk is causal, so one pass a sequence gives the logit of the text up to any token. Sequences of about one
    length run together, padded on the right, where earlier positions cannot see it. told: called before every pass with
    sequences judged, and of how many."""
    a, b = calibration
    values: list[list[float]] = [[] for _ in sequences]
    device, done = next(judge.parameters()).device, 0
    for group in by_length([len(sequence) for sequence in sequences]):
        told(done, len(sequences))
        done += len(group)
        width = max(len(sequences[i]) for i in group)
        tokens = torch.tensor(
            [[*sequences[i], *[0] * (width - len(sequences[i]))] for i in group], device=device
        )
        at = [
            row * width + value_place(sequences[i], place, max(0, place - 1), judge.closing)
            for row, i in enumerate(group)
            for place in places[i]
        ]
        found = torch.sigmoid(
            a * judge.judged(tokens, torch.tensor(at, dtype=torch.int64, device=device)) + b
        ).tolist()
        ends = list(accumulate(len(places[i]) for i in group))
        for i, end in zip(group, ends, strict=True):
            values[i] = found[end - len(places[i]) : end]
    return values


def by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Return the indices of sequences of about one length together, `TOKENS` tokens at most, padding included."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups = []
    while order:
        size = max(1, TOKENS // lengths[order[0]])
        groups.append(order[:size])
        order = order[size:]
    return groups


# Comparison


def compare_values(
    against: str, ours: ValuePredictions, theirs: ValuePredictions, margin: float, seed: int
) -> list[Comparison]:
    """Compare AUC of finished answers, AUC after steps, and Brier score, its sign turned so that more is better.

    A figure that cannot be told (no right answer, or no wrong one) is left out. Raises `ValueError` if the two are of
    other texts."""
    if not (np.array_equal(ours.problem, theirs.problem) and np.array_equal(ours.finished, theirs.finished)):
        raise ValueError(f"the candidate's value model and that of the {against} judged other texts")
    problems = int(ours.problem.max(initial=0)) + 1
    comparisons = []
    for figure, of in COMPARED.items():
        whole = np.ones((1, problems))
        difference = float((of(ours, whole) - of(theirs, whole))[0])
        if np.isfinite(difference):
            differences = [of(ours, w) - of(theirs, w) for w in resampled_weights(problems, seed)]
            high = float(np.nanpercentile(np.concatenate(differences), 95))
            comparisons.append(Comparison(against, figure, difference, high, margin))
    return comparisons


def _auc(predictions: ValuePredictions, weights: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Return [R], the chance that a right text is valued above a wrong one, ties half, under weights [R, problems]; NaN
    if there are none of either."""
    by_text, value = weights[:, predictions.problem[chosen]], predictions.value[chosen]
    right = predictions.outcome[chosen] > 0.5
    good, bad = np.flatnonzero(right), np.flatnonzero(~right)
    bad = bad[np.argsort(value[bad], kind="stable")]
    below = np.pad(np.cumsum(by_text[:, bad], axis=1), ((0, 0), (1, 0)))
    first, last = (np.searchsorted(value[bad], value[good], side=side) for side in ("left", "right"))
    won = by_text[:, good] * (below[:, first] + below[:, last]) / 2
    with np.errstate(invalid="ignore"):
        auc: Floats = won.sum(axis=1) / (by_text[:, good].sum(axis=1) * below[:, -1])
    return auc


def _brier(predictions: ValuePredictions, weights: Floats) -> Floats:
    """Return [R], the mean squared error of finished answers; NaN if there are none."""
    finished = predictions.finished
    by_text = weights[:, predictions.problem[finished]]
    errors = (predictions.value - predictions.outcome)[finished] ** 2
    with np.errstate(invalid="ignore"):
        brier: Floats = (by_text * errors).sum(axis=1) / by_text.sum(axis=1)
    return brier


COMPARED: Mapping[str, Callable[[ValuePredictions, Floats], Floats]] = {
    "value_auc": lambda predictions, weights: _auc(predictions, weights, predictions.finished),
    "value_auc_steps": lambda predictions, weights: _auc(predictions, weights, ~predictions.finished),
    "value_brier": lambda predictions, weights: -_brier(predictions, weights),
}
"""Figures of a comparison; more is better."""
