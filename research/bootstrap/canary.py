"""The canary of a release: texts whose log-probabilities and values under the published weights are recorded."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch.nn import functional as F

from ramify.rewards.countdown_data import problems, solve
from ramify.weights import Probe
from research.bootstrap.judge import Judge
from research.bootstrap.tiny_llama import TinyLlama
from research.bootstrap.tokenizer import EOS, build_tokenizer
from research.bootstrap.walks import prompt_tokens

__all__ = ["probes"]


@torch.inference_mode()
def probes(policy: TinyLlama, judge: Judge, count: int = 8, seed: int = 0) -> tuple[Probe, ...]:
    """Return probes on training problems with a right answer each, every second one without its last line."""
    tokenizer = build_tokenizer()
    made = []
    for i, problem in enumerate(problems("train", count, seed)):
        lines = (solve(problem, random.Random(seed + i)) or "").split("\n")
        text = "\n".join(lines) if i % 2 == 0 else "\n".join(lines[:-1]) + "\n"
        continuation = tokenizer.encode(text, add_special_tokens=False) + ([EOS] if i % 2 == 0 else [])
        prompt = prompt_tokens(np.array([problem["numbers"]]), np.array([problem["target"]]))
        prompts, answers = torch.from_numpy(prompt), torch.tensor([[continuation]])
        at_prompt, at_answer = policy(prompts, answers)
        logits = torch.cat([at_prompt[0, -1:], at_answer[0, 0, :-1]])
        logprobs = F.log_softmax(logits, dim=-1)[torch.arange(len(continuation)), torch.tensor(continuation)]
        judged = judge(prompts, answers)[1][0, 0, -1]
        made.append(
            Probe(
                prompt=tuple(prompt[0].tolist()),
                continuation=tuple(continuation),
                logprobs=tuple(round(p, 5) for p in logprobs.tolist()),
                value=round(float(judged), 5),
            )
        )
    return tuple(made)
