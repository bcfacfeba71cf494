"""A candidate as a release: its files, what the manifest says of it, and a canary that tells it from its parent."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ramify.files import move
from ramify.search.tree import Tree
from ramify.weights import Probe, Release, load_release, publish, shipped
from ramify.weights.manifest import Details
from ramify_trainer.gate.value_scores import end_values
from ramify_trainer.learning.networks import load_judge

PROBES = 8
TEXTS = 128
"""Answers that probes are chosen from."""
STEADY = 0.04
"""Largest change of a probe's log-probability by rounding to bfloat16, in units of max(1, |ln p|): well within what the
server's canary allows."""


def copy_base(base: str, root: Path) -> str:
    """Copy a run's base (`shipped`, or a directory) into the folder of releases, unless it is there; its id."""
    release = load_release(shipped() if base == "shipped" else Path(base))
    if not (root / release.id).exists():
        root.mkdir(parents=True, exist_ok=True)
        draft = root / f".seeding-{release.id}"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(release.path, draft)
        move(draft, root / release.id)
    return release.id


def publish_candidate(
    root: Path,
    release_id: str,
    parts: tuple[Path, Path],
    parent: Release,
    trees: Sequence[Tree],
    facts: Mapping[str, Any],
) -> Release:
    """Return the release of this id, published unless it is there already. parts: the policy's and the value's
    directories; trees: whose answers may become probes; facts: what else the manifest says."""
    if (root / release_id / "READY").exists():
        return load_release(root / release_id)
    inherited = parent.manifest.model_dump(
        include={"name", "calibration", "default_task", "default_action", "default_max_tokens", "search"}
    )
    canary = probes(*parts, parent, trees)
    details = Details(**inherited, parent=parent.id, canary=canary, **facts)
    return publish(root, *parts, details, release_id=release_id)


@torch.inference_mode()
def probes(policy: Path, value: Path, parent: Release, trees: Sequence[Tree]) -> tuple[Probe, ...]:
    """Choose those of the round's own answers whose log-probabilities moved the most between the parent and the
    candidate, all their tokens together, as the server's canary adds them up. An answer is probed up to its first
    token that rounding alone would move: a model in bfloat16 moves some token of nearly every long answer, and one
    such token would have the server refuse the release."""
    new, old, coarse = _policy(policy), _policy(parent.policy_path), _policy(policy, torch.bfloat16)
    moved: dict[tuple[int, ...], tuple[float, list[int], list[int], list[float]]] = {}
    for prompt, answer in _answers(trees):
        now, before = _logprobs(new, prompt, answer), _logprobs(old, prompt, answer)
        steady = _steady(_apart(now, _logprobs(coarse, prompt, answer)))
        if steady:
            distance = sum(d**2 for d in _apart(now[:steady], before[:steady]))
            key = (*prompt, -1, *answer[:steady])
            moved.setdefault(key, (distance, prompt, answer[:steady], now[:steady]))
    chosen = [one[1:] for one in sorted(moved.values(), key=lambda one: -one[0])[:PROBES]]
    judge, calibration = load_judge(policy, value), parent.manifest.calibration
    texts = [[*prompt, *answer] for prompt, answer, _ in chosen]
    judged = end_values(judge, texts, (calibration.a, calibration.b))
    return tuple(
        Probe(
            prompt=tuple(prompt),
            continuation=tuple(answer),
            logprobs=tuple(round(p, 5) for p in logprobs),
            value=round(judgement, 5),
        )
        for (prompt, answer, logprobs), judgement in zip(chosen, judged, strict=True)
    )


def _answers(trees: Sequence[Tree]) -> list[tuple[list[int], list[int]]]:
    """Return prompt and answer of different answers: the first of every tree before the second of any."""
    answers: dict[tuple[int, ...], tuple[list[int], list[int]]] = {}
    for i in range(max((len(tree.completions) for tree in trees), default=0)):
        for tree in trees:
            if i < len(tree.completions) and len(answers) < TEXTS:
                node = tree.nodes[tree.completions[i].node]
                answer = [t for step in tree.lineage(node)[1:] for t in step.tokens]
                answers.setdefault((*tree.prompt_tokens, -1, *answer), (list(tree.prompt_tokens), answer))
    return list(answers.values())


def _steady(rounding: Sequence[float]) -> int:
    """Return the number of tokens before the first that rounding moves."""
    return next((i for i, off in enumerate(rounding) if abs(off) > STEADY), len(rounding))


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return differences of log-probabilities in units of max(1, |ln p|), as the server's canary counts them."""
    return [(a - b) / max(1.0, abs(a)) for a, b in zip(ours, theirs, strict=True)]


def _policy(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True).eval()


def _logprobs(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
    logits = model(input_ids=torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
    at = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return [float(x) for x in torch.log_softmax(logits[at].float(), -1)[range(len(answer)), list(answer)]]
