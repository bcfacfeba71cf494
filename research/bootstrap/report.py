"""Figures of a policy and value model on held-out problems: what they can do, and how well the value judges."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ramify.rewards.countdown_data import COUNTS, Split, problems
from ramify.statistics import auc
from research.bootstrap.collect import merge
from research.bootstrap.config import ReportConfig
from research.bootstrap.judge import Judge, score
from research.bootstrap.rollouts import Rollouts, roll_out
from research.bootstrap.sampling import Sampler
from research.bootstrap.tiny_llama import TinyLlama
from research.bootstrap.tokenizer import EOS, NEWLINE
from research.bootstrap.walks import prompt_tokens

__all__ = ["Report", "auc", "markdown", "measure", "pass_at_k"]

Report = dict[str, Any]
"""``policy`` and ``value`` figures by number count and pooled, with how they were measured; plain JSON."""


def pass_at_k(right: NDArray[np.int64], drawn: int, k: int) -> float:
    """Return the unbiased pass@k of problems with ``right`` of ``drawn`` answers right (Chen et al. 2021)."""
    miss = np.ones(len(right))
    for i in range(k):
        miss *= np.clip((drawn - right - i) / (drawn - i), 0, 1)
    return float(1 - miss.mean())


@dataclass(frozen=True, slots=True)
class _JudgedAnswers:
    """Answers of one number count with the value model's judgements."""

    rollouts: Rollouts
    greedy: NDArray[np.float32]
    at_prompt: NDArray[np.float32]
    at_answer: NDArray[np.float32]


def measure(
    policy: TinyLlama,
    judge: Judge | None,
    config: ReportConfig,
    split: Split,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Return the report on ``config.problems`` problems of each number count; ``judge`` may be missing."""
    started = time.perf_counter()
    judged = {}
    for count in COUNTS:
        held_out = problems(split, config.problems, seed, counts=(count,))
        prompts = prompt_tokens(
            np.array([p["numbers"] for p in held_out]), np.array([p["target"] for p in held_out])
        )
        judged[count] = _judge(policy, judge, prompts, count, config.answers, seed)
        progress(config.problems)
    report: Report = {
        "split": split,
        "seed": seed,
        "problems_per_count": config.problems,
        "answers_per_problem": config.answers,
        "policy": {
            **{str(c): _policy_figures([j]) for c, j in judged.items()},
            "all": _policy_figures([*judged.values()]),
        },
    }
    if judge is not None:
        groups = {**{str(c): [j] for c, j in judged.items()}, "all": [*judged.values()]}
        report["value"] = {name: _value_figures(group) for name, group in groups.items()}
    report["seconds"] = round(time.perf_counter() - started, 1)
    return report


def _judge(
    policy: TinyLlama,
    judge: Judge | None,
    prompts: NDArray[np.int64],
    count: int,
    answers: int,
    seed: int,
) -> _JudgedAnswers:
    generator = torch.Generator().manual_seed(seed)
    greedy = merge(roll_out(Sampler(policy, generator, temperature=0.0), prompts, count, 1, 256))
    rollouts = merge(roll_out(Sampler(policy, generator), prompts, count, answers, 16))
    if judge is None:
        at_prompt = np.zeros(len(prompts), np.float32)
        at_answer = np.zeros(rollouts.answers.shape, np.float32)
    else:
        at_prompt, at_answer = score(judge, rollouts, batch=8)
    return _JudgedAnswers(rollouts, greedy.outcomes[:, 0], at_prompt, at_answer)


def _policy_figures(group: list[_JudgedAnswers]) -> dict[str, float]:
    right = np.concatenate([j.rollouts.outcomes.sum(axis=1) for j in group]).astype(np.int64)
    drawn = group[0].rollouts.outcomes.shape[1]
    lengths = np.concatenate([(j.rollouts.answers != 0).sum(axis=-1).ravel() for j in group])
    figures = {"greedy": float(np.concatenate([j.greedy for j in group]).mean())}
    figures |= {f"pass@{k}": pass_at_k(right, drawn, k) for k in (1, 4, 16, 64) if k <= drawn}
    return {**figures, "tokens_per_answer": float(lengths.mean())}


def _value_figures(group: list[_JudgedAnswers]) -> dict[str, Any]:
    """Return AUC at the prompt, after each step and at the end, and how calibrated and useful the end's value is."""
    prompt_values = np.concatenate([np.repeat(j.at_prompt, j.rollouts.outcomes.shape[1]) for j in group])
    figures: dict[str, Any] = {
        "auc_prompt": auc(prompt_values, np.concatenate([j.rollouts.outcomes.ravel() for j in group]) == 1)
    }
    for step in range(1, 5):
        picked = [_after_step(j, step) for j in group if step < j.rollouts.count - 1]
        if picked:
            values, outcomes = (np.concatenate(part) for part in zip(*picked, strict=True))
            figures[f"auc_step_{step}"] = auc(values, outcomes == 1)
    ends = [_at_end(j) for j in group]
    values, outcomes = (np.concatenate(part) for part in zip(*ends, strict=True))
    figures["auc_end"] = auc(values, outcomes == 1)
    if len(values):
        figures["brier_end"] = float(((values - outcomes) ** 2).mean())
        figures["ece_end"] = expected_calibration_error(values, outcomes)
    figures["best_of_all"] = float(np.concatenate([_chosen(j) for j in group]).mean())
    return figures


def _after_step(j: _JudgedAnswers, step: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return values and outcomes of the answers at the newline that ends line ``step``."""
    newlines = j.rollouts.answers == NEWLINE
    here = newlines & (np.cumsum(newlines, axis=-1) == step)
    return j.at_answer[here], j.rollouts.outcomes[here.any(axis=-1)]


def _at_end(j: _JudgedAnswers) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    here = j.rollouts.answers == EOS
    return j.at_answer[here], j.rollouts.outcomes[here.any(axis=-1)]


def _chosen(j: _JudgedAnswers) -> NDArray[np.float32]:
    """Return the outcome, per problem, of the finished answer with the highest value."""
    ends = np.where(j.rollouts.answers == EOS, j.at_answer, -1.0).max(axis=-1)
    return np.asarray(np.take_along_axis(j.rollouts.outcomes, ends.argmax(axis=1)[:, None], axis=1)[:, 0])


def expected_calibration_error(
    values: NDArray[np.float32], outcomes: NDArray[np.float32], bins: int = 20
) -> float:
    """Return the mean gap between value and frequency over equally wide bins, weighted by their size."""
    which = np.minimum((values * bins).astype(int), bins - 1)
    gaps = [
        abs(float(values[which == b].mean() - outcomes[which == b].mean())) * (which == b).mean()
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps))


def markdown(report: Report) -> str:
    """Return the report as two Markdown tables."""
    lines = [
        (
            f"{report['problems_per_count']} problems of each number count from the {report['split']} split, "
            f"{report['answers_per_problem']} sampled answers each at temperature 1."
        ),
        "",
    ]
    for part in ("policy", "value"):
        if part in report:
            lines += [*_table(part, report[part]), ""]
    return "\n".join(lines)


def _table(part: str, groups: dict[str, dict[str, float]]) -> list[str]:
    columns = list(dict.fromkeys(key for figures in groups.values() for key in figures))
    rows = [f"| {part} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, figures in groups.items():
        cells = ["" if figures.get(c) is None else f"{figures[c]:.3f}" for c in columns]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows
