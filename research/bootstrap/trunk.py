"""One network from a policy and its value model: the policy, with a linear value head on its trunk.

The student begins as the value model's trunk under the policy's head. It learns from both, on the policy's answers and
on walks with planted faults: the policy's distribution of every token; at the prompt and at every line's end the value
model's judgement, averaged with the Monte Carlo return if there is one; and the value model's states there as a hint
(FitNets, arXiv 1412.6550). The further outputs of :mod:`verification` keep its arithmetic. Walks never run out: from
answers to 2,400 problems alone the student learned the policy of those problems.

Every value is read at the state before the newline or ``</s>`` that closes a line (:mod:`judge`). The value model looks
ahead at the closing token itself, so what is new to the student is to do so a token earlier.

Why it begins there (2026-11-28): what the value model knows is dearer than the policy, which comes back within a
thousand steps. A head on the policy's trunk puts a right answer above a wrong one in 64 of 100 pairs; of the weighted
means of the two trunks, none is both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from research.bootstrap.config import TrunkConfig
from research.bootstrap.policy import Progress, optimizer_for, step_optimizer
from research.bootstrap.rollouts import Rollouts, outcome_targets
from research.bootstrap.soundness import Lines
from research.bootstrap.tiny_llama import TinyLlama
from research.bootstrap.tokenizer import EOS, PAD
from research.bootstrap.value import (
    Checks,
    Targets,
    batches_of,
    judged_loss,
    lines_of,
    tokens_of,
    written_lines,
)
from research.bootstrap.verification import OUTPUTS, CheckedWalks, further_loss

__all__ = ["Student", "Teachers", "train_trunk", "trunk_steps"]

RESULT, AFTER, BEFORE = 3, 5, 4
"""Places within a line's six tokens: `=`, where the result is asked for; where the value model judges; and where the
student does, before the token that closes the line."""
HINTED = 3
"""The last layers, whose states are compared."""


@dataclass(frozen=True, slots=True)
class Teachers:
    """The two models that the student is to be as good as."""

    policy: TinyLlama
    value: TinyLlama


class Student(nn.Module):
    """The network in training, and the maps from its states to the value model's, which are not shipped."""

    def __init__(self, teachers: Teachers, generator: torch.Generator) -> None:
        super().__init__()
        policy, value = teachers.policy, teachers.value
        vocabulary, hidden = policy.head.shape
        self.network = TinyLlama(value.shape, vocabulary + OUTPUTS)
        head = torch.empty_like(self.network.head).normal_(0.0, 0.01, generator=generator)
        head[:vocabulary], head[vocabulary] = policy.head, value.head[0]
        self.network.load_state_dict({**value.state_dict(), "head": head})
        self.maps = nn.ParameterList(torch.eye(hidden) for _ in value.layers[-HINTED:])


