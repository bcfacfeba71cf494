"""Rollouts: graded samples of a policy, and what they say about every step end on their way.

The target of a state is the mean outcome of all answers of its group that pass through it: the Monte Carlo
return (TD(λ) with λ = 1) on the tree of the group's answers, every answer counted once. States are the ends of
steps, at which the search asks for a value: the prompt's newline, every newline of an answer, and ``</s>``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ramify.rewards.countdown import Problem, grade, parse_answer, parse_prompt
from research.bootstrap.sampling import Sampler
from research.bootstrap.tokenizer import EOS, NEWLINE, decode
from research.bootstrap.walks import answer_length, prompt_length

__all__ = ["Rollouts", "legal_states", "outcome_targets", "roll_out"]

SPARE_TOKENS = 6
"""Tokens by which a sampled answer may be longer than a regular one: one line."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Groups of answers to prompts of one length; a prompt may be a problem or an unfinished state of one."""

    prompts: NDArray[np.int16]
    """Token ids [P, T_p], ending in a newline."""
    answers: NDArray[np.int16]
    """Token ids [P, K, T_a]: what the policy wrote after the prompt, then padding."""
    outcomes: NDArray[np.float32]
    """1 for a right answer, else 0: [P, K]. An answer cut before its end is wrong."""
    count: int
    """Numbers of each problem."""

    def __len__(self) -> int:
        return len(self.prompts)

    def part(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Rollouts:
        """Return these of the P prompts, and these of their K answers."""
        at = np.ix_(rows, columns)
        return replace(self, prompts=self.prompts[rows], answers=self.answers[at], outcomes=self.outcomes[at])

    def regular(self) -> Rollouts:
        """Return the rollouts with answers cut to a regular answer's length; hardly any is longer."""
        begun = self.prompts.shape[1] - prompt_length(self.count)
        return replace(self, answers=self.answers[:, :, : answer_length(self.count) - begun])


def roll_out(
    sampler: Sampler, prompts: NDArray[np.int64], count: int, answers: int, batch: int
) -> Iterator[Rollouts]:
    """Yield graded answers to prompts [P, T] of problems with ``count`` numbers, ``batch`` prompts at a time."""
    max_tokens = prompt_length(count) + answer_length(count) - prompts.shape[1] + SPARE_TOKENS
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        written = sampler(part, answers, max_tokens)
        outcomes = np.array([_grade(prompt, group) for prompt, group in zip(part, written, strict=True)])
        yield Rollouts(part.astype(np.int16), written.astype(np.int16), outcomes.astype(np.float32), count)


def _grade(prompt: NDArray[np.int64], group: NDArray[np.int64]) -> list[float]:
    """Return the outcomes [K] of a group [K, T], the answer beginning in the prompt if it is an unfinished one."""
    problem, begun = split_prompt(prompt)
    known: dict[bytes, float] = {}
    for tokens in group:
        key = tokens.tobytes()
        if key not in known:
            ended = bool((tokens == EOS).any())
            known[key] = grade(problem, begun + decode(tokens.tolist())).outcome if ended else 0.0
    return [known[tokens.tobytes()] for tokens in group]


def split_prompt(prompt: NDArray[np.int64]) -> tuple[Problem, str]:
    """Return the problem that prompt tokens state and the beginning of an answer that follows it."""
    first, newline, begun = decode(prompt.tolist()).partition("\n")
    problem = parse_prompt(first + newline)
    if problem is None:
        raise ValueError(f"not a Countdown prompt: {first!r}")
    return problem, begun


def outcome_targets(rollouts: Rollouts) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return the targets of prompts [P] and of answer tokens [P, K, T], and which of the latter are states.

    A token that is a state has the mean outcome of the group's answers that agree up to it.
    """
    answers, outcomes = rollouts.answers, rollouts.outcomes
    states = (answers == NEWLINE) | (answers == EOS)
    targets = np.zeros(answers.shape, dtype=np.float32)
    agree = np.ones((len(answers), answers.shape[1], answers.shape[1]), dtype=bool)
    for at in range(answers.shape[2]):
        agree &= answers[:, :, None, at] == answers[:, None, :, at]
        if states[:, :, at].any():
            targets[:, :, at] = (agree * outcomes[:, None, :]).sum(-1) / agree.sum(-1)
    return outcomes.mean(axis=1), np.where(states, targets, 0.0).astype(np.float32), states


def legal_states(rollouts: Rollouts, steps: int) -> NDArray[np.int64]:
    """Return the distinct unfinished states [S, T_p + 6·steps] after ``steps`` lines, one a group, legal so far.

    Takes each group's first answer. Steps have 6 tokens, newline included.
    """
    length = 6 * steps
    heads = rollouts.answers[:, 0, :length]
    kept = [
        np.concatenate([prompt, head])
        for prompt, head in zip(rollouts.prompts, heads, strict=True)
        if head.shape[0] == length and head[-1] == NEWLINE and _is_legal(prompt, head)
    ]
    width = rollouts.prompts.shape[1] + length
    return np.array(kept, dtype=np.int64).reshape(len(kept), width)


def _is_legal(prompt: NDArray[np.int16], head: NDArray[np.int16]) -> bool:
    problem, _ = split_prompt(prompt.astype(np.int64))
    text = decode(head.tolist())
    steps = parse_answer(text)
    if steps is None:
        return False
    reason = grade({**problem, "target": 0}, text).reason
    return "numbers are left" in reason
