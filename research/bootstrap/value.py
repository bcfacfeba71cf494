"""Training of the value model: cross-entropy to the mean outcome at the prompt, at every step end and at ``</s>``.

A warm-up comes first in which the model learns to check finished answers (:mod:`verification`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from research.bootstrap.config import ValueConfig
from research.bootstrap.policy import Progress, optimizer_for, step_optimizer
from research.bootstrap.rollouts import Rollouts, outcome_targets
from research.bootstrap.soft_targets import states
from research.bootstrap.soundness import Lines, inspect, read_lines
from research.bootstrap.tiny_llama import TinyLlama
from research.bootstrap.tokenizer import first_number, later_number
from research.bootstrap.verification import (
    ASKED,
    OUTPUTS,
    CheckedWalks,
    lines_loss,
    plant_faults,
    verification_loss,
)
from research.bootstrap.walks import Walks, prompt_length

__all__ = ["new_value", "score", "train_value", "value_steps"]


def new_value(trunk: TinyLlama, generator: torch.Generator) -> TinyLlama:
    """Return a value model with the trunk of the policy, which knows arithmetic already, or of another value model.

    Its first output is the value, taken over from a value model, fresh above a policy; the others serve its training
    only (:mod:`verification`).
    """
    model = TinyLlama(trunk.shape, OUTPUTS)
    model.load_state_dict({**trunk.state_dict(), "head": torch.zeros(OUTPUTS, trunk.shape.hidden)})
    torch.nn.init.normal_(model.head, 0.0, 0.01, generator=generator)
    if len(trunk.head) == 1:
        model.head.data[:1] = trunk.head.data
    return model


def value_steps(data: Sequence[Rollouts], config: ValueConfig) -> int:
    """Return how many optimizer steps the training takes: the checks, and the configured epochs mixed with more."""
    batches = config.epochs * sum(len(part) // config.batch for part in data)
    return config.check_steps + max(1, round(batches / (1 - config.check_share)))


def train_value(
    model: TinyLlama, data: Sequence[Rollouts], config: ValueConfig, seed: int, progress: Progress
) -> None:
    """Train ``model`` in place: ``check_steps`` of verification, then rollouts, some verification among them.

    A batch of rollouts has prompts of one length, with all answers to them.
    """
    steps = value_steps(data, config)
    rng = np.random.default_rng(seed)
    optimizer = optimizer_for(model, config.learning_rate, config.weight_decay)
    data = [part.regular() for part in data]
    targets = [outcome_targets(part) for part in data]
    lines = [written_lines(part) for part in data]
    checks = _Checks(config, rng)
    batches = _batches(data, config.batch, rng)
    model.train()
    for step in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            if step < config.check_steps or rng.random() < config.check_share:
                loss = verification_loss(model, checks.take(step / max(1, config.check_steps)))
            else:
                which, rows = next(batches)
                loss = value_loss(model, data[which], targets[which], lines[which], rows)
        loss.backward()  # type: ignore[no-untyped-call]
        step_optimizer(optimizer, model, step, steps, config.learning_rate, config.warmup)
        progress(step + 1, loss.item())


class _Checks:
    """Walks with planted faults, from short to long as the warm-up goes on."""

    def __init__(self, config: ValueConfig, rng: np.random.Generator) -> None:
        self._batch, self._exact_from, self._rng = config.check_batch, config.exact_from, rng
        self._walks = {
            count: Walks(count, "train", np.random.default_rng(rng.integers(2**32))) for count in range(2, 7)
        }

    def take(self, done: float) -> CheckedWalks:
        """Return a batch when ``done`` of the warm-up (0 to 1 and beyond) is over."""
        weights = next(weights for end, weights in _CHECK_CURRICULUM if done < end)
        count = int(self._rng.choice(list(self._walks), p=weights))
        rows = self._batch if count > 3 else 2 * self._batch
        return plant_faults(*self._walks[count].take(rows), self._rng, self._exact_from)


_CHECK_CURRICULUM = (
    (0.35, (0.5, 0.4, 0.1, 0.0, 0.0)),
    (0.7, (0.2, 0.4, 0.3, 0.1, 0.0)),
    (1.0, (0.05, 0.25, 0.35, 0.2, 0.15)),
    (float("inf"), (0.08, 0.27, 0.3, 0.2, 0.15)),
)
"""Until which part of the warm-up, how often problems of two to six numbers are drawn."""


def _batches(
    data: Sequence[Rollouts], batch: int, rng: np.random.Generator
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield (part, rows) without end: every epoch each part's rows once, in random order, parts mixed."""
    while True:
        epoch = [
            (which, rows)
            for which, part in enumerate(data)
            for rows in rng.permutation(len(part))[: len(part) // batch * batch].reshape(-1, batch)
        ]
        for i in rng.permutation(len(epoch)):
            yield epoch[i]


def written_lines(part: Rollouts) -> Lines:
    """Return the lines of every answer, [P, K, L] each; those that have not a step's form are not judged."""
    prompts, keep = part.prompts.astype(np.int64), part.answers.shape[1]
    head = prompt_length(part.count)
    begun, _ = read_lines(prompts[:, head:])
    numbers = prompts[:, 1 : part.count + 1] - later_number(0)
    numbers[:, 0] = prompts[:, 1] - first_number(0)
    left = np.repeat(states(numbers, begun)[-1], keep, axis=0)
    steps, formed = read_lines(part.answers.astype(np.int64).reshape(len(left), -1))
    checks = inspect(left, steps)
    shape = (len(part), keep, -1)
    return Lines(
        checks.sound.reshape(shape), (checks.judged & formed).reshape(shape), checks.results.reshape(shape)
    )


def value_loss(
    model: TinyLlama,
    part: Rollouts,
    targets: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]],
    lines: Lines,
    rows: NDArray[np.int64],
) -> Tensor:
    """Return the mean cross-entropy over the states of the chosen groups that lie at the ends of regular steps, plus
    that to what is known of each line."""
    prompts, answers = (_tensor(array[rows]) for array in (part.prompts, part.answers))
    at_prompt, at_answer, at_end = (torch.from_numpy(array[rows]) for array in targets)
    at_answer, at_end = at_answer[..., 5::6], at_end[..., 5::6]
    prompt_outputs, outputs = model.step_ends(prompts, answers, ASKED)
    outputs = outputs.reshape(*answers.shape[:2], -1, len(ASKED), OUTPUTS)
    logits = torch.cat([prompt_outputs[:, 0, 0], outputs[..., 1, 0][at_end]])
    own = Lines(*(getattr(lines, name)[rows].reshape(-1, outputs.shape[2]) for name in _FIELDS))
    return F.binary_cross_entropy_with_logits(logits, torch.cat([at_prompt, at_answer[at_end]])) + lines_loss(
        outputs.flatten(0, 1), own
    )


_FIELDS = ("sound", "judged", "results")


def _tensor(tokens: NDArray[np.int16]) -> Tensor:
    return torch.from_numpy(tokens.astype(np.int64))


@torch.inference_mode()
def score(
    model: TinyLlama, part: Rollouts, batch: int = 64
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the values of prompts [P] and at every answer token [P, K, T], in [0, 1]."""
    prompt_values, answer_values = [], []
    for start in range(0, len(part), batch):
        rows = slice(start, start + batch)
        prompts, answers = model(_tensor(part.prompts[rows]), _tensor(part.answers[rows]))
        prompt_values.append(prompts[:, -1, 0].sigmoid().numpy())
        answer_values.append(answers[..., 0].sigmoid().numpy())
    return np.concatenate(prompt_values), np.concatenate(answer_values)