def trunk_steps(data: Sequence[Rollouts], config: TrunkConfig) -> int:
    """Return how many optimizer steps the training takes: the configured epochs, mixed with walks."""
    batches = config.epochs * sum(len(part) // config.batch for part in data)
    return max(1, round(batches / (1 - config.check_share)))


def train_trunk(
    student: Student,
    teachers: Teachers,
    data: Sequence[Rollouts],
    config: TrunkConfig,
    seed: int,
    progress: Progress,
) -> None:
    """Train ``student`` in place, on the policy's answers and on walks."""
    steps, rng = trunk_steps(data, config), np.random.default_rng(seed)
    data = [part.regular() for part in data]
    targets, lines = [outcome_targets(part) for part in data], [written_lines(part) for part in data]
    checks, batches = Checks(config.check_batch, config.exact_from, rng), batches_of(data, config.batch, rng)
    optimizer = optimizer_for(student, config.learning_rate, config.weight_decay)
    student.train()
    for step in range(steps):
        if rng.random() < config.check_share:
            loss = walk_loss(student, teachers, checks.take(1.0), config)
        else:
            which, rows = next(batches)
            own = lines_of(lines[which], rows)
            loss = answer_loss(student, teachers, data[which], targets[which], own, rows, config)
        loss.backward()  # type: ignore[no-untyped-call]
        step_optimizer(optimizer, student, step, steps, config.learning_rate, config.warmup)
        progress(step + 1, loss.item())


def answer_loss(
    student: Student,
    teachers: Teachers,
    part: Rollouts,
    targets: Targets,
    lines: Lines,
    rows: NDArray[np.int64],
    config: TrunkConfig,
) -> Tensor:
    """Return the loss on the chosen groups of the policy's answers.

    An unfinished answer is worth the mean of the Monte Carlo return and the value model's judgement, a finished one
    its outcome.
    """
    prompts, answers = (tokens_of(array[rows]) for array in (part.prompts, part.answers))
    to_prompt, to_answer, ends = (torch.from_numpy(array[rows]) for array in targets)
    to_lines, ends = to_answer[..., 5::6], ends[..., 5::6]
    lesson = Lesson.of(student, teachers, prompts, answers)
    finished = answers[..., 5::6] == EOS
    to_lines = torch.where(finished, to_lines, (to_lines + lesson.taught_lines) / 2)
    to_prompt = (to_prompt + lesson.taught_prompt) / 2
    judged = judged_loss(lesson.at_prompt, lesson.at_lines, to_prompt, to_lines, ends, lines)
    return judged + lesson.loss(answers != PAD, ends, config)


def walk_loss(student: Student, teachers: Teachers, checked: CheckedWalks, config: TrunkConfig) -> Tensor:
    """Return the loss on walks: what is known of them is the target, else the value model's judgement."""
    prompts, answers = checked.texts()
    lesson = Lesson.of(student, teachers, prompts, answers[:, None])
    known, worth = torch.from_numpy(checked.known), torch.from_numpy(checked.worth)
    to_lines = torch.where(known, worth, lesson.taught_lines[:, 0])
    logits = torch.cat([lesson.at_prompt[..., 0], lesson.at_lines[:, 0, :, 1, 0]], dim=1)
    judged = F.binary_cross_entropy_with_logits(
        logits, torch.cat([lesson.taught_prompt[:, None], to_lines], dim=1)
    )
    further = further_loss(lesson.at_prompt, lesson.at_lines[:, 0], checked)
    ends = torch.ones_like(lesson.taught_lines, dtype=torch.bool)
    return judged + further + lesson.loss(answers[:, None] != PAD, ends, config)


@dataclass(frozen=True, slots=True)
class Lesson:
    """Outputs of student and teachers for P prompts and K answers of L regular lines to each."""

    student: Student
    ours: States
    policy: States
    value: States
    policy_head: Tensor
    """The policy's own, [V, C]."""
    at_prompt: Tensor
    """The student's further outputs, [P, 1, O]."""
    at_lines: Tensor
    """[P, K, L, 2, O]: at `=`, and where it judges."""
    taught_prompt: Tensor
    """The value model's judgement, [P]."""
    taught_lines: Tensor
    """[P, K, L]."""

    @classmethod
    def of(cls, student: Student, teachers: Teachers, prompts: Tensor, answers: Tensor) -> Lesson:
        """Run the three networks on prompts [P, T_p] and answers [P, K, T_a]."""
        ours = States.of(student.network, prompts, answers)
        with torch.no_grad():
            policy, value = (States.of(net, prompts, answers) for net in (teachers.policy, teachers.value))
            taught = [
                F.linear(x, teachers.value.head)[..., 0].sigmoid()
                for x in (value.prompt[:, -1], value.answer[:, :, AFTER::6])
            ]
        judging = student.network.head[-OUTPUTS:]
        lines = torch.stack([ours.answer[:, :, place::6] for place in (RESULT, BEFORE)], dim=3)
        asked = [F.linear(x, judging) for x in (ours.prompt[:, -2:-1], lines)]
        return cls(student, ours, policy, value, teachers.policy.head, *asked, *taught)

    def loss(self, written: Tensor, ends: Tensor, config: TrunkConfig) -> Tensor:
        """Return the divergence from the policy at the tokens that are ``written`` [P, K, T_a], and the distance from
        the value model's states at the lines that ``ends`` [P, K, L] holds for, weighted."""
        own_head = self.student.network.head[: len(self.policy_head)]
        apart = divergence(self.ours.logits(own_head), self.policy.logits(self.policy_head), written)
        hint = distance(
            self.student.maps, self.ours.layers_at(-2, BEFORE, ends), self.value.layers_at(-1, AFTER, ends)
        )
        return config.policy_weight * apart + config.hint_weight * hint


@dataclass(frozen=True, slots=True)
class States:
    """A network's states at P prompts and K answers to each, by layer, and after the final norm."""

    prompt: Tensor
    """[P, T_p, C]."""
    answer: Tensor
    """[P, K, T_a, C]."""
    prompt_layers: list[Tensor]
    answer_layers: list[Tensor]

    @classmethod
    def of(cls, network: TinyLlama, prompts: Tensor, answers: Tensor) -> States:
        """Return the states of ``network`` at prompts [P, T_p] and answers [P, K, T_a]."""
        prompt_layers: list[Tensor] = []
        answer_layers: list[Tensor] = []
        prompt, cache = network.read_prompts(prompts, prompt_layers)
        answer = network.read_answers(answers, prompts.shape[1], cache, trace=answer_layers)
        return cls(prompt, answer, prompt_layers, answer_layers)

    def logits(self, head: Tensor) -> Tensor:
        """Return the logits [P, K, T_a, V] of every token of the answers, under ``head`` [V, C]."""
        first = F.linear(self.prompt[:, -1:], head)[:, None].expand(-1, self.answer.shape[1], -1, -1)
        return torch.cat([first, F.linear(self.answer[:, :, :-1], head)], dim=2)

    def layers_at(self, prompt_place: int, line_place: int, ends: Tensor) -> list[Tensor]:
        """Return what each of the last layers gives at a place of every prompt, and of the lines for which ``ends``
        [P, K, L] holds: [N, C] each, scaled to a mean square of 1."""
        layers = zip(self.prompt_layers[-HINTED:], self.answer_layers[-HINTED:], strict=True)
        return [
            F.rms_norm(torch.cat([x[:, prompt_place], y[:, :, line_place::6][ends]]), x.shape[-1:])
            for x, y in layers
        ]


def divergence(logits: Tensor, taught: Tensor, written: Tensor) -> Tensor:
    """Return the mean KL divergence of the student's distributions [P, K, T, V] from the policy's, in nats a line (six
    tokens), over the tokens that are ``written`` [P, K, T]."""
    ours, theirs = logits.log_softmax(dim=-1), taught.log_softmax(dim=-1)
    apart = F.kl_div(ours, theirs, log_target=True, reduction="none").sum(dim=-1)
    return 6 * apart[written].mean()


def distance(maps: nn.ParameterList, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Return the mean squared distance of mapped states from the value model's, as a share of the latter's variance,
    averaged over the layers."""
    shares = [
        (x @ mapped - y).square().mean() / y.var(dim=0).mean()
        for mapped, x, y in zip(maps, ours, theirs, strict=True)
    ]
    return torch.stack(shares).mean()
