"""Values of prompts and answers: by a value model, or by a value head on the policy's trunk.

A value model judges at a text's last token. A value head judges at the state before it if that token only closes what
was written, a newline or ``</s>`` (``ramify.tokens.closing_tokens``): that is the state which the policy's engine has
when it samples the token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ramify.weights import HEAD
from ramify_trainer.learning.value_head import read_head
from research.bootstrap.checkpoints import load_model
from research.bootstrap.rollouts import Rollouts
from research.bootstrap.tiny_llama import TinyLlama
from research.bootstrap.tokenizer import EOS, NEWLINE

__all__ = ["Judge", "ValueHead", "ValueModel", "load_judge", "score"]

Judge = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Values, 0 to 1, of prompts [P, T] that end in a newline, and of answers [P, K, T] to them at every token:
[P], [P, K, T]."""


@dataclass(frozen=True, slots=True)
class ValueModel:
    """Judges with a network of its own, whose first output is the logit."""

    network: TinyLlama

    def __call__(self, prompts: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of a :data:`Judge`."""
        at_prompt, at_answer = self.network(prompts, answers)
        return at_prompt[:, -1, 0].sigmoid(), at_answer[..., 0].sigmoid()


@dataclass(frozen=True, slots=True)
class ValueHead:
    """Judges with a linear head on the final-norm hidden states of ``policy``."""

    policy: TinyLlama
    head: nn.Linear

    def __call__(self, prompts: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of a :data:`Judge`."""
        on_prompt, cache = self.policy.read_prompts(prompts)
        after = self.policy.read_answers(answers, prompts.shape[1], cache)
        last = on_prompt[:, None, -1:].expand(-1, answers.shape[1], -1, -1)
        before = torch.cat([last, after[:, :, :-1]], dim=2)
        closing = (answers == NEWLINE) | (answers == EOS)
        states = torch.where(closing[..., None], before, after)
        return self.head(on_prompt[:, -2])[:, 0].sigmoid(), self.head(states)[..., 0].sigmoid()


def load_judge(policy_dir: Path, value_dir: Path) -> Judge:
    """Return the judge of a release's two directories, whichever kind it is."""
    if not (value_dir / HEAD).exists():
        return ValueModel(load_model(value_dir, "score"))
    policy = load_model(policy_dir, "lm_head")
    return ValueHead(policy, read_head(value_dir / HEAD, policy.shape.hidden))


@torch.inference_mode()
def score(judge: Judge, part: Rollouts, batch: int = 64) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the values of prompts [P] and at every answer token [P, K, T], in [0, 1]."""
    prompt_values, answer_values = [], []
    for start in range(0, len(part), batch):
        rows = slice(start, start + batch)
        at_prompt, at_answer = judge(
            *(torch.from_numpy(tokens[rows].astype(np.int64)) for tokens in (part.prompts, part.answers))
        )
        prompt_values.append(at_prompt.numpy())
        answer_values.append(at_answer.numpy())
    return np.concatenate(prompt_values), np.concatenate(answer_values)
