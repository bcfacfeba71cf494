"""Scores of a value model on sampled answers, and whether they are better than another model's.

A value model that is not served is asked at the end of each step of an answer, and of the whole. Its AUC and its Brier
score are compared with those of another on the same texts. Texts of one problem hang together, so the bootstrap draws
problems: every resample gives each problem a weight, and with it all of that problem's texts. Both models are judged
under the same weights, so the comparison is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ramify.search import records
from ramify.search.cutting import action_ends
from ramify.statistics import resampled_weights
from ramify.tokens import TokenText, plain_token, text_of
from ramify.weights.manifest import Action
from ramify_trainer.gate.decision import Comparison
from ramify_trainer.gate.policy_scores import PolicyScores, SampledAnswer

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
            differences = [of(ours, w) - of(theirs, w) for w in resampled_weights(problems, seed)]
            high = float(np.nanpercentile(np.concatenate(differences), 95))
            found.append(Comparison(against, figure, difference, high, margin))
    return found


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


TOKENS = 16_384
"""Of one forward pass, padding included."""
AnswerPool = Mapping[str, Sequence[SampledAnswer]]
"""Answers by problem."""


def pool_answers(*measured: PolicyScores) -> dict[str, list[SampledAnswer]]:
    """The answers of several policies to the same problems."""
    return {
        problem: [answer for each in measured for answer in each.answers.get(problem, ())]
        for problem in sorted(measured[0].greedy)
    }


@torch.inference_mode()
def judged(
    folder: Path,
    calibration: tuple[float, float],
    pool: AnswerPool,
    action: Action,
    check: Callable[[], None],
) -> ValuePredictions:
    """The value model in a Hugging Face directory on every answer of `pool`. `action` says what a step is: with steps
    of another kind than text up to a delimiter, whole answers alone are judged. `check` is called between passes.

    One pass an answer: the trunk is causal, so the logit at a step's last token is that of the text up to there."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, num_labels=1
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = TokenText(partial(text_of, tokenizer), len(tokenizer), plain_token(tokenizer))
    answers = [(i, answer) for i, group in enumerate(pool.values()) for answer in group]
    places = [_places(answer, text, action) for _, answer in answers]
    values: list[list[float]] = [[] for _ in answers]
    for group in _groups([len(a.prompt) + len(a.tokens) for _, a in answers]):
        check()
        rows = [(*answers[i][1].prompt, *answers[i][1].tokens) for i in group]
        logits = _logits(model, rows)
        a, b = calibration
        for i, own in zip(group, logits, strict=True):
            values[i] = torch.sigmoid(a * own[places[i]] + b).tolist()
    whole = [
        [p + 1 == len(a.prompt) + len(a.tokens) for p in at]
        for (_, a), at in zip(answers, places, strict=True)
    ]
    return ValuePredictions(
        np.array([i for (i, _), at in zip(answers, places, strict=True) for _ in at], dtype=np.int64),
        np.array([v for own in values for v in own], dtype=np.float64),
        np.array(
            [a.outcome for (_, a), at in zip(answers, places, strict=True) for _ in at], dtype=np.float64
        ),
        np.array([w for own in whole for w in own], dtype=np.bool_),
    )


def _places(answer: SampledAnswer, text: TokenText, action: Action) -> list[int]:
    """The tokens of prompt and answer at which the value is asked for: the last one of every step, cut as the search
    cuts them, and that of a finished answer.

    The end of the last step says of the answer what the answer's own end does, so it is left out."""
    start = len(answer.prompt)
    steps: list[int] = []
    if action.kind == "step":
        written, ends = text.spell(answer.prompt, answer.tokens)
        step = records.Action(action.kind, action.stop, action.max_tokens)
        steps = [start + end - 1 for end in action_ends(written, ends, step) if end <= len(answer.tokens) - 2]
    return [*steps, start + len(answer.tokens) - 1] if answer.finished else steps


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Answers of about one length together."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups = []
    while order:
        size = max(1, TOKENS // lengths[order[0]])
        groups.append(order[:size])
        order = order[size:]
    return groups


def _logits(model: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """[R, T], the logit at every token; padded on the right, where a causal trunk does not look."""
    width = max(map(len, rows))
    padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
    hidden = model.base_model(input_ids=padded, use_cache=False).last_hidden_state
    logits: torch.Tensor = model.score(hidden)[..., 0].float()
    return logits


@torch.inference_mode()
def values(
    model: Any, sequences: Sequence[Sequence[int]], calibration: tuple[float, float] = (1.0, 0.0)
) -> list[float]:
    """sigmoid(a·logit + b) at the end of every sequence (prompt and answer so far), in their order.

    `model` is a one-label sequence classifier over a causal trunk. Sequences of about one length run together, padded
    on the right, where a causal trunk's earlier positions cannot see it; the last real token is taken by its place, so
    that neither padding nor a pad token inside a sequence matters."""
    a, b = calibration
    if not all(sequences):
        raise ValueError("a sequence has no tokens")
    found = [0.0] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    while order:
        length = len(sequences[order[0]])
        group, order = order[: max(1, TOKENS // length)], order[max(1, TOKENS // length) :]
        lasts = torch.tensor([len(sequences[i]) - 1 for i in group], device=model.device)
        rows = [[*sequences[i], *[0] * (length - len(sequences[i]))] for i in group]
        out = model.base_model(input_ids=torch.tensor(rows, device=model.device), use_cache=False)
        hidden = out.last_hidden_state[torch.arange(len(group), device=model.device), lasts]
        judged = torch.sigmoid(a * model.score(hidden)[:, 0].float() + b).tolist()
        for i, value in zip(group, judged, strict=True):
            found[i] = value
    return found
