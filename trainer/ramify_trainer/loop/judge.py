"""What a value model that is not served says of sampled answers: at the end of each step, and of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ramify.search import records
from ramify.search.cutting import action_ends
from ramify.tokens import TokenText, plain_token, text_of
from ramify.weights.manifest import Action
from ramify_trainer.gating import PolicyScores, SampledAnswer
from ramify_trainer.valuing import ValuePredictions

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
