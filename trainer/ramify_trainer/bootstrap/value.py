"""Training of the value model: cross-entropy to the mean outcome at the prompt, at every step end and at ``</s>``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ramify_trainer.bootstrap.config import ValueConfig
from ramify_trainer.bootstrap.policy import Progress, optimizer_for, step_optimizer
from ramify_trainer.bootstrap.rollouts import Rollouts, step_targets
from ramify_trainer.bootstrap.tiny_llama import TinyLlama

__all__ = ["new_value", "score", "train_value", "value_steps"]


def new_value(policy: TinyLlama, generator: torch.Generator) -> TinyLlama:
    """Return a value model with the policy's trunk, which knows arithmetic already, and a fresh one-output head."""
    model = TinyLlama(policy.shape, 1)
    model.load_state_dict({**policy.state_dict(), "head": torch.zeros(1, policy.shape.hidden)})
    torch.nn.init.normal_(model.head, 0.0, 0.01, generator=generator)
    return model


def value_steps(data: Sequence[Rollouts], config: ValueConfig) -> int:
    """Return how many optimizer steps the configured epochs take."""
    return max(1, round(config.epochs * sum(len(part) // config.batch for part in data)))


def train_value(
    model: TinyLlama, data: Sequence[Rollouts], config: ValueConfig, seed: int, progress: Progress
) -> None:
    """Train ``model`` in place on rollouts; a batch has prompts of one length, with all answers to them."""
    steps = value_steps(data, config)
    optimizer = optimizer_for(model, config.learning_rate, config.weight_decay)
    data = [part.regular() for part in data]
    targets = [step_targets(part) for part in data]
    model.train()
    batches = _batches(data, config.batch, np.random.default_rng(seed))
    for step in range(steps):
        which, rows = next(batches)
        loss = value_loss(model, data[which], targets[which], rows)
        loss.backward()  # type: ignore[no-untyped-call]
        step_optimizer(optimizer, model, step, steps, config.learning_rate, config.warmup)
        progress(step + 1, loss.item())


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


def value_loss(
    model: TinyLlama,
    part: Rollouts,
    targets: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]],
    rows: NDArray[np.int64],
) -> Tensor:
    """Return the mean cross-entropy over the states of the chosen groups that lie where regular steps end."""
    prompts, answers = (_tensor(array[rows]) for array in (part.prompts, part.answers))
    at_prompt, at_answer, states = (torch.from_numpy(array[rows]) for array in targets)
    at_answer, states = at_answer[..., 5::6], states[..., 5::6]
    prompt_logits, answer_logits = model.step_ends(prompts, answers)
    logits = torch.cat([prompt_logits[:, 0, 0], answer_logits[..., 0][states]])
    return F.binary_cross_entropy_with_logits(logits, torch.cat([at_prompt, at_answer[states]]))


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
