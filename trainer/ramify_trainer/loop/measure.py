"""A policy on held-out problems, without search: greedily, and the mean of k answers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ramify.rewards import datasets, registry
from ramify.rewards.examples import Example
from ramify.search.protocols import GradingFailed
from ramify_trainer.gating import Measured
from ramify_trainer.learning.sampling import sample
from ramify_trainer.loop.config import MeasureConfig
from ramify_trainer.loop.state import replace


async def measured(policy: Path, config: MeasureConfig, seed: int, kept: Path) -> Measured:
    """The policy in a Hugging Face directory; what was measured before is read from `kept`.

    An answer on which the verifier itself fails counts as wrong."""
    found = _read(kept)
    if found is None:
        found = await _measure(policy, config, seed)
        _keep(found, kept)
    return found


def _read(kept: Path) -> Measured | None:
    if not kept.exists():
        return None
    found = json.loads(kept.read_text(encoding="utf-8"))
    return Measured(found["greedy"], found["mean"])


def _keep(found: Measured, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    replace(kept, json.dumps({"greedy": found.greedy, "mean": found.mean}).encode())


async def _measure(policy: Path, config: MeasureConfig, seed: int) -> Measured:
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32, use_safetensors=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(policy)
    examples = datasets.load(config.data, config.problems, seed=seed)
    prompts = [_tokens(tokenizer, example) for example in examples]
    ends = _end_tokens(model, tokenizer)
    generator = torch.Generator().manual_seed(seed)

    def drawn(n: int, temperature: float) -> list[list[str]]:
        answers = sample(
            model,
            prompts,
            n,
            temperature=temperature,
            max_tokens=config.max_tokens,
            eos_ids=ends,
            generator=generator,
        )
        return [
            [tokenizer.decode(a, skip_special_tokens=True) if a and a[-1] in ends else "" for a in group]
            for group in answers
        ]

    greedy, sampled = drawn(1, 0.0), drawn(config.answers, 1.0)
    return Measured(
        {e.id: await _score(e, texts) for e, texts in zip(examples, greedy, strict=True)},
        {e.id: await _score(e, texts) for e, texts in zip(examples, sampled, strict=True)},
    )


def _tokens(tokenizer: object, example: Example) -> list[int]:
    if example.messages:
        turns = [{"role": m.role, "content": m.content} for m in example.messages]
        found = tokenizer.apply_chat_template(turns, add_generation_prompt=True)  # type: ignore[attr-defined]
    else:
        found = tokenizer.encode(example.prompt)  # type: ignore[attr-defined]
    return list(found)


def _end_tokens(model: object, tokenizer: object) -> frozenset[int]:
    configured = model.generation_config.eos_token_id  # type: ignore[attr-defined]
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ends, tokenizer.eos_token_id) if i is not None)  # type: ignore[attr-defined]


async def _score(example: Example, texts: list[str]) -> float:
    """The share of right answers; one without an end is wrong."""
    task = registry.task(example.task, example.problem)
    known: dict[str, float] = {"": 0.0}
    for text in set(texts) - {""}:
        try:
            known[text] = float((await task.grade(text)).outcome >= 1.0)
        except GradingFailed:
            known[text] = 0.0
    return sum(known[text] for text in texts) / len(texts)
