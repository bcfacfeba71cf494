"""Supervised training of the policy: cross-entropy on the answers of random solved problems, easy ones first.

The curriculum is what makes a small network plan at all (2026-11-22): trained on four to six numbers alone it
learned to write legal steps and stayed there; two and three numbers taught it to look ahead within minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from research.bootstrap.config import NetworkConfig, PolicyConfig, PolicyStage
from research.bootstrap.soft_targets import soft_cross_entropy, step_targets
from research.bootstrap.tiny_llama import Shape, TinyLlama
from research.bootstrap.tokenizer import VOCABULARY, first_number, later_number
from research.bootstrap.walks import Ints, Walks, answer_tokens, prompt_tokens

__all__ = ["Progress", "new_policy", "optimizer_for", "shape_of", "step_optimizer", "train_policy"]

Progress = Callable[[int, float], None]
"""Called after each step with the steps done and the step's loss."""

_PERIODS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 20, 25, 32, 50, 64, 100, 128, 200, 400)


def shape_of(network: NetworkConfig) -> Shape:
    """Return the network's shape for the demo's vocabulary."""
    return Shape(
        vocab=len(VOCABULARY),
        hidden=network.hidden,
        layers=network.layers,
        heads=network.heads,
        intermediate=network.intermediate,
        positions=network.positions,
    )


def new_policy(network: NetworkConfig, generator: torch.Generator) -> TinyLlama:
    """Return an untrained policy whose number tokens start out with arithmetic structure.

    A number's two embeddings and its output row begin as random projections of the same features: sine and
    cosine of the number at several periods, and its size. Nothing else tells the network that 24 follows 23.
    """
    model = TinyLlama(shape_of(network), len(VOCABULARY))
    model.initialise(generator)
    features = _number_features()
    with torch.no_grad():
        for rows, matrix in ((0, model.embedding), (1, model.head)):
            mixed = features @ torch.randn(features.shape[1], network.hidden, generator=generator)
            mixed = 0.04 * mixed / mixed.std()
            numbers = torch.arange(len(features)).numpy()
            matrix[later_number(numbers)] += mixed
            if rows == 0:
                matrix[first_number(numbers)] += mixed
    return model


def _number_features() -> Tensor:
    """Return [200, F]: features of the numbers 0..199, each of about unit variance."""
    n = torch.arange(200)
    waves = [f(2 * math.pi * n / period) for period in _PERIODS for f in (torch.sin, torch.cos)]
    return torch.stack([*waves, n / 60 - 1.6, (n + 1).log() - 4], dim=1)


def optimizer_for(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return AdamW that decays matrices and leaves norms alone."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


def step_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, step: int, steps: int, peak: float, warmup: int
) -> None:
    """Clip, set the learning rate of ``step`` (linear warm-up, then cosine to 1 % of the peak), and step."""
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    done = max(0.0, (step - warmup) / max(1, steps - warmup))
    rate = (
        peak * min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def train_policy(model: TinyLlama, config: PolicyConfig, seed: int, progress: Progress) -> None:
    """Train ``model`` in place on walks over problems of the train split, one stage of the curriculum after another."""
    done = 0
    for i, stage in enumerate(config.stages):
        _train_stage(model, stage, config, [seed, i], partial(_told_from, progress, done))
        done += stage.steps


def _told_from(progress: Progress, start: int, step: int, loss: float) -> None:
    progress(start + step, loss)


def _train_stage(
    model: TinyLlama, stage: PolicyStage, config: PolicyConfig, seed: list[int], progress: Progress
) -> None:
    rng = np.random.default_rng(seed)
    counts = sorted(stage.count_weights)
    weights = np.array([stage.count_weights[count] for count in counts])
    streams = {count: Walks(count, "train", np.random.default_rng([*seed, count])) for count in counts}
    optimizer = optimizer_for(model, stage.learning_rate, config.weight_decay)
    model.train()
    for step in range(stage.steps):
        count = int(rng.choice(counts, p=weights / weights.sum()))
        # short texts come in larger batches, so that a step costs about the same
        numbers, steps = streams[count].take(stage.batch if count > 3 else 2 * stage.batch)
        loss = policy_loss(model, numbers, steps, stated(steps, stage.wrong_share), config.exact_from)
        loss.backward()  # type: ignore[no-untyped-call]
        step_optimizer(optimizer, model, step, stage.steps, stage.learning_rate, config.warmup)
        progress(step + 1, loss.item())


def stated(steps: Ints, wrong_share: float) -> Ints:
    """Return the targets [B] that the prompts of walks [B, n - 1, 4] state: those that they end at, but the first
    ``wrong_share`` of them their neighbour's."""
    targets = steps[:, -1, 3].copy()
    wrong = round(wrong_share * len(targets))
    targets[:wrong] = np.roll(targets[:wrong], 1)
    return targets


def policy_loss(model: TinyLlama, numbers: Ints, steps: Ints, targets: Ints, exact_from: int) -> Tensor:
    """Return the mean cross-entropy of the answers to walks: numbers [B, n], steps [B, n - 1, (a, op, b, c)], and the
    targets [B] that the prompts state."""
    prompts = torch.from_numpy(prompt_tokens(numbers, targets))
    answers = torch.from_numpy(answer_tokens(steps))
    hidden, cache = model.read_prompts(prompts)
    written = model.read_answers(answers[:, None, :-1], prompts.shape[1], cache)[:, 0]
    logits = F.linear(torch.cat([hidden[:, -1:], written], dim=1), model.head)
    return soft_cross_entropy(logits, answers, step_targets(numbers, steps, exact_from))
