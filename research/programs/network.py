"""The network: a small Llama with a linear value head on its trunk, its loss and its samples.

Shapes: B texts, T tokens, P prompts, K answers to each, C hidden size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from research.bootstrap.sampling import Sampler
from research.bootstrap.tiny_llama import Shape, TinyLlama
from research.programs.feedback import grade
from research.programs.language import MOST
from research.programs.problems import Problem
from research.programs.texts import Sampled, Texts
from research.programs.tokens import EOS, LONGEST_ANSWER, NUMBERS, POSITIONS, VOCABULARY, decode

SHAPE = Shape(vocab=len(VOCABULARY), hidden=128, layers=4, heads=4, intermediate=384, positions=POSITIONS)
PERIODS = (2, 3, 4, 5, 6, 7, 8, 10, 16, 32, 64, 200)


class Network(nn.Module):
    """The policy, and the value head on its last hidden state."""

    def __init__(self, seed: int, shape: Shape = SHAPE) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.policy = TinyLlama(shape, shape.vocab)
        self.policy.initialise(generator)
        _number(self.policy, generator)
        self.value = nn.Linear(shape.hidden, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def losses(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy of the tokens that are weighted, and of the values that are judged; 0 for
        none."""
        tokens = torch.from_numpy(texts.tokens)
        weights = torch.from_numpy(texts.weights)[:, 1:]
        targets = torch.from_numpy(texts.targets)[:, :-1]
        states, _ = self.policy.read_prompts(tokens[:, :-1])
        policy = value = torch.zeros(())
        if (read := weights > 0).any():
            each = F.cross_entropy(
                F.linear(states[read], self.policy.head).float(), tokens[:, 1:][read], reduction="none"
            )
            policy = (each * weights[read]).sum() / weights[read].sum()
        if (asked := ~targets.isnan()).any():
            logits = self.value(states[asked])[:, 0].float()
            value = F.binary_cross_entropy_with_logits(logits, targets[asked])
        return policy, value


def _number(policy: TinyLlama, generator: torch.Generator) -> None:
    """Begin the embeddings of tokens that hold a number with features of it: waves of several periods, and its size.
    Nothing else tells the network that 24 follows 23."""
    tokens = torch.tensor(list(NUMBERS))
    n = torch.tensor(list(NUMBERS.values()), dtype=torch.float32)
    waves = [f(2 * torch.pi * n / period) for period in PERIODS for f in (torch.sin, torch.cos)]
    features = torch.stack([*waves, n / MOST, n.sign() * (n.abs() + 1).log() / 4], dim=1)
    with torch.no_grad():
        for matrix in (policy.embedding, policy.head):
            mixed = features @ torch.randn(features.shape[1], policy.shape.hidden, generator=generator)
            matrix[tokens] += 0.04 * mixed / mixed.std()


def sample(
    policy: TinyLlama,
    asked: Sequence[tuple[Problem, list[int]]],
    answers: int,
    seed: int,
    *,
    temperature: float = 1.0,
    batch: int = 128,
) -> list[Sampled]:
    """Return graded answers of the policy to prompts of problems."""
    sampler = Sampler(policy, torch.Generator().manual_seed(seed), temperature)
    by_length = defaultdict(list)
    for problem, prompt in asked:
        by_length[len(prompt)].append((problem, prompt))
    groups = []
    for some in by_length.values():
        for start in range(0, len(some), batch):
            part = some[start : start + batch]
            written = sampler(np.array([prompt for _, prompt in part]), answers, LONGEST_ANSWER)
            groups += [
                _graded(problem, prompt, rows)
                for (problem, prompt), rows in zip(part, written.tolist(), strict=True)
            ]
    return groups


def _graded(problem: Problem, prompt: list[int], rows: list[list[int]]) -> Sampled:
    answers = tuple(tuple(row[: row.index(EOS) + 1] if EOS in row else row) for row in rows)
    outcomes = tuple(grade(problem, decode(list(answer))) if answer[-1] == EOS else 0.0 for answer in answers)
    return Sampled(problem, tuple(prompt), answers, outcomes)
