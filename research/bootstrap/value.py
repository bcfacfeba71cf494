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

__all__ = [
    "Checks",
    "batches_of",
    "judged_loss",
    "lines_of",
    "new_value",
    "tokens_of",
    "train_value",
    "value_steps",
    "written_lines",
]


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
    checks = Checks(config.check_batch, config.exact_from, rng)
    batches = batches_of(data, config.batch, rng)
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


class Checks:
    """Walks with planted faults, ``batch`` at a time, from short to long as the warm-up goes on."""

    def __init__(self, batch: int, exact_from: int, rng: np.random.Generator) -> None:
        self._batch, self._exact_from, self._rng = batch, exact_from, rng
        self._seeds = {count: rng.integers(2**32) for count in range(2, 7)}
        self._walks: dict[int, Walks] = {}  # made when first drawn: a table of the split takes seconds

    def take(self, done: float) -> CheckedWalks:
        """Return a batch when ``done`` of the warm-up (0 to 1 and beyond) is over."""
        weights = next(weights for end, weights in _CHECK_CURRICULUM if done < end)
        count = int(self._rng.choice(list(self._seeds), p=weights))
        if count not in self._walks:
            self._walks[count] = Walks(count, "train", np.random.default_rng(self._seeds[count]))
        rows = self._batch if count > 3 else 2 * self._batch
        return plant_faults(*self._walks[count].take(rows), self._rng, self._exact_from)


_CHECK_CURRICULUM = (
    (0.35, (0.5, 0.4, 0.1, 0.0, 0.0)),
    (0.7, (0.2, 0.4, 0.3, 0.1, 0.0)),
    (1.0, (0.05, 0.25, 0.35, 0.2, 0.15)),
    (float("inf"), (0.08, 0.27, 0.3, 0.2, 0.15)),
)
"""Until which part of the warm-up, how often problems of two to six numbers are drawn."""


def batches_of(
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


Targets = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]
"""Results of :func:`research.bootstrap.rollouts.outcome_targets`."""


def value_loss(
    model: TinyLlama, part: Rollouts, targets: Targets, lines: Lines, rows: NDArray[np.int64]
) -> Tensor:
    """Return the :func:`judged_loss` of the chosen groups' answers under a value model."""
    prompts, answers = (tokens_of(array[rows]) for array in (part.prompts, part.answers))
    to_prompt, to_answer, ends = (torch.from_numpy(array[rows]) for array in targets)
    at_prompt, at_lines = model.step_ends(prompts, answers, ASKED)
    at_lines = at_lines.reshape(*answers.shape[:2], -1, len(ASKED), OUTPUTS)
    return judged_loss(
        at_prompt, at_lines, to_prompt, to_answer[..., 5::6], ends[..., 5::6], lines_of(lines, rows)
    )


def judged_loss(
    at_prompt: Tensor, at_lines: Tensor, to_prompt: Tensor, to_lines: Tensor, ends: Tensor, lines: Lines
) -> Tensor:
    """Return the mean cross-entropy of values to their targets, plus that to what is known of each line.

    The outputs at prompts are [P, 1, O], those at lines [P, K, L, 2, O]; the targets [P] and [P, K, L], the latter if
    ``ends`` [P, K, L] says that a step ends there.
    """
    logits = torch.cat([at_prompt[:, 0, 0], at_lines[..., 1, 0][ends]])
    by_value = F.binary_cross_entropy_with_logits(logits, torch.cat([to_prompt, to_lines[ends]]))
    return by_value + lines_loss(at_lines.flatten(0, 1), lines)


def lines_of(lines: Lines, rows: NDArray[np.int64]) -> Lines:
    """Return the lines [B, L] of all answers to the chosen prompts."""
    length = lines.sound.shape[-1]
    return Lines(
        lines.sound[rows].reshape(-1, length),
        lines.judged[rows].reshape(-1, length),
        lines.results[rows].reshape(-1, length),
    )


def tokens_of(tokens: NDArray[np.int16]) -> Tensor:
    """Return stored tokens as the network takes them."""
    return torch.from_numpy(tokens.astype(np.int64))
